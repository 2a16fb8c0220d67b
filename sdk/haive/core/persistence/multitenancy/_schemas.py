"""Schemas of tenants: the kit installed once more, under a tenant's own name."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence._postgres_errors import translated
from haive.core.persistence.errors import ConfigurationError, ConflictError, NotFoundError
from haive.core.persistence.multitenancy._memories import drop_collections
from haive.core.persistence.multitenancy._names import tenant_schema
from haive.core.persistence.schema import check_schema_name, install, installed_versions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haive.core.persistence.multitenancy.models import Tenant
    from haive.core.persistence.schema import Connection


async def check_register(dsn: str, base: str, tenant: Tenant) -> None:
    """See that a connection leads to the database whose register has the tenant.

    Raises:
        ConfigurationError: It leads to another one: nothing may be made or removed there.
    """
    check_schema_name(base)
    async with owner(dsn) as connection:
        found = None
        if await installed_versions(connection, base):
            found = await connection.fetchval(
                f"select created_at from {base}.tenants where tenant_id = $1",  # noqa: S608 # nosec B608 - checked
                tenant.tenant_id,
            )
    if found != tenant.created_at:
        raise ConfigurationError(
            f"The owner's connection leads to a database without the tenant {tenant.tenant_id}.",
            hint="Give TenantConfig the admin_connection_string of the base store's database.",
        )


async def provision(dsn: str, base: str, tenant_id: str) -> str:
    """Install the kit for a tenant of the registry, under a name of its own.

    What is there stays, so the same call goes on where another one was ended. Any number of
    processes may do so at once.

    Args:
        dsn: A direct connection as the owner of the base schema.
        base: The schema with the registry.
        tenant_id: A tenant in it, whatever its isolation.

    Returns:
        The name of the schema.

    Raises:
        NotFoundError: The registry has no such tenant.
        ConflictError: A schema has the name and is not the tenant's.
    """
    async with owner(dsn) as connection:
        return await provision_by(connection, base, tenant_id)


async def provision_by(connection: Connection, base: str, tenant_id: str) -> str:
    """What `provision` does, by a connection of the owner."""
    schema = tenant_schema(base, tenant_id)
    await _check_owner(connection, schema, tenant_id)
    await install(connection, schema)
    await describe(connection, base, schema, tenant_id)
    return schema


async def drop(dsn: str, base: str, tenant_id: str) -> bool:
    """Remove the schema of a tenant with all that is in it, unless it has an audit log.

    What was put on record stays, and then the emptied schema with it.

    Returns:
        Whether it was removed.

    Raises:
        ConflictError: It is not the tenant's.
    """
    schema = tenant_schema(base, tenant_id)
    async with owner(dsn) as connection:
        if not await _check_owner(connection, schema, tenant_id):
            return False
        logged = f"select exists (select from {schema}.audit_log)"  # noqa: S608 # nosec B608 - checked
        if await connection.fetchval(logged):
            return False
        await drop_collections(connection, schema)
        # Both names were checked: no other text reaches the statement.
        await connection.execute(f"drop schema if exists {schema}, {schema}_private cascade")
    return True


async def purge(dsn: str, base: str, tenant_id: str) -> int:
    """Remove the rows of a tenant from its schema, and return how many conversations those were."""
    schema = tenant_schema(base, tenant_id)
    async with owner(dsn) as connection, connection.transaction():
        if not await _check_owner(connection, schema, tenant_id):
            return 0
        known = f"select exists (select from {schema}.tenants where tenant_id = $1)"  # noqa: S608 # nosec B608 - checked
        if not await connection.fetchval(known, tenant_id):
            return 0
        removed: int = await connection.fetchval(f"select {schema}.purge_tenant($1)", tenant_id)
    return removed


async def describe(connection: Connection, base: str, schema: str, tenant_id: str) -> None:
    """Write into a tenant's schema what the registry says of it: name, settings, limits, status.

    Where the tenant is not in there, callers of the schema are told that it is elsewhere.

    Raises:
        NotFoundError: The registry has no such tenant.
    """
    check_schema_name(base), check_schema_name(schema)
    columns = await connection.fetch(
        """
        select pg_catalog.quote_ident(attname) from pg_catalog.pg_attribute
        where attrelid = $1::text::regclass and attnum > 0 and not attisdropped
          and attname <> all(array['tenant_id', 'isolation', 'location', 'warned'])
        """,
        f"{schema}.tenants",
    )
    named = ", ".join(name for (name,) in columns)
    given = ", ".join(f"excluded.{name}" for (name,) in columns)
    elsewhere = "case isolation when 'schema' then 'row' else 'schema' end"
    done = await connection.execute(
        f"insert into {schema}.tenants (tenant_id, {named}, isolation) "  # noqa: S608 # nosec B608
        f"select tenant_id, {named}, {elsewhere} from {base}.tenants where tenant_id = $1 "
        "on conflict (tenant_id) do update "
        f"set ({named}, isolation) = ({given}, excluded.isolation)",
        tenant_id,
    )
    if done.endswith(" 0"):
        raise NotFoundError(f"no tenant {tenant_id[:63]}", hint="Create it with create_tenant.")


async def _check_owner(connection: Connection, schema: str, tenant_id: str) -> bool:
    """Whether a tenant has its schema already; False where there is none of the name."""
    if not await connection.fetchval(
        "select exists (select from pg_catalog.pg_namespace where nspname = $1)", schema
    ):
        return False
    tenants: list[str] | None = None
    if await installed_versions(connection, schema):
        tenants = await connection.fetchval(
            f"select pg_catalog.array_agg(tenant_id) from {schema}.tenants"  # noqa: S608 # nosec B608
        )
    if tenants is None or not set(tenants) <= {"default", tenant_id}:
        raise ConflictError(
            f"The schema {schema} is not of tenant {tenant_id}.",
            hint="Rename it, or choose another tenant_id.",
        )
    return True


@asynccontextmanager
async def owner(dsn: str) -> AsyncIterator[Connection]:
    """A connection of its own, as the owner of the schemas, with errors of ours."""
    async with translated():
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        async with translated():
            yield connection
    finally:
        await connection.close()
