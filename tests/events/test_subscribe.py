"""Hearing of what happens: by iteration and by callback, over both transports."""

from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from haive.core.persistence import events as events_module
from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.errors import (
    AccessDeniedError,
    CursorExpiredError,
    InvalidInputError,
    NotFoundError,
)
from haive.core.persistence.events import Subscription, _Row

# PostgREST takes a token for so many seconds after its end.
_LEEWAY = 30


@pytest.fixture
def by_hints_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by themselves."""
    for name in ("_SAFETY", "_POLL", "_FIRST_LOOK"):
        monkeypatch.setattr(events_module, name, 1000.0)


async def test_what_happens_to_a_conversation_is_heard_in_order(store, other, take) -> None:
    conversation = await other.create_conversation("agent")
    await other.create_conversation("another")
    async with store.subscribe(f"conversation:{conversation.id}") as events:
        await other.add_message(conversation.id, "user", "one")
        await other.update_conversation(conversation.id, metadata={"title": "new"})
        await other.add_message(conversation.id, "user", "two")
        await other.delete_conversation(conversation.id)
        found = await take(events, 4)
    assert [(event.kind, event.first_seq, event.last_seq) for event in found] == [
        ("messages.added", 1, 1),
        ("conversation.updated", None, None),
        ("messages.added", 2, 2),
        ("conversation.deleted", None, None),
    ]
    assert {event.conversation_id for event in found} == {conversation.id}
    assert {event.channel for event in found} == {f"conversation:{conversation.id}"}
    with pytest.raises(FrozenInstanceError):
        found[0].kind = "other"


async def test_checkpoints_are_heard_by_thread_and_together(store, other, take) -> None:
    checkpointer = Checkpointer(other)
    async with (
        store.subscribe("thread:trip") as trip,
        store.subscribe("agent_states", after="0") as states,
    ):
        saved = await checkpointer.save("trip", {"step": 1})
        await checkpointer.save("walk", {"step": 1})
        (event,) = await take(trip, 1)
        assert (event.kind, event.thread, event.namespace) == ("checkpoint.saved", "trip", "")
        assert str(event.checkpoint_id) == str(saved)
        assert [event.thread for event in await take(states, 2)] == ["trip", "walk"]


async def test_a_hint_wakes_who_waits(by_hints_alone, store, other, heard, take) -> None:
    conversation = await other.create_conversation("agent")
    async with store.subscribe(f"session:{conversation.id}") as events:
        waiting = asyncio.ensure_future(take(events, 3))
        await heard(events)
        for _ in range(3):
            await asyncio.sleep(0.2)
            await other.add_message(conversation.id, "user", "hello")
        assert [event.first_seq for event in await waiting] == [1, 2, 3]


class _Realtime:
    """A transport whose hints and events a test gives, and counts its looks."""

    schema, topic, way, is_heard = "haive", "haive:t:tenant", "realtime", True

    def __init__(self):
        self.looks = 0
        self.event = None

    def hints(self):
        return self

    def listen(self, schema, topic, hint):
        self.hint = hint
        return self

    async def call(self, function, arguments, answer, *, safe):
        self.looks += 1
        rows = [dict.fromkeys(_Row.model_fields) | self.event] if self.event else []
        page = {"events": rows, "window": "0", "next": "0/0", "more": False, "topic": self.topic}
        return answer.validate_python(page)

    async def aclose(self):
        pass


async def test_a_made_up_hint_takes_no_look_from_those_behind_it(
    by_hints_alone, eventually
) -> None:
    realtime = _Realtime()
    async with Subscription(lambda: realtime, {"tenant": None}) as events:
        waiting = asyncio.ensure_future(anext(events))
        realtime.hint(2**62)
        await eventually(lambda: realtime.looks == 5)
        realtime.hint(7)  # a moment before its commit is seen
        await eventually(lambda: realtime.looks > 5)
        realtime.event = {"id": 7, "kind": "messages.added", "created_at": datetime.now(UTC)}
        assert (await asyncio.wait_for(waiting, 5)).kind == "messages.added"


@pytest.mark.parametrize("way", ["pooler", "api"])
async def test_where_no_hints_come_it_looks_by_itself(open_store, other, take, way) -> None:
    if way == "pooler":
        store = await open_store("postgres", transaction_pooler=True)
    else:
        store = await open_store("supabase", enable_realtime=False)
    async with store.subscribe("conversations") as events:
        conversation = await other.create_conversation("agent")
        assert (await take(events, 1))[0].conversation_id == conversation.id
        assert store._transport.hints() is None


async def test_it_goes_on_after_a_cursor_with_nothing_twice(store, other, take) -> None:
    conversation = await other.create_conversation("agent")
    for _ in range(5):
        await other.add_message(conversation.id, "user", "hello")
    channel = f"conversation:{conversation.id}"
    async with store.subscribe(channel, after="0") as events:
        first = await take(events, 2)
        assert events.cursor == first[-1].cursor
    async with store.subscribe(channel, after=events.cursor) as events:
        rest = await take(events, 4)
        cursor = events.cursor
    assert [event.first_seq for event in first + rest] == [None, 1, 2, 3, 4, 5]
    await other.add_message(conversation.id, "user", "hello")
    async with store.subscribe(channel, after=cursor) as events:
        assert [event.first_seq for event in await take(events, 1)] == [6]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_callback_gets_the_events(store, other, is_async) -> None:
    found = []

    async def later(event) -> None:
        await asyncio.sleep(0)
        found.append(event.kind)

    on_event = later if is_async else lambda event: found.append(event.kind)
    async with store.subscribe("conversations", on_event=on_event) as events:
        conversation = await other.create_conversation("agent")
        await other.add_message(conversation.id, "user", "hello")
        async with asyncio.timeout(20):
            while len(found) < 2:  # noqa: ASYNC110 - a list has no event
                await asyncio.sleep(0.01)
        with pytest.raises(InvalidInputError, match="on_event"):
            aiter(events)
    assert found == ["conversation.created", "messages.added"]


@pytest.mark.parametrize("waits", [False, True])
async def test_an_error_in_a_callback_ends_the_block_and_is_raised(store, other, waits) -> None:
    def fail(event) -> None:
        raise ZeroDivisionError(event.kind)

    async def hear() -> None:
        async with store.subscribe("conversations", on_event=fail) as events:
            await other.create_conversation("agent")
            await (events.wait() if waits else asyncio.sleep(60))

    with pytest.raises(ZeroDivisionError, match=r"conversation\.created"):
        await hear()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_nothing_is_left_behind(open_store, transport, other) -> None:
    before = asyncio.all_tasks()
    store = await open_store(transport)
    conversation = await other.create_conversation("agent")
    async with store.subscribe("conversations") as first:
        await other.add_message(conversation.id, "user", "hello")
        await anext(first)

        async def wait() -> None:
            async with store.subscribe("agent_states", on_event=print) as events:
                await events.wait()

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    with pytest.raises(StopAsyncIteration):
        await anext(first)
    await store.aclose()
    await asyncio.sleep(0.05)
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert {task.get_name() for task in left} == set()


async def test_several_channels_are_heard_at_once(store, other, take) -> None:
    async with store.events() as events:
        await other.create_conversation("agent")
        await Checkpointer(other).save("trip", {"step": 1})
        assert {event.channel for event in await take(events, 2)} == {
            "conversations",
            "agent_states",
        }
        cursors = events.cursors
    await other.create_conversation("agent")
    async with store.events(after=cursors) as events:
        assert [event.kind for event in await take(events, 1)] == ["conversation.created"]


async def test_the_channels_of_a_store_are_heard_from_its_initialization_on(
    open_store, other, take, tenant, eventually
) -> None:
    store = await open_store("supabase", realtime_channels=["conversations"])
    await other.create_conversation("before")
    await store.initialize()
    conversation = await other.create_conversation("agent")
    hints = store._api.hints()
    await eventually(lambda: hints.hears(f"haive:{tenant}:conversations"))
    assert not hints.hears(f"haive:{tenant}:agent_states")
    async with store.events() as events:
        assert [event.conversation_id for event in await take(events, 1)] == [conversation.id]


async def test_the_channels_of_a_store_are_heard_on_from_where_it_was_left_off(
    open_store, other, take
) -> None:
    store = await open_store("supabase", realtime_channels=["conversations", "agent_states"])
    await store.initialize()
    made = [await other.create_conversation("agent") for _ in range(3)]
    async with store.events("conversations") as events:
        assert [event.conversation_id for event in await take(events, 1)] == [made[0].id]
    async with store.events() as events:
        assert [event.conversation_id for event in await take(events, 1)] == [made[1].id]
    # With a cursor of one's own it is left where it is.
    async with store.events(after={"conversations": "0"}) as events:
        assert [event.conversation_id for event in await take(events, 1)] == [made[0].id]
    async with store.events() as events:
        assert [event.conversation_id for event in await take(events, 1)] == [made[2].id]
    await Checkpointer(other).save("trip", {"step": 1})
    async with store.events() as events:
        assert [event.thread for event in await take(events, 1)] == ["trip"]


async def test_a_store_that_could_not_join_its_channels_joins_them_the_next_time(
    stack, open_store, other, take
) -> None:
    store = await open_store(
        "supabase",
        key=stack.publishable_key,
        access_token=stack.mint_user_token("ada"),
        realtime_channels=["conversations"],
    )
    with pytest.raises(AccessDeniedError):
        await store.initialize()
    await other.set_member("ada", "member")
    await store.initialize()
    conversation = await other.create_conversation("agent", user_id="ada")
    async with store.events() as events:
        assert [event.conversation_id for event in await take(events, 1)] == [conversation.id]


async def test_a_store_that_is_opened_again_joins_its_channels_anew(
    open_store, other, take
) -> None:
    store = await open_store("supabase", realtime_channels=["conversations"])
    await store.initialize()
    await store.aclose()
    await other.create_conversation("meanwhile")
    await store.initialize()
    conversation = await other.create_conversation("agent")
    async with store.events() as events:
        assert [event.conversation_id for event in await take(events, 1)] == [conversation.id]


async def test_a_store_tells_once_that_what_it_had_not_heard_is_gone(
    open_store, other, owner, tenant, take
) -> None:
    store = await open_store("supabase", realtime_channels=["conversations"])
    await store.initialize()
    await other.create_conversation("agent")
    await owner.execute(
        "update haive.events set created_at = now() - interval '8 days' where tenant_id = $1",
        tenant,
    )
    await owner.execute("select haive.apply_retention(tenant => $1)", tenant)
    with pytest.raises(CursorExpiredError):
        async with store.events():
            pass
    async with store.events() as events:
        conversation = await other.create_conversation("agent")
        assert [event.conversation_id for event in await take(events, 1)] == [conversation.id]


async def test_who_is_slow_holds_one_page_and_no_more(store, other, owner, tenant, take) -> None:
    conversation = await other.create_conversation("agent")
    async with store.subscribe("conversations") as events:
        await owner.execute(
            "insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)"
            " select $1, 'messages.added', $2, n, n from generate_series(1, 2000) as s (n)",
            *(tenant, conversation.id),
        )
        found = await take(events, 1)
        assert len(events._readers[0]._buffer) == 499
        found += await take(events, 1999)
    assert [event.first_seq for event in found] == list(range(1, 2001))


async def test_what_cannot_be_heard_is_told_at_once(store) -> None:
    with pytest.raises(NotFoundError):
        async with store.subscribe(f"conversation:{uuid4()}"):
            pass
    with pytest.raises(InvalidInputError):
        async with store.subscribe("nonsense"):
            pass
    with pytest.raises(CursorExpiredError):
        async with store.subscribe("conversations", after="00000000/3:3:"):
            pass


async def test_a_member_hears_of_what_is_theirs(stack, open_store, other, take, heard) -> None:
    await other.set_member("ada", "member")
    await other.set_member("bob", "reader")
    theirs = await other.create_conversation("agent", user_id="ada")
    others = await other.create_conversation("agent", user_id="bob")
    store = await open_store(
        "supabase", key=stack.publishable_key, access_token=stack.mint_user_token("ada")
    )
    with pytest.raises(AccessDeniedError):
        async with store.subscribe("tenant"):
            pass
    with pytest.raises(NotFoundError):
        async with store.subscribe(f"conversation:{others.id}"):
            pass
    async with (
        store.subscribe("conversations") as everything,
        store.subscribe(f"conversation:{theirs.id}") as one,
    ):
        await heard(everything)
        await heard(one)
        await other.add_message(others.id, "user", "not for Ada")
        await other.add_message(theirs.id, "user", "for Ada")
        assert [event.conversation_id for event in await take(everything, 1)] == [theirs.id]
        assert [event.first_seq for event in await take(one, 1)] == [1]
        # It is no longer there, and so no longer theirs.
        await other.delete_conversation(theirs.id)
        with pytest.raises(NotFoundError):
            await take(one, 1)


async def test_a_refreshed_token_goes_on_where_the_old_one_ended(
    stack, open_store, other, take
) -> None:
    await other.set_member("ada", "member")
    await other.set_member("bob", "member")
    conversation = await other.create_conversation("agent", user_id="ada")
    store = await open_store(
        "supabase",
        key=stack.publishable_key,
        access_token=stack.mint_user_token("ada", exp=_in(seconds=3 - _LEEWAY)),
    )
    async with store.subscribe(f"conversation:{conversation.id}") as events:
        await other.add_message(conversation.id, "user", "one")
        assert [event.first_seq for event in await take(events, 1)] == [1]
        await asyncio.sleep(3.5)
        await other.add_message(conversation.id, "user", "two")
        waiting = asyncio.ensure_future(take(events, 1, 30))
        await asyncio.sleep(2.5)
        assert not waiting.done()
        store.set_access_token(stack.mint_user_token("ada"))
        assert [event.first_seq for event in await waiting] == [2]
        # Another user's: what was Ada's is not theirs.
        store.set_access_token(stack.mint_user_token("bob"))
        await other.add_message(conversation.id, "user", "three")
        with pytest.raises(NotFoundError):
            await take(events, 1, 30)


async def test_an_expired_token_is_told_after_a_while(
    stack, open_store, other, take, monkeypatch
) -> None:
    monkeypatch.setattr(events_module, "_TOKEN_PATIENCE", 0.5)
    await other.set_member("ada", "member")
    store = await open_store(
        "supabase",
        key=stack.publishable_key,
        access_token=stack.mint_user_token("ada", exp=_in(seconds=2 - _LEEWAY)),
    )
    async with store.subscribe("conversations") as events:
        await asyncio.sleep(2.5)
        with pytest.raises(AccessDeniedError, match="expired"):
            await take(events, 1, 30)


def _in(*, seconds: int) -> int:
    from time import time  # noqa: PLC0415 - here alone

    return int(time()) + seconds
