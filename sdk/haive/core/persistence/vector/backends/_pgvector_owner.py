"""What only the owner of the tables can do, on a direct connection: indexes of vectors."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence._postgres_errors import translated
from haive.core.persistence.errors import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from haive.core.persistence.schema import Connection

_PROGRESS = """
select p.phase, p.blocks_done, p.blocks_total, p.tuples_done, p.tuples_total
from pg_catalog.pg_stat_progress_create_index as p where p.pid = $1
"""
_OF_THIS_NAME = """
select i.indisvalid, (
  select o.option_value::int from pg_catalog.pg_options_to_table(c.reloptions) as o
  where o.option_name = 'lists'
)
from pg_catalog.pg_index as i
join pg_catalog.pg_class as c on c.oid = i.indexrelid
where i.indexrelid = pg_catalog.to_regclass($1)
"""
_ROWS = """
select c.reltuples::bigint from pg_catalog.pg_class as c
where c.oid = pg_catalog.to_regclass($1)
"""
# Of tenants that are no more.
_ORPHANS = """
select pg_catalog.format('vecs.%I', c.relname)
from pg_catalog.pg_index as i
join pg_catalog.pg_class as c on c.oid = i.indexrelid
where i.indrelid = pg_catalog.to_regclass($1)
  and c.relname ~ '^ix_own_(words_|data_)?[0-9a-f]{{16}}$'
  and not exists (
    select from {schema}.tenants as t
    where right(c.relname, 16) = left(pg_catalog.md5($2 || '/' || t.tenant_id), 16)
  )
order by 1
"""
_LISTS = re.compile(r"\(lists = (\d+)\)")
# Of fewer rows all are compared, and lists of them would be wrong for many.
_ROWS_OF_LISTS = 10_000
# Lists of so many times as many rows as they should have, or as few, are made anew.
_OFF = 4
_EVERY = 0.5  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedIndex:
    """An index that a collection should have."""

    name: str
    """With its schema: ``vecs.ix_…``."""
    statement: str

    @property
    def plain(self) -> str:
        """Its name alone."""
        return self.name.removeprefix("vecs.")


@asynccontextmanager
async def owner(dsn: str) -> AsyncIterator[Connection]:
    """A connection of its own, with errors of ours and no limit of time."""
    async with translated():
        connection = await asyncpg.connect(
            dsn, statement_cache_size=0, server_settings={"statement_timeout": "0"}
        )
    try:
        async with translated():
            yield connection
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A collection in the database that it is to be in."""

    schema: str
    tenant: str | None
    name: str
    table: str
    """Its table in schema ``vecs``, as it is called."""
    created_at: str

    @property
    def quoted(self) -> str:
        """The table, as a statement names it."""
        return 'vecs."{}"'.format(self.table.replace('"', '""'))


async def check_database(dsn: str, of: Owned) -> None:
    """Refuse a connection to a database that has not this collection, but one of its name or none.

    Raises:
        ConfigurationError: It is another database.
    """
    try:
        async with owner(dsn) as connection:
            found = await connection.fetchval(
                f"select {of.schema}.memory_stats($1, tenant => $2)"  # nosec B608 - checked
                " #>> '{collection,created_at}'",
                of.name,
                of.tenant,
            )
    except NotFoundError:
        found = None
    if found is None or datetime.fromisoformat(found) != datetime.fromisoformat(of.created_at):
        raise ConfigurationError(
            f"The connection is to another database than that with the collection {of.name}.",
            hint="Give the one of the database that the tenant is in.",
        )


async def build_indexes(
    dsn: str,
    plan: Callable[[], Awaitable[Sequence[PlannedIndex]]],
    of: Owned,
    *,
    memory: str,
    progress: Callable[[str, float], None],
) -> list[str]:
    """Build what is missing, while others read and write, and return the names of it.

    An index that was left half built is removed first. Lists (IVFFLAT) are built from 10,000 rows
    on, and anew where there are four times as many rows to a list as there should be, or as few.
    Those of tenants that were purged are removed. Who is ended meanwhile can call it again.

    Args:
        dsn: A direct connection as the owner, not through a pooler.
        plan: Answers what `plan_memory_indexes` does; called when the sizes are known.
        of: The collection.
        memory: `maintenance_work_mem`: a graph that fits is built many times faster.
        progress: Told the name of an index and which share of it is built, twice a second.
    """
    built = []
    async with owner(dsn) as connection, owner(dsn) as watcher:
        await connection.execute(
            "select pg_catalog.set_config('maintenance_work_mem', $1, false)", memory
        )
        # The sizes that searches decide by; lists are counted from them too.
        await connection.execute(f"analyze {of.quoted}")
        rows = await connection.fetchval(_ROWS, of.quoted)
        orphans = _ORPHANS.format(schema=of.schema)
        for (name,) in await connection.fetch(orphans, of.quoted, of.table):
            await connection.execute(f"drop index concurrently if exists {name}")
        for index in await plan():
            newer = _successor(index)
            await connection.execute(f"drop index concurrently if exists {newer.name}")
            found = await connection.fetchrow(_OF_THIS_NAME, index.name)
            is_valid, lists = found or (None, None)
            if is_valid and not _is_off(lists, _lists(index)):
                continue
            if not is_valid and _lists(index) is not None and rows < _ROWS_OF_LISTS:
                continue
            watch = asyncio.create_task(
                _watch(watcher, connection.get_server_pid(), index.name, progress)
            )
            try:
                if is_valid:  # Searches have the older one until the newer is there.
                    await connection.execute(newer.statement)
                    await connection.execute(f"drop index concurrently {index.name}")
                    await connection.execute(f"alter index {newer.name} rename to {index.plain}")
                else:
                    await connection.execute(f"drop index concurrently if exists {index.name}")
                    await connection.execute(index.statement)
            finally:
                watch.cancel()
                with suppress(asyncio.CancelledError):
                    await watch
            progress(index.name, 1.0)
            built.append(index.name)
    return built


def _successor(index: PlannedIndex) -> PlannedIndex:
    """The same index by another name, which takes the place of the older one."""
    newer = f"{index.plain}_new"
    return PlannedIndex(
        name=f"vecs.{newer}", statement=index.statement.replace(index.plain, newer, 1)
    )


def _lists(index: PlannedIndex) -> int | None:
    """How many lists it is to have; None of another kind of index."""
    found = _LISTS.search(index.statement)
    return None if found is None else int(found[1])


def _is_off(has: int | None, wanted: int | None) -> bool:
    return has is not None and wanted is not None and not has / _OFF <= wanted <= has * _OFF


async def measure_recall(dsn: str, of: Owned) -> None:
    """Measure what the indexes find of a tenant's memories; a second a million, 100 times."""
    async with owner(dsn) as connection:
        await connection.execute(
            f"select {of.schema}.measure_memory_recall($1, tenant => $2)",  # nosec B608 - checked
            of.name,
            of.tenant,
        )


async def _watch(
    watcher: Connection, pid: int, name: str, progress: Callable[[str, float], None]
) -> None:
    while True:
        row = await watcher.fetchrow(_PROGRESS, pid)
        if row is not None:
            for done, total in ((row[3], row[4]), (row[1], row[2])):
                if total:
                    progress(name, min(1.0, done / total))
                    break
        await asyncio.sleep(_EVERY)
