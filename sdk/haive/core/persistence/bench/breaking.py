"""A proxy that breaks connections, for what has to go on all the same."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Breaker:
    """Stands between a client and a server; `cut` breaks all connections that there are.

    Attributes:
        url: The server as it is reached through it.
        cuts: How many connections were broken.
    """

    def __init__(self, behind: str) -> None:
        parts = urlsplit(behind)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 5432
        self._behind = behind
        self._open: set[asyncio.WriteTransport] = set()
        self._relays: set[asyncio.Task[None]] = set()
        self.url = behind
        self.cuts = 0

    def cut(self) -> None:
        """Break what is connected now, without a word."""
        for transport in list(self._open):
            self.cuts += 1
            transport.abort()

    def moved_to(self, port: int) -> None:
        """Say where it listens."""
        parts = urlsplit(self._behind)
        login, at, _ = parts.netloc.rpartition("@")
        self.url = parts._replace(netloc=f"{login}{at}127.0.0.1:{port}").geturl()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side is gone."""
        task = asyncio.current_task()
        if task is not None:
            self._relays.add(task)
            task.add_done_callback(self._relays.discard)
        client = writer.transport
        with suppress(asyncio.CancelledError):  # by stop, and nobody waits for the rest
            await self._relay(reader, writer)
        client.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = writer.transport
        try:
            server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            return
        self._open.add(client)
        try:
            both = [
                asyncio.create_task(_pass(reader, server_writer)),
                asyncio.create_task(_pass(server_reader, writer)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in both:
                    one.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            self._open.discard(client)
            server_writer.transport.abort()

    async def stop(self) -> None:
        """Break everything and wait for it."""
        for task in list(self._relays):
            task.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def breaker(behind: str) -> AsyncIterator[Breaker]:
    """A proxy before the server of an address."""
    proxy = Breaker(behind)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.moved_to(server.sockets[0].getsockname()[1])
    try:
        yield proxy
    finally:
        server.close()
        await proxy.stop()
