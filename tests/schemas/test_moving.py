"""A tenant moves while it is in use, and is in one place at every moment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import product

import asyncpg
import pytest

from haive.core.persistence.errors import (
    ConflictError,
    LockTimeoutError,
    NotFoundError,
    UnsupportedOperationError,
)
from haive.core.persistence.multitenancy import IsolationLevel
from haive.core.persistence.multitenancy import _copying as copying
from haive.core.persistence.multitenancy._moving import move, stop_moving
from haive.core.persistence.multitenancy._names import tenant_schema

_ROW, _SCHEMA = IsolationLevel.ROW, IsolationLevel.SCHEMA
# What has no rows of tenants, and what stays where it is.
_STAYING = {"memory_collections", "migrations", "tenants", *copying._STAYING}


async def _contents(connection, schema, tenant):
    """All rows of a tenant, by table, as text."""
    found = {}
    for table in await copying.tenant_tables(connection, schema):
        rows = await connection.fetch(
            f"select t::text from {table.of(schema)} as t where tenant_id = $1 order by 1", tenant
        )
        found[table.of("")] = [row[0] for row in rows]
    return found


async def _refusal(connection, query, *arguments):
    try:
        await connection.fetchval(query, *arguments)
    except asyncpg.PostgresError as error:
        return error.sqlstate
    return None


async def _until(look, *arguments, equal):
    """Ask until the answer is the one that is waited for."""
    answer = await look(*arguments)
    while answer != equal:
        await asyncio.sleep(0.01)
        answer = await look(*arguments)


async def test_every_table_with_rows_of_tenants_is_moved(postgres):
    moved = {table.name for table in await copying.tenant_tables(postgres, "haive")}
    every = await postgres.fetch(
        "select relname from pg_class where relkind in ('r', 'p') and not relispartition"
        " and relnamespace in ('haive'::regnamespace, 'haive_private'::regnamespace)"
    )
    assert moved == {row["relname"] for row in every} - _STAYING


async def test_all_rows_go_there_and_back_as_they_are(database, postgres, register, fill):
    tenant, other = await register(metered=True, audit="all"), await register()
    for one in (tenant, other):
        await fill(one)
    own = tenant_schema("haive", tenant)
    before = await _contents(postgres, "haive", tenant)
    others = await _contents(postgres, "haive", other)
    assert [name for name, rows in before.items() if not rows] == []

    there = await move(database, "haive", tenant, _SCHEMA)
    assert await _contents(postgres, own, tenant) == before
    assert not any((await _contents(postgres, "haive", tenant)).values())
    assert await _contents(postgres, "haive", other) == others
    assert there.location == own
    assert there.rows == {name.rpartition(".")[2]: len(rows) for name, rows in before.items()}
    place = "select isolation, location, status from haive.tenants where tenant_id = $1"
    assert tuple(await postgres.fetchrow(place, tenant)) == ("schema", own, "active")

    back = await move(database, "haive", tenant, _ROW)
    assert await _contents(postgres, "haive", tenant) == before
    assert not any((await _contents(postgres, own, tenant)).values())
    assert await _contents(postgres, "haive", other) == others
    assert back.location is None
    assert tuple(await postgres.fetchrow(place, tenant)) == ("row", None, "active")
    assert (await move(database, "haive", tenant, _SCHEMA)).rows == there.rows


async def test_a_tenant_moves_though_an_erasure_of_it_is_not_done(
    database, postgres, register, fill, monkeypatch
):
    tables = copying.tenant_tables

    async def erasures_first(*of):
        # They refer to no other table: what sorts tables by that may put them anywhere.
        return sorted(await tables(*of), key=lambda table: table.name != "erasures")

    monkeypatch.setattr(copying, "tenant_tables", erasures_first)
    tenant = await register()
    await fill(tenant)
    await postgres.execute("update haive.messages set author = 'ada' where tenant_id = $1", tenant)
    await postgres.execute(
        "insert into haive.erasures (tenant_id, subject_hash, salt)"
        " select $1, sha256(s || 'ada'::bytea), s from (values ('\\x01'::bytea)) as v (s)",
        tenant,
    )
    before = await _contents(postgres, "haive", tenant)
    await move(database, "haive", tenant, _SCHEMA)
    assert await _contents(postgres, tenant_schema("haive", tenant), tenant) == before


async def test_later_rows_come_after_those_that_were_moved(database, postgres, register, fill):
    tenant = await register()
    await fill(tenant)
    await move(database, "haive", tenant, _SCHEMA)
    own = tenant_schema("haive", tenant)
    for schema, to in ((own, _ROW), ("haive", _SCHEMA)):
        for table, column in (("events", "id"), ("checkpoints", "seq")):
            last = await postgres.fetchval(
                f"select max({column}) from {schema}.{table} where tenant_id = $1", tenant
            )
            assert await postgres.fetchval(
                "select nextval(pg_get_serial_sequence($1, $2))", f"{schema}.{table}", column
            ) > (last or 0)
        await fill(tenant, schema)
        await move(database, "haive", tenant, to)


async def test_who_calls_the_old_place_hears_that_it_has_moved(
    database, postgres, client, register, fill
):
    tenant = await register()
    conversation = await fill(tenant)
    calls = {
        "select {}.get_messages($1, tenant => $2)": (conversation, tenant),
        "select {}_private.append_message($2, $1, gen_random_uuid(), 'user', 'late')": (
            conversation,
            tenant,
        ),
    }
    own = tenant_schema("haive", tenant)
    for to, old, new in ((_SCHEMA, "haive", own), (_ROW, own, "haive")):
        await move(database, "haive", tenant, to)
        for call, arguments in calls.items():
            assert await _refusal(client, call.format(old), *arguments) == "PT421"
            assert await _refusal(client, call.format(new), *arguments) is None


async def test_writers_lose_nothing_while_it_moves(database, postgres, connect, register, fill):
    tenant = await register()
    conversation = await fill(tenant, messages=0)
    own = tenant_schema("haive", tenant)
    acknowledged, seen, places = [], set(), ["haive", own]
    stop = asyncio.Event()

    async def write(connection, number):
        while not stop.is_set():
            text = f"{number} {len(acknowledged)} {len(seen)}"
            for schema in places:
                try:
                    await connection.execute(
                        f"select {schema}_private.append_message($1, $2, gen_random_uuid(),"
                        " 'user', $3), pg_sleep(random() * 0.01)",
                        *(tenant, conversation, text),
                    )
                except asyncpg.PostgresError as error:
                    seen.add(error.sqlstate)
                else:
                    acknowledged.append(text)
                    break
            await asyncio.sleep(0)

    read = []

    async def watch(connection):
        while not stop.is_set():
            for schema in places:
                try:
                    read.append(
                        await connection.fetchval(
                            f"select json_array_length({schema}.get_messages($1, tenant => $2))",
                            *(conversation, tenant),
                        )
                    )
                    break
                except asyncpg.PostgresError as error:
                    seen.add(error.sqlstate)
            await asyncio.sleep(0.001)

    connections = [await connect("haive_client") for _ in range(6)]
    async with asyncio.TaskGroup() as group:
        for number, connection in enumerate(connections[1:]):
            group.create_task(write(connection, number))
        group.create_task(watch(connections[0]))
        for to in (_SCHEMA, _ROW) * 3:
            await asyncio.sleep(0.1)
            await move(database, "haive", tenant, to)
        await asyncio.sleep(0.1)
        stop.set()
    assert seen <= {"PT421", "PT503", "3F000", "42883", "42P01"}
    assert {"PT421", "PT503"} <= seen
    stored = await postgres.fetch(
        "select content, seq from haive.messages where tenant_id = $1 order by seq", tenant
    )
    assert sorted(row["content"] for row in stored) == sorted(acknowledged)
    assert [row["seq"] for row in stored] == [*range(1, len(stored) + 1)]
    assert len(acknowledged) > 100
    assert read == sorted(read)


async def test_a_transaction_from_before_is_waited_for(database, postgres, connect, register):
    # It has entered the tenant and not written yet: no number of its own tells that it is there.
    tenant = await register()
    writer = await connect()
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("select haive_private.enter_tenant($1, true)", tenant)
    moving = asyncio.ensure_future(move(database, "haive", tenant, _SCHEMA))
    status = "select status from haive.tenants where tenant_id = $1"
    await _until(postgres.fetchval, status, tenant, equal="moving")
    await asyncio.sleep(0.2)
    assert not moving.done()
    await writer.execute(
        "insert into haive.conversations (tenant_id, id, agent_id)"
        " values ($1, gen_random_uuid(), 'agent')",
        tenant,
    )
    await transaction.commit()
    assert (await moving).rows["conversations"] == 1


async def test_one_that_does_not_end_ends_the_move_and_the_tenant_stays(
    database, postgres, client, register, fill
):
    tenant = await register()
    conversation = await fill(tenant)
    transaction = client.transaction()
    await transaction.start()
    await client.execute("select haive_private.enter_tenant($1, true)", tenant)
    with pytest.raises(LockTimeoutError):
        await move(database, "haive", tenant, _SCHEMA, patience=0.2)
    await transaction.rollback()
    query = "select haive_private.append_message($1, $2, gen_random_uuid(), 'user', 'on')"
    assert await _refusal(client, query, tenant, conversation) is None
    assert (await move(database, "haive", tenant, _SCHEMA)).rows["messages"] == 4


async def test_a_cancelled_move_is_undone(database, postgres, client, register, fill):
    tenant = await register()
    await fill(tenant)
    transaction = client.transaction()
    await transaction.start()
    await client.execute("select haive_private.enter_tenant($1, true)", tenant)
    moving = asyncio.ensure_future(move(database, "haive", tenant, _SCHEMA))
    status = "select status from haive.tenants where tenant_id = $1"
    await _until(postgres.fetchval, status, tenant, equal="moving")
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    assert await postgres.fetchval(status, tenant) == "active"
    await transaction.rollback()


_PROGRAM = """
import asyncio, sys
from haive.core.persistence.multitenancy import IsolationLevel, _moving
async def hang(*_):
    print("here", flush=True)
    await asyncio.sleep(60)
setattr(_moving, sys.argv[3], hang)
asyncio.run(_moving.move(sys.argv[1], "haive", sys.argv[2], IsolationLevel(sys.argv[4])))
"""


@pytest.mark.parametrize(
    ("to", "point"),
    # Nothing is provisioned on the way back.
    [
        ("schema", "provision"),
        *product(("schema", "row"), ("_await_older", "move_rows", "describe")),
    ],
)
@pytest.mark.parametrize("then", ["the same call", "stop_moving"])
async def test_killed_at_any_point_it_is_in_one_place_and_goes_on(
    database, postgres, client, register, fill, point, then, to
):
    tenant = await register()
    conversation = await fill(tenant)
    own = tenant_schema("haive", tenant)
    source = "haive"
    if to == "row":
        await move(database, "haive", tenant, _SCHEMA)
        source = own
    before = await _contents(postgres, source, tenant)
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, database, tenant, point, to),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert await program.stdout.readline() == b"here\n"
    program.send_signal(signal.SIGKILL)
    await program.wait()

    read = f"select json_array_length({source}.get_messages($1, tenant => $2))"
    assert await client.fetchval(read, conversation, tenant) == 3
    assert await _contents(postgres, source, tenant) == before
    await _session_over(postgres, database)
    if then == "stop_moving":
        assert await stop_moving(database, "haive", tenant) == (point != "provision")
        query = f"select {source}_private.append_message($1, $2, gen_random_uuid(), 'user', 'on')"
        assert await _refusal(client, query, tenant, conversation) is None
    else:
        await move(database, "haive", tenant, IsolationLevel(to))
        assert await _contents(postgres, own if to == "schema" else "haive", tenant) == before


async def _session_over(postgres, database):
    """Wait until the server has noticed that the program is gone."""
    locks = "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid"
    locks += " from pg_database where datname = current_database())"
    await _until(postgres.fetchval, locks, equal=0)


async def test_two_at_once_are_one(database, register, fill):
    tenant = await register()
    await fill(tenant)
    both = await asyncio.gather(
        *(move(database, "haive", tenant, _SCHEMA) for _ in range(2)), return_exceptions=True
    )
    assert sum(isinstance(one, ConflictError) for one in both) <= 1
    assert sum(bool(getattr(one, "rows", None)) for one in both) == 1


@pytest.mark.parametrize("status", ["suspended", "deleted"])
async def test_a_closed_tenant_is_not_moved(database, register, status):
    with pytest.raises(ConflictError, match=status):
        await move(database, "haive", await register(status=status), _SCHEMA)


async def test_one_that_is_closed_while_it_moves_stays_and_is_closed(
    database, postgres, register, fill, monkeypatch
):
    tenant = await register()
    await fill(tenant)
    before = await _contents(postgres, "haive", tenant)

    async def close(*_):
        await postgres.execute(
            "update haive.tenants set status = 'suspended' where tenant_id = $1", tenant
        )

    monkeypatch.setattr("haive.core.persistence.multitenancy._moving._await_older", close)
    with pytest.raises(ConflictError):
        await move(database, "haive", tenant, _SCHEMA)
    row = await postgres.fetchrow(
        "select status, isolation from haive.tenants where tenant_id = $1", tenant
    )
    assert tuple(row) == ("suspended", "row")
    assert await _contents(postgres, "haive", tenant) == before


async def test_one_that_is_opened_where_it_is_while_it_moves_stays_there(
    database, postgres, register, monkeypatch
):
    tenant = await register()
    own = tenant_schema("haive", tenant)
    await move(database, "haive", tenant, _SCHEMA)

    async def resume(*_):
        # Of a resumption the first half: the register still says that it is being moved.
        await postgres.execute(
            f"update {own}.tenants set status = 'active' where tenant_id = $1", tenant
        )

    monkeypatch.setattr("haive.core.persistence.multitenancy._moving._await_older", resume)
    with pytest.raises(ConflictError):
        await move(database, "haive", tenant, _ROW)
    row = await postgres.fetchrow(
        "select status, isolation from haive.tenants where tenant_id = $1", tenant
    )
    assert tuple(row) == ("active", "schema")


async def test_what_cannot_be_moved_says_so(database, register):
    with pytest.raises(NotFoundError):
        await move(database, "haive", "nobody", _SCHEMA)
    with pytest.raises(UnsupportedOperationError):
        await move(database, "haive", await register(), IsolationLevel.DATABASE)
    with pytest.raises(UnsupportedOperationError):
        await move(database, "haive", await register("database"), _SCHEMA)


@pytest.fixture
async def bound(server, postgres, connect):
    """A connection that may write all tables, and sees what the policies let it see."""
    await server.execute("create role bound_mover")
    for schema in ("haive", "haive_private"):
        await postgres.execute(f"grant usage on schema {schema} to bound_mover")
        await postgres.execute(f"grant all on all tables in schema {schema} to bound_mover")
    await server.execute("grant bound_mover to postgres")
    yield await connect("bound_mover")
    await postgres.execute("drop owned by bound_mover")
    await server.execute("drop role bound_mover")


async def test_a_login_whom_policies_bind_moves_nothing_rather_than_loses_it(
    postgres, register, fill, bound
):
    # It would read no row, copy none, and call the tenant moved.
    tenant = await register()
    await fill(tenant)
    before = await _contents(postgres, "haive", tenant)
    with pytest.raises(asyncpg.PostgresError, match="row-level security"):
        async with bound.transaction():
            await copying.move_rows(bound, "haive", "haive", tenant)
    assert await _contents(postgres, "haive", tenant) == before
