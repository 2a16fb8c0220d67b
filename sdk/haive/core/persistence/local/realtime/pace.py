"""Senders go at the pace of clients that read; a client that does not read is cut off."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from haive.core.persistence.local.realtime.socket import Socket

log = logging.getLogger(__name__)

#: Bytes that wait for a client: with more, senders wait for it.
MUCH: Final = 1024 * 1024
_PROGRESS: Final = 64 * 1024
_PATIENCE: Final = 2.0
_GLANCE: Final = 0.005


@dataclass(slots=True)
class _Mark:
    unsent: int
    since: float


class Pace:
    """Knows who is behind."""

    def __init__(self) -> None:
        self._behind: dict[Socket, _Mark] = {}

    def note(self, socket: Socket) -> None:
        """Note that a client has much to read."""
        if socket not in self._behind:
            self._behind[socket] = _Mark(socket.unsent, time.monotonic())

    async def keep(self) -> None:
        """Wait for those who are behind, as long as they read; cut off those who do not."""
        while self._behind:
            now = time.monotonic()
            for socket, mark in list(self._behind.items()):
                unsent = socket.unsent
                if unsent <= MUCH:
                    del self._behind[socket]
                elif unsent <= mark.unsent - _PROGRESS:
                    self._behind[socket] = _Mark(unsent, now)
                elif now - mark.since > _PATIENCE:
                    del self._behind[socket]
                    socket.cut()
                else:
                    mark.unsent = max(mark.unsent, unsent)
            if self._behind:
                await asyncio.sleep(_GLANCE)
