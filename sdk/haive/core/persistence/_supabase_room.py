"""Who is on a private realtime topic: a presence of our own, and those of others."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

from haive.core.persistence._supabase_topics import thrown_away
from haive.core.persistence.errors import AccessDeniedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from realtime import AsyncRealtimeChannel
    from realtime.types import RealtimeChannelOptions

_log = logging.getLogger("haive.core.persistence.events")

# Seconds until a lost connection, or a room that was refused, is tried again, growing.
_LOST = (0.1, 10.0)
_REFUSED = (1.0, 30.0)
# How a join's answer begins that is no other before a new token or another policy comes: with a
# code, or with the words alone, as of a Realtime that somebody hosts and that has no codes yet.
_REFUSALS = (
    *("Unauthorized", "InvalidJWT", "MalformedJWT", "JwtSignatureError"),
    *("You do not have permissions", "Token has expired"),
)
# Seconds between looks whether the connection is still there: the client does not tell.
_PULSE = 0.5
_TIMEOUT = 10

#: Who is there, by name: a state for each of their connections.
Presences = dict[str, list[dict[str, Any]]]


class Room:
    """A topic with those who are on it; comes back by itself after a lost connection.

    Args:
        url: The address of the project's Realtime.
        key: The key of the project.
        token: The user's token now, if it acts for one.
        name: The name to be seen under; several connections may have the same.
        changed: Called when somebody came, went or changed.
    """

    def __init__(
        self,
        url: str,
        key: str,
        token: Callable[[], str | None],
        name: str,
        changed: Callable[[], None],
    ) -> None:
        self._url = url
        self._key = key
        self._token = token
        self._name = name
        self._changed = changed
        self._topic = ""
        self._state: dict[str, Any] = {}
        self._channel: AsyncRealtimeChannel | None = None
        self._refused = False
        self._turned = asyncio.Event()
        self._stale = False
        self._task: asyncio.Task[None] | None = None
        #: Who is there, as far as is known now.
        self.here: Presences = {}

    @property
    def is_of_a_user(self) -> bool:
        """Whether a user's token decides what is seen, and not a key alone."""
        return self._token() is not None

    async def enter(self, topic: str, state: Mapping[str, Any]) -> None:
        """Be on a topic from now on, and return when seen there.

        Raises:
            AccessDeniedError: It was refused.
            UnavailableError: Realtime did not answer in time.
        """
        self._topic, self._state = topic, dict(state)
        self._task = asyncio.create_task(self._run(), name="haive room")
        try:
            async with asyncio.timeout(2 * _TIMEOUT):
                while self._channel is None and not self._refused:
                    self._turned.clear()
                    await self._turned.wait()
        except TimeoutError:
            await self.aclose()
            raise UnavailableError("Realtime did not answer in time.") from None
        if self._refused:
            await self.aclose()
            raise AccessDeniedError("Realtime lets the caller not be seen there.")

    async def change(self, state: Mapping[str, Any]) -> None:
        """Be seen with another state."""
        self._state = dict(state)
        if self._channel is not None:
            await self._channel.track(self._state)

    def move(self, topic: str) -> None:
        """Go to another topic."""
        if topic != self._topic:
            self._topic = topic
            self.renew()

    def renew(self) -> None:
        """Connect anew, with the token of now."""
        self._stale = True
        self._turned.set()

    async def aclose(self) -> None:
        """Leave."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        delay = 0.0
        while True:
            client = AsyncRealtimeClient(
                self._url, token=self._key, auto_reconnect=False, max_retries=1, timeout=_TIMEOUT
            )
            try:
                self._stale = self._refused = False
                await client.set_auth(self._token() or self._key)
                await client.connect()
                if await self._serve(client):
                    delay = 0.0
            except Exception as error:  # noqa: BLE001 - the client raises whatever it met
                _log.debug("realtime: %s", type(error).__name__)
            finally:
                self._channel = None
                try:
                    await thrown_away(client)
                finally:
                    # Last, for what was on its way is still told meanwhile.
                    before, self.here = self.here, {}
            if before:
                self._changed()
            first, longest = _REFUSED if self._refused else _LOST
            delay = min(max(2 * delay, first), longest)
            await self._pause(delay * random.uniform(0.5, 1.0))  # noqa: S311 # nosec B311

    async def _serve(self, client: AsyncRealtimeClient) -> bool:
        """Be there until the connection is lost, or it is to be made anew.

        Returns:
            Whether it was there at all.
        """
        config: RealtimeChannelOptions = {
            "config": {
                "broadcast": {"ack": False, "self": False},
                "presence": {"key": self._name, "enabled": True},
                "private": True,
            }
        }
        channel = client.channel(self._topic, config)
        channel.on_presence_sync(lambda: self._seen(channel))
        told: list[tuple[RealtimeSubscribeStates, Exception | None]] = []
        await channel.subscribe(lambda state, error: told.append((state, error)))
        if not told or told[-1][0] is not RealtimeSubscribeStates.SUBSCRIBED:
            self._refused = bool(told) and _is_refusal(told[-1][1])
            self._turned.set()
            return False
        await channel.track(self._state)
        self._channel = channel
        self._turned.set()
        while client.is_connected and channel.is_joined and not self._stale:
            await self._pause(_PULSE)
        return True

    async def _pause(self, seconds: float) -> None:
        """Wait, unless it is to be made anew before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._stale:
                    self._turned.clear()
                    await self._turned.wait()

    def _seen(self, channel: AsyncRealtimeChannel) -> None:
        self.here = {
            name: [
                {key: value for key, value in each.items() if key != "presence_ref"}
                for each in states
            ]
            for name, states in channel.presence_state().items()
        }
        self._changed()


def _is_refusal(error: Exception | None) -> bool:
    """Whether a join was refused by the policies or for the token, and did not just fail."""
    try:
        answer = json.loads(str(error))
    except ValueError:
        return False
    reason = answer.get("reason") if isinstance(answer, dict) else None
    return isinstance(reason, str) and reason.startswith(_REFUSALS)
