"""Removes what has expired, from time to time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    from haive.core.persistence.integrations._bridge import Bridge

_log = logging.getLogger(__name__)


def is_interval(minutes: object) -> bool:
    """Whether there is time between two sweeps."""
    return isinstance(minutes, int | float) and not isinstance(minutes, bool) and minutes > 0


class Sweeper:
    """Sweeps on the event loop of a store, again and again.

    Args:
        sweep: Removes what has expired.
        bridge: Where it works.
    """

    def __init__(self, sweep: Callable[[], Coroutine[object, object, int]], bridge: Bridge) -> None:
        self._sweep = sweep
        self._bridge = bridge
        self._running: Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, minutes: float) -> Future[None]:
        """Begin, in any thread; where it has begun already, nothing.

        Raises:
            InvalidInputError: No time is between two sweeps.
        """
        if not is_interval(minutes):
            raise InvalidInputError("The minutes between two sweeps are a number above 0.")
        if self._running is None or self._running.done():
            self._task = None
            self._running = self._bridge.start(self._run(60 * minutes))
        return self._running

    async def stop(self, timeout: float | None) -> bool:  # noqa: ASYNC109 - it says what was reached
        """End, on the loop of the store.

        Returns:
            Whether it has ended within ``timeout`` seconds.
        """
        if self._task is None:
            if self._running is not None:
                self._running.cancel()  # before its first step
            return True
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=timeout)
        return self._task.done()

    async def _run(self, seconds: float) -> None:
        self._task = asyncio.current_task()
        try:
            while True:
                await asyncio.sleep(seconds)
                try:
                    await self._sweep()
                except Exception:  # noqa: BLE001 - the next one may succeed
                    _log.exception("What has expired could not be removed.")
        except asyncio.CancelledError:
            return
