"""Which schemas the REST API serves, changed while it runs."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from haive.core.persistence.errors import ConfigurationError, SchemaMissingError, UnavailableError
from haive.core.persistence.multitenancy._schemas import owner
from haive.core.persistence.schema import check_schema_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from haive.core.persistence._supabase_transport import SupabaseTransport
    from haive.core.persistence.schema import Connection

_SETTING = "pgrst.db_schemas"
# All writers of the setting read it first: one at a time.
_LOCK = 0x6861697665787073
# What every project serves that has not said otherwise.
_USUAL = ("public", "graphql_public")
_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


async def expose(dsn: str, schemas: Iterable[str], *, beside: Sequence[str]) -> tuple[str, ...]:
    """Have the REST API serve more schemas, without a restart.

    The list is kept as a setting of the role `authenticator`, which PostgREST reads in place of the
    list in the project's dashboard.

    Args:
        dsn: A direct connection that may alter `authenticator` (on Supabase ``postgres``).
        schemas: The schemas to add.
        beside: What is served besides, where the setting was never made: the base schema, and what
            the dashboard lists. `public` is added.

    Returns:
        All that is served now.

    Raises:
        ConfigurationError: There is no such role, so no PostgREST reads this database.
        AccessDeniedError: The login may not alter it.
    """
    wanted = [check_schema_name(schema) for schema in schemas]

    def extended(served: list[str]) -> list[str]:
        return list(dict.fromkeys((*served, *wanted)))

    return await _rewrite(dsn, extended, beside)


async def hide(dsn: str, schemas: Iterable[str]) -> tuple[str, ...]:
    """Have the REST API serve schemas no more; the reverse of `expose`."""
    unwanted = set(schemas)
    return await _rewrite(dsn, lambda served: [s for s in served if s not in unwanted], None)


async def await_exposure(transport: SupabaseTransport, *, patience: float = 60.0) -> None:
    """Wait until the API serves the schema of a transport.

    Args:
        transport: `scoped` to the schema.
        patience: Seconds. PostgREST takes 0.1 s for a few schemas, and longer for hundreds.

    Raises:
        UnavailableError: It does not yet. It may have no configuration in the database.
    """
    end = monotonic() + patience
    pause = _PAUSE
    while True:
        try:
            await transport.schema_version()
        except (SchemaMissingError, UnavailableError):
            if monotonic() >= end:
                raise UnavailableError(
                    f"The API does not serve the schema {transport.schema} after {patience:g} s.",
                    hint="PostgREST must run with db-config, its default.",
                ) from None
        else:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _rewrite(
    dsn: str, change: Callable[[list[str]], list[str]], beside: Sequence[str] | None
) -> tuple[str, ...]:
    async with owner(dsn) as connection, connection.transaction():
        await connection.execute("select pg_catalog.pg_advisory_xact_lock($1)", _LOCK)
        if not await connection.fetchval(
            "select exists (select from pg_catalog.pg_roles where rolname = 'authenticator')"
        ):
            if beside is None:
                return ()
            raise ConfigurationError(
                "No REST API reads this database: it has no role authenticator.",
                hint="Use a PostgresStore as the base store.",
            )
        served, database = await _served(connection)
        if served is None:
            if beside is None:
                return ()
            served = [*_USUAL, *map(check_schema_name, beside)]
            served = [
                name
                for (name,) in await connection.fetch(
                    "select name from unnest($1::text[]) with ordinality as s (name, place) "
                    "join pg_catalog.pg_namespace on nspname = name order by place",
                    list(dict.fromkeys(served)),
                )
            ]
        after = change(served)
        if after != served or database is None:
            place = f" in database {database}" if database else ""
            # A literal, for ALTER takes no parameters; the server quotes it.
            literal = await connection.fetchval(
                "select pg_catalog.quote_literal($1)", ", ".join(after)
            )
            await connection.execute(f"alter role authenticator{place} set {_SETTING} = {literal}")
            await connection.execute("notify pgrst, 'reload config'; notify pgrst, 'reload schema'")
    return tuple(after)


async def _served(connection: Connection) -> tuple[list[str] | None, str | None]:
    """What the setting says, and the database that it is made in; a setting for one goes first.

    A database of None: it was never made; "": it holds for all.
    """
    row = await connection.fetchrow(
        """
        select
          split_part(setting, '=', 2) as value,
          case when s.setdatabase = 0 then '' else quote_ident(current_database()) end as database
        from pg_catalog.pg_db_role_setting as s cross join unnest(s.setconfig) as setting
        where
          s.setrole = 'authenticator'::regrole and setting like 'pgrst.db\\_schemas=%'
          and s.setdatabase in (
            0, (select oid from pg_catalog.pg_database where datname = current_database())
          )
        order by s.setdatabase desc limit 1
        """
    )
    if row is None:
        return None, None
    names = [name.strip().strip('"') for name in row["value"].split(",")]
    return [name for name in names if name], row["database"]
