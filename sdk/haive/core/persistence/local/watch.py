"""Keeping a service up: it is started again when it dies, for a while."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

from haive.core.persistence.errors import LocalStackError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

_FAILURES_IN_A_ROW = 6
_FIRST_PAUSE = 0.05
# A service that ran this long was well; its next death starts a new count.
_WELL_AFTER = 10.0


class Watch:
    """Runs one service and starts it again when its process ends by itself.

    Args:
        name: What to call it.
        start: Starts the service and returns its process when it is ready.
        stop: Ends the service's process.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Awaitable[Process]],
        stop: Callable[[Process], Awaitable[None]],
    ) -> None:
        self.name = name
        self.running = asyncio.Event()
        self._start = start
        self._stop = stop
        self._process: Process | None = None
        self._dependents: list[Watch] = []

    def restarts(self, dependent: Watch) -> None:
        """Make another service start anew whenever this one has to."""
        self._dependents.append(dependent)

    async def start(self) -> None:
        """Start the service for the first time: an error is the caller's."""
        self._process = await self._start()
        self.running.set()

    async def stop(self) -> None:
        """End the service."""
        self.running.clear()
        if self._process is not None:
            await self._stop(self._process)

    async def keep(self) -> NoReturn:
        """Start the service again each time that it dies.

        Raises:
            LocalStackError: It does not stay up.
        """
        failures = 0
        while True:
            began = monotonic()
            code = await self._wait()
            failures = 1 if monotonic() - began > _WELL_AFTER else failures + 1
            log.warning("%s ended with %s, starting it again", self.name, code)
            self.running.clear()
            for dependent in self._dependents:
                await dependent.stop()
            while not self.running.is_set():
                if failures > _FAILURES_IN_A_ROW:
                    raise LocalStackError(f"{self.name} failed {failures} times in a row.")
                await asyncio.sleep(_FIRST_PAUSE * 2 ** (failures - 1))
                try:
                    await self.start()
                except LocalStackError as error:
                    failures += 1
                    log.warning("%s did not start: %s", self.name, error)

    async def _wait(self) -> int:
        if self._process is None:
            raise LocalStackError(f"{self.name} was never started.")
        return await self._process.wait()
