"""How sessions end and go on: by their ttl, by hand, and because they are full."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from haive.core.persistence import SupabaseStore
from haive.core.persistence.errors import (
    AccessDeniedError,
    NotFoundError,
    PersistenceError,
    SessionClosedError,
    SessionFullError,
)
from haive.core.persistence.models import NewMessage
from haive.core.persistence.session import SessionManager, SessionStatus


@pytest.fixture
def raw(owner):
    """A session's row, as it is stored."""

    async def read(session):
        return await owner.fetchrow("select * from haive.sessions where id = $1", session.id)

    return read


# -- ttl -------------------------------------------------------------------------------------------


async def test_a_session_ends_by_the_databases_clock_and_nobody_has_to_come_by(manager, store):
    session = await manager.create_session("ada", ttl=1)
    await manager.add_message(session.id, "user", "in time")
    await asyncio.sleep(1.1)
    for add in (manager.add_message, store.add_message):
        with pytest.raises(SessionClosedError) as refused:
            await add(session.id, "user", "late")
        assert (refused.value.status, refused.value.successor_id) == ("expired", None)
    found = await manager.get_session(session.id)
    assert (found.status, found.message_count, found.closed_at) == (SessionStatus.EXPIRED, 1, None)
    assert found.expires_at - found.active_at == timedelta(seconds=1)
    assert timedelta(seconds=1) < found.idle < timedelta(seconds=60)


async def test_an_expired_session_is_listed_as_such_before_the_job_and_after(
    manager, age, raw, owner, tenant
):
    expired = await manager.create_session("ada", ttl=100)
    lives = await manager.create_session("ada", ttl=200)
    forever = await manager.create_session("ada", ttl=None)
    for each in (expired, lives, forever):
        await age(each, 101)

    async def ids(status):
        return {each.id for each in await manager.list_sessions(status=status)}

    for done in (1, 0):
        assert await ids("expired") == {expired.id}
        assert await ids(["open"]) == {lives.id, forever.id}
        assert await manager.expire_sessions(batch=1) == done
        assert (await raw(expired))["status"] == "expired"
    assert (await raw(expired))["closed_at"] is not None
    told = "select count(*) from haive.events where tenant_id = $1 and kind = 'session.updated'"
    assert await owner.fetchval(told, tenant) == 1


@pytest.mark.parametrize("how", ["message", "batch", "touch", "state"])
async def test_what_is_done_to_a_session_lets_its_ttl_begin_anew(manager, age, how):
    session = await manager.create_session("ada", ttl=100)
    for _ in range(3):
        await age(session, 60)
        if how == "message":
            await manager.add_message(session.id, "user", "still here")
        elif how == "batch":
            await manager.add_messages(session.id, [{"role": "user", "content": "a"}] * 2)
        elif how == "touch":
            await manager.touch(session.id)
        else:
            await manager.update_state(session.id, {"here": True})
    found = await manager.get_session(session.id)
    assert found.is_open
    assert found.idle < timedelta(seconds=50)
    # And reading it does not.
    await age(session, 101)
    await manager.messages(session.id)
    assert not (await manager.get_session(session.id)).is_open


async def test_what_has_ended_is_not_touched_and_resume_opens_it(manager, store, age):
    session = await manager.create_session("ada", ttl=100)
    await age(session, 101)
    for call in (
        manager.touch(session.id),
        manager.update_session(session.id, ttl=5000),
        manager.update_state(session.id, {"a": 1}),
        manager.continue_session(session.id),
    ):
        with pytest.raises(SessionClosedError, match=r"expired.*resume"):
            await call
    opened = await manager.resume(session.id)
    assert opened.is_open
    assert opened.idle < timedelta(seconds=50)
    await store.add_message(session.id, "user", "again")
    # A ttl that is taken away is gone.
    assert (await manager.update_session(session.id, ttl=None)).expires_at is None
    await age(session, 10_000)
    assert (await manager.get_session(session.id)).is_open


async def test_the_job_keeps_its_hands_off_what_is_written_to(manager, age, stack, tenant, owner):
    session = await manager.create_session("ada", ttl=100)
    await age(session, 99)
    async with owner.transaction():
        await owner.execute(
            "select haive_private.append_message($1, $2, gen_random_uuid(), 'user', 'x')",
            *(tenant, session.id),
        )
        assert await manager.expire_sessions() == 0
    assert await manager.expire_sessions() == 0
    assert (await manager.get_session(session.id)).is_open


async def test_closed_is_closed_until_it_is_resumed(manager, store):
    session = await manager.create_session("ada")
    closed = await manager.close(session.id)
    assert (closed.status, closed.is_open) == ("closed", False)
    assert closed.closed_at is not None
    assert (await manager.close(session.id)).closed_at == closed.closed_at
    with pytest.raises(SessionClosedError) as refused:
        await store.add_message(session.id, "user", "x")
    assert refused.value.status == "closed"
    opened = await manager.resume(session.id)
    assert (opened.status, opened.closed_at) == ("open", None)
    await store.add_message(session.id, "user", "x")


async def test_what_was_merged_into_a_deleted_session_is_opened_by_resume(manager, filled, texts):
    primary, secondary = await filled("a"), await filled("b")
    await manager.merge_sessions(primary.id, secondary.id, "append")
    assert (await manager.get_session(secondary.id)).merged_into == primary.id
    await manager.delete_session(primary.id)
    found = await manager.get_session(secondary.id)
    assert (found.status, found.merged_into) == ("merged", None)
    await manager.resume(secondary.id)
    await manager.add_message(secondary.id, "user", "c")
    assert await texts(secondary) == ["b", "c"]


# -- max_messages ----------------------------------------------------------------------------------


async def chain(manager, session):
    """A session and its successors, with their messages."""
    found = []
    while True:
        session = await manager.get_session(session.id)
        found.append((session, await manager.messages(session.id, limit=10_000)))
        if session.successor_id is None:
            return found
        successor = await manager.get_session(session.successor_id)
        assert successor.predecessor_id == session.id
        assert session.status == "continued"
        session = successor


@pytest.mark.parametrize("as_user", [None, "ada"])
async def test_writers_who_race_past_the_limit_are_in_one_chain_without_loss(
    new_manager, open_store, as_user
):
    managers = [new_manager(), new_manager(await open_store())]
    session = await managers[0].create_session("ada", max_messages=16)
    told = []

    async def write(writer):
        for n in range(2):
            message = await managers[writer % 2].add_message(
                session.id, "user", f"{writer} {n}", as_user=as_user
            )
            told.append((message.id, message.conversation_id, message.seq))

    await asyncio.gather(*(write(writer) for writer in range(32)))
    linked = await chain(managers[0], session)
    stored = [message for _, messages in linked for message in messages]
    assert sorted((m.id, m.conversation_id, m.seq) for m in stored) == sorted(told)
    assert len(stored) == 64
    assert [len(messages) for _, messages in linked] == [16] * 4
    # Nobody made a successor of their own.
    assert len(await managers[0].list_sessions()) == 4
    for writer in range(32):
        mine = [m.text for m in stored if m.text.split()[0] == str(writer)]
        assert mine == [f"{writer} {n}" for n in range(2)]


async def test_more_than_there_is_room_for_goes_into_the_successor_as_one(manager, filled, texts):
    session = await filled("a", "b", "c", max_messages=5)
    more = [{"role": "user", "content": each} for each in "defg"]
    added = await manager.add_messages(session.id, more)
    assert await texts(session) == ["a", "b", "c"]
    successor = await manager.get_session(added[0].conversation_id)
    assert await texts(successor) == ["d", "e", "f", "g"]
    assert successor.predecessor_id == session.id


async def test_more_than_any_session_has_room_for_changes_nothing(manager, filled):
    session = await filled("a", max_messages=5)
    more = [{"role": "user", "content": str(n)} for n in range(6)]
    with pytest.raises(SessionFullError, match="max_messages"):
        await manager.add_messages(session.id, more)
    now = await manager.get_session(session.id)
    assert (now.status, now.successor_id, now.message_count) == ("open", None, 1)
    assert len(await manager.list_sessions()) == 1


async def test_a_successor_is_of_the_same_people_and_knows_what_a_branch_inherits(
    manager, filled, age
):
    root = await filled("a", context={"mode": "root", "keep": 1}, ttl=500, max_messages=50)
    await manager.set_participant(root.id, "bob", ["read", "write"])
    await manager.set_participant(root.id, "eve", ["read", "moderate"])
    branch = await manager.branch_session(
        root.id, branch_context={"mode": "branch"}, ttl=500, max_messages=50
    )
    await manager.update_state(branch.id, {"step": 3})
    branch = await manager.get_session(branch.id)
    successor = await manager.continue_session(branch.id)
    assert (await manager.continue_session(branch.id)).id == successor.id
    same = ("agent_id", "user_id", "title", "tags", "state", "permissions", "ttl", "max_messages")
    for name in (*same, "context", "live"):
        assert getattr(successor, name) == getattr(branch, name), name
    assert successor.context == {"mode": "branch", "keep": 1}
    assert (successor.message_count, successor.parent_id) == (0, None)
    # What goes on elsewhere stays as it is, and says where that is.
    for call in (
        manager.resume(branch.id),
        manager.close(branch.id),
        manager.touch(branch.id),
        manager.update_state(branch.id, {"a": 1}),
    ):
        with pytest.raises(SessionClosedError) as refused:
            await call
        assert refused.value.successor_id == successor.id
    message = await manager.add_message(branch.id, "user", "x")
    assert message.conversation_id == successor.id


@pytest.mark.parametrize("transport", ["supabase"], indirect=True)
@pytest.mark.parametrize("role", ["member", "admin"])
async def test_who_fills_a_room_that_nobody_owns_does_not_own_what_it_goes_on_in(
    manager, store, open_store, stack, role
):
    await store.set_member("eve", role)
    token = stack.mint_user_token("eve")
    eve = SessionManager(await open_store(key=stack.publishable_key, access_token=token))
    room = await manager.create_collaborative_session(["eve", "bob"], max_messages=1)
    said = [await eve.add_message(room.id, "user", text) for text in ("one", "two")]
    successor = await manager.get_session(said[1].conversation_id)
    assert successor.predecessor_id == room.id
    assert (successor.user_id, successor.permissions) == (None, room.permissions)
    assert said[1].conversation_id == (await eve.continue_session(room.id)).id
    if role == "member":
        with pytest.raises(AccessDeniedError):
            await eve.remove_participant(successor.id, "bob")
    # Nor is it a thread of theirs.
    threaded = await eve.thread_message(None, "assistant", "user", "three")
    assert threaded.conversation_id not in {room.id, successor.id}


async def test_messages_of_the_parent_count_and_a_merge_may_make_it_longer(manager, filled, texts):
    root = await filled(*"abcd", max_messages=6)
    branch = await manager.branch_session(root.id, max_messages=6)
    for text in "ef":
        message = await manager.add_message(branch.id, "user", text)
        assert message.conversation_id == branch.id
    message = await manager.add_message(branch.id, "user", "g")
    assert message.conversation_id != branch.id
    for text in "xy":
        await manager.add_message(root.id, "assistant", text)
    # It is full, and a merge is no message; nor is its summary, which belongs to it.
    merged = await manager.merge_sessions(root.id, branch.id, "intelligent", "keep_both")
    assert merged.merge.summary_seq == 7
    assert merged.max_messages == 6
    assert merged.message_count == 9
    assert {*"abcdefxy"} < set(await texts(root))
    message = await manager.add_message(root.id, "user", "z")
    assert message.conversation_id != root.id


# -- by the store alone ----------------------------------------------------------------------------


@pytest.fixture
async def unwritable(manager, filled, age):
    """Sessions that take no message, with the error that says so."""
    closed, expired, full, continued, merged = [
        await filled("a", max_messages=most, ttl=100) for most in (9, 9, 1, 9, 9)
    ]
    await manager.close(closed.id)
    await age(expired, 101)
    await manager.continue_session(continued.id)
    await manager.merge_sessions((await filled("b")).id, merged.id, "append")
    return {
        closed.id: SessionClosedError,
        expired.id: SessionClosedError,
        full.id: SessionFullError,
        continued.id: SessionClosedError,
        merged.id: SessionClosedError,
        uuid4(): NotFoundError,
    }


async def test_one_bad_message_of_a_shared_statement_does_not_spoil_the_others(
    manager, store, filled, unwritable, owner, tenant
):
    good = [await filled(), (await store.create_conversation("agent")), await filled()]
    places = [each.id for each in good] * 5 + list(unwritable) * 2
    outcomes = await asyncio.gather(
        *(store.add_message(place, "user", f"{n}") for n, place in enumerate(places)),
        return_exceptions=True,
    )
    for place, outcome in zip(places, outcomes, strict=True):
        if place in unwritable:
            assert type(outcome) is unwritable[place], outcome
        else:
            assert outcome.conversation_id == place
    for place in good:
        stored = await store.get_messages(place.id)
        wanted = [f"{n}" for n, one in enumerate(places) if one == place.id]
        assert [message.text for message in stored] == wanted
    for place in unwritable:
        counted = await owner.fetchval(
            "select count(*) from haive.messages where tenant_id = $1 and conversation_id = $2",
            *(tenant, place),
        )
        assert counted <= 1


@pytest.mark.parametrize("size", [3, 5_000])
async def test_batches_of_any_size_heed_what_a_session_refuses(
    store, filled, unwritable, manager, size
):
    other = await filled()
    for place, error in unwritable.items():
        batch = [
            NewMessage(conversation_id=one, role="user", content=f"{n}")
            for n, one in enumerate([other.id] + [place] * (size - 1))
        ]
        with pytest.raises(PersistenceError) as refused:
            await store.add_messages(batch)
        assert type(refused.value) is error
    assert (await manager.get_session(other.id)).message_count == 0
    added = await store.add_messages(
        [NewMessage(conversation_id=other.id, role="user", content=f"{n}") for n in range(size)]
    )
    assert [message.seq for message in added] == list(range(1, size + 1))
    assert (await manager.get_session(other.id)).message_count == size
    last = await manager.messages(other.id, last=True, limit=2)
    assert [message.text for message in last] == [f"{size - 2}", f"{size - 1}"]


@pytest.mark.parametrize("why", ["closed", "full"])
async def test_what_was_copied_is_found_again_where_the_session_takes_nothing_more(
    store, manager, why
):
    size = 4_100
    session = await manager.create_session("ada", max_messages=size)
    batch = [
        NewMessage(id=uuid4(), conversation_id=session.id, role="user", content=f"{n}")
        for n in range(size)
    ]
    written = await store.add_messages(batch)
    if why == "closed":
        await manager.close(session.id)
    assert await store.add_messages(batch) == written
    others = [each.model_copy(update={"id": uuid4()}) for each in batch]
    with pytest.raises(SessionClosedError if why == "closed" else SessionFullError):
        await store.add_messages(others)


async def test_room_for_some_of_a_copy_is_room_for_none(store, manager):
    session = await manager.create_session("ada", max_messages=4_999)
    batch = [
        NewMessage(conversation_id=session.id, role="user", content=f"{n}") for n in range(5_000)
    ]
    with pytest.raises(SessionFullError):
        await store.add_messages(batch)
    assert (await manager.get_session(session.id)).message_count == 0
    await store.add_messages(batch[1:])
    assert (await manager.get_session(session.id)).message_count == 4_999


async def test_a_user_with_a_token_is_asked_for_permission_by_the_store_too(
    stack, store, manager, tenant
):
    users = [f"{tenant}-{name}" for name in ("reads", "writes", "stranger")]
    for user in users:
        await store.set_member(user, "member")
    session = await manager.create_collaborative_session(
        users[:2], {users[0]: ["read"], users[1]: ["read", "write"]}
    )
    outcomes = []
    for user in users:
        token = stack.mint_user_token(user)
        async with SupabaseStore(stack.url, stack.publishable_key, access_token=token) as theirs:
            for add in (
                theirs.add_message(session.id, "user", user),
                theirs.add_messages(
                    [NewMessage(conversation_id=session.id, role="user", content=user)]
                ),
            ):
                try:
                    await add
                    outcomes.append("written")
                except PersistenceError as error:
                    outcomes.append(type(error))
    assert outcomes == [AccessDeniedError] * 2 + ["written"] * 2 + [NotFoundError] * 2
    authors = {message.author for message in await manager.messages(session.id)}
    assert authors == {users[1]}


# -- retries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ended", ["full", "closed", "expired", "continued"])
async def test_a_message_that_came_in_before_the_end_is_the_same_message_after_it(
    manager, store, age, ended
):
    session = await manager.create_session("ada", max_messages=2, ttl=100)
    ids = [uuid4(), uuid4()]
    for n, each in enumerate(ids):
        await manager.add_message(session.id, "user", f"{n}", id=each)
    if ended == "closed":
        await manager.close(session.id)
    elif ended == "expired":
        await age(session, 101)
    elif ended == "continued":
        await manager.continue_session(session.id)
    before = len(await manager.list_sessions())
    for _ in range(2):
        again = [
            await manager.add_message(session.id, "user", "1", id=ids[1]),
            await manager.add_message(session.id, "user", "1", id=ids[1], as_user="ada"),
            await store.add_message(session.id, "user", "1", id=ids[1]),
        ]
        assert {(each.id, each.conversation_id, each.seq) for each in again} == {
            (ids[1], session.id, 2)
        }
    new = [
        NewMessage(conversation_id=session.id, role="user", content=f"{n}", id=each)
        for n, each in enumerate(ids)
    ]
    for added in (await store.add_messages(new), await manager.add_messages(session.id, new)):
        assert [(each.id, each.seq) for each in added] == [(ids[0], 1), (ids[1], 2)]
    assert len(await manager.list_sessions()) == before
    assert (await manager.get_session(session.id)).message_count == 2


async def test_a_retry_finds_its_message_in_the_successor_too(manager, filled):
    session = await filled("a", max_messages=1)
    again = uuid4()
    first = await manager.add_message(session.id, "user", "b", id=again)
    second = await manager.add_message(session.id, "user", "b", id=again)
    assert first.conversation_id != session.id
    assert (first.conversation_id, first.seq) == (second.conversation_id, second.seq)
    assert len(await manager.list_sessions()) == 2
