"""How the functions find rows, as the server itself explains it while they run."""

from __future__ import annotations

import json
from uuid import UUID

import httpx
import pytest

_TABLES = ("conversations", "messages", "sessions", "session_segments")


@pytest.fixture
async def explained(stack, database, connect):
    """Run a statement as haive_client or a user, and return (table, scan, index) of its plans."""
    path = httpx.URL(database).path
    superuser = str(httpx.URL(stack.admin_url).copy_with(path=path))
    connection = await connect(dsn=superuser)
    await connection.execute(
        "load 'auto_explain'; set auto_explain.log_min_duration = 0;"
        "set auto_explain.log_analyze = on;"
        "set auto_explain.log_nested_statements = on; set auto_explain.log_format = json;"
        "set client_min_messages = log; set role haive_client;"
    )
    plans: list[str] = []
    connection.add_log_listener(lambda _, notice: plans.append(notice.message))

    async def run(query, *arguments):
        plans.clear()
        await connection.fetch(query, *arguments)
        return {
            (scan["Relation Name"], scan["Node Type"], scan.get("Index Name"))
            for table in _TABLES
            for scan in scans(table)
        }

    def scans(table):
        documents = [json.loads(plan[plan.index("{") :]) for plan in plans]
        return [
            scan
            for document in documents
            for scan in _scans(document["Plan"])
            if scan["Relation Name"] == table
        ]

    run.connection = connection
    run.scans = scans
    run.plans = lambda: plans
    yield run
    await connection.execute("reset client_min_messages")


def _scans(node):
    if node.get("Relation Name") in _TABLES and node["Node Type"].endswith("Scan"):
        yield node
    for child in node.get("Plans", ()):
        yield from _scans(child)


_ONE = "select haive_private.append_message(null, $1, gen_random_uuid(), 'user', 'hello')"
_MANY = """
    select * from haive_private.append_messages(
      null, array[$1, '00000000-0000-0000-0000-000000000001'::uuid],
      array[gen_random_uuid(), gen_random_uuid()], array['user', 'user'], array['a', 'b'])"""
_CHANGE = """select haive.update_conversation($1, '{"title": "t"}')"""
_READ = "select count(*) from haive_private.read_{}($1, {})"
_CALLS = {
    "append one": (_ONE, {"conversations"}),
    "append many": (_MANY, {"conversations"}),
    "get conversation": ("select haive.get_conversation($1, 10)", {"conversations", "messages"}),
    "get messages": ("select haive.get_messages($1)", {"conversations", "messages"}),
    "read conversation": (_READ.format("conversation", "10"), {"conversations", "messages"}),
    "read messages": (_READ.format("messages", "0"), {"conversations", "messages"}),
    "update": (_CHANGE, {"conversations", "sessions"}),
}
_UNKNOWN = """
    select * from haive_private.append_messages(
      null, array[gen_random_uuid(), gen_random_uuid()],
      array[gen_random_uuid(), gen_random_uuid()], array['user', 'user'], array['a', 'b'])"""
_PRIMARY = {
    ("conversations", "conversations_pkey"),
    ("messages", "messages_pkey"),
    ("sessions", "sessions_pkey"),
}


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize("plans", ["force_generic_plan", "auto"])
async def test_a_row_is_found_by_its_key_before_anything_was_analysed(
    explained, postgres, call, plans
):
    query, tables = _CALLS[call]
    await explained.connection.execute(f"set plan_cache_mode = {plans}")
    first = UUID(int=1)
    make = "select haive.create_conversations($1)"
    document = json.dumps([{"id": str(first), "agent_id": "a", "user_id": "u"}])
    await explained.connection.fetchval(make, document)
    found = set()
    for _ in range(7):  # after five runs the server may keep one plan for ever
        found |= await explained(query, first)

    # The table grows, and nobody analyses it: the plans that were kept are the plans still used.
    await postgres.execute(
        "alter table haive.conversations set (autovacuum_enabled = off);"
        "alter table haive.messages set (autovacuum_enabled = off);"
        "insert into haive.conversations (tenant_id, id, agent_id, user_id)"
        " select 'default', gen_random_uuid(), 'a', 'u' from generate_series(1, 3000)"
    )
    found |= await explained(query, first)
    assert {(table, index) for table, _, index in found} <= _PRIMARY
    assert {table for table, _, _ in found} == tables


async def test_a_plan_made_for_an_empty_table_looks_up_the_rows_of_a_batch(explained, postgres):
    by_key = {("conversations", "Index Scan", "conversations_pkey")}
    for _ in range(7):
        assert await explained(_UNKNOWN) == by_key
    await postgres.execute(
        "alter table haive.conversations set (autovacuum_enabled = off);"
        "insert into haive.conversations (tenant_id, id, agent_id, user_id)"
        " select 'default', gen_random_uuid(), 'a', 'u' from generate_series(1, 3000)"
    )
    assert await explained(_UNKNOWN) == by_key
    (scan,) = explained.scans("conversations")
    assert "id = ANY" in scan["Index Cond"]
    assert scan["Rows Removed by Filter"] == 0


_LATEST = (
    """select count(*) from haive_private.read_conversations('{"user_id":"u","tags":["b"]}')"""
)
_LIBRARY = """
    alter table haive.conversations set (autovacuum_enabled = off);
    insert into haive.conversations (tenant_id, id, agent_id, user_id, tags)
    select 'default', gen_random_uuid(), 'a', case when n % 2 = 0 then 'u' end,
      case when n <= 4 then '{b}' else '{a}' end::text[]
    from generate_series(1, 6000) as n;
"""


async def test_the_latest_of_a_user_are_found_by_their_index_before_anything_was_analysed(
    explained, postgres
):
    by_index = {("conversations", "Index Scan", "conversations_user_idx")}
    for _ in range(7):
        assert await explained(_LATEST) == by_index
    await postgres.execute(_LIBRARY)
    assert await explained(_LATEST) == by_index
    (scan,) = explained.scans("conversations")
    assert (scan["Actual Rows"], scan["Rows Removed by Filter"]) == (2, 2998)


async def test_who_is_not_bound_by_row_security_finds_a_rare_tag_by_its_index(explained, postgres):
    await postgres.execute(_LIBRARY + "analyze haive.conversations")
    await explained.connection.execute("reset role; set role service_role")
    found = await explained(_LATEST)
    assert "conversations_tags_idx" in str(explained.plans())
    assert {kind for _, kind, _ in found} == {"Bitmap Heap Scan"}


async def test_a_user_finds_a_row_by_its_key_too(explained, postgres):
    await postgres.execute(
        "insert into haive.members (tenant_id, user_id) values ('default', 'u');"
        "insert into haive.conversations (tenant_id, id, agent_id, user_id)"
        " select 'default', gen_random_uuid(), 'a', 'u' from generate_series(1, 3000)"
    )
    row = await postgres.fetchval("select id from haive.conversations limit 1")
    connection = explained.connection
    await connection.execute("reset role; set role authenticated")
    claims = json.dumps({"sub": "u", "role": "authenticated"})
    await connection.execute(f"set request.jwt.claims = '{claims}'")
    for query in ("select haive.get_conversation($1, 10)", "select haive.get_messages($1)", _ONE):
        found = await explained(query, row)
        assert found
        assert {(table, index) for table, _, index in found} <= _PRIMARY


async def test_a_sequential_scan_would_be_seen(explained):
    await explained.connection.execute("set enable_indexscan = off; set enable_bitmapscan = off")
    document = json.dumps([{"id": str(UUID(int=1)), "agent_id": "a"}])
    await explained.connection.fetchval("select haive.create_conversations($1)", document)
    found = await explained("select haive.get_messages($1)", UUID(int=1))
    assert {scan for _, scan, _ in found} == {"Seq Scan"}


_OF_A_BRANCH = {
    "branch": "select haive.create_session(jsonb_build_object('parent_id', $1::uuid))",
    "get": "select haive.get_session($1)",
    "read": "select haive.session_messages($1)",
    "family": "select haive.session_family($1)",
}


@pytest.mark.parametrize("call", _OF_A_BRANCH)
@pytest.mark.parametrize("plans", ["force_generic_plan", "auto"])
async def test_a_branch_is_found_by_keys_however_many_sessions_there_are(
    explained, postgres, call, plans
):
    most_rows = 20  # of each table: those of three sessions, and the branches made here
    make = "select haive.create_session(jsonb_build_object('id', $1::uuid, 'parent_id', $2::uuid))"
    begin = """select haive.create_session('{"id": "%s", "agent_id": "a", "user_id": "u"}')"""
    await explained.connection.execute(f"set plan_cache_mode = {plans}")
    await explained.connection.fetchval(begin % UUID(int=1))
    await explained.connection.fetchval(make, UUID(int=2), UUID(int=1))
    await explained.connection.fetchval(make, UUID(int=3), UUID(int=2))
    for _ in range(7):
        await explained(_OF_A_BRANCH[call], UUID(int=3))
    await postgres.execute(
        "alter table haive.sessions set (autovacuum_enabled = off);"
        "alter table haive.conversations set (autovacuum_enabled = off);"
        "insert into haive.conversations (tenant_id, id, agent_id, user_id, is_session)"
        " select 'default', gen_random_uuid(), 'a', 'u', true from generate_series(1, 3000);"
        "insert into haive.sessions (tenant_id, id)"
        " select tenant_id, id from haive.conversations on conflict do nothing"
    )
    await explained(_OF_A_BRANCH[call], UUID(int=3))
    for table in ("sessions", "conversations"):
        scans = explained.scans(table)
        assert scans
        read = sum(
            (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]
            for scan in scans
        )
        assert read <= most_rows * len(scans)


async def test_a_message_finds_its_session_among_thousands_that_are_closed(explained, postgres):
    begin = """select haive.create_session('{"id": "%s", "agent_id": "a", "user_id": "u"}')"""
    await explained.connection.fetchval(begin % UUID(int=1))
    await postgres.execute(
        "insert into haive.conversations (tenant_id, id, agent_id, user_id, is_session)"
        " select 'default', gen_random_uuid(), 'a', 'u', true from generate_series(1, 3000);"
        "insert into haive.sessions (tenant_id, id, status, closed_at)"
        " select tenant_id, id, 'closed', now() from haive.conversations on conflict do nothing;"
        "analyze haive.conversations; analyze haive.sessions"
    )
    find = "select haive.list_sessions('u', statuses => '{open}', page_size => 1, threads => true)"
    found = await explained(find)
    assert ("sessions", "Index Scan", "sessions_open_idx") in found
    assert sum(scan["Actual Rows"] for scan in explained.scans("conversations")) <= 2


@pytest.mark.parametrize("owner", [None, "u"])
async def test_a_message_finds_its_session_among_thousands_that_are_open(
    explained, postgres, owner
):
    await postgres.execute(
        "insert into haive.conversations"
        " (tenant_id, id, agent_id, user_id, is_session, last_message_at)"
        " select 'default', gen_random_uuid(), 'a', $1, true, now() - n * interval '1 hour'"
        " from generate_series(1, 3000) as n",
        owner,
    )
    await postgres.execute(
        "insert into haive.sessions (tenant_id, id, active_at)"
        " select tenant_id, id, last_message_at from haive.conversations on conflict do nothing;"
        "analyze haive.conversations; analyze haive.sessions"
    )
    find = "select haive.list_sessions($1, statuses => '{open}', page_size => 1, threads => true)"
    await explained(find, owner)
    for table in ("sessions", "conversations"):
        scans = explained.scans(table)
        assert sum(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans) <= 250
