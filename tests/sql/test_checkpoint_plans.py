"""How checkpoints are found among 10,000 others, as the server itself explains it."""

from __future__ import annotations

import json
from hashlib import md5
from uuid import UUID

import asyncpg
import httpx
import pytest

THREADS, EACH = 100, 100
_TABLES = ("threads", "branches", "checkpoints", "checkpoint_writes", "checkpoint_schemas")
_FILL = f"""
    insert into haive.members (tenant_id, user_id) values ('default', 'u');
    insert into haive.threads (tenant_id, thread_key, thread_id, user_id)
    select 'default', md5('t' || t)::uuid, 't' || t, 'u' from generate_series(1, {THREADS}) as t;
    insert into haive.branches (tenant_id, branch_id, thread_key, name, head_id)
    select 'default', md5('t' || t)::uuid, md5('t' || t)::uuid, 'main', md5(t || '/{EACH}')::uuid
    from generate_series(1, {THREADS}) as t;
    insert into haive.checkpoints (
      tenant_id, branch_id, thread_key, id, parent_id, size, codec, depth, search, payload
    )
    select
      'default', md5('t' || t)::uuid, md5('t' || t)::uuid, md5(t || '/' || n)::uuid,
      case when n > 1 then md5(t || '/' || n - 1)::uuid end, 1,
      case when n % 10 = 1 then 1 else 2 end,
      (n - 1) % 10, jsonb_build_object('$.n', n, '$.only', t || '/' || n), '\\x00'
    from generate_series(1, {THREADS}) as t, generate_series(1, {EACH}) as n;
"""


@pytest.fixture
async def explained(stack, database, connect, postgres):
    """Run a statement, and return (table, scan, index) of all of its plans."""
    await postgres.execute(
        "\n".join(f"alter table haive.{t} set (autovacuum_enabled = off);" for t in _TABLES)
    )
    await postgres.execute(_FILL)
    superuser = str(httpx.URL(stack.admin_url).copy_with(path=httpx.URL(database).path))
    connection = await connect(dsn=superuser)
    await connection.execute(
        "load 'auto_explain'; set auto_explain.log_min_duration = 0;"
        "set auto_explain.log_nested_statements = on; set auto_explain.log_format = json;"
        "set client_min_messages = log;"
    )
    plans: list[str] = []
    connection.add_log_listener(lambda _, notice: plans.append(notice.message))

    async def run(query, *arguments):
        plans.clear()
        answer = await connection.fetchval(query, *arguments)
        found = set()
        for plan in plans:
            found |= set(_scans(json.loads(plan[plan.index("{") :])["Plan"]))
        run.plans = [json.loads(plan[plan.index("{") :]) for plan in plans]
        run.answer = json.loads(answer) if isinstance(answer, str) else answer
        return found

    run.connection = connection
    yield run
    await connection.execute("reset client_min_messages")


def _scans(node):
    if node.get("Relation Name") in _TABLES and node["Node Type"].endswith("Scan"):
        yield node["Relation Name"], node["Node Type"], node.get("Index Name")
    for child in node.get("Plans", ()):
        yield from _scans(child)


def the(thread: int, number: int) -> UUID:
    """The id of a checkpoint, as the server made it."""
    return UUID(md5(f"{thread}/{number}".encode()).hexdigest())


# Of the others there are a hundred rows, which are quicker read than looked up.
_THROUGH = ("checkpoints", "Seq Scan")
_FIND = "select haive.find_checkpoints("
_CALLS = {
    "the head with its state": _FIND + "thread_id => 't7', branch => 'main', page_size => 1,"
    " details => false, states => true)",
    "a page of history": _FIND + "thread_id => 't7', page_size => 20)",
    "a page of a branch": _FIND + "thread_id => 't7', branch => 'main', page_size => 20)",
    "by id": _FIND + f"checkpoint_id => '{the(7, 77)}', states => true, writes => true)",
    "by id and thread": _FIND + f"checkpoint_id => '{the(7, 77)}', thread_id => 't7')",
    "by state in a thread": _FIND + """thread_id => 't7', search => '[{"$.n": 3}]')""",
    "writes of a thread": "select haive.list_checkpoint_writes('t7')",
    "branches": "select haive.list_branches('t7')",
    "a schema": "select haive.get_checkpoint_schema('\\x00')",
}
_WRITES = {
    "save": "select haive.save_checkpoint(thread_id => 't7', id => gen_random_uuid(), payload =>"
    f" '\\x00', size => 1, codec => 2::int2, parent_id => '{the(7, EACH)}')",
    "lose": "select haive.save_checkpoint(thread_id => 't7', id => gen_random_uuid(), payload =>"
    f" '\\x00', size => 1, parent_id => '{the(7, 5)}')",
    "fork": "select haive.save_checkpoint(thread_id => 't7', id => gen_random_uuid(), payload =>"
    f" '\\x00', size => 1, parent_id => '{the(7, 5)}', fork => 'f')",
    "count": "select haive.save_checkpoint(thread_id => 't7', id => gen_random_uuid(), payload =>"
    f" '\\x00', size => 1, parent_id => '{the(7, EACH)}', count_failed => true)",
    "branch": f"select haive.create_branch('{the(7, 5)}', 'b')",
    "tag": f"select haive.annotate_checkpoint('{the(7, 5)}', add_tags => '{{x}}')",
}


@pytest.mark.parametrize("role", ["haive_client", "service_role", "authenticated"])
@pytest.mark.parametrize("analysed", [False, True])
async def test_nothing_is_read_through_from_end_to_end(explained, postgres, role, analysed):
    if analysed:
        await postgres.execute("vacuum (analyze)")
    await explained.connection.execute(f"set role {role}")
    if role == "authenticated":
        claims = json.dumps({"sub": "u", "role": "authenticated"})
        await explained.connection.execute(f"set request.jwt.claims = '{claims}'")
    read = {}
    for name, query in {**_CALLS, **_WRITES}.items():
        transaction = explained.connection.transaction()
        await transaction.start()
        for _ in range(7 if name in _CALLS else 1):  # after five the server may keep one plan
            scans = await explained(query)
            assert scans, name
            read |= {(name, *scan): None for scan in scans if scan[:2] == _THROUGH}
        await transaction.rollback()
    assert list(read) == []


async def test_a_save_is_one_statement(explained):
    """To begin another one takes the server about as long as what is done in it."""
    await explained(_WRITES["save"])
    told = [plan["Query Text"] for plan in explained.plans]
    tables = ("haive.threads", "haive.branches", "haive.checkpoints", "haive.events")
    (save,) = [text for text in told if any(f" {table} " in text for table in tables)]
    assert all(f" {table} " in save for table in tables)
    assert not any("check_sealed" in text for text in told)  # nothing here is sealed


async def test_of_a_thread_that_is_not_there_no_checkpoint_is_looked_for(explained):
    await explained(_FIND + "thread_id => 'none', page_size => 1, states => true)")
    assert explained.answer["checkpoints"] == explained.answer["frames"] == []
    told = [plan["Query Text"] for plan in explained.plans]
    assert any("haive.threads" in text for text in told)
    assert not any("haive.checkpoints" in text for text in told)


async def test_a_sequential_scan_would_be_seen(explained):
    await explained.connection.execute("set enable_indexscan = off; set enable_bitmapscan = off")
    found = await explained("select count(*)::text from haive.checkpoints")
    assert {scan for _, scan, _ in found} & {"Seq Scan"}


async def test_only_so_many_rows_are_read_as_are_shown(explained):
    await explained(_CALLS["by id"])
    assert len(explained.answer["frames"]) == 7  # 71 is whole, and 77 the sixth delta after it
    await explained(_CALLS["a page of history"])
    assert len(explained.answer["checkpoints"]) == 20
    assert explained.answer["frames"] is None


async def test_a_service_finds_a_state_among_all_threads_by_its_index(explained, postgres):
    await postgres.execute("vacuum (analyze)")
    await explained.connection.execute("set role service_role")
    wanted = json.dumps({"$.only": "42/42"})
    for _ in range(7):  # after five the server may keep one plan
        found = await explained(_FIND + "search => $1)", f"[{wanted}]")
    assert ("checkpoints", "Bitmap Heap Scan", None) in found
    assert [row["id"] for row in explained.answer["checkpoints"]] == [str(the(42, 42))]
    assert not [scan for scan in found if scan[:2] == _THROUGH]


async def test_a_state_is_found_among_all_threads_by_everybody_who_may_read_it(explained):
    call = _FIND + """search => '[{"$.only": "42/42"}, {"$.only": "7/7"}]', failed => false)"""
    both = [str(the(42, 42)), str(the(7, 7))]
    await explained.connection.execute("set role haive_client")
    await explained(call)
    assert [row["id"] for row in explained.answer["checkpoints"]] == both
    await explained(call.replace("failed => false", "page_size => 1"))
    assert [row["id"] for row in explained.answer["checkpoints"]] == both[:1]
    await explained(
        call.replace("failed => false", f"before_seq => {explained.answer['next_seq']}")
    )
    assert [row["id"] for row in explained.answer["checkpoints"]] == both[1:]
    for who in ("u", "nobody"):
        claims = json.dumps({"sub": who, "role": "authenticated"})
        await explained.connection.execute(
            f"set role authenticated; set request.jwt.claims = '{claims}'"
        )
        if who == "nobody":
            with pytest.raises(asyncpg.PostgresError, match="no member"):
                await explained(call)
        else:
            await explained(call)
            assert [row["id"] for row in explained.answer["checkpoints"]] == both


@pytest.mark.parametrize("who", ["u", "somebody"])
async def test_a_user_reads_their_own_rows_of_every_table(explained, postgres, who):
    await postgres.execute(
        "insert into haive.members (tenant_id, user_id) values ('default', 'somebody')"
    )
    connection = explained.connection
    claims = json.dumps({"sub": who, "role": "authenticated"})
    await connection.execute(f"set role authenticated; set request.jwt.claims = '{claims}'")
    counts = [
        await connection.fetchval(f"select count(*) from haive.{table}") for table in _TABLES[:3]
    ]
    assert counts == ([THREADS, THREADS, THREADS * EACH] if who == "u" else [0, 0, 0])
