"""Bringing the schemas of tenants to the version of this package."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haive.core.persistence.errors import PersistenceError, SchemaMissingError
from haive.core.persistence.multitenancy._schemas import owner
from haive.core.persistence.schema import (
    DEFAULT_SCHEMA,
    check_schema_name,
    install,
    required_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from haive.core.persistence.schema import Connection

# One server process builds what another one writes; beyond that they wait for its disk.
_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class TenantMigration:
    """What was done for the schema of one tenant."""

    tenant_id: str
    schema: str
    #: Migrations that were applied now, or would be in a dry run.
    applied: tuple[str, ...] = ()
    #: Why they were not; nothing of them was kept then.
    error: PersistenceError | None = None


@dataclass(frozen=True, kw_only=True)
class TenantMigrationReport:
    """What `migrate_tenants` found and did, by tenant."""

    tenants: tuple[TenantMigration, ...]
    #: The newest migration there is.
    version: str

    @property
    def changed(self) -> tuple[TenantMigration, ...]:
        """Tenants whose schemas were behind."""
        return tuple(tenant for tenant in self.tenants if tenant.applied)

    @property
    def failed(self) -> tuple[TenantMigration, ...]:
        """Tenants whose schemas are as they were, with the errors."""
        return tuple(tenant for tenant in self.tenants if tenant.error is not None)


async def migrate_tenants(
    dsn: str,
    *,
    schema: str = DEFAULT_SCHEMA,
    dry_run: bool = False,
    at_once: int = _AT_ONCE,
    on_done: Callable[[TenantMigration, int], None] | None = None,
) -> TenantMigrationReport:
    """Bring the schemas of all tenants to the version of this package.

    Each is one transaction. One that fails is reported and stops no other; the same call goes on
    where another one was ended, and finds done what is done.

    Args:
        dsn: A direct connection as the owner of the schemas.
        schema: The base schema, at this version already, with the registry.
        dry_run: Only report what would be applied.
        at_once: How many connections work.
        on_done: Is told of each tenant, with the number of all.

    Raises:
        SchemaMissingError: The base schema is not installed, or knows no tenants yet.
    """
    check_schema_name(schema)
    async with owner(dsn) as connection:
        waiting = await _registered(connection, schema)
    count = len(waiting)
    done: list[TenantMigration] = []

    async def work() -> None:
        while waiting:
            result = await _migrate_one(dsn, *waiting.pop(), dry_run=dry_run)
            done.append(result)
            if on_done is not None:
                on_done(result, count)

    await asyncio.gather(*(work() for _ in range(min(at_once, count))))
    done.sort(key=lambda tenant: tenant.tenant_id)
    return TenantMigrationReport(tenants=tuple(done), version=required_version())


async def _registered(connection: Connection, schema: str) -> list[tuple[str, str]]:
    """Tenants that have a schema of their own, with its name; the last one first."""
    if not await connection.fetchval(
        "select exists (select from pg_catalog.pg_attribute "
        "where attrelid = pg_catalog.to_regclass($1) and attname = 'location')",
        f"{schema}.tenants",
    ):
        raise SchemaMissingError(
            f"Schema {schema!r} knows no tenants with schemas of their own.",
            hint=f"Run `haive migrate --schema {schema}`.",
        )
    rows = await connection.fetch(
        f"select tenant_id, location::text from {schema}.tenants "  # noqa: S608 # nosec B608
        "where isolation = 'schema' and location is not null order by tenant_id desc"
    )
    return [(row["tenant_id"], row["location"]) for row in rows]


async def _migrate_one(
    dsn: str, tenant_id: str, location: str, *, dry_run: bool
) -> TenantMigration:
    try:
        # A connection each: one that is lost is one tenant's.
        async with owner(dsn) as connection:
            applied = await install(connection, location, dry_run=dry_run)
    except PersistenceError as error:
        return TenantMigration(tenant_id=tenant_id, schema=location, error=error)
    return TenantMigration(tenant_id=tenant_id, schema=location, applied=applied)
