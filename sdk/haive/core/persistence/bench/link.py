"""A slow link to a server: a proxy that holds everything back for some time, both ways."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Link:
    """A proxy that is listening.

    Attributes:
        dsn: The server as it is reached by the link.
        behind: The server itself.
        delay: Seconds that everything is held back.
        turns: How often somebody spoke after the other one had.
    """

    def __init__(self, behind: str, delay: float) -> None:
        self.dsn = behind
        self.behind = behind
        self.delay = delay
        self.turns = 0

    @property
    def round_trips(self) -> float:
        """How often a client had sent something and then heard from the server, and again."""
        return self.turns / 2


class _End(asyncio.Protocol):
    """One end of a connection. What comes in at it goes out at the other one, later."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self.other: _End
        self.spoke = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._loop.call_later(self._link.delay, self._pass, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._loop.call_later(self._link.delay, self.other.close)

    def _pass(self, data: bytes) -> None:
        # Whoever speaks after the other one ends a turn; two turns are a round trip.
        if self.other.spoke:
            self._link.turns += 1
        self.spoke, self.other.spoke = True, False
        self.other.write(data)

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._transport.close()


class _ClientsEnd(_End):
    """The end that a client connects to: it is read when the server's end is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._transport.pause_reading()
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        parts = urlsplit(self._link.behind)
        _, self.other = await self._loop.create_connection(
            lambda: _End(self._link), parts.hostname or "localhost", parts.port or 5432
        )
        self.other.other = self
        self._transport.resume_reading()


@asynccontextmanager
async def slow_link(dsn: str, seconds: float) -> AsyncIterator[Link]:
    """A link to the server of a connection string, with so many seconds from there and back."""
    link = Link(dsn, seconds / 2)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _ClientsEnd(link), "127.0.0.1", 0)
    async with server:
        parts = urlsplit(dsn)
        port = server.sockets[0].getsockname()[1]
        netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        link.dsn = parts._replace(netloc=netloc).geturl()
        yield link
