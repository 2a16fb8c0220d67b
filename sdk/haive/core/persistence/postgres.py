"""The store on a direct connection to Postgres."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import asyncpg

from haive.core.persistence import schema as _schema
from haive.core.persistence._postgres_errors import translated
from haive.core.persistence._postgres_pool import ConnectionPool
from haive.core.persistence._postgres_transport import PostgresTransport
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.errors import PersistenceError
from haive.core.persistence.store import Store

if TYPE_CHECKING:
    from haive.core.persistence._transport import Transport
    from haive.core.persistence.privacy import PIIPolicy


class PostgresStore(Store):
    """Conversations and messages over a pool of direct connections.

    Open it with ``async with PostgresStore(config) as store`` or with `initialize`::

        async with PostgresStore(PersistenceConfig(schema="haive")) as store:
            conversation = await store.create_conversation(agent_id="assistant-001")

    Args:
        config: How to connect.
        pii: What is done with personal data before it is stored; nothing if not given.

    Raises:
        ConfigurationError: The policy asks for what its detector cannot find.
    """

    def __init__(
        self, config: PersistenceConfig | None = None, *, pii: PIIPolicy | None = None
    ) -> None:
        super().__init__(pii=pii)
        self.config = config or PersistenceConfig()
        self._open: PostgresTransport | None = None
        self._opening = asyncio.Lock()

    @property
    def _transport(self) -> Transport:
        if self._open is None:
            raise PersistenceError(
                "The store is not open.",
                hint="Use `async with PostgresStore(...)`, or await initialize() first.",
            )
        return self._open

    async def initialize(
        self,
        *,
        create_schema: bool = True,
        run_migrations: bool = True,
        check_version: bool = True,
    ) -> None:
        """Open the pool and make the schema ready. Any number of processes may do so at once.

        Args:
            create_schema: Install the schema where it is missing.
            run_migrations: Bring an older one to the version of this package. Those of tenants stay
                as they are: `haive migrate` brings them along.
            check_version: Refuse to work with a schema of another version.

        Raises:
            SchemaMissingError: It is not there and was not to be created.
            SchemaVersionError: It is of another version and was not to be migrated.
            ConnectionLostError: The server cannot be reached.
            ConfigurationError: The server does not take a setting.
        """
        name = self.config.schema_name
        if create_schema or run_migrations:
            async with translated():
                connection = await asyncpg.connect(self.config.dsn, statement_cache_size=0)
            try:
                async with translated():
                    installed = await _schema.installed_versions(connection, name)
            finally:
                await connection.close()
            behind = bool(installed) and max(installed) < _schema.required_version()
            if (create_schema and not installed) or (run_migrations and behind):
                await _schema.migrate(self.config.dsn, schema=name)
        async with self._opening:
            if self._open is None:
                pool = await ConnectionPool.connect(self.config)
                self._open = PostgresTransport(pool, self.config.schema_name, self.config.tenant)
        if check_version:
            try:
                _schema.check_version(name, await self._open.schema_version())
            except PersistenceError:
                await self.aclose()
                raise

    @property
    def _state(self) -> str:
        is_open = "not open" if self._open is None else "open"
        return f"schema={self.config.schema_name!r} tenant={self.config.tenant!r}, {is_open}"

    async def __aenter__(self) -> Self:
        if self._open is None:
            await self.initialize(create_schema=False, run_migrations=False)
        return self

    async def aclose(self) -> None:
        """Wait for writes on their way and close the pool.

        Closing what is closed does nothing. `initialize` opens it again.
        """
        if self._open is not None:
            self._open.check_loop()  # before anything is given up
        await super().aclose()
        self._commits = None
        if self._open is not None:
            transport, self._open = self._open, None
            await transport.aclose()
