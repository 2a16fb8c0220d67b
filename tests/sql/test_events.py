"""The outbox: what a reader is told, and that it misses nothing."""

from __future__ import annotations

import asyncio
import json
import random
from uuid import uuid4

# How a reader goes on from its cursor: it stops before the oldest transaction that still runs.
_NEXT = """
    select xid::text, id, conversation_id, first_seq, last_seq from haive.events
    where (xid, id) > ($1::text::xid8, $2) and xid < pg_snapshot_xmin(pg_current_snapshot())
    order by tenant_id, xid, id limit 50"""


async def _events(postgres):
    rows = await postgres.fetch(
        "select kind, conversation_id, first_seq, last_seq from haive.events order by id"
    )
    return [tuple(row) for row in rows]


async def test_a_statement_writes_one_event_for_each_conversation(writer, postgres, message):
    first, second = sorted([await writer.conversation(), await writer.conversation()])
    await postgres.execute("delete from haive.events")
    await writer.one(message(first))
    await writer.many([message(second), message(first), message(second), message(first)])
    assert await _events(postgres) == [
        ("messages.added", first, 1, 1),
        ("messages.added", first, 2, 3),
        ("messages.added", second, 1, 2),
    ]


async def test_a_replay_tells_only_of_what_was_missing(writer, postgres, message):
    conversation = await writer.conversation()
    messages = [message(conversation) for _ in range(3)]
    await writer.one(messages[1])
    await postgres.execute("delete from haive.events")
    await writer.many(messages)
    await writer.many(messages)
    assert await _events(postgres) == [("messages.added", conversation, 2, 3)]


async def test_what_fails_is_not_told(writer, postgres, message):
    conversation = await writer.conversation()
    await writer.one(message(conversation))
    await postgres.execute("delete from haive.events")
    taken = message(conversation)
    await writer.one(taken)
    await postgres.execute("delete from haive.events")
    await writer.one(taken.but(content="other"))
    await writer.many([message(uuid4()), taken.but(content="other")])
    assert await _events(postgres) == []


async def test_creating_changing_and_deleting_are_told(client, writer, postgres):
    conversation = await writer.conversation()
    change = json.dumps({"title": "new"})
    await client.fetchval("select haive.update_conversation($1, $2)", conversation, change)
    await client.fetchval("select haive.delete_conversation($1)", conversation)
    assert await _events(postgres) == [
        ("conversation.created", conversation, None, None),
        ("conversation.updated", conversation, None, None),
        ("conversation.deleted", conversation, None, None),
    ]


async def test_a_reader_beside_many_writers_misses_nothing_and_sees_nothing_twice(
    connect, postgres, writer, writer_of, message
):
    conversations = [await writer.conversation() for _ in range(4)]
    done = asyncio.Event()
    read: list[tuple[str, int]] = []

    async def tail(reader):
        cursor = ("0", 0)
        while True:
            ended = done.is_set()
            rows = await reader.fetch(_NEXT, *cursor)
            read.extend((row["xid"], row["id"]) for row in rows)
            if rows:
                cursor = read[-1]
            elif ended:
                return

    async def write(connection, dice):
        for _ in range(30):
            async with connection.transaction():  # held open, so that commits overtake each other
                targets = dice.sample(conversations, 2)
                await writer_of(connection).many([message(target) for target in sorted(targets)])
                await asyncio.sleep(dice.random() / 200)

    reading = asyncio.create_task(tail(await connect()))
    connections = [await connect("haive_client") for _ in range(6)]
    writers = (write(one, random.Random(seed)) for seed, one in enumerate(connections))
    await asyncio.gather(*writers)
    done.set()
    await reading
    rows = await postgres.fetch("select xid::text, id from haive.events order by events.xid, id")
    assert read == [tuple(row) for row in rows]
    # By xid a later message can come first: xids are taken before the wait for a lock. Ids are not.
    disorder = """
        select count(*) from haive.events as a
        join haive.events as b using (tenant_id, conversation_id)
        where a.id < b.id and a.last_seq >= b.first_seq"""
    assert await postgres.fetchval(disorder) == 0
