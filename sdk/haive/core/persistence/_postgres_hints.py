"""Hints by LISTEN, on one connection for all subscribers of a pool."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import asyncpg

from haive.core.persistence._postgres_errors import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Callable

    Connection = asyncpg.Connection[asyncpg.Record]

_log = logging.getLogger("haive.core.persistence.events")

_FIRST_DELAY, _LONGEST_DELAY = 0.05, 5.0
# Seconds between checks whether the connection still is one: the other side may be gone silently.
_PULSE = 20.0


class _Listener:
    def __init__(
        self, home: PostgresHints, schema: str, topic: str, hint: Callable[[int], None]
    ) -> None:
        self.topic = topic
        self.schema = schema
        self.hint = hint
        self._home = home

    @property
    def is_heard(self) -> bool:
        return self.schema in self._home.heard

    async def aclose(self) -> None:
        await self._home.leave(self)


class PostgresHints:
    """One connection that listens while anybody does, and comes back when it is lost."""

    way: Literal["notify", "realtime"] = "notify"

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._listeners: dict[str, set[_Listener]] = {}
        #: The schemas whose hints arrive now.
        self.heard: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def listen(self, schema: str, topic: str, hint: Callable[[int], None]) -> _Listener:
        """Listen to a topic; see `Hints.listen`."""
        listener = _Listener(self, schema, topic, hint)
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
        if not self._listeners:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _hint_all(self) -> None:
        for listeners in list(self._listeners.values()):
            for listener in list(listeners):
                listener.hint(0)

    def _notified(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        del connection, pid, channel
        for listener in list(self._listeners.get(str(payload), ())):
            listener.hint(0)

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=10, statement_cache_size=0)
                try:
                    delay = _FIRST_DELAY
                    await self._serve(connection)
                finally:
                    self.heard = frozenset()
                    with suppress(*FOREIGN):
                        connection.terminate()
            except FOREIGN as error:
                _log.debug("listening: %s", type(error).__name__)
            # Meanwhile subscribers look by themselves, and their looking tells of what they missed.
            self._hint_all()
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 # nosec B311
            delay = min(delay * 2, _LONGEST_DELAY)

    async def _serve(self, connection: Connection) -> None:
        """Listen for the schemas that are asked for, until the connection is lost."""
        connection.add_termination_listener(lambda _: self._changed.set())
        while not connection.is_closed():
            self._changed.clear()
            wanted = {one.schema for some in self._listeners.values() for one in some}
            for schema in wanted - self.heard:
                await connection.add_listener(schema, self._notified)
            if wanted - self.heard:
                self.heard = frozenset(wanted | self.heard)
                self._hint_all()  # what was sent before is lost
            try:
                async with asyncio.timeout(_PULSE):
                    await self._changed.wait()
            except TimeoutError:
                await connection.execute("select 1", timeout=10)
