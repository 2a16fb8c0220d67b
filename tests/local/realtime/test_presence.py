"""Presence: who is there, who comes and who goes."""

from __future__ import annotations

import asyncio
import json

import pytest


@pytest.fixture
def watch():
    """Note what presence says: `setup=watch(log)`."""

    def of(log):
        def setup(channel, _):
            channel.on_presence_sync(lambda: log.append(("sync",)))
            channel.on_presence_join(lambda key, _, new: log.append(("join", key, new)))
            channel.on_presence_leave(lambda key, _, left: log.append(("leave", key, left)))

        return setup

    return of


async def test_clients_see_each_other_come_change_and_go(
    new_client, join, member, admit, room, watch, eventually
):
    log = []
    alice = await join(await new_client(member), room, presence_key="alice", setup=watch(log))
    await alice.channel.track({"mood": "calm"})
    await eventually(alice.channel.presence_state)

    other = await new_client(await admit(room))
    bob = await join(other, room, presence_key="bob", setup=watch([]))
    await bob.channel.track({"mood": "curious"})
    await eventually(lambda: set(alice.channel.presence_state()) == {"alice", "bob"})
    assert set(bob.channel.presence_state()) == {"alice", "bob"}

    await bob.channel.track({"mood": "away"})
    await eventually(
        lambda: [meta["mood"] for meta in alice.channel.presence_state()["bob"]] == ["away"]
    )

    await other.realtime.close()
    await eventually(lambda: set(alice.channel.presence_state()) == {"alice"})
    assert [entry[1] for entry in log if entry[0] == "leave"] == ["bob", "bob"]
    assert log[-1] == ("sync",) or log[-2][0] == "leave"


async def test_untracking_is_leaving(new_client, join, room, watch, eventually):
    seen = await join(await new_client(), room, private=False, presence_key="s", setup=watch([]))
    one = await join(await new_client(), room, private=False, presence_key="one", setup=watch([]))
    await one.channel.track({})
    await eventually(lambda: "one" in seen.channel.presence_state())
    await one.channel.untrack()
    await eventually(lambda: "one" not in seen.channel.presence_state())


async def test_one_key_may_be_several_clients(new_client, join, room, watch, eventually):
    seen = await join(await new_client(), room, private=False, presence_key="s", setup=watch([]))
    first = await new_client()
    for number, client in enumerate([first, await new_client()]):
        heard = await join(client, room, private=False, presence_key="desk", setup=watch([]))
        await heard.channel.track({"tab": number})
    await eventually(lambda: len(seen.channel.presence_state().get("desk", [])) == 2)
    await first.realtime.close()
    await eventually(lambda: [m["tab"] for m in seen.channel.presence_state()["desk"]] == [1])


async def test_who_may_not_send_may_not_track(new_client, join, admit, room, watch, settled):
    quiet = f"silent-{room}"
    listener = await join(
        await new_client(await admit(quiet)), quiet, presence_key="a", setup=watch([])
    )
    other = await join(
        await new_client(await admit(quiet)), quiet, presence_key="b", setup=watch([])
    )
    answers = []
    push = await other.channel.push("presence", {"event": "track", "payload": {}})
    push.receive("error", answers.append)
    await settled()
    assert listener.channel.presence_state() == {}
    assert answers == [{}]


async def test_what_is_tracked_is_bounded(new_client, join, room, watch, eventually):
    heard = await join(await new_client(), room, private=False, presence_key="k", setup=watch([]))
    await heard.channel.track({"text": "x" * 20_000})
    await eventually(lambda: "Track message size exceeded" in " ".join(heard.errors))
    assert heard.states[-1] == "CLOSED"


@pytest.mark.parametrize(("key", "name"), [(42, "42"), (True, "true"), (False, "false")])
async def test_a_key_may_be_a_number_or_a_truth(connect, joining, room, key, name):
    async with connect() as websocket:
        await websocket.send(joining(room, presence={"key": key, "enabled": True}))
        track = {"type": "presence", "event": "track", "payload": {}}
        message = {"topic": f"realtime:{room}", "event": "presence", "payload": track, "ref": "2"}
        await websocket.send(json.dumps(message))
        async with asyncio.timeout(10):
            while True:
                message = json.loads(await websocket.recv())
                if message["event"] == "presence_diff":
                    break
        assert list(message["payload"]["joins"]) == [name]
