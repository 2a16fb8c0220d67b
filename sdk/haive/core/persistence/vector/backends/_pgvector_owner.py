"""What only the owner of the tables can do, on a direct connection: indexes of vectors."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence._postgres_errors import translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from haive.core.persistence.schema import Connection

_PROGRESS = """
select p.phase, p.blocks_done, p.blocks_total, p.tuples_done, p.tuples_total
from pg_catalog.pg_stat_progress_create_index as p where p.pid = $1
"""
_OF_THIS_NAME = """
select i.indisvalid from pg_catalog.pg_index as i
where i.indexrelid = pg_catalog.to_regclass($1)
"""
_EVERY = 0.5  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedIndex:
    """An index that a collection should have."""

    name: str
    statement: str


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


async def build_indexes(
    dsn: str,
    plan: Sequence[PlannedIndex],
    table: str,
    *,
    memory: str,
    progress: Callable[[str, float], None],
) -> list[str]:
    """Build what is missing, while others read and write, and return the names of it.

    An index that was left half built is removed first. Who is ended meanwhile can call it again.

    Args:
        dsn: A direct connection as the owner, not through a pooler.
        plan: What `plan_memory_indexes` answers.
        table: The collection's, quoted.
        memory: `maintenance_work_mem`: a graph that fits is built many times faster.
        progress: Told the name of an index and which share of it is built, twice a second.
    """
    built = []
    async with owner(dsn) as connection, owner(dsn) as watcher:
        await connection.execute(
            "select pg_catalog.set_config('maintenance_work_mem', $1, false)", memory
        )
        # The sizes that searches decide by; lists are counted from them too.
        await connection.execute(f"analyze {table}")
        for index in plan:
            valid = await connection.fetchval(_OF_THIS_NAME, index.name)
            if valid:
                continue
            if valid is False:
                await connection.execute(f"drop index concurrently if exists {index.name}")
            watch = asyncio.create_task(
                _watch(watcher, connection.get_server_pid(), index.name, progress)
            )
            try:
                await connection.execute(index.statement)
            finally:
                watch.cancel()
                with suppress(asyncio.CancelledError):
                    await watch
            progress(index.name, 1.0)
            built.append(index.name)
    return built


async def measure_recall(dsn: str, schema: str, collection: str, tenant: str | None) -> None:
    """Measure what the indexes find of a tenant's memories; a second a million, 50 times."""
    async with owner(dsn) as connection:
        await connection.execute(
            f"select {schema}.measure_memory_recall($1, tenant => $2)",  # nosec B608 - checked
            collection,
            tenant,
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
