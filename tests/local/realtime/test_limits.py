"""Nothing that clients do makes the server grow without end, or stand still for others."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import aiohttp
import pytest
import websockets

from haive.core.persistence.local.realtime import limits


async def answer(websocket):
    return json.loads(await asyncio.wait_for(websocket.recv(), 10))


async def closing_code(websocket):
    with suppress(websockets.ConnectionClosed):
        while True:
            await asyncio.wait_for(websocket.recv(), 10)
    return websocket.close_code


async def test_a_frame_that_is_too_large_closes_the_socket(connect):
    async with connect() as websocket:
        with suppress(websockets.ConnectionClosed):
            await websocket.send("x" * (limits.FRAME_BYTES + 1))
        assert await closing_code(websocket) == 1009


async def test_a_broadcast_that_is_too_large_is_not_sent(new_client, join, room, settled):
    listener = await join(await new_client(), room, private=False)
    sender = await join(await new_client(), room, private=False, acknowledge=True)
    answers = []
    message = {"type": "broadcast", "event": "x", "payload": {"x": "x" * limits.BROADCAST_BYTES}}
    push = await sender.channel.push("broadcast", message)
    push.receive("error", answers.append)
    await settled()
    assert answers == [{"reason": "payload_size_exceeded"}]
    assert listener.broadcasts == []


@pytest.mark.parametrize(
    "frame", ["no json", "[]", "{}", '{"topic": 1}', "null", b"\x09", b"\x03\xff"]
)
async def test_a_frame_that_is_no_message_closes_the_socket(connect, frame):
    for vsn in ("1.0.0", "2.0.0"):
        async with connect(vsn=vsn) as websocket:
            await websocket.send(frame)
            assert await closing_code(websocket) == 1007


async def test_channels_of_a_socket_are_counted(connect, joining):
    async with connect() as websocket:
        for number in range(limits.CHANNELS):
            await websocket.send(joining(f"room-{number}"))
            assert (await answer(websocket))["payload"]["status"] == "ok"
            if number == limits.CHANNELS // 2:
                await asyncio.sleep(1)  # within the rate of joins
        await websocket.send(joining("one-more"))
        refused = (await answer(websocket))["payload"]
        assert refused["response"]["reason"] == "ChannelRateLimitReached: Too many channels"


async def test_who_joins_too_fast_is_sent_away(connect, joining):
    async with connect() as websocket:
        for number in range(limits.JOINS_A_SECOND + 1):
            await websocket.send(joining("same", ref=str(number)))
        assert await closing_code(websocket) == 1008


@pytest.mark.parametrize("topic", ["", "x" * limits.TOPIC_BYTES])
async def test_a_channel_needs_a_name_of_some_length(connect, joining, topic):
    async with connect() as websocket:
        await websocket.send(joining(topic))
        assert (await answer(websocket))["payload"]["status"] == "error"


async def test_what_is_sent_to_a_channel_that_is_not_joined_has_an_answer(connect):
    async with connect() as websocket:
        message = {"topic": "realtime:x", "event": "broadcast", "payload": {}, "ref": "1"}
        await websocket.send(json.dumps(message))
        assert (await answer(websocket))["payload"]["response"] == {"reason": "unmatched topic"}


async def test_a_wrong_key_gets_no_socket(connect):
    with pytest.raises(websockets.InvalidStatus):
        async with connect(key="sb_publishable_wrong"):
            pass


async def test_a_secret_key_in_a_browser_gets_no_socket(stack, connect):
    with pytest.raises(websockets.InvalidStatus):
        async with connect(key=stack.secret_key, user_agent_header="Mozilla/5.0"):
            pass


async def test_a_plain_request_gets_no_socket(stack):
    url = f"{stack.url}/realtime/v1/websocket?apikey={stack.publishable_key}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 400


async def test_a_client_that_does_not_read_is_cut_off_and_others_hear_all(
    connect, joining, new_client, join, room, database, eventually
):
    reading = await join(await new_client(), room, private=False)
    async with connect(max_queue=1, ping_interval=None) as idle:
        await idle.send(joining(room))
        await answer(idle)
        await database.execute(
            "select realtime.send(jsonb_build_object('x', repeat('x', 100000)), 'wide', $1, false)"
            " from generate_series(1, 300)",
            room,
        )
        await eventually(lambda: len(reading.broadcasts) == 300)
        assert await closing_code(idle) == 1006


async def test_what_is_sent_over_http_goes_at_the_pace_of_those_who_read(
    stack, connect, joining, room
):
    body = {"topic": room, "event": "wide", "payload": {"x": "x" * 100_000}}
    url = f"{stack.url}/realtime/v1/api/broadcast"
    heard = 0

    async def send_all():
        async with aiohttp.ClientSession(headers={"apikey": stack.publishable_key}) as session:
            for _ in range(50):
                async with session.post(url, json={"messages": [body]}) as response:
                    assert response.status == 202

    async with connect(max_queue=1, ping_interval=None) as slow:
        await slow.send(joining(room))
        await answer(slow)
        sending = asyncio.gather(*(send_all() for _ in range(6)))
        while heard < 300:
            await answer(slow)
            heard += 1
            await asyncio.sleep(0.02)
        await sending


@pytest.mark.parametrize(
    ("event", "levels"), [("broadcast", 300), ("presence", 250), ("presence", 300)]
)
async def test_what_is_nested_too_deeply_is_refused_and_harms_nobody(
    connect, joining, room, event, levels
):
    deep = json.loads("[" * levels + "]" * levels)
    payload = {"type": event, "event": "track", "payload": {"deep": deep}}
    message = {"topic": f"realtime:{room}", "event": event, "payload": payload, "ref": "2"}
    config = {"presence": {"key": "deep", "enabled": True}, "broadcast": {"ack": True}}
    async with connect() as websocket, connect() as other:
        await websocket.send(joining(room, **config))
        await websocket.send(json.dumps(message))
        while (refused := await answer(websocket))["ref"] != "2":
            pass
        assert refused["payload"] == {
            "status": "error",
            "response": {"reason": "InvalidPayload: The payload is nested too deeply"},
        }
        await other.send(joining(room, **config))
        assert (await answer(other))["payload"]["status"] == "ok"


async def test_a_client_may_wait_until_the_log_is_read(connect, joining):
    async with connect() as websocket:
        await websocket.send(joining("x", broadcast={"replication_ready": True}))
        assert (await answer(websocket))["payload"]["status"] == "ok"
        told = (await answer(websocket))["payload"]
        assert (told["status"], told["message"]) == ("ok", "Replication connection established")


async def test_a_client_may_have_its_join_wait_for_changes(connect, joining, rooms):
    asked = {"event": "*", "schema": "public", "table": "nothing_of_the_kind"}
    options = {"postgres_changes": [asked], "postgres_changes_options": {"wait": True}}
    async with connect() as websocket:
        await websocket.send(joining("x", **options))
        refused = (await answer(websocket))["payload"]
        assert refused["status"] == "error"
        assert refused["response"]["reason"].startswith("RealtimeDisabledForConfiguration: ")


@pytest.mark.parametrize("replay", [{"since": "now"}, {"since": 0, "limit": 26}, [], {"limit": 1}])
async def test_a_replay_that_cannot_be_is_refused(stack, connect, joining, replay):
    async with connect(key=stack.secret_key) as websocket:
        await websocket.send(joining("x", private=True, broadcast={"replay": replay}))
        refused = (await answer(websocket))["payload"]
        assert refused["response"]["reason"].startswith("UnableToReplayMessages: ")
