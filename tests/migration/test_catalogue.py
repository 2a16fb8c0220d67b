"""The migrations make what sql/ and policies/ declare."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import asyncpg
import pytest

_COMMITTED = Path(__file__).parent / "schema.sql"
_BANNER = "-- What the migrations make. `make dump` renews it: its diff is what is reviewed.\n\n"


def _assert_equal(found: str, expected: str) -> None:
    difference = list(difflib.unified_diff(expected.splitlines(), found.splitlines(), lineterm=""))
    assert not difference, "\n".join(difference[:80])


async def test_the_migrations_make_what_is_declared(database, declared, dump):
    _assert_equal(dump(database), dump(await declared()))


async def test_the_migrations_bring_the_rows_that_are_declared(postgres, declared, connect):
    other = await connect(dsn=await declared())
    query = "select tenant_id, name, settings from haive.tenants order by 1"
    assert await postgres.fetch(query) == await other.fetch(query)


async def test_the_committed_dump_is_what_the_migrations_make(database, dump):
    text = _BANNER + dump(database)
    if os.environ.get("HAIVE_RENEW_DUMP"):
        _COMMITTED.write_text(text)
    assert _COMMITTED.exists(), "Run `make dump`."
    _assert_equal(text, _COMMITTED.read_text())


@pytest.mark.parametrize(
    "sabotage",
    [
        "alter table haive.messages disable row level security",
        "grant select on haive.events to authenticated",
        "alter function haive_private.set_member(text, text, text) owner to postgres",
        "alter function haive.get_conversation(uuid, int, text) reset search_path",
        "alter table haive.conversations set (fillfactor = 100)",
    ],
)
async def test_the_comparison_sees_what_would_be_dangerous(database, postgres, dump, sabotage):
    before = dump(database)
    await postgres.execute(sabotage)
    assert dump(database) != before


async def test_service_role_works_as_haive_client_and_no_user_does(postgres: asyncpg.Connection):
    members = await postgres.fetch(
        "select pg_get_userbyid(member) as role from pg_auth_members"
        " where roleid = 'haive_client'::regrole"
    )
    assert {row["role"] for row in members} == {"postgres", "service_role"}
    privileged = (
        "select rolname from pg_roles where rolname in ('haive_client', 'haive_writer')"
        " and (rolcanlogin or rolbypassrls or rolsuper or rolcreaterole or rolcreatedb)"
    )
    assert await postgres.fetch(privileged) == []
