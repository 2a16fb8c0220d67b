"""Sessions live: who is there, what happens, over the SDK and the real supabase-js."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from haive.core.persistence.errors import (
    AccessDeniedError,
    CursorExpiredError,
    NotFoundError,
    PersistenceError,
    QuotaExceededError,
    TenantSuspendedError,
    TokenExpiredError,
    UnsupportedOperationError,
)
from haive.core.persistence.session import SessionManager

PEOPLE = {
    "ada": ["read", "write", "moderate"],
    "bob": ["read", "write"],
    "cleo": ["read"],
}


async def all_of(stream):
    """What comes until it ends."""
    return [each async for each in stream]


@pytest.fixture(params=["supabase"])
def transport(request):
    return request.param


@pytest.fixture
async def as_user(stack, store, open_store):
    """A manager that acts for a user of the tenant: `await as_user("ada")`."""

    async def make(user):
        await store.set_member(user, "member")
        return SessionManager(
            await open_store(
                enable_realtime=True,
                key=stack.publishable_key,
                access_token=stack.mint_user_token(user),
            )
        )

    return make


@pytest.fixture
async def shared(manager):
    return await manager.create_collaborative_session(list(PEOPLE), PEOPLE)


async def test_those_who_join_see_each_other_come_change_and_go(as_user, shared, eventually):
    ada, bob = await as_user("ada"), await as_user("bob")
    async with ada.join(shared.id, "ada", {"typing": False}) as one:
        await eventually(lambda: one.here == {"ada": [{"typing": False}]})
        async with bob.join(shared.id, "bob") as two:
            await eventually(lambda: set(one.here) == set(two.here) == {"ada", "bob"})
            await one.update(typing=True)
            await eventually(lambda: two.here["ada"] == [{"typing": True}])
        await eventually(lambda: set(one.here) == {"ada"})


async def test_iterating_tells_of_each_change(as_user, shared):
    ada, bob = await as_user("ada"), await as_user("bob")
    async with ada.join(shared.id, "ada") as one, bob.join(shared.id, "bob"):
        async with asyncio.timeout(5):
            async for here in one:
                if "bob" in here:
                    break


async def test_presence_that_was_not_entered_says_so(as_user, shared):
    ada = await as_user("ada")
    with pytest.raises(PersistenceError, match=r"`async with manager\.join"):
        await anext(aiter(ada.join(shared.id, "ada")))


async def test_readers_are_seen_and_strangers_hear_nothing(as_user, shared, eventually):
    cleo, dan = await as_user("cleo"), await as_user("dan")
    async with cleo.join(shared.id, "cleo") as presence:
        await eventually(lambda: "cleo" in presence.here)
        with pytest.raises(NotFoundError):
            async with dan.join(shared.id, "dan"):
                pass


async def test_who_is_removed_is_cut_off_and_the_others_move_on(as_user, shared, eventually):
    ada, bob = await as_user("ada"), await as_user("bob")
    async with ada.join(shared.id, "ada") as one:
        async with bob.join(shared.id, "bob") as two:
            await eventually(lambda: set(one.here) == {"ada", "bob"})
            await ada.remove_participant(shared.id, "bob")
            for _ in range(2):
                with pytest.raises(NotFoundError):
                    await asyncio.wait_for(all_of(two), 5)
            assert two.here == {}
        await eventually(lambda: set(one.here) == {"ada"})
        assert (await ada.get_session(shared.id)).topic != shared.topic


async def test_who_iterates_is_told_that_another_task_has_left(as_user, shared, eventually):
    ada = await as_user("ada")
    async with ada.join(shared.id, "ada") as presence:
        looking = [asyncio.create_task(all_of(presence)) for _ in range(2)]
        await eventually(lambda: presence.here)
        await asyncio.sleep(0.5)  # nothing more happens, and they wait
        await presence.aclose()
        await asyncio.wait_for(asyncio.gather(*looking), 5)


@pytest.fixture
def fails(monkeypatch):
    """Let watching fail once, when it is told to: `now = fails(manager, error)`, `now.set()`."""

    def make(manager, error):
        watch, now = manager.watch, asyncio.Event()

        async def broken():
            await now.wait()
            raise error
            yield

        @asynccontextmanager
        async def watching(session_id):
            if not now.is_set():
                yield broken()
            else:
                async with watch(session_id) as events:
                    yield events

        monkeypatch.setattr(manager, "watch", watching)
        return now

    return make


@pytest.mark.parametrize(
    "error",
    [
        TokenExpiredError("The token has expired."),
        TenantSuspendedError("The tenant is suspended."),
        QuotaExceededError("Too many."),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_presence_ends_with_what_ends_watching(as_user, shared, fails, error):
    ada = await as_user("ada")
    now = fails(ada, error)
    async with ada.join(shared.id, "ada") as presence:
        now.set()
        with pytest.raises(type(error)):
            await asyncio.wait_for(all_of(presence), 5)


async def test_presence_outlives_a_minute_without_requests(
    as_user, shared, eventually, monkeypatch
):
    ada, bob = await as_user("ada"), await as_user("bob")
    get, refused = ada.get_session, []

    async def at_its_quota(*args, **given):
        if not refused:
            refused.append(QuotaExceededError("Too many.", resource="requests", retry_after=1))
            raise refused[0]
        return await get(*args, **given)

    async with ada.join(shared.id, "ada") as one:
        await eventually(lambda: "ada" in one.here)
        monkeypatch.setattr(ada, "get_session", at_its_quota)
        await bob.remove_participant(shared.id, "bob")
        cleo = await as_user("cleo")
        async with cleo.join(shared.id, "cleo"):
            await eventually(lambda: refused and set(one.here) == {"ada", "cleo"})


async def test_who_is_removed_while_joining_is_told_so_at_once(as_user, shared, monkeypatch):
    ada = await as_user("ada")
    get, asked = ada.get_session, []

    async def removed_meanwhile(*args, **given):
        asked.append(args)
        if len(asked) > 1:
            raise NotFoundError("No session.")
        return await get(*args, **given)

    async def never(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(ada, "get_session", removed_meanwhile)
    monkeypatch.setattr("haive.core.persistence._supabase_room.Room._run", never)
    with pytest.raises(NotFoundError):
        async with asyncio.timeout(5), ada.join(shared.id, "ada"):
            pass


async def test_presence_outlives_events_that_are_kept_no_longer(as_user, shared, fails, eventually):
    ada, bob = await as_user("ada"), await as_user("bob")
    now = fails(ada, CursorExpiredError("They are gone."))
    async with ada.join(shared.id, "ada") as one:
        await bob.remove_participant(shared.id, "bob")
        now.set()
        cleo = await as_user("cleo")
        async with cleo.join(shared.id, "cleo"):
            await eventually(lambda: set(one.here) == {"ada", "cleo"})


async def test_a_subscription_ends_for_who_is_removed(as_user, shared):
    ada, bob = await as_user("ada"), await as_user("bob")
    async with bob.watch(shared.id) as events:
        message = await ada.add_message(shared.id, "user", "Hello.")
        async with asyncio.timeout(5):
            event = await anext(aiter(events))
        assert (event.kind, event.first_seq) == ("messages.added", message.seq)
        await ada.remove_participant(shared.id, "bob")
        await ada.add_message(shared.id, "user", "Only for us.")
        with pytest.raises(NotFoundError):
            await asyncio.wait_for(all_of(events), 5)


async def test_a_session_on_demand_is_read_and_not_watched(as_user, manager):
    session = await manager.create_collaborative_session(["ada"], synchronization="on-demand")
    ada = await as_user("ada")
    await ada.add_message(session.id, "user", "Read me later.")
    assert [m.text for m in await ada.messages(session.id)] == ["Read me later."]
    with pytest.raises(NotFoundError):
        async with ada.watch(session.id):
            pass
    with pytest.raises(AccessDeniedError):
        async with ada.join(session.id, "ada"):
            pass


async def test_a_direct_connection_names_the_way_out(open_store, manager, shared):
    direct = SessionManager(await open_store("postgres"))
    with pytest.raises(UnsupportedOperationError, match="SupabaseStore"):
        async with direct.join(shared.id, "ada"):
            pass


async def test_supabase_js_is_in_the_same_session(as_user, shared, tenant, supabase_js, eventually):
    ada, bob = await as_user("ada"), await supabase_js("bob")
    await as_user("bob")
    bob.tell("join", topic=shared.topic, private=True, key="bob")
    await eventually(lambda: bob.has_said(state="SUBSCRIBED"))
    bob.tell("track", payload={"device": "browser"})
    async with ada.join(shared.id, "ada") as presence, ada.watch(shared.id) as events:
        await eventually(lambda: presence.here.get("bob") == [{"device": "browser"}])
        await eventually(lambda: bob.has_said(present=["ada", "bob"]))

        said = {"role": "user", "content": "From the browser."}
        session = {"session_id": str(shared.id), "tenant": tenant}
        bob.tell("call", function="add_session_messages", arguments=session | {"messages": [said]})
        async with asyncio.timeout(5):
            event = await anext(aiter(events))
        (message,) = await ada.messages(shared.id)
        assert (event.kind, message.text, message.author) == (
            "messages.added",
            "From the browser.",
            "bob",
        )

        # The browser hears of what Python writes by a hint on the session's channel, and reads it.
        watch = {"channel": f"session:{shared.id}", "watch": "realtime", "tenant": tenant}
        bob.tell("call", function="read_events", arguments=watch)
        await eventually(lambda: bob.has_said(called="read_events"))
        (begun,) = [said for said in bob.said if said.get("called") == "read_events"]
        bob.tell("join", topic=begun["data"]["topic"], private=True, key="bob")
        await eventually(lambda: sum(said.get("state") == "SUBSCRIBED" for said in bob.said) == 2)
        await ada.add_message(shared.id, "assistant", "From Python.")
        await eventually(lambda: bob.has_said(heard="events"))
        bob.tell("call", function="session_messages", arguments=session | {"last": True})
        await eventually(lambda: bob.has_said(called="session_messages"))
        (page,) = [said for said in bob.said if said.get("called") == "session_messages"]
        assert "From Python." in str(page["data"])


async def test_supabase_js_of_a_stranger_is_refused(shared, store, tenant, supabase_js, eventually):
    await store.set_member("dan", "member")
    dan = await supabase_js("dan")
    for topic in (shared.topic, shared.topic.rpartition(":")[0]):
        dan.said.clear()
        dan.tell("join", topic=topic, private=True, key="dan")
        await eventually(lambda: dan.has_said(state="CHANNEL_ERROR"))


async def test_presence_is_only_where_nobody_stays_who_was_removed(
    shared, store, supabase_js, eventually
):
    # The session's channel carries hints; its room carries who is there.
    await store.set_member("bob", "member")
    bob = await supabase_js("bob")
    bob.tell("join", topic=shared.topic.rpartition(":")[0], private=True, key="bob")
    await eventually(lambda: bob.has_said(state="SUBSCRIBED"))
    bob.tell("track", payload={})
    await eventually(lambda: any("tracked" in said for said in bob.said))
    assert not bob.has_said(tracked="ok")
    assert not any(said.get("present") for said in bob.said)


@pytest.mark.parametrize("user", ["bob", "cleo"])
async def test_writers_send_on_the_channel_and_readers_only_hear(
    shared, store, supabase_js, user, eventually
):
    for name in ("ada", user):
        await store.set_member(name, "member")
    ada, other = await supabase_js("ada"), await supabase_js(user)
    for script, key in ((ada, "ada"), (other, user)):
        script.tell("join", topic=shared.topic, private=True, key=key)
        await eventually(lambda script=script: script.has_said(state="SUBSCRIBED"))
    other.tell("send", event="typing", payload={"who": user})
    if user == "bob":
        await eventually(lambda: ada.has_said(heard="typing", payload={"who": "bob"}))
    ada.tell("send", event="typing", payload={"who": "ada"})
    await eventually(lambda: other.has_said(heard="typing", payload={"who": "ada"}))
    if user == "cleo":
        assert not ada.has_said(heard="typing")
