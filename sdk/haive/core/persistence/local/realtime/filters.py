"""Filters of changes (`amount=gt.100,status=in.(open,"a, b")`) and the SQL that they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_OPERATORS: Final = {
    "eq": "=",
    "neq": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "like": "like",
    "ilike": "ilike",
    "match": "~",
    "imatch": "~*",
    "isdistinct": "is distinct from",
}
_IS: Final = frozenset({"null", "true", "false", "unknown"})
_CONDITION = re.compile(
    r"(?P<column>[^=]+)=(?P<negation>not\.)?(?P<operator>[a-z]+)\.(?P<value>.*)", re.DOTALL
)
# Commas outside of quotes and parentheses; a backslash escapes within quotes.
_PART = re.compile(
    r'(?:"(?:[^"\\]|\\.)*"|\((?:"(?:[^"\\]|\\.)*"|[^()"])*\)|[^,"()]|["()])+', re.DOTALL
)
_ITEM = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,]+)', re.DOTALL)
_LONGEST: Final = 4_000


class FilterError(ValueError):
    """A filter that means nothing."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on one column."""

    column: str
    operator: str
    values: tuple[str, ...]
    negated: bool

    def sql(self, row: str) -> str:
        """Return the condition on a row, compared in the column's own type."""
        column = f"{row}.{identifier(self.column)}"
        if self.operator == "in":
            condition = f"{column} in ({', '.join(map(literal, self.values))})"
        elif self.operator == "is":
            condition = f"{column} is {self.values[0]}"
        else:
            condition = f"{column} {_OPERATORS[self.operator]} {literal(self.values[0])}"
        return f"not ({condition})" if self.negated else f"({condition})"


def parse(text: str) -> tuple[Condition, ...]:
    """Read a filter.

    Raises:
        FilterError: It means nothing.
    """
    if not 0 < len(text) <= _LONGEST or "\0" in text:
        raise FilterError
    parts = _PART.findall(text)
    if ",".join(parts) != text:
        raise FilterError
    return tuple(map(_condition, parts))


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise FilterError
    operator, value = match["operator"], match["value"]
    if operator == "in":
        if not (value.startswith("(") and value.endswith(")")):
            raise FilterError
        values = tuple(_unquoted(item) for item in _ITEM.finditer(value[1:-1]))
        if not values:
            raise FilterError
    elif operator == "is":
        values = (value.lower(),)
        if values[0] not in _IS:
            raise FilterError
    elif operator in _OPERATORS:
        quoted = _ITEM.fullmatch(value)
        values = (_unquoted(quoted) if quoted is not None else value,)
    else:
        raise FilterError
    return Condition(match["column"].strip(), operator, values, match["negation"] is not None)


def _unquoted(item: re.Match[str]) -> str:
    quoted, plain = item.groups()
    return re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) if quoted is not None else plain.strip()


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Quote a value for SQL, with standard_conforming_strings as they are by default."""
    return "'" + value.replace("'", "''") + "'"
