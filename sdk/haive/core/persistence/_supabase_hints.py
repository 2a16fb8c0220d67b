"""Hints by Supabase Realtime, on one connection for all subscribers of a project's client.

The platform's client is used for one connection each time and then thrown away: left to itself it
gives up after a few failed attempts in a task that nobody looks at, and forgets a channel that the
server has closed. This watches it, and begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

if TYPE_CHECKING:
    from collections.abc import Callable

    from realtime import AsyncRealtimeChannel
    from realtime.types import RealtimeChannelOptions

_log = logging.getLogger("haive.core.persistence.events")

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0
# Seconds until a topic that was refused or closed is joined again, growing.
_FIRST_REJOIN, _LONGEST_REJOIN = 1.0, 30.0
# Seconds between looks whether the connection is still there: the client does not tell.
_PULSE = 0.5
_TIMEOUT = 10


class _Listener:
    def __init__(self, home: SupabaseHints, topic: str, hint: Callable[[int], None]) -> None:
        self.topic = topic
        self.hint = hint
        self._home = home

    @property
    def is_heard(self) -> bool:
        return self.topic in self._home.heard

    async def aclose(self) -> None:
        await self._home.leave(self)


class SupabaseHints:
    """Joins the private topics that somebody listens to, and joins them again when it must."""

    way: Literal["notify", "realtime"] = "realtime"

    def __init__(self, url: str, key: str, token: str | None) -> None:
        self._url = f"{url.rstrip('/')}/realtime/v1"
        self._key = key
        self._token = token
        self._listeners: dict[str, set[_Listener]] = {}
        #: The topics whose hints arrive now.
        self.heard: set[str] = set()
        self._changed = asyncio.Event()
        self._stale = False
        self._refused: dict[str, tuple[float, float]] = {}
        self._task: asyncio.Task[None] | None = None

    def set_token(self, token: str | None) -> None:
        """Go on as the user of another token, on a new connection."""
        self._token = token
        self._stale = True
        self._refused.clear()
        self._changed.set()

    def listen(self, schema: str, topic: str, hint: Callable[[int], None]) -> _Listener:
        """Listen to a topic; see `Hints.listen`."""
        del schema  # it is in the topic
        listener = _Listener(self, topic, hint)
        self._listeners.setdefault(topic, set()).add(listener)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="haive hints")
        return listener

    async def leave(self, listener: _Listener) -> None:
        """Listen no more; the last one closes the connection."""
        others = self._listeners.get(listener.topic, set())
        others.discard(listener)
        if not others:
            self._listeners.pop(listener.topic, None)
            self._changed.set()
        if not self._listeners:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _hint(self, topic: str, message: object = None) -> None:
        event = _event_of(message)
        for listener in list(self._listeners.get(topic, ())):
            listener.hint(event)

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            client = AsyncRealtimeClient(
                self._url, token=self._key, auto_reconnect=False, max_retries=1, timeout=_TIMEOUT
            )
            try:
                self._stale = False
                # Headers never reach the topics: the token goes in when they are joined.
                await client.set_auth(self._token or self._key)
                await client.connect()
                delay = _FIRST_DELAY
                await self._serve(client)
            except Exception as error:  # noqa: BLE001 - the client raises whatever it met
                _log.debug("realtime: %s", type(error).__name__)
            finally:
                self.heard.clear()
                await thrown_away(client)
            for topic in list(self._listeners):
                self._hint(topic)  # from now on each looks by itself
            if not self._stale:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 # nosec B311
                delay = min(delay * 2, _LONGEST_DELAY)

    async def _serve(self, client: AsyncRealtimeClient) -> None:
        """Join what is asked for and leave what is not, until the connection is lost."""
        joined: dict[str, AsyncRealtimeChannel] = {}
        while client.is_connected and not self._stale:
            self._changed.clear()
            now = monotonic()
            for topic, channel in list(joined.items()):
                if topic not in self._listeners or topic in self._refused:
                    del joined[topic]
                    self.heard.discard(topic)
                    channel.subscribe_callback = None
                    if not channel.is_closed:
                        # Not remove_channel, which forgets the timer of its own farewell.
                        await channel.unsubscribe()
            due = [
                topic
                for topic in self._listeners
                if topic not in joined and self._refused.get(topic, (0.0, 0.0))[0] <= now
            ]
            for topic in due:
                joined[topic] = self._channel(client, topic)
            await asyncio.gather(
                *(joined[topic].subscribe(partial(self._told, topic)) for topic in due)
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(_PULSE):
                    await self._changed.wait()

    def _channel(self, client: AsyncRealtimeClient, topic: str) -> AsyncRealtimeChannel:
        config: RealtimeChannelOptions = {
            "config": {
                "broadcast": {"ack": False, "self": False},
                "presence": {"key": "", "enabled": False},
                "private": True,
            }
        }
        return client.channel(topic, config).on_broadcast("events", partial(self._hint, topic))

    def _told(self, topic: str, state: RealtimeSubscribeStates, error: Any) -> None:
        if state is RealtimeSubscribeStates.SUBSCRIBED:
            self.heard.add(topic)
            self._refused.pop(topic, None)
            self._hint(topic)  # what was sent before is lost
            return
        _log.debug("realtime: %s is %s (%s)", topic, state.value, error)
        self.heard.discard(topic)
        _, delay = self._refused.get(topic, (0.0, _FIRST_REJOIN / 2))
        delay = min(delay * 2, _LONGEST_REJOIN)
        self._refused[topic] = (monotonic() + delay, delay)
        self._changed.set()
        self._hint(topic)


def _event_of(message: object) -> int:
    """The event that a broadcast tells of; whoever may send on a topic may have made it up."""
    payload = message.get("payload") if isinstance(message, dict) else None
    event = payload.get("event") if isinstance(payload, dict) else None
    return event if isinstance(event, int) else 0


async def thrown_away(client: AsyncRealtimeClient) -> None:
    """Close a client with the timers of its channels, which outlive it otherwise."""
    channels = client.get_channels()
    for channel in channels:
        channel.subscribe_callback = None
    with suppress(Exception):
        async with asyncio.timeout(_TIMEOUT):
            await client.close()
    for channel in channels:
        channel.rejoin_timer.reset()
        channel.join_push.destroy()
        for push in list(channel.messages_waiting_for_ack.values()):
            push.destroy()
