"""Private topics of Supabase Realtime on one connection, joined again when it must.

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
from typing import TYPE_CHECKING, Any, Final

from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

if TYPE_CHECKING:
    from collections.abc import Callable

    from realtime import AsyncRealtimeChannel
    from realtime.types import RealtimeChannelOptions

_log = logging.getLogger("haive.core.persistence.events")

#: Topics on one connection: the platform takes no more.
TOPICS: Final = 100
# Seconds between joins, of which the platform takes 100 a second, others' too; and how many are
# waited for together.
_BETWEEN_JOINS = 0.02
_PORTION = 25
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0
# Seconds until a topic that was refused or closed is joined again, growing.
_FIRST_REJOIN, _LONGEST_REJOIN = 1.0, 30.0
# Seconds between looks whether the connection is still there: the client does not tell.
_PULSE = 0.5
_TIMEOUT = 10


class Pace:
    """Lets joins begin one after the other, on all connections of a store together."""

    def __init__(self) -> None:
        self._next = 0.0

    async def turn(self) -> None:
        """Wait until the next join may begin."""
        now = monotonic()
        at = max(self._next, now)
        self._next = at + _BETWEEN_JOINS
        await asyncio.sleep(at - now)


class Topics:
    """Topics that are listened to on one connection.

    Args:
        url: The address of the project's Realtime.
        key: The key of the project.
        token: The token to join with now.
        hint: Called with a topic and an event at every hint, and when hints may have been lost.
        pace: When to join.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        token: Callable[[], str],
        hint: Callable[[str, int], None],
        pace: Pace,
    ) -> None:
        self._url = url
        self._key = key
        self._token = token
        self._hint = hint
        self._pace = pace
        self._topics: dict[str, None] = {}
        self._joined: dict[str, AsyncRealtimeChannel] = {}
        self._heard: set[str] = set()
        self._changed = asyncio.Event()
        self._stale = False
        self._refused: dict[str, tuple[float, float]] = {}
        self._delay = _FIRST_DELAY
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._topics)

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    def hears(self, topic: str) -> bool:
        """Whether hints of a topic arrive here now."""
        return topic in self._topics and topic in self._heard

    def join(self, topic: str) -> None:
        """Listen to one more topic, while it is open."""
        self._topics[topic] = None
        self._changed.set()

    def leave(self, topic: str) -> None:
        """Listen to a topic no more."""
        if self._topics.pop(topic, self) is None:
            self._refused.pop(topic, None)
            self._changed.set()

    def renew(self) -> None:
        """Connect anew, with the token of now."""
        self._stale = True
        self._refused.clear()
        self._changed.set()

    def open(self) -> None:
        """Connect, unless it does already."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="haive hints")

    async def aclose(self) -> None:
        """Close the connection."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            client = AsyncRealtimeClient(
                self._url, token=self._key, auto_reconnect=False, max_retries=1, timeout=_TIMEOUT
            )
            try:
                self._stale = False
                # Headers never reach the topics: the token goes in when they are joined.
                await client.set_auth(self._token())
                await client.connect()
                await self._serve(client)
            except Exception as error:  # noqa: BLE001 - the client raises whatever it met
                _log.debug("realtime: %s", type(error).__name__)
            finally:
                self._heard.clear()
                self._joined.clear()
                await thrown_away(client)
            for topic in list(self._topics):
                self._hint(topic, 0)  # from now on each looks by itself
            if not self._stale:
                delay = self._delay
                self._delay = min(delay * 2, _LONGEST_DELAY)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 # nosec B311

    async def _serve(self, client: AsyncRealtimeClient) -> None:
        """Join what is asked for and leave what is not, until the connection is lost."""
        joined = self._joined
        while client.is_connected and not self._stale:
            self._changed.clear()
            now = monotonic()
            for topic, channel in list(joined.items()):
                if topic not in self._topics or topic in self._refused:
                    del joined[topic]
                    self._heard.discard(topic)
                    channel.subscribe_callback = None
                    if not channel.is_closed:
                        # Not remove_channel, which forgets the timer of its own farewell.
                        await channel.unsubscribe()
            due = [
                topic
                for topic in self._topics
                if topic not in joined and self._refused.get(topic, (0.0, 0.0))[0] <= now
            ][:_PORTION]
            for topic in due:
                joined[topic] = self._channel(client, topic)
            async with asyncio.TaskGroup() as joining:
                for topic in due:
                    joining.create_task(self._join(client, joined[topic], topic))
            if len(due) == _PORTION:
                continue  # there may be more
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
        return client.channel(topic, config).on_broadcast(
            "events", lambda message: self._hint(topic, _event_of(message))
        )

    async def _join(
        self, client: AsyncRealtimeClient, channel: AsyncRealtimeChannel, topic: str
    ) -> None:
        await self._pace.turn()
        if client.is_connected:  # else it would connect again, by itself
            await channel.subscribe(partial(self._told, topic))

    def _told(self, topic: str, state: RealtimeSubscribeStates, error: Any) -> None:
        if state is RealtimeSubscribeStates.SUBSCRIBED:
            self._delay = _FIRST_DELAY
            self._heard.add(topic)
            self._refused.pop(topic, None)
            self._hint(topic, 0)  # what was sent before is lost
            return
        _log.debug("realtime: %s is %s (%s)", topic, state.value, error)
        self._heard.discard(topic)
        _, delay = self._refused.get(topic, (0.0, _FIRST_REJOIN / 2))
        delay = min(delay * 2, _LONGEST_REJOIN)
        self._refused[topic] = (monotonic() + delay, delay)
        self._changed.set()
        self._hint(topic, 0)


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
