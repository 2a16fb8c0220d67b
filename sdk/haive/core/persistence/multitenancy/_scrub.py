"""Overwrites what deleted rows have left in the files of a server.

DELETE marks rows, and VACUUM forgets where they are: their bytes stay in the pages until something
else is written there. They also stay in what ANALYZE has learnt of a column, and in segments of the
write-ahead log, which the server renames and uses again. So tables and their indexes are written
anew, statistics are learnt anew, and each segment is run through until it is filled with zeros.

What no connection reaches: snapshots and free blocks of the file system, standbys, archived
segments and backups. Those end when they expire; destroying the key of an encrypted tenant ends
all of them at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence._postgres_errors import translated
from haive.core.persistence.multitenancy._memories import collections
from haive.core.persistence.multitenancy._names import tenant_schemas
from haive.core.persistence.schema import DEFAULT_SCHEMA, check_schema_name

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

# The first round leaves the segment that it began in to be used again; the second fills it too.
_ROUNDS = 2
_PAUSE = 0.1
# As for `haive memory reindex`: a graph of vectors that fits is built many times faster.
_MEMORY = "1GB"


@dataclass(kw_only=True)
class Scrubbed:
    """What was overwritten."""

    tables: int = 0
    """Tables that were written anew, with their indexes."""
    columns: int = 0
    """Columns whose statistics were forgotten."""
    wal_segments: int = 0
    """Segments of the write-ahead log that were run through."""
    left: list[str] = field(default_factory=list)
    """What could not be done, and why; empty where nothing is left."""


async def scrub(
    dsn: str, *, schema: str = DEFAULT_SCHEMA, lock_timeout: str = "30s", patience: float = 30.0
) -> Scrubbed:
    """Overwrite what deleted rows have left in the tables of an installation and in the log.

    Memories and the schemas of tenants are of it. Each table is locked while it is written anew:
    about a second for 100 MB, and of memories as long as a graph of their vectors takes to build,
    like `haive memory reindex`. The log is run through only by a login that may: a superuser, or a
    member of pg_checkpoint that may execute pg_switch_wal, pg_logical_emit_message and
    pg_ls_waldir.

    Args:
        dsn: A direct connection as the owner of the schema, past any pooler.
        schema: The name of the installation.
        lock_timeout: How long a table in use is waited for.
        patience: Seconds to wait for transactions that may still see what was deleted.

    Raises:
        AccessDeniedError: The login does not own the tables.
        SchemaMissingError: Nothing is installed under the name.
        LockTimeoutError: A table was in use; what was done before stays done.
    """
    check_schema_name(schema)
    done = Scrubbed()
    async with translated():
        connection = await asyncpg.connect(dsn, server_settings={"application_name": "haive scrub"})
        try:
            await connection.execute("set statement_timeout = 0")
            await connection.execute("select set_config('lock_timeout', $1, false)", lock_timeout)
            await connection.execute(f"set maintenance_work_mem = '{_MEMORY}'")
            await _name_databases(connection, schema, done)
            await _wait_for_readers(connection, done, patience)
            await _write_anew(connection, schema, done)
            await _run_through_log(connection, done)
        finally:
            await connection.close()
    return done


async def _name_databases(connection: Connection, schema: str, done: Scrubbed) -> None:
    """Tell which databases of tenants this connection does not lead to."""
    locations = await connection.fetchval(
        f"select string_agg(location, ', ' order by location) from {schema}.tenants"  # noqa: S608 # nosec B608 - checked
        " where isolation = 'database'"
    )
    if locations:
        done.left.append(f"The databases of tenants, each by its own address: {locations}.")


async def _wait_for_readers(connection: Connection, done: Scrubbed, patience: float) -> None:
    """Wait until nobody sees what was deleted: VACUUM would carry it over for them."""
    if not await connection.fetchval("select pg_has_role('pg_read_all_stats', 'member')"):
        done.left.append(
            "Whether a transaction still sees what was deleted: only pg_read_all_stats knows."
        )
    horizon = await connection.fetchval("select pg_current_xact_id()::xid::text")
    older = (
        "select count(*) from ("
        "select backend_xmin as xmin from pg_stat_activity"
        " where pid <> pg_backend_pid() and (datname = current_database() or datname is null)"
        " union all select transaction from pg_prepared_xacts"
        " union all select xmin from pg_replication_slots"
        " union all select catalog_xmin from pg_replication_slots"
        ") as held where age(xmin) > age($1::text::xid)"
    )
    end = monotonic() + patience
    while held := await connection.fetchval(older, horizon):
        if monotonic() >= end:
            done.left.append(
                f"{held} transactions or replication slots still see what was deleted."
            )
            return
        await asyncio.sleep(_PAUSE)


async def _write_anew(connection: Connection, schema: str, done: Scrubbed) -> None:
    tables = await _tables(connection, schema)
    for table in tables:
        await connection.execute(f"vacuum (full) {table['name']}")
        done.tables += 1
    await _forget_statistics(connection, [table["oid"] for table in tables], done)
    for table in tables:
        await connection.execute(f"analyze {table['name']}")
    # It belongs to the server, and may be written anew by who owns the database.
    try:
        await connection.execute("vacuum (full) pg_catalog.pg_statistic")
    except asyncpg.InsufficientPrivilegeError:
        done.left.append("Statistics: only the owner of the database writes pg_statistic anew.")


async def _tables(connection: Connection, schema: str) -> list[asyncpg.Record]:
    """The tables of an installation, of the schemas of its tenants, and of the memories of both."""
    # A schema with an audit log outlives its tenant, and is in no register then.
    apart = await connection.fetch(
        "select nspname::text from pg_namespace where nspname ~ $1"
        " and to_regclass(nspname || '_private.migrations') is not null",
        tenant_schemas(schema),
    )
    schemas = [schema, *(name for (name,) in apart)]
    memories = [table for each in schemas for _, table in await collections(connection, each)]
    return await connection.fetch(
        "select oid, oid::regclass::text as name from pg_class where relkind = 'r'"
        " and (relnamespace::regnamespace::text = any($1::text[]) or oid = any($2::regclass[]))"
        " order by 2",
        [*schemas, *(f"{each}_private" for each in schemas)],
        memories,
    )


async def _forget_statistics(connection: Connection, tables: list[int], done: Scrubbed) -> None:
    """Forget the commonest values and the histograms: of an empty table, ANALYZE keeps the old.

    Of what an index computes they are kept as the index's.
    """
    indexes = await connection.fetch(
        "select indexrelid from pg_index where indrelid = any($1::oid[])", tables
    )
    relations = [*tables, *(index for (index,) in indexes)]
    if connection.get_server_version() >= (18,):
        cleared = await connection.fetch(
            "select pg_clear_attribute_stats("
            "s.schemaname::text, s.tablename::text, s.attname::text, s.inherited)"
            " from pg_stats as s"
            " where format('%I.%I', s.schemaname, s.tablename)::regclass::oid = any($1::oid[])",
            relations,
        )
        done.columns = len(cleared)
        return
    try:
        status = await connection.execute(
            "delete from pg_catalog.pg_statistic where starelid = any($1::oid[])", relations
        )
        done.columns = int(status.split()[-1])
    except asyncpg.InsufficientPrivilegeError:
        done.left.append(
            "Statistics: before Postgres 18 only a superuser forgets those of empty tables."
        )


async def _run_through_log(connection: Connection, done: Scrubbed) -> None:
    try:
        for _ in range(_ROUNDS):
            await connection.execute("checkpoint")
            count = await connection.fetchval("select count(*) from pg_ls_waldir()")
            for _ in range(count + 1):
                # A switch at the beginning of a segment does nothing: write something first.
                await connection.execute("select pg_logical_emit_message(false, 'haive', '')")
                await connection.execute("select pg_switch_wal()")
                done.wal_segments += 1
        await connection.execute("checkpoint")
        kept = await connection.fetchval(
            "select count(*) from pg_ls_waldir(), pg_control_checkpoint()"
            " where name < redo_wal_file and name ~ '^[0-9A-F]{24}$'"
        )
    except asyncpg.InsufficientPrivilegeError as error:
        done.left.append(
            f"The write-ahead log: {error.args[0]}. Its segments are used again in time;"
            " archived ones end with the backups."
        )
        return
    if kept:
        done.left.append(
            f"{kept} old segments of the write-ahead log: a standby, a slot, the archive or"
            " wal_keep_size holds them."
        )
