"""Opening and closing a store, and where it may be used; over both transports."""

from __future__ import annotations

import asyncio
import ssl
from uuid import uuid4

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.errors import InvalidInputError, PersistenceError


async def test_a_closed_store_refuses_everything_until_it_is_opened_again(open_store) -> None:
    store = await open_store()
    conversation = await store.create_conversation("agent")
    await store.aclose()
    await store.aclose()
    for call in (
        store.get_conversation(conversation.id),
        store.add_message(conversation.id, "user", "Hello"),
        store.query_conversations(),
    ):
        with pytest.raises(PersistenceError, match=r"initialize\(\)"):
            await call
    await store.initialize()
    assert (await store.add_message(conversation.id, "user", "Hello")).seq == 1
    await store.aclose()
    async with store:
        assert (await store.add_message(conversation.id, "user", "Again")).seq == 2


async def test_a_store_is_heard_after_it_was_opened_again(open_store, transport) -> None:
    settings = {"enable_realtime": True} if transport == "supabase" else {}
    store = await open_store(**settings)
    for _ in range(2):
        async with asyncio.timeout(20), store.subscribe("conversations") as events:
            while not events.is_heard:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            await store.create_conversation("agent")
            assert (await anext(events)).kind == "conversation.created"
        await store.aclose()
        await store.initialize()


async def test_the_certificates_are_read_once_a_process(open_store, monkeypatch) -> None:
    await (await open_store()).create_conversation("agent")
    reads = []
    original = ssl.create_default_context
    monkeypatch.setattr(
        ssl, "create_default_context", lambda **given: reads.append(given) or original(**given)
    )
    await (await open_store()).create_conversation("agent")
    assert not reads


async def test_another_event_loop_is_refused_and_harms_nothing(store) -> None:
    conversation = await store.create_conversation("agent")

    async def elsewhere() -> None:
        for call in (
            store.get_conversation(conversation.id),
            store.add_message(conversation.id, "user", "Hello"),
            store.aclose(),
        ):
            with pytest.raises(PersistenceError, match=r"another event loop.*asyncio\.run"):
                await call

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert (await store.add_message(conversation.id, "user", "Hello")).seq == 1


async def test_another_event_loop_is_refused_while_messages_are_on_their_way(store, stack) -> None:
    conversation = await store.create_conversation("agent")
    other = await asyncpg.connect(stack.database_url)

    async def elsewhere() -> None:
        async with asyncio.timeout(5):
            with pytest.raises(PersistenceError, match="another event loop"):
                await store.add_message(conversation.id, "user", "From elsewhere")

    try:
        async with other.transaction():
            await other.execute(
                "select from haive.conversations where id = $1 for update", conversation.id
            )
            calls = [
                asyncio.create_task(store.add_message(conversation.id, "user", f"{n}"))
                for n in range(3)
            ]
            await asyncio.sleep(0)  # they have called, and wait for the row
            await asyncio.to_thread(asyncio.run, elsewhere())
    finally:
        await other.close()
    assert [message.seq for message in await asyncio.gather(*calls)] == [1, 2, 3]
    stored = await store.get_messages(conversation.id)
    assert [message.text for message in stored] == ["0", "1", "2"]


def test_a_store_that_was_closed_is_opened_in_the_next_loop(unopened) -> None:
    store = unopened()

    async def once() -> None:
        async with store:
            await store.query_conversations(limit=1)

    asyncio.run(once())
    asyncio.run(once())


async def test_what_a_store_is_can_be_seen_and_shows_no_secret(open_store, tenant) -> None:
    store = await open_store()
    name = type(store).__name__
    assert repr(store) == f"<{name} schema='haive' tenant={tenant!r}, open>"
    await store.aclose()
    assert repr(store).endswith("closed>" if name == "SupabaseStore" else "not open>")
    config = PersistenceConfig(connection_string="postgresql://u:secret@nowhere/x")
    assert repr(PostgresStore(config)) == "<PostgresStore schema='haive' tenant=None, not open>"


async def test_a_subscription_that_was_not_entered_says_so(store) -> None:
    with pytest.raises(PersistenceError, match=r"`async with store\.subscribe"):
        await anext(aiter(store.subscribe("conversations")))


async def test_a_channel_that_is_no_text_is_refused(store) -> None:
    with pytest.raises(InvalidInputError, match=r"conversation:\{id\}"):
        store.subscribe(uuid4())
