"""Hints by Supabase Realtime, on few connections for all subscribers of a project's client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from haive.core.persistence._supabase_topics import TOPICS, Pace, Topics

if TYPE_CHECKING:
    from collections.abc import Callable


class _Listener:
    def __init__(self, home: SupabaseHints, topic: str, hint: Callable[[int], None]) -> None:
        self.topic = topic
        self.hint = hint
        self._home = home

    @property
    def is_heard(self) -> bool:
        return self._home.hears(self.topic)

    async def aclose(self) -> None:
        await self._home.leave(self)


class SupabaseHints:
    """Listens to private topics for their subscribers, on a connection for each hundred."""

    way: Literal["notify", "realtime"] = "realtime"

    def __init__(self, url: str, key: str, token: str | None) -> None:
        self._url = f"{url.rstrip('/')}/realtime/v1"
        self._key = key
        self._token = token
        self._listeners: dict[str, set[_Listener]] = {}
        self._connections: list[Topics] = []
        self._pace = Pace()

    def set_token(self, token: str | None) -> None:
        """Go on as the user of another token, on new connections."""
        self._token = token
        for connection in self._connections:
            connection.renew()

    def listen(self, schema: str, topic: str, hint: Callable[[int], None]) -> _Listener:
        """Listen to a topic; see `Hints.listen`."""
        del schema  # it is in the topic
        listener = _Listener(self, topic, hint)
        self._listeners.setdefault(topic, set()).add(listener)
        if not any(topic in connection for connection in self._connections):
            self._roomy().join(topic)
        for connection in self._connections:
            connection.open()
        return listener

    def hears(self, topic: str) -> bool:
        """Whether hints of a topic arrive now."""
        return any(connection.hears(topic) for connection in self._connections)

    async def leave(self, listener: _Listener) -> None:
        """Listen no more; the last one on a connection closes it."""
        topic = listener.topic
        others = self._listeners.get(topic, set())
        others.discard(listener)
        if others:
            return
        self._listeners.pop(topic, None)
        connection = next((one for one in self._connections if topic in one), None)
        if connection is None:
            return
        connection.leave(topic)
        if not len(connection):
            self._connections.remove(connection)
            await connection.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        # Each waits for its server, which may be out of reach.
        await asyncio.gather(*(connection.aclose() for connection in self._connections))

    def _roomy(self) -> Topics:
        """A connection that carries one more topic."""
        for connection in self._connections:
            if len(connection) < TOPICS:
                return connection
        connection = Topics(
            self._url,
            self._key,
            token=lambda: self._token or self._key,
            hint=self._hint,
            pace=self._pace,
        )
        self._connections.append(connection)
        return connection

    def _hint(self, topic: str, event: int) -> None:
        for listener in list(self._listeners.get(topic, ())):
            listener.hint(event)
