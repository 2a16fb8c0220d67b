"""Hostile text is data: through every argument of every function of the API."""

from __future__ import annotations

import itertools
import json
import re
from uuid import uuid4

import asyncpg
import httpx
import pytest

_CANARY = "canary-of-blue-7f3a"
_CORES = (
    "' or '1'='1",
    "' or 1=1 --",
    "') or true --",
    '" or ""="',
    "'; select content from haive.messages; --",
    "'; drop table haive.messages cascade; --",
    "' union select content, null from haive.messages --",
    "1) union all select tenant_id from haive.tenants --",
    "$$ || (select string_agg(content, '') from haive.messages) || $$",
    "'||(select current_setting('persistence.tenant'))||'",
    "'||set_config('persistence.tenant','blue',true)||'",
    "blue' or tenant_id = 'blue",
    "last_message_at desc; select 1",
    "(select 1 from pg_sleep(5))",
    "c.tenant_id = 'blue' or title",
    "title) or c.tenant_id = any(array['blue']) or (title",
    "%",
    "_%",
    "%' escape '%",
    "\\%\\_",
    "$.** ? (@ != null)",
    '$ ? (@.a == "x" || true)',
    "$[*].content",
    '{"$ne": null}',
    '{"$gt": ""}',
    "$1",
    "%s %I %L %1$s",
    "{0.__class__.__mro__}",
    "{{7*7}}",
    "../../etc/passwd",
    "\\x27206f7220313d31",
    "E'\\047 or true'",
    "blue",
    "blue/019aaaaa-0000-7000-8000-000000000004",
    "eq.blue",
    "in.(blue,red)",
    "or=(tenant_id.eq.blue)",
    "haive_private.enter_tenant('blue', true)",
    "\uff07 or 1=1 --",
    "a'; begin; --",
)
_FORMS = (
    "{}", "x{}", "{}x", "'{}", "{}'", "({}", "{})", "/**/{}", "{}--", "{};",
    '"{}', '{}"', " {} ", "\n{}", "{}\\", "$a${}$a$", "''{}''", "a,{}", "{},b", "[{}]", "{{{}}}",
    "null,{}", "0 or {}", "{} is not null", "-- \n{}",
)  # fmt: skip
STRINGS = [form.replace("{}", core) for core, form in itertools.product(_CORES, _FORMS)]
_EACH = 40

# What the parser would say of text that reached it.
_PARSED = {"42601", "42703", "42P01", "42883", "42704", "42P10", "0A000", "2201B", "42501"}
_LEAK = re.compile(r"haive_private|\bselect\b|syntax error|pg_catalog|\bLINE \d", re.IGNORECASE)


async def _arguments(connection) -> list[tuple[str, dict[str, str], set[str]]]:
    """Every function of the API with its arguments and their types, and which are optional."""
    rows = await connection.fetch(
        "select proname, proargnames, proargtypes::regtype[]::text[] as types, pronargdefaults as n"
        " from pg_proc where pronamespace = 'haive'::regnamespace and pronargs > 0 order by 1"
    )
    found = []
    for row in rows:
        names = row["proargnames"][: len(row["types"])]
        optional = set(names[len(names) - row["n"] :])
        found.append((row["proname"], dict(zip(names, row["types"], strict=True)), optional))
    return found


def _harmless(kind: str) -> object:
    return {
        "text": "a",
        "uuid": "019aaaaa-0000-7000-8000-000000000001",
        "jsonb": {},
        "bytea": "\\x",
        "text[]": ["a"],
        "uuid[]": [],
        "boolean": False,
        "timestamp with time zone": "2026-01-01T00:00:00Z",
    }.get(kind, 1)


def _hostile(kind: str, text: str) -> list[object]:
    return {
        "text": [text],
        "text[]": [[text]],
        "jsonb": [{text: text}, [{text: text}], {"title": text, "text": text, "order_by": text}],
    }.get(kind, [])


def _calls(arguments, strings) -> list[tuple[dict[str, object], str]]:
    calls = []
    kinds, optional = arguments
    turn = itertools.cycle(strings)
    for name, kind in kinds.items():
        for _ in range(_EACH):
            text = next(turn)
            for value in _hostile(kind, text):
                call = {n: _harmless(k) for n, k in kinds.items() if n not in optional}
                calls.append(({**call, name: value}, text))
    return calls


def _check(code: str | None, said: str, text: str) -> None:
    assert code not in _PARSED, f"{code}: the parser saw {text!r}"
    # Names that are refused may be told again, cut; the rest of an error is ours.
    for told in (text, text[:200], text[:63], json.dumps(text)[1:-1]):
        said = said.replace(told, "")
    assert not _LEAK.search(said), f"{said!r} tells of SQL after {text!r}"


def _statement(name: str, call: dict[str, object], kinds: dict[str, str]) -> tuple[str, list]:
    """The call with every argument as text, or as texts, that the server casts."""
    given, values = [], []
    for place, (argument, value) in enumerate(call.items(), 1):
        if isinstance(value, list) and kinds[argument] != "jsonb":
            given.append(f'"{argument}" => ${place}::text[]::{kinds[argument]}')
            values.append(value)
        else:
            given.append(f'"{argument}" => ${place}::text::{kinds[argument]}')
            values.append(value if isinstance(value, str) else json.dumps(value))
    return f"select haive.{name}({', '.join(given)})", values


async def _attack(connection, persona, functions) -> int:
    """Call functions with every kind of text in every argument; nothing is written."""
    strings = itertools.cycle(STRINGS)
    tried = 0
    for name, *arguments in functions:
        for call, text in _calls(arguments, strings):
            statement, values = _statement(name, call, arguments[0])
            transaction = connection.transaction()
            await transaction.start()
            try:
                await persona.enter(connection)
                answer = await connection.fetchval(statement, *values)
            except asyncpg.PostgresError as error:
                # Of others, the SDK passes on nothing; tests/faults hold it to that.
                ours = error.sqlstate.startswith("PT")
                said = f"{error.message} {error.hint or ''} {error.detail or ''}" if ours else ""
                denied = error.sqlstate == "42501" and persona.sub is not None
                _check(None if denied else error.sqlstate, said, text)
            else:
                # To the platform's own callers another tenant's doc is no secret; its content is.
                assert _CANARY not in str(answer), f"{name} shows another tenant for {text!r}"
            finally:
                await transaction.rollback()
            tried += 1
    return tried


@pytest.fixture
async def settled_tenants(postgres, settled):
    await settled(postgres, "member")
    for table, column in (("conversations", "title"), ("messages", "content")):
        await postgres.execute(
            f"update haive.{table} set {column} = $1 where tenant_id = 'blue'", _CANARY
        )


@pytest.mark.parametrize("persona", ["haive_client", "member"])
async def test_no_argument_is_more_than_data(postgres, settled_tenants, personas, persona):
    assert len(set(STRINGS)) == 1_000
    before = await postgres.fetchval("select count(*) from haive.messages")
    assert await _attack(postgres, personas[persona], await _arguments(postgres)) > 2_000
    assert await postgres.fetchval("select count(*) from haive.messages") == before


async def test_a_function_that_pastes_text_into_sql_is_noticed(postgres, settled_tenants, personas):
    await postgres.execute(
        """
        create function haive.pasted(title text) returns text language plpgsql as $f$
        declare
          found text;
        begin
          execute 'select max(content) from haive.messages where content = ''' || title || ''''
          into found;
          return found;
        end $f$;
        grant execute on function haive.pasted(text) to haive_client
        """
    )
    pasted = [function for function in await _arguments(postgres) if function[0] == "pasted"]
    with pytest.raises(AssertionError):
        await _attack(postgres, personas["haive_client"], pasted)


async def test_filters_orders_and_pages_are_data_over_rest(stack):
    owner = await asyncpg.connect(stack.database_url)
    await owner.execute(
        "insert into haive.tenants (tenant_id, name) values ('inj-red', 'r'), ('inj-blue', 'b')"
    )
    blue = [{"id": str(uuid4()), "agent_id": "a", "title": _CANARY, "tags": [_CANARY]}]
    await owner.fetchval("select haive.create_conversations($1, 'inj-blue')", json.dumps(blue))
    await owner.close()
    headers = {"apikey": stack.secret_key, "content-profile": "haive", "x-haive-tenant": "inj-red"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers) as api:
        for text in STRINGS[::5]:
            for body in (
                {"filters": {text: text}},
                {"filters": {"title": text, "tags": [text], "user_id": text}},
                {"order_by": text},
                {"page_after": text},
            ):
                answer = await api.post("/rest/v1/rpc/query_conversations", json=body)
                assert answer.status_code in {200, 400, 422}, (answer.text, text)
                assert _CANARY not in answer.text
                if answer.is_success:
                    assert answer.json() == {"conversations": [], "next_page": None}
                else:
                    assert answer.json()["code"] not in _PARSED
