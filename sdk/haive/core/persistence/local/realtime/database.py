"""Connections to the stack's Postgres, in which one acts as somebody and leaves nothing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence.local.realtime.tokens import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haive.core.persistence.local.realtime.tokens import Identity

    Connection = (
        asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    )


class AwayError(RefusedError):
    """Postgres does not answer, or a table is locked: it may answer in a moment."""

    def __init__(self) -> None:
        super().__init__(
            "UnableToConnectToProject", "Realtime was unable to connect to the project database"
        )


_CONNECTIONS = 4
_TIMEOUT = 5.0
# The shorter one, so that a wait for a lock is told from a policy that is too slow at all times.
_LOCK_TIMEOUT = 2.0
# PostgREST's rule: a token may name the roles that were granted to authenticator, and no others.
_ACT_AS = """
select
  set_config('role', $1, true),
  set_config('realtime.topic', $2, true),
  set_config('request.jwt.claims', $3, true),
  set_config('request.headers', $4, true)
where pg_has_role('authenticator', $1, 'member')
"""
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.CrashShutdownError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    OSError,
)


class Database:
    """A few connections of the superuser, opened when they are needed.

    Args:
        sockets: The directory of Postgres' Unix socket.
        port: Its port.
        role: The superuser.
    """

    def __init__(self, *, sockets: Path, port: int, role: str) -> None:
        self.sockets = sockets
        self.port = port
        self.role = role
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """End all connections."""
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Hand out a connection in a transaction that is rolled back in any case.

        Raises:
            AwayError: Postgres is away, or a table has been locked for too long.
        """
        try:
            async with (await self._opened()).acquire(timeout=_TIMEOUT) as connection:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    yield connection
                finally:
                    await transaction.rollback()
        except (*_AWAY, TimeoutError) as error:
            raise AwayError from error

    async def _opened(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    host=str(self.sockets),
                    port=self.port,
                    user=self.role,
                    database="postgres",
                    min_size=0,
                    max_size=_CONNECTIONS,
                    timeout=_TIMEOUT,
                    command_timeout=2 * _TIMEOUT,
                    reset=_nothing_to_reset,
                    server_settings={
                        "application_name": "haive realtime",
                        "statement_timeout": f"{_TIMEOUT}s",
                        "standard_conforming_strings": "on",  # filters are quoted for it
                        "lock_timeout": f"{_LOCK_TIMEOUT}s",
                    },
                )
        return self._pool


async def act_as(connection: Connection, who: Identity, topic: str, headers: str = "{}") -> None:
    """Take on a token's role, claims and channel for the rest of the transaction.

    Raises:
        RefusedError: No token may speak for that role.
    """
    try:
        row = await connection.fetchrow(_ACT_AS, who.role, topic, who.claims, headers)
    except asyncpg.UndefinedObjectError:
        row = None
    if row is None:  # nothing was set: going on would be going on as the superuser
        raise RefusedError("InvalidJWTToken", "The role of the token is not one of the API's")


async def _nothing_to_reset(_: Connection) -> None:
    """All that was set ends with its transaction."""
