"""A connection that is cut between the commit and its answer: the retry has one effect."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from haive.core.persistence import SupabaseStore
from haive.core.persistence.errors import ConflictError, ConnectionLostError, NotFoundError
from haive.core.persistence.models import MessageRole, NewMessage

# ReadyForQuery of a session that is in no transaction: what was asked for is committed.
COMMITTED = b"Z\x00\x00\x00\x05I"


@pytest.fixture
async def through_proxy(database, open_store, proxy_to):
    """A store that asks through a proxy, and the proxy."""
    proxy, dsn = await proxy_to(database)
    return await open_store(dsn), proxy


@pytest.fixture
async def healthy(database, find_faults):
    """Check the invariants of the test's database for the messages that were answered."""

    async def check(messages):
        assert await find_faults(database, messages, []) == []
        connection = await asyncpg.connect(database)
        count = await connection.fetchval("select count(*) from haive.messages")
        await connection.close()
        assert count == len(messages)

    return check


@pytest.mark.parametrize("times", [1, 3])
async def test_a_message_whose_answer_is_lost_is_written_once(through_proxy, healthy, times):
    store, proxy = through_proxy
    conversation = await store.create_conversation("agent")
    message_id = uuid4()
    proxy.lose(message_id.bytes, COMMITTED, times)
    usage = {"input_tokens": 3, "output_tokens": 4, "cost": "0.25"}

    message = await store.add_message(
        conversation.id, "user", "hello", id=message_id, token_usage=usage, metadata={"a": [1]}
    )

    assert proxy.lost == times
    assert message.seq == 1
    again = await store.add_message(
        conversation.id, "user", "hello", id=message_id, token_usage=usage, metadata={"a": [1]}
    )
    assert again == message
    assert await store.get_messages(conversation.id) == [message]
    await healthy([message])
    with pytest.raises(ConflictError):
        await store.add_message(conversation.id, "user", "other", id=message_id)


async def test_each_message_of_a_group_whose_answer_is_lost_is_written_once(through_proxy, healthy):
    store, proxy = through_proxy
    conversations = [await store.create_conversation("agent") for _ in range(5)]
    ids = [uuid4() for _ in range(60)]
    proxy.lose(ids[30].bytes, COMMITTED, 2)

    messages = await asyncio.gather(
        *(
            store.add_message(conversations[n % 5].id, "user", f"message {n}", id=message_id)
            for n, message_id in enumerate(ids)
        )
    )

    assert proxy.lost == 2
    assert [message.id for message in messages] == ids
    for first in range(5):
        assert [message.seq for message in messages[first::5]] == list(range(1, 13))
    await healthy(messages)


@pytest.mark.parametrize("size", [50, 4_500])
async def test_messages_written_all_or_none_whose_answer_is_lost_are_written_once(
    through_proxy, healthy, size
):
    store, proxy = through_proxy
    conversation = await store.create_conversation("agent")
    new = [
        NewMessage(
            id=uuid4(), conversation_id=conversation.id, role=MessageRole.USER, content=f"{n}"
        )
        for n in range(size)
    ]
    proxy.lose(new[-1].id.bytes, COMMITTED, 2)

    messages = await store.add_messages(new)

    assert proxy.lost == 2
    assert [message.seq for message in messages] == list(range(1, size + 1))
    assert await store.add_messages(new) == messages
    await healthy(messages)


async def test_a_conversation_whose_answer_is_lost_is_begun_once(through_proxy):
    store, proxy = through_proxy
    proxy.lose(b"only this agent", COMMITTED, 2)

    conversation = await store.create_conversation("only this agent")

    assert proxy.lost == 2
    assert list(await store.query_conversations()) == [conversation]


async def test_a_deletion_whose_answer_is_lost_is_not_repeated(through_proxy):
    store, proxy = through_proxy
    conversation = await store.create_conversation("agent")
    proxy.lose(conversation.id.bytes, COMMITTED)

    with pytest.raises(ConnectionLostError):
        await store.delete_conversation(conversation.id)

    with pytest.raises(NotFoundError):
        await store.get_conversation(conversation.id)


async def test_over_rest_too_a_message_whose_answer_is_lost_is_written_once(stack, proxy_to):
    proxy, url = await proxy_to(stack.url)
    async with SupabaseStore(url, stack.secret_key) as store:
        conversation = await store.create_conversation("agent")
        message_id = uuid4()
        proxy.lose(str(message_id).encode(), b"HTTP/1.1 200", 3)

        message = await store.add_message(conversation.id, "user", "hello", id=message_id)

        assert proxy.lost == 3
        assert message.seq == 1
        assert await store.get_messages(conversation.id) == [message]
        assert (await store.get_conversation(conversation.id)).message_count == 1
