"""Which session a message goes to, by each strategy."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from haive.core.persistence.errors import (
    ConflictError,
    InvalidInputError,
    UnsupportedOperationError,
)
from haive.core.persistence.session import SessionManager, ThreadingStrategy

TABLE = "Book a table at an Italian restaurant in San Jose"
SNOW = "Will it snow in the mountains of Norway tomorrow?"
ROOM = "Is there a free table at that Italian restaurant in San Jose tonight?"


@pytest.fixture
def say(manager):
    """Thread a message, and return the id of its session: `await say("Hello.", user="bob")`."""

    async def thread(text, user="ada", using=manager, agent="a", **more):
        message = await using.thread_message(user, agent, "user", text, **more)
        return message.conversation_id

    return thread


async def test_linear_goes_on_in_the_latest_open_session(say, manager, age):
    first = await say("one")
    assert await say("two") == first
    other = await manager.create_session("ada", "a")
    assert await say("three") == other.id
    await age(other, 60)
    await manager.add_message(first, "assistant", "later")
    assert await say("four") == first
    await manager.close(first)
    assert await say("five") == other.id
    await manager.close(other.id)
    assert await say("six", context={"begun": "anew"}) not in {first, other.id}


async def test_an_expired_session_is_not_the_latest_open_one(say, new_manager, age):
    manager = new_manager(default_ttl=100)
    first = await say("one", using=manager)
    await age(await manager.get_session(first), 101)
    assert await say("two", using=manager) != first


async def test_who_asks_the_database_for_threads_gets_those_that_take_messages(
    say, new_manager, age
):
    manager = new_manager(default_ttl=100)
    first = await say("one", using=manager)
    threads = {"user_id": "ada", "threads": True, "page_size": 1}
    assert [each.id for each in await manager._calls.page(threads)] == [first]
    with pytest.raises(InvalidInputError, match="page_after"):
        await manager._calls.page({**threads, "page_after": str(first)})
    await age(await manager.get_session(first), 101)
    assert await manager._calls.page(threads) == []


@pytest.mark.parametrize("since", ["closed", "expired", "rested", "not the latest"])
async def test_a_message_that_is_said_again_is_the_one_that_was_stored(new_manager, age, since):
    config = {"default_ttl": 100} if since == "expired" else {}
    if since == "rested":
        config = {"threading_strategy": ThreadingStrategy.TIME_BASED, "time_gap": 1800}
    using = new_manager(**config)
    said = ("ada", "a", "user", "one")
    first = await using.thread_message(*said, id=(again := uuid4()))
    session = await using.get_session(first.conversation_id)
    if since == "closed":
        await using.close(session.id)
    elif since == "not the latest":
        await using.create_session("ada", "a")
    else:
        await age(session, 101 if since == "expired" else 1900)
    before = len(await using.list_sessions())
    for _ in range(2):
        assert await using.thread_message(*said, id=again) == first
    assert len(await using.list_sessions()) == before


@pytest.mark.parametrize(
    "other", [("bob", "a", "user", "one"), ("ada", "b", "user", "one"), ("ada", "a", "user", "two")]
)
async def test_the_id_of_another_message_is_refused_and_begins_no_session(manager, other):
    first = await manager.thread_message("ada", "a", "user", "one", id=uuid4())
    await manager.close(first.conversation_id)
    with pytest.raises(ConflictError):
        await manager.thread_message(*other, id=first.id)
    assert [each.id for each in await manager.list_sessions()] == [first.conversation_id]


async def test_the_id_of_a_message_of_no_session_is_refused_too(manager, store):
    plain = await store.create_conversation("a", "ada")
    there = await store.add_message(plain.id, "user", "one")
    with pytest.raises(ConflictError):
        await manager.thread_message("ada", "a", "user", "one", id=there.id)


async def test_branches_and_other_agents_and_users_are_left_alone(say, manager):
    first = await say("one")
    branch = await manager.branch_session(first)
    assert await say("two") == first
    assert await say("three", agent="b") not in {first, branch.id}
    assert await say("four", user="bob") not in {first, branch.id}


@pytest.mark.parametrize("strategy", ["linear", "time_based", "topic_based"])
async def test_the_latest_session_is_found_among_any_number_that_began_later(
    say, new_manager, owner, tenant, strategy
):
    using = new_manager(threading_strategy=strategy, max_open_sessions=5)
    first = await say(SNOW, using=using)
    ids = [UUID(int=2**128 - n) for n in range(1, 2003)]
    await owner.execute(
        "insert into haive.conversations (tenant_id, id, agent_id, user_id, is_session)"
        " select $1, unnest($2::uuid[]), 'a', 'ada', true",
        *(tenant, ids),
    )
    # Half of them rest, and half are branches.
    rest = "insert into haive.sessions (tenant_id, id, active_at) select $1, unnest($2::uuid[]), $3"
    await owner.execute(rest, tenant, ids[:1001], datetime.now(UTC) - timedelta(minutes=1))
    branch = (
        "insert into haive.sessions (tenant_id, id, parent_id, parent_segment)"
        " select $1, unnest($2::uuid[]), $3, 0"
    )
    await owner.execute(branch, tenant, ids[1001:], first)
    assert await say(SNOW, using=using) == first


async def test_a_service_that_names_nobody_writes_into_no_users_session(say, manager):
    of_ada = await say("one")
    room = await manager.create_collaborative_session(["ada", "bob"], agent_id="a")
    first = await say("two", user=None)
    assert first not in {of_ada, room.id}
    assert (await manager.get_session(first)).user_id is None
    assert await say("three", user=None) == first
    assert await say("four") == of_ada


@pytest.mark.parametrize("transport", ["supabase"], indirect=True)
@pytest.mark.parametrize("role", ["member", "admin"])
async def test_a_user_with_a_token_writes_into_their_own(
    say, manager, store, open_store, stack, role
):
    await store.set_member("bob", role)
    of_ada = await manager.create_session("ada", "a")
    await manager.set_participant(of_ada.id, "bob", ["read", "write"])
    token = stack.mint_user_token("bob")
    bob = SessionManager(await open_store(key=stack.publishable_key, access_token=token))
    first = await say("one", user=None, using=bob)
    assert first != of_ada.id
    assert (await manager.get_session(first)).user_id == "bob"
    assert await say("two", user=None, using=bob) == first


async def test_by_time_a_rest_longer_than_the_gap_begins_a_new_session(say, new_manager, age):
    manager = new_manager(threading_strategy=ThreadingStrategy.TIME_BASED, time_gap=1800)
    first = await say("one", using=manager)
    await age(await manager.get_session(first), 1700)
    assert await say("two", using=manager) == first
    await age(await manager.get_session(first), 1900)
    assert await say("three", using=manager) != first


async def test_by_topic_two_topics_are_two_sessions_in_a_new_process_too(say, new_manager):
    settings = {"threading_strategy": ThreadingStrategy.TOPIC_BASED}
    manager = new_manager(**settings)
    table, snow = await say(TABLE, using=manager), await say(SNOW, using=manager)
    assert table != snow
    assert await say(ROOM, using=manager) == table
    assert await say(SNOW, using=new_manager(**settings)) == snow
    one = new_manager(**settings, topic_similarity_threshold=0)
    assert await say("Anything.", using=one) in {table, snow}
    each = new_manager(**settings, topic_similarity_threshold=1)
    assert await say(ROOM, using=each) not in {table, snow}


async def test_messages_at_once_begin_one_session(say):
    assert len(set(await asyncio.gather(*(say(f"message {n}") for n in range(20))))) == 1


async def test_by_hand_no_session_is_chosen(say, new_manager):
    with pytest.raises(UnsupportedOperationError, match="by hand"):
        await say("one", using=new_manager(threading_strategy="manual"))


async def test_a_full_session_goes_on_and_so_does_its_thread(say, new_manager):
    manager = new_manager(max_messages_per_session=2)
    placed = [await say(f"message {n}", using=manager) for n in range(5)]
    assert placed[0] == placed[1] != placed[2] == placed[3] != placed[4]
    assert (await manager.get_session(placed[0])).successor_id == placed[2]


async def test_previous_sessions_are_those_that_all_who_take_part_see(manager, filled):
    """Whoever asks: the names may be what a user wrote."""
    of_ada = await filled("secret")
    shared = await manager.create_collaborative_session(["mallory", "bob"])
    names = {"previous_sessions": [str(of_ada.id), str(shared.id)]}
    theirs = await manager.create_session("mallory", context=names)
    room = await manager.create_collaborative_session(["mallory", "bob"], context=names)
    other = await manager.create_collaborative_session(["mallory", "dan"], context=names)
    of_nobody = await manager.create_session(context=names)
    # The answer is read by bob, who may have written the names.
    with_bob = await manager.create_collaborative_session(["bob"], user_id="ada", context=names)
    for session, seen in (
        (theirs, [False, True]),
        (room, [False, True]),
        (other, [False, False]),
        (of_nobody, [True, True]),
        (with_bob, [False, False]),
    ):
        for named in (session, session.id):
            found = await manager.previous_sessions(named)
            assert [each.session is not None for each in found] == seen
            assert found[0].messages == [] or session is of_nobody


@pytest.mark.parametrize("transport", ["supabase"], indirect=True)
async def test_previous_sessions_are_found_for_a_user_by_name(manager, store, open_store, stack):
    await store.set_member("bob", "member")
    earlier = await manager.create_session("bob")
    names = {"previous_sessions": [str(earlier.id)]}
    session = await manager.create_session("ada", context=names)
    await manager.set_participant(session.id, "bob", ["read"])
    token = stack.mint_user_token("bob")
    bob = SessionManager(await open_store(key=stack.publishable_key, access_token=token))
    for using in (bob, manager):
        (found,) = await using.previous_sessions(session.id)
        assert found.session is None
        (found,) = await using.previous_sessions(session.id, as_user="bob")
        assert found.session.id == earlier.id


async def test_previous_sessions_are_found_for_those_who_may_see_them(manager, filled):
    earlier = await filled("a", "b", "c")
    named = [str(earlier.id), "session-456", str(manager.store.__class__)]
    session = await manager.create_session("ada", context={"previous_sessions": named})
    found, *others = await manager.previous_sessions(session, messages=2)
    assert (found.session.id, [m.text for m in found.messages]) == (earlier.id, ["b", "c"])
    assert [(each.session, list(each.messages)) for each in others] == [(None, [])] * 2
    await manager.set_participant(session.id, "bob", ["read"])
    hidden, *_ = await manager.previous_sessions(session, as_user="bob")
    assert hidden.session is None
