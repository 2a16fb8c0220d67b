"""The server behind `/realtime/v1`: it runs in the gateway's process, from its first request on.

An event takes 15 µs of it, each further subscriber 1 µs. In a process of its own each frame would
pass the gateway too, which costs more than that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from haive.core.persistence.local.realtime import http, limits
from haive.core.persistence.local.realtime.authorization import Authorization
from haive.core.persistence.local.realtime.broadcasts import Broadcasts
from haive.core.persistence.local.realtime.changes import Changes
from haive.core.persistence.local.realtime.database import Database
from haive.core.persistence.local.realtime.hub import Hub
from haive.core.persistence.local.realtime.pace import Pace
from haive.core.persistence.local.realtime.replication import Replication
from haive.core.persistence.local.realtime.services import Services
from haive.core.persistence.local.realtime.socket import accept
from haive.core.persistence.local.realtime.tokens import RefusedError, read_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from haive.core.persistence.local.realtime.pgoutput import Change

log = logging.getLogger(__name__)

# A first join waits so long for the stream: rows of before would not be told.
_STREAM_TIMEOUT = 5.0


class RealtimeServer:
    """Channels for clients, and the stream of rows that feeds them.

    Args:
        sockets: The directory of Postgres' Unix socket.
        port: Its port.
        role: The superuser.
        jwt_secret: The secret of the stack's tokens.
        make_partitions: Makes the partitions of realtime.messages that are missing.
    """

    def __init__(
        self,
        *,
        sockets: Path,
        port: int,
        role: str,
        jwt_secret: str,
        make_partitions: Callable[[], Awaitable[None]],
    ) -> None:
        hub = Hub()
        database = Database(sockets=sockets, port=port, role=role)
        self._broadcasts = Broadcasts(hub)
        self._changes = Changes(database)
        self._replication = Replication(
            sockets=sockets,
            port=port,
            role=role,
            on_change=self._feed,
            keep_up=self._keep_up,
        )
        self._services = Services(
            jwt_secret=jwt_secret,
            hub=hub,
            database=database,
            authorization=Authorization(database, make_partitions),
            changes=self._changes,
            pace=Pace(),
            streaming=self._replication.streaming,
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def has_failed(self) -> bool:
        """Whether a part of it has ended, and what it did is not done any more."""
        return any(task.done() for task in self._tasks)

    def start(self) -> None:
        """Begin to read the log."""
        self._tasks = [
            asyncio.create_task(self._replication.run()),
            asyncio.create_task(self._changes.run()),
        ]
        for task in self._tasks:
            task.add_done_callback(_tell_of_failure)

    def disconnect(self) -> None:
        """End the sockets of all clients."""
        for socket in list(self._services.sockets):
            socket.end()

    async def stop(self) -> None:
        """End every connection to the database."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._services.database.close()

    async def answer(self, request: web.BaseRequest, path: str, token: str) -> web.StreamResponse:
        """Answer a request.

        Args:
            request: The request.
            path: Its path behind `/realtime/v1`, as it was sent, without the query.
            token: The token of its API key, or of its user where it brings one.
        """
        headers = _own_headers(request)
        if path == "/websocket":
            return await self._connect(request, token, headers)
        try:
            who = read_token(token, self._services.jwt_secret)
            response = await http.broadcast(request, path, self._services, who, headers)
        except RefusedError as refused:
            return http.refuse(refused)
        return response or web.json_response({"message": "not found"}, status=404)

    async def _connect(
        self, request: web.BaseRequest, token: str, headers: str
    ) -> web.StreamResponse:
        try:
            read_token(token, self._services.jwt_secret)
        except RefusedError:
            return web.Response(status=403)
        if len(self._services.sockets) >= limits.SOCKETS:
            return web.json_response({"message": "Too many connected users"}, status=429)
        try:
            await asyncio.wait_for(self._services.streaming.wait(), _STREAM_TIMEOUT)
        except TimeoutError:
            log.warning("the replication stream is not there yet")
        arrays = request.query.get("vsn", "").startswith("2")
        try:
            return await accept(
                request, self._services, arrays=arrays, token=token, headers=headers
            )
        except web.HTTPException as refused:  # no WebSocket handshake
            return web.Response(status=refused.status)

    async def _keep_up(self) -> None:
        await self._services.pace.keep()
        await self._changes.keep_up()

    def _feed(self, change: Change) -> None:
        if Broadcasts.is_about(change.relation):
            self._broadcasts.feed(change)
        else:
            self._changes.feed(change)


def _own_headers(request: web.BaseRequest) -> str:
    """Return the headers that are not HTTP's (`x-…`) as JSON, for policies."""
    headers = {
        name.lower(): value.encode(errors="replace").decode()
        for name, value in request.headers.items()
        if name.lower().startswith("x-")
    }
    return orjson.dumps(headers).decode()


def _tell_of_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a part of Realtime has failed", exc_info=error)
