"""Reading the outbox on from a cursor: nothing is missed, nothing comes twice, in order."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import pairwise
from uuid import uuid4

import asyncpg
import pytest

NOBODYS = "0199aaaa-0000-7000-8000-000000000000"
_READ = "select haive.read_events($1, $2, $3)"
_LOG = "select id, conversation_id, first_seq from haive.events order by id"


class Reader:
    """Reads a channel page by page, as a client does."""

    def __init__(self, connection, channel="conversations", page_size=7, after="0"):
        self._connection = connection
        self._arguments = (channel, page_size)
        self.cursor = after
        self.rows = []

    async def page(self):
        channel, size = self._arguments
        answer = await self._connection.fetchval(_READ, channel, self.cursor, size)
        page = json.loads(answer)
        assert len(page["events"]) <= size
        self.rows += page["events"]
        self.cursor = page["next"]
        return page

    async def rest(self):
        while (await self.page())["more"]:
            pass
        return [row["id"] for row in self.rows]


class SabotagedReader(Reader):
    """Believes that ids are given in the order of commits."""

    def __init__(self, connection, **_):
        super().__init__(connection)
        self._last = 0

    async def page(self):
        rows = await self._connection.fetch(
            "select id, conversation_id, first_seq from haive.events where id > $1"
            " order by id limit 7",
            self._last,
        )
        self.rows += [{**row, "conversation_id": str(row["conversation_id"])} for row in rows]
        self._last = self.rows[-1]["id"] if self.rows else 0
        return {"more": len(rows) == 7}


class SabotagedSnapshot(Reader):
    """Forgets which transactions ran when its cursor was made."""

    async def page(self):
        page = await super().page()
        self.cursor = "/".join(
            part if ":" not in part else "{1}:{1}:".format(*part.split(":"))
            for part in self.cursor.split("/")
        )
        return page


async def _write_for_a_while(connect, writer_of, message, conversations, seconds=2.5):
    """Writers whose commits overtake each other, some of which come to nothing."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    async def write(connection, dice):
        while loop.time() < end:
            transaction = connection.transaction()
            await transaction.start()
            targets = sorted(dice.sample(conversations, dice.randint(1, 2)))
            await writer_of(connection).many([message(target) for target in targets])
            if dice.random() < 0.3:  # a part of it is undone, the rest stays
                part = connection.transaction()
                await part.start()
                await writer_of(connection).one(message(targets[-1]))
                await (part.rollback() if dice.random() < 0.5 else part.commit())
            if dice.random() < 0.2:
                await asyncio.sleep(dice.random() / 10)
            await (transaction.rollback() if dice.random() < 0.2 else transaction.commit())
            await asyncio.sleep(dice.random() / 200)

    connections = [await connect("haive_client") for _ in range(6)]
    await asyncio.gather(*(write(one, random.Random(seed)) for seed, one in enumerate(connections)))


async def _raced(connect, postgres, writer, writer_of, message, make):
    conversations = [await writer.conversation() for _ in range(5)]
    readers = [make(await connect("haive_client"), page_size=size) for size in (1, 7, 500)]
    done = asyncio.Event()

    async def tail(reader):
        while not done.is_set():
            await reader.page()
            await asyncio.sleep(0.001)
        await reader.rest()

    tails = [asyncio.create_task(tail(reader)) for reader in readers]
    await _write_for_a_while(connect, writer_of, message, conversations)
    done.set()
    await asyncio.gather(*tails)
    log = await postgres.fetch(_LOG)
    assert len(log) > 200
    return readers, sorted(row["id"] for row in log)


def _disorder(rows):
    last = {}
    wrong = 0
    for row in rows:
        key = row["conversation_id"]
        wrong += row["id"] <= last.get(key, 0)
        last[key] = row["id"]
    return wrong


async def test_readers_beside_writers_miss_nothing_and_see_nothing_twice_and_in_order(
    connect, postgres, writer, writer_of, message
):
    readers, log = await _raced(connect, postgres, writer, writer_of, message, Reader)
    for reader in readers:
        assert sorted(row["id"] for row in reader.rows) == log
        assert _disorder(reader.rows) == 0
        places = {}
        for row in reader.rows:
            places.setdefault(row["conversation_id"], []).append(row["first_seq"] or 0)
        assert all(a < b for found in places.values() for a, b in pairwise(found))


@pytest.mark.parametrize("make", [SabotagedReader, SabotagedSnapshot])
async def test_the_race_is_one_that_a_careless_reader_loses(
    connect, postgres, writer, writer_of, message, make
):
    readers, log = await _raced(connect, postgres, writer, writer_of, message, make)
    assert any(sorted(row["id"] for row in reader.rows) != log for reader in readers)


async def test_by_number_of_transaction_a_conversation_is_out_of_order(
    connect, postgres, writer, writer_of, message
):
    conversation = await writer.conversation()
    await postgres.execute("delete from haive.events")
    early, late = await connect("haive_client"), await connect("haive_client")
    async with early.transaction():
        await early.fetchval("select pg_current_xact_id()")
        await writer_of(late).one(message(conversation))
        await writer_of(early).one(message(conversation))
    by_xid = await postgres.fetch("select first_seq from haive.events order by events.xid")
    assert [row["first_seq"] for row in by_xid] == [2, 1]
    reader = Reader(late, f"conversation:{conversation}", page_size=1)
    await reader.rest()
    assert [row["first_seq"] for row in reader.rows] == [1, 2]


async def test_a_transaction_that_writes_for_long_holds_back_its_own_events_only(
    connect, client, writer, writer_of, message
):
    first, second = await writer.conversation(), await writer.conversation()
    slow = await connect("haive_client")
    reader = Reader(client)
    await reader.rest()
    async with slow.transaction():
        await writer_of(slow).one(message(first))
        await writer.one(message(second))
        await reader.rest()
        assert [row["conversation_id"] for row in reader.rows[2:]] == [str(second)]
    await reader.rest()
    assert [row["conversation_id"] for row in reader.rows[2:]] == [str(second), str(first)]


async def test_what_its_own_transaction_writes_a_reader_does_not_skip(client, writer, message):
    conversation = await writer.conversation()
    reader = Reader(client)
    async with client.transaction():
        await writer.one(message(conversation))
        await reader.rest()
        await writer.one(message(conversation))
    await reader.rest()
    assert [row["first_seq"] for row in reader.rows] == [None, 1, 2]


async def test_null_begins_now_and_an_event_is_a_place_to_go_on_from(client, writer, message):
    conversation = await writer.conversation()
    page = json.loads(await client.fetchval("select haive.read_events('conversations')"))
    assert page["events"] == []
    for _ in range(5):
        await writer.one(message(conversation))
    reader = Reader(client, after=page["next"], page_size=500)
    page = await reader.page()
    assert [row["first_seq"] for row in page["events"]] == [1, 2, 3, 4, 5]
    for place, row in enumerate(page["events"]):
        again = Reader(client, after=f"{page['window']}/{row['id']}", page_size=2)
        await again.rest()
        assert [one["first_seq"] for one in again.rows] == [1, 2, 3, 4, 5][place + 1 :]


async def test_a_cursor_of_a_tenant_that_rests_does_not_change(client, connect, writer, message):
    await writer.one(message(await writer.conversation()))
    reader = Reader(client)
    await reader.rest()
    before = reader.cursor
    other = await connect()
    await other.execute("create table elsewhere ()")
    async with other.transaction():
        await other.execute("select pg_current_xact_id()")
        await reader.rest()
    assert reader.cursor == before


async def test_the_streams_of_threads_and_conversations_are_told_apart(client, writer, message):
    conversation, other = await writer.conversation(), await writer.conversation()
    await writer.one(message(conversation))
    await writer.one(message(other))
    for name, namespace in (("one", ""), ("one", "part"), ("two", "")):
        await client.fetchval(
            "select haive.save_checkpoint($1, $2, '\\x00', 0, namespace => $3)",
            *(name, uuid4(), namespace),
        )

    async def heard(channel):
        reader = Reader(client, channel)
        await reader.rest()
        return [(row["kind"], row["thread"], row["namespace"]) for row in reader.rows]

    messages = [("conversation.created", None, None), ("messages.added", None, None)]
    assert await heard(f"conversation:{conversation}") == messages
    assert await heard(f"session:{conversation}") == messages
    assert len(await heard("conversations")) == 4
    saved = [("checkpoint.saved", "one", ""), ("checkpoint.saved", "one", "part")]
    assert await heard("thread:one") == saved
    assert await heard("agent_states") == [*saved, ("checkpoint.saved", "two", "")]
    assert len(await heard("tenant")) == 7


@pytest.mark.parametrize(
    ("channel", "after", "size", "code"),
    [
        ("nonsense", "0", 1, "PT422"),
        ("conversation:x", "0", 1, "PT422"),
        ("tenant", "x", 1, "PT422"),
        ("tenant", "00000000/9:3:", 1, "22P02"),
        ("tenant", "00000000/3:3:", 1, "PT416"),
        ("tenant", "0", 0, "PT422"),
        (f"conversation:{NOBODYS}", None, 1, "PT404"),
    ],
)
async def test_what_means_nothing_is_refused(client, channel, after, size, code):
    with pytest.raises(asyncpg.PostgresError) as caught:
        await client.fetchval(_READ, channel, after, size)
    assert caught.value.sqlstate == code


async def test_a_cursor_of_the_future_is_refused(client):
    log = json.loads(await client.fetchval("select haive.read_events('tenant')"))["next"][:8]
    with pytest.raises(asyncpg.PostgresError) as caught:
        await client.fetchval(_READ, "tenant", f"{log}/999999999999:999999999999:", 1)
    assert caught.value.sqlstate == "PT416"


async def test_events_are_kept_for_a_week_and_older_cursors_are_told(
    client, postgres, writer, message
):
    conversation = await writer.conversation()
    begun = json.loads(await client.fetchval("select haive.read_events('tenant')"))["next"]
    await writer.one(message(conversation))
    await writer.one(message(conversation))
    seen = Reader(client, "tenant", after=begun)
    await seen.page()
    await postgres.execute(
        "update haive.events set created_at = now() - interval '6 days'"
        " where first_seq is distinct from 2"
    )
    assert (await _retain(client)) == 0
    await postgres.execute(
        "update haive.events set created_at = now() - interval '8 days'"
        " where first_seq is distinct from 2"
    )
    assert (await _retain(client)) == 2
    with pytest.raises(asyncpg.PostgresError) as caught:
        await client.fetchval(_READ, "tenant", begun, 10)
    assert caught.value.sqlstate == "PT416"
    for cursor in (seen.cursor, "0"):
        reader = Reader(client, "tenant", after=cursor)
        await reader.rest()
        assert [row["first_seq"] for row in reader.rows] == ([] if cursor != "0" else [2])
    # Where all of it has gone, a new cursor is not taken for an old one.
    await postgres.execute("update haive.events set created_at = now() - interval '8 days'")
    assert (await _retain(client)) == 1
    page = json.loads(await client.fetchval("select haive.read_events('tenant')"))
    await writer.one(message(conversation))
    reader = Reader(client, "tenant", after=page["next"])
    await reader.rest()
    assert [row["first_seq"] for row in reader.rows] == [3]


async def test_what_was_pruned_before_a_dump_expires_no_cursor_of_where_it_is_restored(
    client, postgres, writer, message
):
    conversation = await writer.conversation()
    # As after a restore, and after as many transactions as the cluster had that was dumped.
    await postgres.execute("delete from haive.events")
    await postgres.execute(
        "insert into haive.events (tenant_id, xid, kind, created_at) values"
        " ('default', '99999999999', 'conversation.created', now() - interval '9 days')"
    )
    assert (await _retain(client)) == 1
    begun = json.loads(await client.fetchval("select haive.read_events('tenant')"))["next"]
    await writer.one(message(conversation))
    await postgres.execute(
        "insert into haive_private.event_floors (tenant_id, xid, log)"
        " select 'default', max(xid), '0123abcd' from haive.events"
    )
    reader = Reader(client, "tenant", after=begun)
    await reader.rest()
    assert [row["first_seq"] for row in reader.rows] == [1]
    # And it hides nothing that is pruned here.
    await postgres.execute("update haive.events set created_at = now() - interval '8 days'")
    assert (await _retain(client)) == 1
    with pytest.raises(asyncpg.PostgresError) as caught:
        await client.fetchval(_READ, "tenant", begun, 10)
    assert caught.value.sqlstate == "PT416"


async def _retain(client):
    answer = json.loads(await client.fetchval("select haive.apply_retention()"))
    return answer["counts"].get("events", 0)


async def test_a_tenant_says_how_long_its_events_are_kept(client, postgres, writer):
    await writer.conversation()
    await postgres.execute("update haive.events set created_at = now() - interval '2 days'")
    await postgres.execute("update haive.tenants set settings = '{\"event_retention_days\": 3}'")
    assert (await _retain(client)) == 0
    await client.execute(
        "select haive.update_tenant('default', '{\"settings\": {\"event_retention_days\": 1}}')"
    )
    assert (await _retain(client)) == 1
    with pytest.raises(asyncpg.PostgresError, match="event_retention_days"):
        await client.execute(
            "select haive.update_tenant('default', '{\"settings\": {\"event_retention_days\": 0}}')"
        )


async def test_a_read_goes_on_record_where_the_tenant_asks_for_it(client, postgres, writer):
    await postgres.execute("update haive.tenants set audit = 'all'")
    await writer.conversation()
    await client.fetchval(_READ, "conversations", "0", 10)
    await client.fetchval("select haive.read_events('conversations')")
    rows = await postgres.fetch(
        "select rows from haive.audit_log where action = 'read' and object = 'read_events'"
    )
    assert [json.loads(row["rows"]) for row in rows] == [{"conversations": 1}]


async def test_hints_go_to_those_who_watch_and_to_nobody_else(connect, client, writer, message):
    conversation, other = await writer.conversation(), await writer.conversation()
    heard = []
    listener = await connect()
    await listener.add_listener("haive", lambda *arguments: heard.append(arguments[-1]))
    await writer.one(message(conversation))
    read = "select haive.read_events($1, watch => 'notify')"
    first = json.loads(await client.fetchval(read, f"conversation:{conversation}"))
    again = json.loads(await client.fetchval(read, f"conversation:{conversation}"))
    # Only who was not known yet must look once more.
    assert (first["more"], again["more"]) == (True, False)
    await writer.one(message(other))
    await writer.many([message(conversation), message(other)])
    await client.fetchval(read, "tenant")
    await writer.one(message(other))
    await listener.execute("select 1")
    assert heard == [f"haive:default:conversation:{conversation}", "haive:default:tenant"]


async def test_a_watch_ends_by_itself(client, postgres, connect, writer, message):
    conversation = await writer.conversation()
    await client.fetchval("select haive.read_events('tenant', watch => 'notify')")
    await postgres.execute("update haive_private.watches set expires_at = now()")
    heard = []
    listener = await connect()
    await listener.add_listener("haive", lambda *arguments: heard.append(arguments[-1]))
    await writer.one(message(conversation))
    await listener.execute("select 1")
    assert heard == []
