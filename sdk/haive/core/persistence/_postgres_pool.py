"""The connections of a process: a pool whose sessions are ready to call the functions."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import asyncpg

from haive.core.persistence._home_loop import check_loop
from haive.core.persistence._postgres_errors import FOREIGN as _FOREIGN
from haive.core.persistence._postgres_errors import cause_of, translated, translated_error
from haive.core.persistence._postgres_hints import PostgresHints
from haive.core.persistence.errors import (
    ConfigurationError,
    PersistenceError,
    PoolTimeoutError,
    SchemaMissingError,
)

if TYPE_CHECKING:
    from types import TracebackType

    from asyncpg.pool import PoolConnectionProxy

    from haive.core.persistence.config import PersistenceConfig

    Connection = PoolConnectionProxy[asyncpg.Record]

# The role that a session takes: it reads under row level security and writes by functions alone.
_ROLE = "haive_client"
# Statements that a session keeps prepared: 2 kB here each, and 0.2 of 0.8 ms of a call that must
# prepare its own anew. Each schema has its own ones.
_STATEMENTS = 10_000
# Schemas that a session works in before it makes room for a new one. What it has called it keeps
# planned, 1.2 MB a schema, and Postgres never forgets: 1,000 tenants in their own schemas would
# take more than a gigabyte in each session.
_SCHEMAS = 256


class _Session(asyncpg.Connection):
    """A connection that knows which schemas it has worked in."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.visited: set[str] = set()


class ConnectionPool:
    """An asyncpg pool; one serves all tenants and schemas of a database.

    No operation leaves anything in a session: the tenant goes in with each call and ends with its
    transaction.
    """

    def __init__(self, config: PersistenceConfig) -> None:
        self.config = config
        self._pool: asyncpg.Pool[asyncpg.Record]
        self._idle: list[Connection] = []
        self._waiting = 0
        self._closing = False
        self._loop = asyncio.get_running_loop()
        #: Where hints of new events come from; it connects when somebody listens.
        self.hints = PostgresHints(config.dsn)

    @classmethod
    async def connect(cls, config: PersistenceConfig) -> Self:
        """Open the pool with its ``pool_size`` connections."""
        self = cls(config)
        pooled = config.through_transaction_pooler
        if pooled and config.session_settings:
            raise ConfigurationError(
                f"{', '.join(config.session_settings)} cannot be set through a transaction pooler.",
                hint="Use the session port (5432), or `alter role … set …` on the server.",
            )
        async with translated():
            self._pool = await asyncpg.create_pool(
                config.dsn,
                min_size=config.pool_size,
                max_size=config.pool_size + config.max_overflow,
                max_inactive_connection_lifetime=60.0,
                max_queries=10_000_000,
                timeout=config.pool_timeout,
                # A prepared statement lives in one session: through a pooler it is another's.
                statement_cache_size=0 if pooled else _STATEMENTS,
                connection_class=_Session,
                init=None if pooled else self.prepare,  # type: ignore[arg-type] # proxies are connections
                reset=_keep,  # type: ignore[arg-type] # likewise
            )
        return self

    async def prepare(self, connection: Connection) -> None:
        """Make a session ready: its settings and its role."""
        settings = self.config.session_settings
        try:
            await connection.execute(
                "select pg_catalog.set_config(name, value, false) "
                "from unnest($1::text[], $2::text[]) as s (name, value)",
                list(settings),
                list(settings.values()),
            )
        except (asyncpg.InvalidParameterValueError, asyncpg.CantChangeRuntimeParamError) as error:
            raise ConfigurationError(
                f"The server does not take a setting: {error.args[0]}"
            ) from error
        try:
            await connection.execute(f"set role {_ROLE}")
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigurationError(
                "The database user may not act as haive_client.",
                hint="Run as its owner: grant haive_client to <user>.",
            ) from error
        except asyncpg.InvalidParameterValueError as error:
            raise SchemaMissingError(
                "The kit was never installed on this server.",
                hint=f"Run `haive migrate --schema {self.config.schema_name}`, or "
                "`supabase db push`.",
            ) from error

    def connection(self, schema: str | None = None) -> _Lease:
        """A connection of the pool for the time of a block, with errors of ours.

        Args:
            schema: Where it will work: rather one that has worked there before.

        Raises:
            PoolTimeoutError: None came free in ``pool_timeout`` seconds.
        """
        return _Lease(self, schema)

    async def take(self, schema: str | None) -> Connection:
        """A connection, to be given back or given up."""
        self.check_loop()
        while (place := self._best(schema)) is not None:
            connection = self._idle.pop(place)
            if not is_gone(connection):
                return self._marked(connection, schema)
            await self._pool.release(connection)
        if self._closing:
            raise PersistenceError(
                "The store is not open.", hint="It was closed while it was worked with."
            )
        self._waiting += 1
        try:
            connection = await self._pool.acquire(timeout=self.config.pool_timeout)
        except TimeoutError as error:
            raise PoolTimeoutError from error
        except _FOREIGN as error:
            raise translated_error(error) from cause_of(error)
        finally:
            self._waiting -= 1
        return self._marked(connection, schema)

    def check_loop(self) -> None:
        """Refuse another event loop than that of the connections."""
        check_loop(self._loop)

    def _best(self, schema: str | None) -> int | None:
        """Which idle connection to take: one that knows the schema, else one that knows few.

        None: rather one that the pool has, or opens.
        """
        if schema is None or not self._idle:
            return len(self._idle) - 1 if self._idle else None
        least, fewest = None, _SCHEMAS + 1
        for place in reversed(range(len(self._idle))):
            if is_gone(self._idle[place]):
                return place
            known = _visited(self._idle[place])
            if schema in known:
                return place
            if len(known) < fewest:
                least, fewest = place, len(known)
        # Schemas are spread over what is open: each then is in few sessions.
        return None if fewest and self._pool.get_idle_size() else least

    def _marked(self, connection: Connection, schema: str | None) -> Connection:
        if schema is not None:
            _visited(connection).add(schema)
        return connection

    async def give_up(self, connection: Connection, error: BaseException) -> None:
        """Take back a connection after an error."""
        # Not kept at hand: it may be in a transaction, or have an answer on its way. The pool waits
        # for a cancelled statement and rolls back.
        confused = isinstance(error, asyncpg.InternalClientError | asyncpg.InterfaceError)
        # Where this fails the session is at its end; the caller hears what went wrong first.
        with suppress(*_FOREIGN):
            if confused and not isinstance(error, ValueError) and not is_gone(connection):
                connection.terminate()
            await self._pool.release(connection)

    async def give_back(self, connection: Connection) -> None:
        """Take back a connection that is as it was."""
        # Kept at hand where nobody waits: the pool's release and acquire are three turns of the
        # event loop, 0.15 ms of the 0.5 that one message takes.
        gone = is_gone(connection)
        if not gone and len(_visited(connection)) > _SCHEMAS:
            gone = True
            with suppress(*_FOREIGN):
                await connection.close()  # the pool opens another one in its place
        if self._waiting or self._closing or gone or len(self._idle) >= self.config.pool_size:
            await self._pool.release(connection)
        else:
            self._idle.append(connection)

    async def aclose(self) -> None:
        """Close the pool, waiting for what is under way."""
        self._closing = True
        await self.hints.aclose()
        async with translated():
            while self._idle:
                await self._pool.release(self._idle.pop())
            try:
                await asyncio.wait_for(self._pool.close(), self.config.pool_timeout)
            except TimeoutError:
                self._pool.terminate()


class _Lease:
    """A connection for the time of a block. No generator: its frames are 10 µs of a message."""

    __slots__ = ("_connection", "_pool", "_schema")

    def __init__(self, pool: ConnectionPool, schema: str | None) -> None:
        self._pool = pool
        self._schema = schema
        self._connection: Connection

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.take(self._schema)
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self._pool.give_back(self._connection)
            return
        await self._pool.give_up(self._connection, error)
        if isinstance(error, _FOREIGN):
            raise translated_error(error) from cause_of(error)


def is_gone(connection: Connection) -> bool:
    """Whether the server has ended the session; the pool has taken the proxy apart then."""
    session = _session(connection)
    return session is None or session.is_closed()


def _visited(connection: Connection) -> set[str]:
    session = _session(connection)
    return set() if session is None else session.visited


def _session(connection: Connection) -> _Session | None:
    """What is behind a proxy, which itself takes five times as long to ask it."""
    session: _Session | None = connection._con  # type: ignore[attr-defined] # not in the stubs
    return session


async def _keep(_: Connection) -> None:
    """Undo nothing when a connection goes back: no operation leaves anything in its session."""
