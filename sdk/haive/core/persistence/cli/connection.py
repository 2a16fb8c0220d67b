"""Which database a command works on."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haive.core.persistence.errors import (
    ConfigurationError,
    PersistenceError,
    UnsupportedOperationError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haive.core.persistence.multitenancy import TenantManager
    from haive.core.persistence.store import Store

# Not SUPABASE_ANON_KEY: it can do nothing without a user's token, and a command has none.
_KEYS = ("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_KEY")
# A command has a few calls under way at once, and starts sooner with few connections.
_POOL = 4
_PANEL = "Connection"

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        help="A direct connection, postgresql://… (env: DATABASE_URL)", rich_help_panel=_PANEL
    ),
]
Url = Annotated[
    str | None,
    typer.Option(help="A Supabase project's URL. (env: SUPABASE_URL)", rich_help_panel=_PANEL),
]
Key = Annotated[
    str | None,
    typer.Option(
        help=f"Its secret key. (env: {', '.join(_KEYS)})",
        rich_help_panel=_PANEL,
    ),
]
Schema = Annotated[
    str | None,
    typer.Option(
        help="The schema's name, haive if not given. (env: HAIVE_SCHEMA)", rich_help_panel=_PANEL
    ),
]
Tenant = Annotated[
    str | None,
    typer.Option(help="The tenant to work in. (env: HAIVE_TENANT)", rich_help_panel=_PANEL),
]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A database and how to reach it."""

    schema: str
    tenant: str | None
    database_url: str | None = None
    url: str | None = None
    key: str | None = None

    def store(self, *, enable_realtime: bool = False) -> Store:
        """A store on it, to be opened with `async with`."""
        if self.database_url is None:
            from haive.core.persistence.supabase import SupabaseStore  # noqa: PLC0415 - slow

            return SupabaseStore(
                url=self.url,
                key=self.key,
                schema=self.schema,
                tenant=self.tenant,
                enable_realtime=enable_realtime,
            )
        from pydantic import SecretStr  # noqa: PLC0415 - slow

        from haive.core.persistence.config import PersistenceConfig  # noqa: PLC0415 - slow
        from haive.core.persistence.postgres import PostgresStore  # noqa: PLC0415 - slow

        config = PersistenceConfig(
            connection_string=SecretStr(self.database_url),
            schema=self.schema,
            tenant=self.tenant,
            pool_size=_POOL,
        )
        return PostgresStore(config)

    @asynccontextmanager
    async def opened(self, *, enable_realtime: bool = False) -> AsyncIterator[Store]:
        """A store on it, open and in the tenant: where its rows are, and with its keys.

        Raises:
            NotFoundError: There is no such tenant.
            ConfigurationError: Its content is sealed, and TENANT_MASTER_KEY is not set.
        """
        if self.tenant is None:
            async with self.store(enable_realtime=enable_realtime) as store:
                yield store
            return
        async with (
            self._manager(enable_realtime=enable_realtime) as manager,
            manager.tenant_context(self.tenant) as store,
        ):
            yield store

    @asynccontextmanager
    async def logged(self) -> AsyncIterator[Store]:
        """A store on it for the record of the tenant: where that is, and no key is needed."""
        if self.tenant is None:
            async with self.store() as store:
                yield store
            return
        async with self._manager() as manager, manager._log_store(self.tenant) as store:
            yield store

    @asynccontextmanager
    async def _manager(self, *, enable_realtime: bool = False) -> AsyncIterator[TenantManager]:
        base = replace(self, tenant=None).store(enable_realtime=enable_realtime)
        async with base, manager_of(base, enable_row_level_security=False) as manager:
            yield manager

    def dsn(self) -> str:
        """The direct connection.

        Raises:
            UnsupportedOperationError: Only the REST API is known.
        """
        if self.database_url is None:
            raise UnsupportedOperationError(
                "This needs a direct connection to the database.",
                hint="Set DATABASE_URL, or run `supabase db push` in place of `haive migrate`.",
            )
        return self.database_url


def find_target(
    *,
    database_url: str | None = None,
    url: str | None = None,
    key: str | None = None,
    schema: str | None = None,
    tenant: str | None = None,
) -> Target:
    """Return what the options name, else the environment, else the running local stack.

    Raises:
        ConfigurationError: There is none of them.
    """
    # An empty variable is as good as none: shells and .env files leave such ones behind.
    schema = schema or os.environ.get("HAIVE_SCHEMA") or "haive"
    tenant = tenant or os.environ.get("HAIVE_TENANT") or None
    if database_url and (url or key):
        raise typer.BadParameter("--database-url and --url or --key exclude each other.")
    by_api = bool(url or key)
    if not by_api:
        database_url = database_url or os.environ.get("DATABASE_URL")
    if database_url:
        return Target(schema=schema, tenant=tenant, database_url=database_url)
    url = url or os.environ.get("SUPABASE_URL")
    key = key or next((value for name in _KEYS if (value := os.environ.get(name))), None)
    if url and key:
        return Target(schema=schema, tenant=tenant, url=url, key=key)
    if url or by_api:
        missing = "SUPABASE_SECRET_KEY (or --key)" if url else "SUPABASE_URL (or --url)"
        raise ConfigurationError("The Supabase project is half named.", hint=f"Set {missing}.")
    local = _local_database()
    if local is None:
        raise ConfigurationError(
            "No database is named, and no local stack runs.",
            hint="Set DATABASE_URL, or SUPABASE_URL and SUPABASE_SECRET_KEY, in the environment"
            " or in .env; or run `haive local start`.",
        )
    return Target(schema=schema, tenant=tenant, database_url=local)


def manager_of(store: Store, **config: Any) -> TenantManager:
    """A manager that opens encrypted tenants too, where TENANT_MASTER_KEY is set."""
    from haive.core.persistence.encryption import (  # noqa: PLC0415 - slow
        DatabaseKeyStore,
        DataKeys,
        EnvironmentKey,
    )
    from haive.core.persistence.multitenancy import (  # noqa: PLC0415 - slow
        TenantConfig,
        TenantManager,
    )

    keys = None
    if os.environ.get("TENANT_MASTER_KEY"):
        keys = DataKeys(EnvironmentKey(), DatabaseKeyStore(store))
    return TenantManager(store, TenantConfig(**config), keys=keys)


def _local_database() -> str | None:
    try:
        from haive.core.persistence.local.instances import Instance  # noqa: PLC0415 - optional

        about = Instance.named("default").about()
    except (ImportError, AttributeError, OSError, PersistenceError):
        return None  # not this machine's: other systems, or the extra "local" is not installed
    return None if about is None else str(about["database_url"])
