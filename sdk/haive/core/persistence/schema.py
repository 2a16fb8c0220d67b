"""The database schema: which version this package needs, and how to install it."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.resources
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from haive.core.persistence import _declared
from haive.core.persistence._postgres_errors import translated
from haive.core.persistence.errors import (
    InvalidInputError,
    LockTimeoutError,
    SchemaError,
    SchemaMissingError,
    SchemaVersionError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

T = TypeVar("T")
DEFAULT_SCHEMA = "haive"

# The two identifiers of the SQL files; roles such as haive_client belong to the server and stay,
# and so does the header x-haive-tenant. A minus may stand before a call.
_IDENTIFIER = re.compile(
    r"(?<![\w-])haive(?=(?:_private)?(?![\w-]))|(?<=-)haive(?=(?:_private)?\.\w)"
)
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,54}")
# Grants without SET came with it.
_OLDEST_POSTGRES = 16
# One lock for all installations of a database: they share its roles.
_LOCK = 0x68616976
# Whoever waits for a table holds up all who come after. So a migration gives way after so long, if
# it says nothing else, and tries again, for so many seconds, with a pause in which the others pass.
_GIVE_WAY = "set local lock_timeout = '2s'"
_PATIENCE, _PAUSE = 60.0, 1.0


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file of ``supabase/migrations``."""

    version: str
    name: str
    sql: str


@dataclass(frozen=True, kw_only=True)
class MigrationReport:
    """What `migrate` found and did."""

    schema: str
    #: Migrations that were applied now, or would be in a dry run.
    applied: tuple[str, ...]
    #: The newest migration there is.
    version: str


def check_schema_name(name: str) -> str:
    """Return ``name`` if it can be a schema without quotes, with ``_private`` behind it.

    Raises:
        InvalidInputError: It cannot.
    """
    if not _SCHEMA_NAME.fullmatch(name) or name.startswith("pg_"):
        raise InvalidInputError(
            "A schema name is 1 to 55 of a-z, 0-9 and _, begins with no digit and not with pg_."
        )
    return name


def relocate(sql: str, schema: str) -> str:
    """SQL of this package for an installation under another name."""
    check_schema_name(schema)
    return sql if schema == DEFAULT_SCHEMA else _IDENTIFIER.sub(schema, sql)


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations of this version, oldest first."""
    package = importlib.resources.files("haive.core.persistence")
    folder = Path(str(package / "_migrations"))
    if not folder.is_dir():  # a checkout: the wheel carries a copy
        folder = Path(__file__).parents[4] / "supabase" / "migrations"
    found = []
    for file in sorted(folder.glob("*.sql")):
        version, _, name = file.stem.partition("_")
        found.append(Migration(version=version, name=name, sql=file.read_text("utf-8")))
    return tuple(found)


def required_version() -> str:
    """The migration that this version of the package was written for."""
    return migrations()[-1].version


async def migrate(
    dsn: str, *, schema: str = DEFAULT_SCHEMA, dry_run: bool = False
) -> MigrationReport:
    """Bring the schema to the version of this package.

    Each migration is one transaction. Any number of processes may call this at once: one of them
    works and the others find it done. Migrations that ``supabase db push`` applied count.

    Args:
        dsn: A direct connection as the owner of the schema-to-be (on Supabase ``postgres``).
        schema: The name to install under; ``X_private`` comes beside it.
        dry_run: Only report what would be applied.

    Raises:
        InvalidInputError: The name cannot be a schema.
        SchemaVersionError: The database is newer than this package.
        LockTimeoutError: A table was in use for a minute; what was applied before stays.
    """
    check_schema_name(schema)
    async with translated():
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        async with translated():
            return await _migrate(connection, schema, dry_run=dry_run)
    finally:
        await connection.close()


async def _migrate(connection: Connection, schema: str, *, dry_run: bool) -> MigrationReport:
    if connection.get_server_version().major < _OLDEST_POSTGRES:
        raise SchemaError(f"Postgres {_OLDEST_POSTGRES} or newer is needed.")
    reserved = await connection.fetchval("select pg_catalog.quote_ident($1) <> $1", schema)
    if reserved:
        raise InvalidInputError(f"{schema!r} is a word of SQL: choose another schema name.")
    applied = []
    for migration in migrations():

        async def apply(migration: Migration = migration) -> bool:
            if not dry_run:
                await connection.execute("select pg_catalog.pg_advisory_xact_lock($1)", _LOCK)
            if migration.version in await installed_versions(connection, schema):
                return False
            if not dry_run:
                await connection.execute(_GIVE_WAY)
                await connection.execute(relocate(migration.sql, schema))
                # With each, for it stays where a later one fails.
                await connection.execute("notify pgrst, 'reload schema'")
            return True

        if await _giving_way(connection, schema, apply):
            applied.append(f"{migration.version}_{migration.name}")
    newest = max(await installed_versions(connection, schema), default="")
    if newest > required_version():
        raise _version_error(schema, newest)
    return MigrationReport(schema=schema, applied=tuple(applied), version=required_version())


async def install(connection: Connection, schema: str, *, dry_run: bool = False) -> tuple[str, ...]:
    """Install under one more name, or bring it to this version, in one transaction.

    For schemas of tenants: the roles are there from the base's installation, so these need no lock
    but their own. A new one is made from the declaration, without its comments, and
    PostgREST is not told where the login can keep it from being told: it would read all schemas
    anew, also where it serves none of them (`_exposure.expose` tells it).

    Returns:
        The migrations that were applied, or would be in a dry run.

    Raises:
        SchemaVersionError: It is newer than this package.
        LockTimeoutError: A table was in use for a minute.
    """
    check_schema_name(schema)

    async def bring() -> tuple[str, ...]:
        if not dry_run:
            await connection.execute(
                "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, $2))",
                schema,
                _LOCK,
            )
        done = await installed_versions(connection, schema)
        newest = max(done, default="")
        if newest > required_version():
            raise _version_error(schema, newest)
        missing = [migration for migration in migrations() if migration.version not in done]
        if missing and not dry_run:
            await connection.execute(_GIVE_WAY)
            if done or await _has_default_privileges(connection):
                script = relocate("\n".join(migration.sql for migration in missing), schema)
            else:
                script = await _declaration(connection, schema)
                await _keep_quiet(connection)
            await _run(connection, script)
            await _tell_if_served(connection, schema)
        return tuple(f"{migration.version}_{migration.name}" for migration in missing)

    return await _giving_way(connection, schema, bring)


async def _giving_way(connection: Connection, schema: str, work: Callable[[], Awaitable[T]]) -> T:
    """Do something in a transaction, and again as long as a table is in use."""
    end = monotonic() + _PATIENCE
    while True:
        try:
            async with connection.transaction():
                return await work()
        except asyncpg.LockNotAvailableError as error:
            if monotonic() >= end:
                raise LockTimeoutError(
                    f"A table of the schema {schema!r} was in use all the time.",
                    hint="End the long transaction (pg_stat_activity shows it), and call again.",
                    sqlstate=error.sqlstate,
                ) from None
        await asyncio.sleep(_PAUSE)


async def _run(connection: Connection, script: str) -> None:
    """Execute many statements as part of one, which pg_stat_statements takes for nothing new.

    On its own each is a statement that it has not seen, as all name the schema: it would open its
    file for 600 texts, and forget as many of those that an application runs.
    """
    await connection.execute(
        "select pg_catalog.set_config('haive_install.script', $1, true)", script
    )
    await connection.execute(
        "do $$ begin execute pg_catalog.current_setting('haive_install.script'); end $$"
    )
    await connection.execute("set local haive_install.script = ''")


async def _declaration(connection: Connection, schema: str) -> str:
    """The script that installs what is declared, as if its history had made it."""
    owner: str = await connection.fetchval("select pg_catalog.quote_ident(current_user)")
    every = ", ".join(f"('{migration.version}', '{migration.name}')" for migration in migrations())
    known = f"insert into haive_private.migrations (version, name) values {every};"  # noqa: S608 # nosec B608 - of this package
    script = relocate(_declared.script() + known, schema)
    unique = f"_{hashlib.sha256(schema.encode()).hexdigest()[:8]}"
    return script.replace(_declared.OWNER, owner).replace(_declared.UNIQUE, unique)


async def _has_default_privileges(connection: Connection) -> bool:
    """Whether functions get callers of their own when they are made: only the history undoes it."""
    found: bool = await connection.fetchval(
        "select exists (select from pg_catalog.pg_default_acl where defaclnamespace = 0"
        " and defaclobjtype = 'f' and pg_catalog.pg_get_userbyid(defaclrole) in"
        " (current_user, 'haive_writer'))"
    )
    return found


async def _keep_quiet(connection: Connection) -> None:
    """Have no event trigger tell PostgREST of what this transaction makes, if that is all they do.

    On Supabase, where these triggers and the `issue_` ones of extensions are, `postgres` may do so.
    """
    kinds = {
        row["kind"]
        for row in await connection.fetch(
            "select pg_catalog.substring(evtname::text, '^(?:pgrst|issue)_') as kind"
            " from pg_catalog.pg_event_trigger where evtenabled <> 'D' and evtevent <> 'login'"
        )
    }
    if "pgrst_" in kinds and None not in kinds:
        with suppress(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                # Not set_config, which Supabase does not let pass.
                await connection.execute("set local session_replication_role = replica")


async def _tell_if_served(connection: Connection, schema: str) -> None:
    """Tell PostgREST of a schema that is new and that it was told to serve before."""
    await connection.execute(
        "select pg_catalog.pg_notify('pgrst', 'reload schema') where exists (select"
        " from pg_catalog.pg_db_role_setting cross join unnest(setconfig) as setting"
        " where setting like 'pgrst.db\\_schemas=%' and $1 = any(pg_catalog.regexp_split_to_array("
        " pg_catalog.split_part(setting, '=', 2), '[\\s,\"]+')))",
        schema,
    )


async def installed_versions(connection: Connection, schema: str) -> frozenset[str]:
    """The versions of the migrations that an installation has; empty where there is none."""
    check_schema_name(schema)
    # A select and not to_regclass, which looks into the session's cache of the catalogue and does
    # not see what another process installed while this one waited for the lock.
    if not await connection.fetchval(
        "select exists (select from pg_catalog.pg_class as c "
        "join pg_catalog.pg_namespace as n on n.oid = c.relnamespace "
        "where n.nspname = $1 and c.relname = 'migrations')",
        f"{schema}_private",
    ):
        return frozenset()
    # The name was checked above: no other text reaches the statement.
    rows = await connection.fetch(f"select version from {schema}_private.migrations")  # noqa: S608 # nosec B608
    return frozenset(row["version"] for row in rows)


def check_version(schema: str, installed: str | None) -> None:
    """Compare the newest installed migration with the one that this package needs.

    Raises:
        SchemaMissingError: Nothing is installed.
        SchemaVersionError: The installation is older or newer.
    """
    if not installed:
        raise SchemaMissingError(
            f"Schema {schema!r} is not installed here.",
            hint=f"Run `haive migrate --schema {schema}`, or `supabase db push`.",
        )
    if installed != required_version():
        raise _version_error(schema, installed)


def _version_error(schema: str, installed: str) -> SchemaVersionError:
    needed = required_version()
    older = installed < needed
    return SchemaVersionError(
        f"Schema {schema!r} is at version {installed}, this package needs {needed}.",
        hint=f"Run `haive migrate --schema {schema}`." if older else "Upgrade haive-persistence.",
    )
