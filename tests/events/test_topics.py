"""Who joins the topics of Realtime, who sends on them, and who is seen there."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
import websockets
from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeSubscribeStates

from haive.core.persistence import _supabase_hints
from haive.core.persistence._supabase_hints import SupabaseHints

_PERSONAS = {"ada": "member", "rob": "reader", "bob": "member", "kim": "admin", "out": None}
_THREAD = "the thread: of Ada"


@pytest.fixture
async def topics(other, owner, tenant):
    """Topics of a tenant, in which one conversation and one thread are Ada's, with Rob."""
    for user, role in _PERSONAS.items():
        if role is not None:
            await other.set_member(user, role)
    conversation = await other.create_conversation(
        "agent", user_id="ada", metadata={"participants": ["rob"]}
    )
    await owner.execute(
        "insert into haive.threads (tenant_id, thread_id, user_id) values ($1, $2, 'ada')",
        *(tenant, _THREAD),
    )
    names = {
        "tenant": "tenant",
        "conversations": "conversations",
        "states": "agent_states",
        "conversation": f"conversation:{conversation.id}",
        "session": f"session:{conversation.id}",
        "thread": f"thread:{_THREAD}",
        "unknown": f"conversation:{uuid4()}",
        "nonsense": "nonsense",
    }
    return {name: f"haive:{tenant}:{channel}" for name, channel in names.items()}


_JOIN = {
    "tenant": {"kim"},
    "conversations": {"ada", "rob", "bob", "kim"},
    "states": {"ada", "rob", "bob", "kim"},
    "conversation": {"ada", "rob", "kim"},
    "session": {"ada", "rob", "kim"},
    "thread": {"ada", "kim"},
    "unknown": {"kim"},
    "nonsense": set(),
}
# In a session one is seen, and sends, in its room, which no conversation has.
_SEEN = _JOIN | {"session": set()}
_SEND = {"conversation": {"ada", "kim"}, "unknown": {"kim"}}


async def test_who_hears_joins_and_who_writes_sends_and_readers_are_seen(topics, probe) -> None:
    async def who(name, verb, extension):
        return {user for user in _PERSONAS if await probe(user, topics[name], verb, extension)}

    for name in topics:
        assert await who(name, "select", "broadcast") == _JOIN[name], name
        assert await who(name, "select", "presence") == _SEEN[name], name
        assert await who(name, "insert", "presence") == _SEEN[name], name
        assert await who(name, "insert", "broadcast") == _SEND.get(name, set()), name


async def test_a_topic_of_another_tenant_or_schema_or_of_none_is_refused(
    topics, probe, owner
) -> None:
    await owner.execute(
        "insert into haive.tenants (tenant_id, name) values ('elsewhere', 'E')"
        " on conflict do nothing"
    )
    for topic in (
        "haive:elsewhere:conversations",
        topics["conversations"].replace("haive:", "other:"),
        "haive::conversations",
        "haive",
        "room",
    ):
        assert not await probe("kim", topic, "select", "broadcast"), topic


async def test_a_closed_tenant_lets_nobody_join(topics, probe, owner, tenant) -> None:
    await owner.execute(
        "update haive.tenants set status = 'suspended' where tenant_id = $1", tenant
    )
    assert not await probe("kim", topics["conversations"], "select", "broadcast")


async def test_the_probe_notices_an_open_door(topics, probe, owner) -> None:
    policy = 'create policy "open" on realtime.messages for select to authenticated using (true)'
    await owner.execute(policy)
    try:
        assert await probe("out", topics["tenant"], "select", "broadcast")
    finally:
        await owner.execute('drop policy "open" on realtime.messages')


async def test_the_server_lets_in_whom_the_policies_let_in(stack, topics, other, tenant) -> None:
    async def joined(user, topic, heard):
        client = AsyncRealtimeClient(
            f"{stack.url}/realtime/v1", token=stack.publishable_key, auto_reconnect=False
        )
        await client.set_auth(stack.mint_user_token(user))
        channel = client.channel(
            topic,
            {
                "config": {
                    "private": True,
                    "broadcast": {"self": False, "ack": False},
                    "presence": {"key": "", "enabled": False},
                }
            },
        ).on_broadcast("events", heard.append)
        states = []
        await channel.subscribe(lambda state, _: states.append(state))
        return client, states[0] is RealtimeSubscribeStates.SUBSCRIBED

    heard, unheard = [], []
    rob, may = await joined("rob", topics["conversation"], heard)
    assert may
    bob, may = await joined("bob", topics["conversation"], unheard)
    assert not may
    # As a web client does: the page says the topic, and asks for hints on it.
    channel = topics["conversation"].split(":", 2)[2]
    page = await other._transport._pool._pool.fetchval(
        "select haive.read_events($1, watch => 'realtime', tenant => $2)", *(channel, tenant)
    )
    assert json.loads(page)["topic"] == topics["conversation"]
    await other.add_message(channel.partition(":")[2], "user", "secret words")
    async with asyncio.timeout(20):
        while not heard:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.02)
    # What there is to read, and nothing of what it says.
    assert set(heard[0]["payload"]) == {"event", "id"}
    assert "secret" not in json.dumps(heard, default=str)
    assert unheard == []
    for client in (rob, bob):
        for one in client.get_channels():
            one.rejoin_timer.reset()
            one.join_push.destroy()
        await client.close()


@pytest.fixture
async def listen(monkeypatch):
    """Listen to topics: `await listen(url, key, token, topics)`; counts its connections."""
    connect = AsyncRealtimeClient.connect
    connections = []

    async def counted(client):
        connections.append(client)
        await connect(client)

    monkeypatch.setattr(AsyncRealtimeClient, "connect", counted)
    async with AsyncExitStack() as opened:

        def start(url, key, token, topics):
            hints = SupabaseHints(url, key, token)
            opened.push_async_callback(hints.aclose)
            listeners = [hints.listen("haive", topic, lambda _: None) for topic in topics]
            return hints, listeners, connections

        yield start


async def test_more_topics_than_a_connection_carries_are_heard_and_left(
    stack, topics, tenant, listen, eventually
) -> None:
    asked = [f"haive:{tenant}:conversation:{uuid4()}" for _ in range(120)]
    token = stack.mint_user_token("kim")
    _, listeners, connections = listen(stack.url, stack.publishable_key, token, asked)
    most = 0
    async with asyncio.timeout(20):
        while most < len(asked):
            await asyncio.sleep(0.02)
            heard = sum(listener.is_heard for listener in listeners)
            assert heard >= most, "a topic was lost again"
            most = heard
    assert len(connections) == 2
    for listener in listeners[:100]:
        await listener.aclose()
    assert [one.is_heard for one in listeners] == [False] * 100 + [True] * 20


async def test_a_topic_that_has_moved_to_another_connection_is_heard_there(
    stack, topics, tenant, listen, eventually, monkeypatch
) -> None:
    monkeypatch.setattr(_supabase_hints, "TOPICS", 2)
    moved, slow, last = (f"haive:{tenant}:conversation:{uuid4()}" for _ in range(3))
    held, free = asyncio.Event(), asyncio.Event()
    subscribe = AsyncRealtimeChannel.subscribe

    async def held_up(channel, *arguments):
        if channel.topic.endswith(slow):
            held.set()
            await free.wait()
        return await subscribe(channel, *arguments)

    monkeypatch.setattr(AsyncRealtimeChannel, "subscribe", held_up)
    token = stack.mint_user_token("kim")
    hints, (first,), _ = listen(stack.url, stack.publishable_key, token, [moved])
    await eventually(lambda: first.is_heard)
    hints.listen("haive", slow, lambda _: None)
    await held.wait()
    # While the first connection is busy, another topic takes the place of the one that was left.
    await first.aclose()
    other = hints.listen("haive", last, lambda _: None)
    hinted: list[int] = []
    again = hints.listen("haive", moved, hinted.append)
    await eventually(lambda: hinted)
    free.set()
    await eventually(lambda: other.is_heard)
    assert again.is_heard


async def test_a_realtime_that_hangs_up_is_called_ever_more_seldom(listen) -> None:
    async def hang_up(websocket):
        await websocket.recv()

    async with websockets.serve(hang_up, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        _, _, connections = listen(url, "key", "token", ["topic"])
        await asyncio.sleep(5)
    assert len(connections) <= 7


@pytest.fixture
async def silent():
    """The address of a Realtime that takes connections and says nothing."""

    async def listen(websocket):
        await websocket.wait_closed()

    async with websockets.serve(listen, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_topics_on_several_connections_are_left_at_once(listen, silent, eventually) -> None:
    topics = [f"topic {number}" for number in range(120)]
    hints, listeners, connections = listen(silent, "key", "token", topics)
    await eventually(lambda: len(connections) == 2)
    await asyncio.gather(*(listener.aclose() for listener in listeners))
    again = hints.listen("haive", "topic 0", lambda _: None)
    await eventually(lambda: len(connections) == 3)
    await again.aclose()


async def test_connections_are_closed_beside_each_other(
    listen, silent, eventually, monkeypatch
) -> None:
    both = asyncio.Barrier(2)
    close = AsyncRealtimeClient.close

    async def slowly(client):
        await both.wait()
        await close(client)

    monkeypatch.setattr(AsyncRealtimeClient, "close", slowly)
    topics = [f"topic {number}" for number in range(120)]
    hints, _, connections = listen(silent, "key", "token", topics)
    await eventually(lambda: len(connections) == 2)
    async with asyncio.timeout(15):  # one by one each would be given up after ten
        await hints.aclose()
