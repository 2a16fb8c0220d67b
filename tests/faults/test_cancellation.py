"""Calls that end early, sessions that are somebody else's, and rows that others hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from uuid import UUID

import asyncpg
import httpx
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, _postgres_transport
from haive.core.persistence.errors import LockTimeoutError
from haive.core.persistence.models import Message, MessageRole, NewConversation, NewMessage

# Every turn of the event loop in which a statement is put together and sent, and then some in
# which its answer is on the way.
TICKS = (*range(25), 40, 80, 160, 320, 640)
OTHERS = """
    select count(*) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
        and backend_type = 'client backend'
"""


@pytest.fixture(autouse=True)
def copy_from_a_thousand(monkeypatch):
    """Let COPY begin where a test need not write many rows to see it."""
    monkeypatch.setattr(_postgres_transport, "_COPY_FROM", 1_000)


Call = Callable[[PostgresStore, UUID], Awaitable[object]]


def messages(conversation_id: UUID, count: int) -> list[NewMessage]:
    return [
        NewMessage(conversation_id=conversation_id, role=MessageRole.USER, content=f"message {n}")
        for n in range(count)
    ]


CALLS: dict[str, Call] = {
    "one": lambda store, to: store.add_message(to, "user", "hello"),
    "three": lambda store, to: store.add_messages(messages(to, 3)),
    "copy": lambda store, to: store.add_messages(messages(to, 1_200)),
    "execute": lambda store, _: store.execute("select count(*) from haive.tenants"),
    "read": lambda store, to: store.get_messages(to),
}


async def cancelled(call: Awaitable[object], ticks: int, times: int) -> None:
    """Start a call, let the event loop turn so often, and cancel it, perhaps again and again."""
    task = asyncio.ensure_future(call)
    for _ in range(ticks):
        await asyncio.sleep(0)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("call", CALLS)
async def test_a_cancelled_call_leaves_no_transaction_and_no_role_of_the_owner(
    postgres, open_store, call, times
):
    # One connection: what comes next gets the one that the cancelled call had.
    store = await open_store(pool_size=1, max_overflow=0, pool_timeout=5)
    conversation = await store.create_conversation("agent")
    lost, roles = [], set()
    for ticks in TICKS:
        await cancelled(CALLS[call](store, conversation.id), ticks, times)

        async with store._open._pool.connection() as connection:
            roles.add(await connection.fetchval("select current_user"))
        message = await store.add_message(conversation.id, "user", f"after {ticks} ticks")
        query = "select content from haive.messages where id = $1"
        if await postgres.fetchval(query, message.id) != message.content:
            lost.append(ticks)

    assert lost == [], "acknowledged, and not to be seen by others"
    assert roles == {"haive_client"}


@pytest.mark.parametrize("count", [3, 1_200])
async def test_cancelled_add_messages_are_there_all_or_none(
    postgres, open_store, find_faults, database, count
):
    store = await open_store(pool_size=1, max_overflow=0, pool_timeout=5)
    query = "select count(*) from haive.messages where conversation_id = $1"
    for ticks in (*range(0, 25, 3), 60, 250, 1_000):
        conversation = await store.create_conversation("agent")
        await cancelled(store.add_messages(messages(conversation.id, count)), ticks, 1)
        stored = (await store.get_conversation(conversation.id)).message_count
        assert stored in {0, count}
        assert await postgres.fetchval(query, conversation.id) == stored
    faults = await find_faults(database, [], [])
    assert [fault for fault in faults if "content" not in fault] == []


async def test_a_statement_of_the_owner_that_ran_out_of_time_leaves_no_role_of_the_owner(
    open_store,
):
    store = await open_store(pool_size=1, max_overflow=0, pool_timeout=5)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.execute("select pg_sleep(5)"), 0.05)
        async with store._open._pool.connection() as connection:
            assert await connection.fetchval("select current_user") == "haive_client"
            assert not connection.is_in_transaction()


@pytest.mark.parametrize("statement", ["begin", "set role postgres", "reset all"])
async def test_what_a_statement_of_the_owner_does_to_its_session_ends_with_it(
    postgres, open_store, statement
):
    store = await open_store(pool_size=1, max_overflow=0, lock_timeout="7s")
    conversation = await store.create_conversation("agent")
    await store.execute(statement)
    message = await store.add_message(conversation.id, "user", "hello")
    query = "select count(*) from haive.messages where id = $1"
    assert await postgres.fetchval(query, message.id) == 1
    async with store._open._pool.connection() as connection:
        assert await connection.fetchval("select current_user") == "haive_client"
        assert await connection.fetchval("show lock_timeout") == "7s"


@pytest.mark.parametrize("conversations", [1, 6])
async def test_a_message_of_a_caller_who_left_before_it_was_sent_is_not_written(
    open_store, conversations
):
    store = await open_store()
    targets = [
        one.id
        for one in await store.create_conversations(
            [NewConversation(agent_id="agent")] * conversations
        )
    ]
    calls = [
        asyncio.create_task(store.add_message(targets[n % conversations], "user", f"message {n}"))
        for n in range(12)
    ]
    await asyncio.sleep(0)
    given_up = calls[2:9]
    for call in given_up:
        call.cancel()
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await store._commits.drain()

    assert [call.cancelled() for call in calls] == [2 <= n < 9 for n in range(12)]
    answered = {outcome.text for outcome in outcomes if isinstance(outcome, Message)}
    stored = {message.text for target in targets for message in await store.get_messages(target)}
    assert stored == answered == {f"message {n}" for n in (0, 1, 9, 10, 11)}


async def test_a_store_whose_callers_have_all_left_writes_and_closes(database):
    config = PersistenceConfig(connection_string=database)
    async with asyncio.timeout(10), PostgresStore(config) as store:
        conversation = await store.create_conversation("agent")
        for _ in range(3):
            calls = [
                asyncio.create_task(store.add_message(conversation.id, "user", f"message {n}"))
                for n in range(5)
            ]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        last = await store.add_message(conversation.id, "user", "the last one")
        assert (await store.get_messages(conversation.id))[-1] == last
        # The first of each round was on its way at once; the others were waiting.
        assert {m.text for m in await store.get_messages(conversation.id)} <= {
            "message 0",
            "the last one",
        }


@pytest.fixture
async def member_login(database, server):
    """A login role that is nothing but a member of haive_client."""
    name = "haive_test_login"
    await server.execute(f"create role {name} login password 'login'")
    await server.execute(f"grant haive_client to {name}")
    yield str(httpx.URL(database).copy_with(username=name, password="login"))
    await server.execute(f"drop role {name}")


@pytest.mark.parametrize("count", [10, 1_500])
async def test_a_login_that_owns_nothing_adds_as_many_messages_as_the_owner(member_login, count):
    async with PostgresStore(PersistenceConfig(connection_string=member_login)) as store:
        conversation = await store.create_conversation("agent")
        for _ in range(2):  # what it learnt the first time is used the second
            written = await store.add_messages(messages(conversation.id, count))
            assert len(written) == count
        assert [message.seq for message in written] == list(range(count + 1, 2 * count + 1))
        stored = await store.get_messages(conversation.id, after=count, limit=10_000)
        assert stored == written


async def test_two_initializations_at_once_open_one_pool(database, postgres):
    store = PostgresStore(PersistenceConfig(connection_string=database, pool_size=3))
    await asyncio.gather(store.initialize(), store.initialize())
    assert await settled(postgres, 3) == 3
    await store.aclose()
    assert await settled(postgres, 0) == 0


async def settled(postgres: asyncpg.Connection, expected: int) -> int:
    """How many others are connected, once that is as expected or a second is over."""
    for _ in range(50):
        count = await postgres.fetchval(OTHERS)
        if count == expected:
            break
        await asyncio.sleep(0.02)
    return count


@pytest.mark.parametrize("each", [1, 5])
async def test_a_conversation_that_is_locked_does_not_hold_up_the_others(open_store, connect, each):
    store = await open_store(lock_timeout="300ms")
    ids = [
        one.id for one in await store.create_conversations([NewConversation(agent_id="agent")] * 20)
    ]
    locked = ids[7]
    other = await connect()
    await other.execute("begin")
    await other.execute("select from haive.conversations where id = $1 for update", locked)
    start = monotonic()
    took = []

    async def add(conversation_id: UUID, n: int) -> Message:
        try:
            return await store.add_message(conversation_id, "user", f"message {n}")
        finally:
            if conversation_id != locked:
                took.append(monotonic() - start)

    calls = [(one, n) for n in range(each) for one in ids]
    outcomes = await asyncio.gather(*(add(*call) for call in calls), return_exceptions=True)

    held_up = [outcome for (one, _), outcome in zip(calls, outcomes, strict=True) if one == locked]
    free = [outcome for (one, _), outcome in zip(calls, outcomes, strict=True) if one != locked]
    assert [type(outcome) for outcome in held_up] == [LockTimeoutError] * each
    assert all(isinstance(outcome, Message) for outcome in free), free
    assert max(took) < 2
    await other.execute("rollback")
    assert (await store.add_message(locked, "user", "at last")).seq == 1
