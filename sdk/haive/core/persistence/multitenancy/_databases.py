"""Databases and projects of tenants: found by the name of their location, opened when called."""

from __future__ import annotations

import asyncio
import os
import re
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from haive.core.persistence._home_loop import check_loop
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.errors import ConfigurationError, PersistenceError
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.schema import DEFAULT_SCHEMA
from haive.core.persistence.supabase import SupabaseStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import datetime

    from pydantic import TypeAdapter

    from haive.core.persistence._hints import Hints
    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence._supabase_room import Room
    from haive.core.persistence._transport import Transport
    from haive.core.persistence.models import Message
    from haive.core.persistence.multitenancy.config import TenantConfig

T = TypeVar("T")

_VARIABLE = "TENANT_DATABASE_URL_"
# How many are open: beyond, what nobody calls now and was called longest ago is closed.
_OPEN = 32
# A tenant of its own has few callers at once; more connections are opened as they come.
_POOL = 2


@dataclass(slots=True)
class _Opened:
    store: PostgresStore | SupabaseStore | None = None
    users: int = 0
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


class Databases:
    """The databases of tenants that have one of their own.

    Where they are is told by the configuration alone and never stored: the registry has the names
    of locations only. A location is a connection string (``postgresql://…``), or a Supabase project
    with its key before the host (``https://sb_secret_…@ref.supabase.co``).

    Args:
        config: Whose ``databases`` says where they are.
        schema: The name of the kit in each of them.
        limit: How many are open when nobody calls them.
    """

    def __init__(
        self, config: TenantConfig, *, schema: str = DEFAULT_SCHEMA, limit: int = _OPEN
    ) -> None:
        self._config = config
        self._schema = schema
        self._limit = limit
        self._opened: OrderedDict[str, _Opened] = OrderedDict()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def transport(self, location: str, tenant_id: str) -> DatabaseTransport:
        """The way to a tenant in a database. Nothing is connected before the first call."""
        return DatabaseTransport(self, location, self._schema, tenant_id)

    async def prepare(self, location: str) -> None:
        """Install the kit in a database, or bring it to this version; a project has it already.

        Raises:
            ConfigurationError: No such location is configured.
            SchemaMissingError: It is a project without the kit.
        """
        store = self._made(location)
        try:
            if isinstance(store, PostgresStore):
                await store.initialize()
            else:
                await store.initialize(create_schema=False)
        finally:
            await store.aclose()

    @asynccontextmanager
    async def lease(self, location: str) -> AsyncIterator[Transport]:
        """The connections to a location, which stay open as long as the block runs.

        Raises:
            ConfigurationError: No such location is configured.
            SchemaMissingError: The kit is not installed there.
            SchemaVersionError: It is of another version.
        """
        if self._closed:
            raise PersistenceError("The manager of tenants is closed.")
        self.check_loop()
        self._loop = asyncio.get_running_loop()
        opened = self._opened.setdefault(location, _Opened())
        self._opened.move_to_end(location)
        opened.users += 1
        try:
            async with opened.opening:
                if opened.store is None:
                    store = self._made(location)
                    await store.initialize(create_schema=False, run_migrations=False)
                    opened.store = store
            yield opened.store._transport
        finally:
            opened.users -= 1
            await self._close_some()

    def check_loop(self) -> None:
        """Refuse another event loop than that in which one was opened first."""
        if self._loop is not None:
            check_loop(self._loop)

    def hints(self, location: str) -> Hints | None:
        """Where hints of a location come from; None while it is not open."""
        opened = self._opened.get(location)
        return None if opened is None or opened.store is None else opened.store._transport.hints()

    def room(self, location: str, name: str, changed: Callable[[], None]) -> Room | None:
        """A realtime topic of a location's project; None while it is not open."""
        opened = self._opened.get(location)
        if opened is None or opened.store is None:
            return None
        return opened.store._transport.room(name, changed)

    async def aclose(self) -> None:
        """Close all, waiting for what is under way."""
        self._closed = True
        while self._opened:
            _, opened = self._opened.popitem()
            async with opened.opening:
                if opened.store is not None:
                    await opened.store.aclose()

    async def _close_some(self) -> None:
        unused = [name for name, opened in self._opened.items() if not opened.users]
        # All are taken out before the first wait: nobody else finds, leases or closes them.
        closing = [
            self._opened.pop(name) for name in unused[: max(len(self._opened) - self._limit, 0)]
        ]
        for opened in closing:
            if opened.store is not None:
                await opened.store.aclose()

    def _made(self, location: str) -> PostgresStore | SupabaseStore:
        address = find_database(self._config, location)
        parts = urlsplit(address)
        if parts.scheme in {"http", "https"}:
            host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
            url = parts._replace(netloc=host or "").geturl()
            key = unquote(parts.username or parts.password or "")
            return SupabaseStore(url, key, schema=self._schema)
        return PostgresStore(
            PersistenceConfig(
                connection_string=SecretStr(address), schema=self._schema, pool_size=_POOL
            )
        )


class DatabaseTransport:
    """Calls functions in the database of a tenant, which is opened for it; see `Transport`."""

    def __init__(
        self, databases: Databases, location: str, schema: str, tenant: str | None
    ) -> None:
        self.schema = schema
        self.tenant: str | None = tenant
        self._databases = databases
        self._location = location

    @asynccontextmanager
    async def _there(self) -> AsyncIterator[Transport]:
        async with self._databases.lease(self._location) as transport:
            yield transport.scoped(schema=self.schema, tenant=self.tenant)

    async def call(
        self,
        function: str,
        arguments: Mapping[str, object],
        returns: TypeAdapter[T],
        *,
        safe: bool,
        in_tenant: bool = True,
    ) -> T:
        """Call a function; see `Transport.call`."""
        async with self._there() as there:
            return await there.call(function, arguments, returns, safe=safe, in_tenant=in_tenant)

    async def rows(self, function: str, arguments: Mapping[str, object]) -> Sequence[Any] | None:
        """Call a function that answers by column; see `Transport.rows`."""
        async with self._there() as there:
            return await there.rows(function, arguments)

    async def append(self, rows: Sequence[MessageRow]) -> Sequence[Message | PersistenceError]:
        """Write messages in one statement; see `Transport.append`."""
        async with self._there() as there:
            return await there.append(rows)

    async def append_many(self, rows: Sequence[MessageRow]) -> list[tuple[int, datetime]]:
        """Write many messages, all or none; see `Transport.append_many`."""
        async with self._there() as there:
            return await there.append_many(rows)

    async def execute(self, sql: str, arguments: Sequence[object]) -> list[dict[str, object]]:
        """Run a statement as the owner of the schema; see `Transport.execute`."""
        async with self._there() as there:
            return await there.execute(sql, arguments)

    def check_loop(self) -> None:
        """Refuse another event loop; see `Transport.check_loop`."""
        self._databases.check_loop()

    def hints(self) -> Hints | None:
        """Where hints come from while the database is open; see `Transport.hints`."""
        return self._databases.hints(self._location)

    def room(self, name: str, changed: Callable[[], None]) -> Room | None:
        """See `Transport.room`."""
        return self._databases.room(self._location, name, changed)

    @asynccontextmanager
    async def alone(self, job: str) -> AsyncIterator[bool]:
        """Be the only one who does a job; see `Transport.alone`."""
        async with self._there() as there, there.alone(job) as alone:
            yield alone

    def scoped(self, *, schema: str | None = None, tenant: str | None = None) -> Self:
        """The same database, for another tenant or installation in it."""
        return type(self)(
            self._databases, self._location, schema or self.schema, tenant or self.tenant
        )

    async def aclose(self) -> None:
        """Leave the connections to `Databases`, which other tenants share."""


def find_database(config: TenantConfig, location: str) -> str:
    """Where a location is, in the clear: by the configuration, else by the environment.

    Raises:
        ConfigurationError: It is not configured. The message names the location, and no address.
    """
    databases = config.databases
    found: str | SecretStr | None
    if databases is None:
        found = os.environ.get(variable(location))
    elif callable(databases):
        try:
            found = databases(location)
        except LookupError:
            found = None
    else:
        found = databases.get(location)
    if not found:
        raise ConfigurationError(
            f"No database is configured for the location {location!r}.",
            hint=f"Set {variable(location)}, or TenantConfig.databases.",
        )
    return found.get_secret_value() if isinstance(found, SecretStr) else found


def variable(location: str) -> str:
    """The environment variable that says where a location is."""
    return _VARIABLE + re.sub(r"[^A-Z0-9]", "_", location.upper())
