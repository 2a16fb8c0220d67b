"""A client's channel: joining, sending, tracking, a new token, and its end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from haive.core.persistence.local.realtime import limits
from haive.core.persistence.local.realtime.authorization import BROADCAST, PRESENCE
from haive.core.persistence.local.realtime.bindings import number
from haive.core.persistence.local.realtime.hub import Address, Room
from haive.core.persistence.local.realtime.replay import Replay
from haive.core.persistence.local.realtime.tokens import (
    Identity,
    RefusedError,
    read_token,
    refuse_expired,
)
from haive.core.persistence.local.realtime.wire import Message, Outgoing, OutgoingBlob

if TYPE_CHECKING:
    from haive.core.persistence.local.realtime.bindings import Binding
    from haive.core.persistence.local.realtime.services import Services
    from haive.core.persistence.local.realtime.socket import Socket

# A timer for ten years would not fit: the token is looked at again every hour.
_LONGEST_TIMER = 3600.0
_READY_TIMEOUT = 10.0
_NO_PERSISTENCE = "persist is not supported by the local stack: use realtime.send"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a client asks for when it joins."""

    private: bool
    acknowledge: bool
    hear_myself: bool
    presence_key: str
    hear_presence: bool
    replay: Replay | None
    tell_when_ready: bool
    changes: list[dict[str, Any]]
    wait_for_changes: bool

    @classmethod
    def of(cls, payload: dict[str, Any]) -> Options:
        """Read the payload of a join; what is missing or of another type is off.

        Raises:
            RefusedError: A replay that cannot be.
        """
        config = _object(payload, "config")
        broadcast = _object(config, "broadcast")
        presence = _object(config, "presence")
        changes = config.get("postgres_changes")
        private = config.get("private") is True
        return cls(
            private=private,
            acknowledge=broadcast.get("ack") is True,
            hear_myself=broadcast.get("self") is True,
            presence_key=_text(presence.get("key")),
            hear_presence=presence.get("enabled") is True,
            replay=Replay.of(broadcast["replay"], private=private)
            if "replay" in broadcast
            else None,
            tell_when_ready=broadcast.get("replication_ready") is True,
            changes=[item for item in changes if isinstance(item, dict)]
            if isinstance(changes, list)
            else [],
            wait_for_changes=_object(config, "postgres_changes_options").get("wait") is True,
        )


async def join(socket: Socket, services: Services, message: Message, name: str) -> None:
    """Answer a join: the channel is there, or there is a reason why not."""
    try:
        await _join(socket, services, message, name)
    except RefusedError as refused:
        socket.reply(message, "error", {"reason": refused.reason})


async def _join(socket: Socket, services: Services, message: Message, name: str) -> None:
    options = Options.of(message.payload)
    token = _token(message.payload) or socket.token
    channel = Channel(
        socket=socket,
        services=services,
        name=name,
        topic=message.topic,
        join_ref=message.join_ref or message.ref,
        options=options,
        token=token,
        identity=read_token(token, services.jwt_secret),
    )
    await channel.authorize()
    asked = number(options.changes)
    refused = await channel.bind(asked)
    if refused is not None and options.wait_for_changes:
        raise refused
    replayed = [] if options.replay is None else await channel.replay(options.replay)
    channel.enter()
    socket.reply(message, "ok", {"postgres_changes": asked})
    if refused is not None:
        channel.tell("postgres_changes", "error", refused.message)
    elif asked:
        channel.tell("postgres_changes", "ok", "Subscribed to PostgreSQL")
    for old in replayed:
        socket.deliver(old)
    channel.show_presence()
    if options.tell_when_ready:
        channel.tell_when_ready()


class Channel:
    """A client in a room."""

    def __init__(
        self,
        *,
        socket: Socket,
        services: Services,
        name: str,
        topic: str,
        join_ref: str | None,
        options: Options,
        token: str,
        identity: Identity,
    ) -> None:
        self.socket = socket
        self.topic = topic
        self.address = Address(name, options.private)
        self.identity = identity
        # Without a key of its own a client is there under a name that nobody else has.
        self.presence_key = options.presence_key or f"{id(self):x}-{time.time_ns():x}"
        self.bindings: list[Binding] = []
        self._services = services
        self._join_ref = join_ref
        self._options = options
        self._token = token
        self._readable: frozenset[str] = frozenset()
        self._may_send: dict[str, bool] = {}
        self._presence_enabled = options.hear_presence
        self._room: Room | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[None] | None = None

    @property
    def hears_broadcasts(self) -> bool:
        """Whether broadcasts are for this client."""
        return not self.address.private or BROADCAST in self._readable

    @property
    def hears_presence(self) -> bool:
        """Whether presences are for this client, and it wants them."""
        allowed = not self.address.private or PRESENCE in self._readable
        return self._presence_enabled and allowed

    async def authorize(self) -> None:
        """Ask the policies what this client may receive.

        Raises:
            RefusedError: Nothing.
        """
        if not self.address.private:
            return
        self._readable = await self._services.authorization.readable(
            self.identity,
            self.address.name,
            (BROADCAST, PRESENCE) if self._presence_enabled else (BROADCAST,),
            self.socket.headers,
        )
        if not self._readable:
            raise self._unauthorized()

    async def bind(self, asked: list[dict[str, Any]]) -> RefusedError | None:
        """Subscribe to changes of tables: to all that is asked for, or there is a reason."""
        try:
            self.bindings = await self._services.changes.bind(asked, self.identity)
        except RefusedError as refused:
            return refused
        return None

    async def replay(self, replay: Replay) -> list[Outgoing]:
        """Return the broadcasts of the past that the client asks for.

        Raises:
            RefusedError: It may not receive broadcasts.
        """
        if BROADCAST not in self._readable:
            raise self._unauthorized()
        return await replay.messages(self._services.database, self.topic, self.address.name)

    def enter(self) -> None:
        """Begin to hear what is said."""
        self._room = self._services.hub.enter(self)
        self._services.changes.add(self)
        self.socket.channels[self.topic] = self
        self._watch_expiry()

    def leave(self) -> None:
        """End it without a word."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._waiting is not None:
            self._waiting.cancel()
        self._services.hub.leave(self)
        self._services.changes.remove(self)
        if self.socket.channels.get(self.topic) is self:
            del self.socket.channels[self.topic]

    def close(self, reason: str | None = None) -> None:
        """End it from our side, and say so."""
        if reason is not None:
            self.tell("system", "error", reason)
        self.leave()
        self.socket.send(self.topic, "phx_close", {}, ref=self._join_ref, join_ref=self._join_ref)

    def tell(self, extension: str, status: str, text: str) -> None:
        """Send a message of the system."""
        payload = {
            "channel": self.address.name,
            "extension": extension,
            "status": status,
            "message": text,
        }
        self.socket.send(self.topic, "system", payload, join_ref=self._join_ref)

    def show_presence(self) -> None:
        """Send who is there, to who wants to know."""
        if self._room is not None and self.hears_presence:
            state = self._room.presence.state()
            self.socket.send(self.topic, "presence_state", state, join_ref=self._join_ref)

    def tell_when_ready(self) -> None:
        """Say when rows of the database arrive, or that they do not."""

        async def wait() -> None:
            try:
                await asyncio.wait_for(self._services.streaming.wait(), _READY_TIMEOUT)
            except TimeoutError:
                self._waiting = None
                self.close("Replication connection was not established in time")
            else:
                self.tell("system", "ok", "Replication connection established")

        self._waiting = asyncio.create_task(wait())

    async def take(self, message: Message) -> None:
        """Handle what the client sends to this channel."""
        try:
            match message.event:
                case "broadcast":
                    await self._broadcast(message)
                case "presence":
                    await self._presence(message)
                case "access_token":
                    await self._renew(message)
                case "phx_leave":
                    self.socket.reply(message, "ok", {})
                    self.close()
        except RefusedError as refused:
            self.socket.reply(message, "error", {"reason": refused.reason})

    async def _broadcast(self, message: Message) -> None:
        if not await self._sends(BROADCAST):
            return  # as on the platform: no word of it
        if message.wants_persistence:
            self.socket.reply(message, "error", {"error": _NO_PERSISTENCE})
            return
        event = message.payload.get("event")
        if message.blob is None:
            body = _encoded(message.payload)
            outgoing = Outgoing(self.topic, "broadcast", orjson.Fragment(body))
        else:
            body = message.blob
            outgoing = OutgoingBlob(self.topic, str(event), body, None)
        if len(body) > limits.BROADCAST_BYTES:
            if self._options.acknowledge:
                self.socket.reply(message, "error", {"reason": "payload_size_exceeded"})
            return
        myself = None if self._options.hear_myself else self
        self._services.hub.broadcast(self.address, outgoing, but=myself)
        if self._options.acknowledge:
            self.socket.reply(message, "ok", {})

    async def _presence(self, message: Message) -> None:
        room = self._room
        if room is None:
            return
        event = str(message.payload.get("event")).lower()
        if event == "untrack":
            difference = room.presence.untrack(self)
        elif event != "track":
            self.socket.reply(message, "error", {"reason": "unknown presence event"})
            return
        else:
            payload = message.payload.get("payload", {})
            if not isinstance(payload, dict):
                reason = "Presence track payload must be a map"
                self.socket.reply(message, "error", {"reason": reason})
                return
            # As deep as it will be in a frame.
            if len(_encoded([[[[[payload]]]]])) > limits.PRESENCE_BYTES:
                self.close("Track message size exceeded")
                return
            if not await self._sends(PRESENCE):
                self.socket.reply(message, "error", {})
                return
            difference = room.presence.track(self, payload)
        self.socket.reply(message, "ok", {})
        if not self._presence_enabled and event == "track":
            await self._enable_presence()
        if difference is not None:
            self._services.hub.tell_presence(room, difference)

    async def _enable_presence(self) -> None:
        """Show presence to a client that tracks, though it had not asked to see any."""
        self._presence_enabled = True
        if self.address.private:
            self._readable |= await self._services.authorization.readable(
                self.identity, self.address.name, (PRESENCE,), self.socket.headers
            )
        self.show_presence()

    async def _renew(self, message: Message) -> None:
        """Take a new token: what it may not receive ends the channel."""
        token = _token(message.payload)
        if token is None or token == self._token:
            return
        before = self._readable
        try:
            self.identity = read_token(token, self._services.jwt_secret)
            await self.authorize()
        except RefusedError as refused:
            self.close(refused.message)
            return
        if before - self._readable:
            self.close(
                "You no longer have permission to read from this Channel topic:"
                f" {self.address.name}"
            )
            return
        self._token = token
        self._may_send.clear()
        self._watch_expiry()

    async def _sends(self, extension: str) -> bool:
        if not self.address.private:
            return True
        allowed = self._may_send.get(extension)
        if allowed is None:
            allowed = await self._services.authorization.may_send(
                self.identity, self.address.name, extension, self.socket.headers
            )
            self._may_send[extension] = allowed
        return allowed

    def _unauthorized(self) -> RefusedError:
        return RefusedError(
            "Unauthorized",
            f"You do not have permissions to read from this Channel topic: {self.address.name}",
        )

    def _watch_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        remaining = self.identity.expires_at - time.time()
        self._expiry = asyncio.get_running_loop().call_later(
            min(max(remaining, 0), _LONGEST_TIMER), self._confirm
        )

    def _confirm(self) -> None:
        try:
            refuse_expired(self.identity)
        except RefusedError as refused:
            self.close(refused.message)
        else:
            self._watch_expiry()


def _text(value: object) -> str:
    """Return a text, number or truth as text."""
    if isinstance(value, bool | int | float):
        return orjson.dumps(value).decode()
    return value if isinstance(value, str) else ""


def _encoded(payload: object) -> bytes:
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError as error:
        raise RefusedError("InvalidPayload", "The payload is nested too deeply") from error


def _object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _token(payload: dict[str, Any]) -> str | None:
    """Return the token that a client brings; opaque keys are no tokens."""
    token = payload.get("access_token") or payload.get("user_token")
    if not isinstance(token, str) or token.startswith("sb_"):
        return None
    return token
