"""One client's WebSocket: its channels, and what waits for it to read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web

from haive.core.persistence.local.realtime import limits, wire
from haive.core.persistence.local.realtime.channel import Channel, join
from haive.core.persistence.local.realtime.pace import MUCH

if TYPE_CHECKING:
    from haive.core.persistence.local.realtime.services import Services

log = logging.getLogger(__name__)

# Clients send a heartbeat every 25 seconds.
_SILENCE = 60.0
_PREFIX = "realtime:"
# A whole frame that closes, with code 1001.
_GOING_AWAY = b"\x88\x02\x03\xe9"


class Socket:
    """A client that is connected.

    Frames are gathered while the event loop does one thing, and leave together.

    Args:
        transport: Where frames go: aiohttp reads, and answers pings and closes.
        services: What the channels need.
        arrays: Whether the client speaks version 2.0.0.
        token: The API key, as a token: it counts until a channel brings another one.
        headers: The handshake's own headers (`x-…`) as JSON, for policies.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        services: Services,
        *,
        arrays: bool,
        token: str,
        headers: str,
    ) -> None:
        self._transport = transport
        self._services = services
        self._arrays = arrays
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._joins: deque[float] = deque(maxlen=limits.JOINS_A_SECOND)
        self.token = token
        self.headers = headers
        self.channels: dict[str, Channel] = {}

    def deliver(self, message: wire.Outgoing) -> None:
        """Send a message that goes to others too."""
        frame = message.frame(arrays=self._arrays)
        if frame is not None:
            self._write(frame)

    def send(
        self,
        topic: str,
        event: str,
        payload: object,
        *,
        ref: str | None = None,
        join_ref: str | None = None,
    ) -> None:
        """Send a message to this client alone."""
        self._write(
            wire.encode(topic, event, payload, arrays=self._arrays, ref=ref, join_ref=join_ref)
        )

    def reply(self, message: wire.Message, status: str, response: dict[str, Any]) -> None:
        """Answer a message."""
        self.send(
            message.topic,
            "phx_reply",
            {"status": status, "response": response},
            ref=message.ref,
            join_ref=message.join_ref,
        )

    async def serve(self, websocket: web.WebSocketResponse) -> None:
        """Take what the client sends, until it goes."""
        try:
            async for frame in websocket:
                if frame.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    break  # an error of the protocol, which aiohttp has answered
                try:
                    message = wire.decode(frame.data, arrays=self._arrays)
                except wire.MalformedError:
                    self._flush()
                    await websocket.close(code=WSCloseCode.INVALID_TEXT)
                    break
                if not await self._take(message):
                    self._flush()
                    await websocket.close(code=WSCloseCode.POLICY_VIOLATION)
                    break
                if message.event == "broadcast":
                    await self._services.pace.keep()
        except (TimeoutError, ConnectionError):
            log.info("a client is silent or gone")
        finally:
            for channel in list(self.channels.values()):
                channel.leave()
            self._flush()

    async def _take(self, message: wire.Message) -> bool:
        """Handle a message; False where the client has to go."""
        if message.topic == "phoenix":
            self.reply(message, "ok", {})
            return True
        channel = self.channels.get(message.topic)
        if message.event == "phx_join":
            return await self._join(message, channel)
        if channel is not None:
            await channel.take(message)
        elif message.event == "phx_leave":
            self.reply(message, "ok", {})
        else:
            self.reply(message, "error", {"reason": "unmatched topic"})
        return True

    async def _join(self, message: wire.Message, old: Channel | None) -> bool:
        name = message.topic.removeprefix(_PREFIX)
        if name == message.topic or len(message.topic.encode()) > limits.TOPIC_BYTES:
            self.reply(message, "error", {"reason": "unmatched topic"})
            return True
        if not name:
            reason = "TopicNameRequired: You must provide a topic name"
            self.reply(message, "error", {"reason": reason})
            return True
        if old is not None:
            old.close()
        now = time.monotonic()
        if len(self._joins) == limits.JOINS_A_SECOND and now - self._joins[0] < 1:
            reason = "ClientJoinRateLimitReached: Too many joins per second"
            self.reply(message, "error", {"reason": reason})
            return False
        self._joins.append(now)
        if len(self.channels) >= limits.CHANNELS:
            reason = "ChannelRateLimitReached: Too many channels"
            self.reply(message, "error", {"reason": reason})
            return True
        await join(self, self._services, message, name)
        return True

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read."""
        return self._pending_bytes + self._transport.get_write_buffer_size()

    def cut(self) -> None:
        """End a client that does not read: there is no use in telling it."""
        log.warning("a client does not read: its socket is closed")
        self._pending.clear()
        self._pending_bytes = 0
        self._transport.abort()

    def end(self) -> None:
        """Say that the server goes away."""
        self._write(_GOING_AWAY)
        self._flush()
        self._transport.close()

    def _write(self, frame: bytes) -> None:
        if self._transport.is_closing():
            return
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append(frame)
        self._pending_bytes += len(frame)
        unsent = self.unsent
        if unsent > MUCH:
            self._services.pace.note(self)
            if unsent > limits.UNSENT_BYTES:
                self.cut()

    def _flush(self) -> None:
        if self._pending and not self._transport.is_closing():
            self._transport.write(b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0


async def accept(
    request: web.BaseRequest, services: Services, *, arrays: bool, token: str, headers: str
) -> web.WebSocketResponse:
    """Make a WebSocket of a request, and serve it to its end."""
    websocket = web.WebSocketResponse(
        compress=False, max_msg_size=limits.FRAME_BYTES, receive_timeout=_SILENCE
    )
    await websocket.prepare(request)
    transport = request.transport
    if isinstance(transport, asyncio.Transport):
        socket = Socket(transport, services, arrays=arrays, token=token, headers=headers)
        services.sockets.add(socket)
        try:
            await socket.serve(websocket)
        finally:
            services.sockets.discard(socket)
    return websocket
