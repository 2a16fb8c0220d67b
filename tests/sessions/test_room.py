"""A room, and a Realtime that refuses, fails or keeps silent."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest
import websockets

from haive.core.persistence import _supabase_room
from haive.core.persistence._supabase_room import Room
from haive.core.persistence.errors import AccessDeniedError, UnavailableError

EXPIRED = "InvalidJWTToken: Token has expired 1 seconds ago"
STARTING = "InitializingProjectConnection: Realtime is initializing the project connection"
OK = None
SILENCE = "silence"


class Realtime:
    """Answers joins: with a reason to refuse them, with "ok", or not at all."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.connections = 0
        self.joined = []
        self.url = ""
        self._sockets = set()

    async def serve(self, websocket):
        self.connections += 1
        self._sockets.add(websocket)
        async for frame in websocket:
            message = json.loads(frame)
            if message["event"] != "phx_join":
                continue
            # The last answer is for all that follow.
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer is SILENCE:
                continue
            self.joined.append(message["topic"])
            response = {} if answer is OK else {"reason": answer}
            payload = {"status": "ok" if answer is OK else "error", "response": response}
            await websocket.send(json.dumps(message | {"event": "phx_reply", "payload": payload}))

    async def drop(self):
        for websocket in self._sockets:
            await websocket.close()


@pytest.fixture
async def open_realtime():
    """Start a server: `await open_realtime(EXPIRED, OK)`."""
    async with AsyncExitStack() as opened:

        async def start(*answers):
            realtime = Realtime(*answers)
            server = await opened.enter_async_context(
                websockets.serve(realtime.serve, "127.0.0.1", 0)
            )
            realtime.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return realtime

        yield start


@pytest.fixture
async def open_room():
    """A room of a server: `open_room(realtime, changed)`."""
    async with AsyncExitStack() as opened:

        def make(realtime, changed=lambda: None):
            room = Room(realtime.url, "key", lambda: "token", "ada", changed)
            opened.push_async_callback(room.aclose)
            return room

        yield make


async def test_a_room_that_refuses_later_is_asked_ever_more_seldom(
    open_realtime, open_room, eventually
):
    realtime = await open_realtime(OK, EXPIRED)
    told = []
    room = open_room(realtime, lambda: told.append(room.here))
    await room.enter("room", {})
    await realtime.drop()
    await eventually(lambda: len(realtime.joined) == 2)
    await asyncio.sleep(2)
    assert realtime.connections <= 5
    assert told == []  # nobody came and nobody went


@pytest.mark.parametrize("cut", [lambda room: room.renew(), lambda room: room.move("other")])
async def test_a_new_token_or_topic_does_not_wait(open_realtime, open_room, eventually, cut):
    realtime = await open_realtime(OK, EXPIRED, EXPIRED, OK)
    room = open_room(realtime)
    await room.enter("room", {})
    await realtime.drop()
    await eventually(lambda: len(realtime.joined) == 3)
    await asyncio.sleep(0.2)  # it waits for seconds now
    cut(room)
    async with asyncio.timeout(0.4):
        while len(realtime.joined) < 4:  # noqa: ASYNC110 - the server has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "reason",
    [
        EXPIRED,
        "Unauthorized: You do not have permissions",
        # From before there were codes.
        "You do not have permissions to read from this Channel topic: room",
        "Token has expired 1 seconds ago",
    ],
)
async def test_who_may_not_enter_is_told_so_at_once(open_realtime, open_room, reason):
    realtime = await open_realtime(reason)
    with pytest.raises(AccessDeniedError):
        await open_room(realtime).enter("room", {})
    assert realtime.connections == 1


async def test_who_may_enter_later_is_not_refused(open_realtime, open_room):
    realtime = await open_realtime(STARTING, OK)
    await open_room(realtime).enter("room", {})


async def test_a_realtime_that_keeps_silent_is_unavailable(open_realtime, open_room, monkeypatch):
    monkeypatch.setattr(_supabase_room, "_TIMEOUT", 1)
    with pytest.raises(UnavailableError):
        await open_room(await open_realtime(SILENCE)).enter("room", {})
