"""The declared SQL as one script, which makes a schema for one more tenant.

The history makes some objects several times, and whatever a statement says about a function, its
creation aside, has Postgres read the functions of that name in all schemas: of a thousand tenants
each has one. So here each object is made once, and a function is born with its owner and with the
roles that may call it.
"""

from __future__ import annotations

import importlib.resources
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Of those who make functions.
_LOCK = 0x6861697666756E63

_TOKEN = re.compile(r"""--[^\n]*|'(?:[^']|'')*'|"[^"]*"|(\$\w*\$).*?\1|;|[^-'"$;]+|.""", re.DOTALL)
_FUNCTION = re.compile(r"create (?:or replace )?function ([\w.]+)")
_CALL = re.compile(r"(select )?(haive(?:_private)?\.(\w+))(\(\)?)")
_OWNER = re.compile(r"alter function ([\w.]+)\s*\(.*owner to haive_writer$", re.DOTALL)
_CALLERS = re.compile(r"grant execute on function\s(.*)\sto\s([a-z_, \n]+)$", re.DOTALL)
# Comments are those of the base schema, whose reader has them all; what is done once is done.
_LEFT_OUT = re.compile(r"(?:comment on|do|revoke all on (?:all functions in schema|function))\s")
_PRIVATE_TABLE = re.compile(r"create (?:unlogged )?table (haive_private\.\w+)")
_PRIVATE_TABLES = "all tables in schema haive_private"
# What needs the functions, or takes away what they are made with.
_CALLER = re.compile(r"create (?:or replace |constraint )*(?:trigger|policy)")
_LATER = re.compile(
    rf"{_CALLER.pattern}|revoke"
    r"|grant (?!usage, create|usage on schema haive to haive_writer$)"
)


# Nobody may call what is not said to be callable, while functions are made. To take it back from
# all of them afterwards has Postgres read the list of all functions there are, 0.2 s of 0.3 at a
# thousand tenants. What is set is of the whole database, but seen by this transaction alone: one
# at a time, for the next one would find the row in its way.
_BY_DEFAULT = "alter default privileges for role haive_writer, :owner {} execute on functions {}"
_CLOSED = [
    f"select pg_catalog.pg_advisory_xact_lock({_LOCK})",
    _BY_DEFAULT.format("revoke", "from public"),
]
_OPENED = [_BY_DEFAULT.format("grant", "to public")]

#: Stands for the role that runs the script.
OWNER = ":owner"
#: Stands for the end of a name that no other schema has.
UNIQUE = ":unique"


class _Kind(NamedTuple):
    """What functions have in common that are made one after the other."""

    schema: str
    writer: bool
    callers: tuple[str, ...]


def statements(sql: str) -> list[str]:
    """The statements of a text, without what is commented out and without their semicolons."""
    found = [""]
    for token in _TOKEN.finditer(sql):
        if token[0] == ";":
            found.append("")
        elif not token[0].startswith("--"):
            found[-1] += token[0]
    return [text for text in map(str.strip, found) if text]


@cache
def script() -> str:
    """What makes `haive` where nothing of it is; the roles are there.

    `OWNER` in it is to be replaced by the name of who runs it, and so owns the schema, and `UNIQUE`
    by what no other schema is given.
    """
    before: list[str] = []
    after: list[str] = []
    functions: list[tuple[str, str]] = []
    writers: set[str] = set()
    callers: dict[str, set[str]] = defaultdict(set)
    for statement in statements(_declaration()):
        if found := _FUNCTION.match(statement):
            functions.append((found[1], statement))
        elif found := _OWNER.match(statement):
            writers.add(found[1])
        elif found := _CALLERS.match(statement):
            for name in re.findall(r"([\w.]+)\(", found[1]):
                callers[name].update(re.findall(r"\w+", found[2]))
        elif _LEFT_OUT.match(statement):
            continue
        else:
            (after if _LATER.match(statement) else before).append(statement)
    tables = ", ".join(found[1] for found in map(_PRIVATE_TABLE.match, before) if found)
    # By name: for all of a schema Postgres reads the list of all tables there are.
    after = [statement.replace(_PRIVATE_TABLES, tables) for statement in after]

    kinds: dict[_Kind, list[str]] = defaultdict(list)
    for name, statement in functions:
        may_call = callers[name] - {"haive_writer"} if name in writers else callers[name]
        kinds[_Kind(name.split(".")[0], name in writers, tuple(sorted(may_call)))].append(statement)
    made = [statement for kind, bodies in kinds.items() for statement in _made(kind, bodies)]
    # Their bodies were checked when the base schema got them.
    checked = "set local check_function_bodies = off"
    whole = [checked, *before, *_CLOSED, *made, *_OPENED, *after]
    return ";\n".join([*_under_unique_names(whole), ""])


def _under_unique_names(whole: list[str]) -> list[str]:
    """Have triggers and policies find their functions by names that no other schema has.

    For each that they call by its own name, Postgres would read the functions of that name in all
    schemas, 4 ms at a thousand. They keep the function whatever it is called later.
    """
    calling = [statement for statement in whole if _CALLER.match(statement)]
    called = sorted({found[2] for text in calling for found in _CALL.finditer(text)})

    def unique(found: re.Match[str]) -> str:
        # A column that is selected keeps the name that the function has then.
        select, name, bare, given = found.groups(default="")
        alias = f" as {bare}" if select and given == "()" else ""
        return f"{select}{name}{UNIQUE}{given}{alias}"

    renamed = []
    for statement in whole:
        if _CALLER.match(statement):
            renamed.append(_CALL.sub(unique, statement))
        elif head := _FUNCTION.match(statement):
            of = head[1] + UNIQUE * (head[1] in called)
            renamed.append(f"create function {of}{statement[head.end() :]}")
        else:
            renamed.append(statement)
    last = [f"alter function {name}{UNIQUE} rename to {name.split('.')[1]}" for name in called]
    return [*renamed, *last]


def _made(kind: _Kind, bodies: list[str]) -> list[str]:
    def by_default(verb: str) -> list[str]:
        if not kind.callers:
            return []
        roles = ", ".join(kind.callers)
        return [f"alter default privileges in schema {kind.schema} {verb} {roles}"]

    made = [
        *by_default("grant execute on functions to"),
        *bodies,
        *by_default("revoke execute on functions from"),
    ]
    if kind.writer:
        made = ["set local role haive_writer", *made, f"set local role {OWNER}"]
    return made


def _declaration() -> str:
    package = Path(str(importlib.resources.files("haive.core.persistence")))
    root = package / "_declared_sql"
    if not root.is_dir():  # a checkout: the wheel carries a copy
        root = Path(__file__).parents[4]
    sql = sorted((root / "sql").glob("*.sql"))
    files = [file for file in sql if file.name < "9"]
    files += sorted((root / "policies").glob("*.sql"))
    files += [file for file in sql if file.name >= "9"]
    return "\n".join(file.read_text("utf-8") for file in files)
