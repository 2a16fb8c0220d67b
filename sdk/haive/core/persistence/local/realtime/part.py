"""Realtime as a part of the stack: started when first asked for, its partitions made ahead."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from haive.core.persistence.errors import LocalStackError
from haive.core.persistence.local.cluster import ADMIN
from haive.core.persistence.local.realtime.partitions import PARTITIONS

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

    from haive.core.persistence.local.keys import StackKeys
    from haive.core.persistence.local.postgres import Postgres
    from haive.core.persistence.local.realtime.server import RealtimeServer

log = logging.getLogger(__name__)

_OFTEN = 6 * 3600.0


class RealtimePart:
    """Starts the server with its first request: what it needs is not loaded before.

    Args:
        postgres: The stack's Postgres.
        sockets: The directory of its Unix socket.
        keys: The stack's keys.
    """

    def __init__(self, *, postgres: Postgres, sockets: Path, keys: StackKeys) -> None:
        self._postgres = postgres
        self._sockets = sockets
        self._keys = keys
        self._server: RealtimeServer | None = None

    @property
    def running(self) -> bool:
        """Whether it was asked for."""
        return self._server is not None

    @property
    def has_failed(self) -> bool:
        """Whether it has to be started anew, with the stack."""
        return self._server is not None and self._server.has_failed

    async def answer(self, request: web.BaseRequest, path: str, token: str) -> web.StreamResponse:
        """Answer a request: see `RealtimeServer.answer`."""
        if self._server is None:
            from haive.core.persistence.local.realtime.server import (  # noqa: PLC0415 - when needed
                RealtimeServer,
            )

            self._server = RealtimeServer(
                sockets=self._sockets,
                port=self._postgres.port,
                role=ADMIN,
                jwt_secret=self._keys.jwt_secret,
                make_partitions=self._make_partitions,
            )
            self._server.start()
        return await self._server.answer(request, path, token)

    async def disconnect(self) -> None:
        """End the sockets of all clients: the gateway would wait for them."""
        if self._server is not None:
            self._server.disconnect()

    async def stop(self) -> None:
        """End the server, if it was ever started."""
        if self._server is not None:
            await self._server.stop()

    async def keep_partitions(self) -> NoReturn:
        """Make partitions ahead of time; those of the first days are there from the start."""
        while True:
            await asyncio.sleep(_OFTEN)
            try:
                await self._make_partitions()
            except LocalStackError as error:
                log.warning("partitions of realtime.messages were not made: %s", error)

    async def _make_partitions(self) -> None:
        await self._postgres.execute(PARTITIONS)
