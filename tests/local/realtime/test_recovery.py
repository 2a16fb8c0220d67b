"""What is lost is found again: the stream, Postgres, the whole stack."""

from __future__ import annotations

import asyncio
import os
import signal

import asyncpg
import pytest
import websockets

from haive.core.persistence.local import LocalStack
from haive.core.persistence.local.realtime import partitions
from haive.core.persistence.local.realtime.changes import Changes
from haive.core.persistence.local.realtime.server import RealtimeServer

# Not synchronous_commit: the log would be written too late.
FAST = {"fsync": "off"}
SLOTS = "select active_pid from pg_replication_slots where slot_name like 'haive_realtime_%'"


async def test_a_lost_slot_is_made_again_and_channels_live_on(
    stack, new_client, join, room, database, eventually
):
    heard = await join(await new_client(), room, private=False)
    admin = await asyncpg.connect(stack.admin_url)
    try:
        lost = await admin.fetchval(SLOTS)
        await admin.execute("select pg_terminate_backend($1)", lost)

        async def again():
            return await admin.fetchval(f"{SLOTS} and active_pid <> $1", lost)

        await eventually(again)
    finally:
        await admin.close()

    async def arrives():
        await database.execute("select realtime.send('{}', 'again', $1, false)", room)
        return heard.broadcasts

    await eventually(arrives)
    assert heard.states == ["SUBSCRIBED"]


async def test_realtime_outlives_postgres_and_reconnects_after_the_stack(
    tmp_path, new_client, join, room, processes_of, eventually
):
    async with LocalStack(migrate=False, data_dir=tmp_path, postgres_settings=FAST) as stack:
        client = await new_client(of=stack)
        heard = await join(client, room, private=False)
        for pid in processes_of(stack.data_dir).named("postgres"):
            os.kill(pid, signal.SIGKILL)

        async def arrives():
            try:
                connection = await asyncpg.connect(stack.database_url)
            except (OSError, asyncpg.PostgresError):
                return False
            await connection.execute("select realtime.send('{}', 'after', $1, false)", room)
            await connection.close()
            return heard.broadcasts

        await eventually(arrives)
        assert heard.states == ["SUBSCRIBED"]
        # Private channels need the database, which is another connection.
        other = await join(await new_client(of=stack, key=stack.secret_key), f"{room}-2")
        assert other.states == ["SUBSCRIBED"]

    await eventually(lambda: "CHANNEL_ERROR" in heard.states)
    heard.broadcasts.clear()
    async with LocalStack(migrate=False, data_dir=tmp_path, postgres_settings=FAST) as stack:
        await eventually(lambda: heard.states[-1] == "SUBSCRIBED")
        await eventually(arrives)


async def test_a_stack_that_ends_says_so_to_its_clients():
    async with LocalStack(migrate=False, postgres_settings=FAST) as stack:
        url = f"{stack.url}/realtime/v1/websocket?apikey={stack.publishable_key}&vsn=1.0.0"
        websocket = await websockets.connect(url.replace("http", "ws"))
    await asyncio.wait_for(websocket.wait_closed(), 5)
    assert websocket.close_code == 1001


@pytest.fixture
async def admin(stack):
    connection = await asyncpg.connect(stack.admin_url)
    yield connection
    await connection.close()


async def test_who_sends_from_where_it_is_yesterday_is_heard(
    stack, new_client, join, room, eventually
):
    heard = await join(await new_client(), room, private=False)
    connection = await asyncpg.connect(stack.database_url)
    try:
        await connection.execute("set timezone = '<-24>+24'")
        await connection.execute("select realtime.send('{}', 'late', $1, false)", room)
        await eventually(lambda: heard.broadcasts)
    finally:
        await connection.close()


async def test_partitions_are_made_ahead_and_old_ones_dropped(admin):
    day = "current_date - 9"
    name = await admin.fetchval(f"""select to_char({day}, '"messages_"YYYY_MM_DD')""")
    bounds = await admin.fetchrow(f"select ({day})::text as first, ({day} + 1)::text as after")
    await admin.execute(
        f"create table realtime.{name} partition of realtime.messages"
        f" for values from ('{bounds['first']}') to ('{bounds['after']}')"
    )
    await admin.execute(partitions.PARTITIONS)
    made = await admin.fetch(
        "select inhrelid::regclass::text as name from pg_inherits"
        " where inhparent = 'realtime.messages'::regclass order by 1"
    )
    days = [
        await admin.fetchval(
            """select 'realtime.' || to_char(current_date + $1::int, '"messages_"YYYY_MM_DD')""",
            ahead,
        )
        for ahead in range(-1, 4)  # it is still yesterday somewhere
    ]
    assert [row["name"] for row in made] == days


async def test_a_missing_partition_is_made_when_somebody_joins(
    admin, stack, new_client, join, room, rooms
):
    today = await admin.fetchval("""select to_char(current_date, '"messages_"YYYY_MM_DD')""")
    await admin.execute(f"drop table realtime.{today}")
    heard = await join(await new_client(key=stack.secret_key), room)
    assert heard.states == ["SUBSCRIBED"]
    assert await admin.fetchval("select to_regclass($1)", f"realtime.{today}")


async def test_a_part_that_has_ended_is_told(tmp_path, monkeypatch):
    async def fail(self):
        raise RuntimeError

    async def nothing():
        pass

    server = RealtimeServer(
        sockets=tmp_path, port=1, role="nobody", jwt_secret="", make_partitions=nothing
    )
    assert not server.has_failed
    monkeypatch.setattr(Changes, "run", fail)
    server.start()
    await asyncio.sleep(0.01)
    assert server.has_failed
    await server.stop()
