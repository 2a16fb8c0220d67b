"""`haive bench rotation`: a new key for all of a tenant, in use, killed and killed again."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import uuid4

from haive.core.persistence._keys import KeyRing
from haive.core.persistence.bench.killed import begun, environment
from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.sealed import Traffic, fill
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.encryption import DatabaseKeyStore, DataKeys, EnvironmentKey, Sealer
from haive.core.persistence.encryption._rotation import _uses
from haive.core.persistence.multitenancy import AuditMode, TenantConfig, TenantManager
from haive.core.persistence.postgres import PostgresStore

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress
    from haive.core.persistence.store import Store

_METHOD = (
    "A tenant with sealed messages, conversations and checkpoints, 92, 4 and 4 of 100 rows. Readers"
    " compare what they open with what was written, writers go on adding, and a process that"
    " rotates the keys is killed with SIGKILL, once before it uses the new key and then wherever"
    " chance says that it is; at last one ends the work. left is the share of rows on the old key"
    " when it was killed. undisturbed is one more rotation, under the same traffic, that nobody"
    " kills. Keys are at hand for 1 s, and a rotation waits that long twice."
)
_MAX_AGE = 1.0
# Rows that are read, sealed and written at once.
_BATCH = 500
# Of all rows: beyond, what was written and not yet told could be all that is left.
_LAST_KILL = 0.9


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A tenant, and what its processes are started with."""

    tenant: str
    batch: int
    environment: dict[str, str]

    def rotor(self) -> AbstractAsyncContextManager[tuple[Process, AsyncIterator[tuple[str, int]]]]:
        """A process that rotates, and what it tells from the moment that it begins to."""
        arguments = (self.tenant, str(_MAX_AGE), str(self.batch))
        return begun("haive.core.persistence.bench.rotor", *arguments, env=self.environment)

    async def to_its_end(self) -> tuple[int, float]:
        """Rotate until it is done: how many rows it sealed, and in how many seconds."""
        start = perf_counter()
        async with self.rotor() as (_, told):
            async for what, count in told:
                if what == "ended":
                    return count, perf_counter() - start
        raise RuntimeError("The process that rotates failed.")


async def measure(server: Server, *, rows: int, kills: int, progress: Progress) -> Report:
    """Run the bench."""
    report = Report(bench="rotation", method=_METHOD, machine=server.machine)
    master = KeyRing.generate()
    run = _Run(
        tenant=f"bench-rotation-{uuid4().hex[:8]}",
        batch=min(_BATCH, max(rows // 100, 1)),
        environment=environment(DATABASE_URL=server.dsn, TENANT_MASTER_KEY=master),
    )
    async with AsyncExitStack() as opened:
        base = await opened.enter_async_context(
            PostgresStore(PersistenceConfig(connection_string=server.dsn))
        )
        keys = DataKeys(
            EnvironmentKey(environ={"TENANT_MASTER_KEY": master}), DatabaseKeyStore(base)
        )
        config = TenantConfig(
            enable_encryption_at_rest=True, enable_row_level_security=False, audit=AuditMode.OFF
        )
        manager = TenantManager(base, config, keys=keys)
        await manager.create_tenant(run.tenant)
        try:
            report.rows = await _measure(
                server, run, keys, opened=opened, rows=rows, kills=kills, progress=progress
            )
        finally:
            await manager.delete_tenant(run.tenant)
            await manager.purge_tenant(run.tenant)
    return report


async def _measure(
    server: Server,
    run: _Run,
    keys: DataKeys,
    *,
    opened: AsyncExitStack,
    rows: int,
    kills: int,
    progress: Progress,
) -> list[Row]:
    async def store() -> Store:
        config = PersistenceConfig(connection_string=server.dsn, tenant=run.tenant, pool_size=2)
        one = await opened.enter_async_context(PostgresStore(config))
        one._sealer = Sealer(run.tenant, keys, max_age=_MAX_AGE)
        return one

    contents = await fill(await store(), rows, progress)
    reader = await store()
    old = await _keys_in_use(reader)
    async with Traffic([reader, await store()], [await store()], contents) as traffic:
        lefts, seconds = await _killed(run, reader, old, kills=kills, rows=rows, progress=progress)
        progress("ending what was killed")
        _, last = await run.to_its_end()
        seconds += last
        after = await _keys_in_use(reader)
        progress("once more, undisturbed")
        resealed, undisturbed = await run.to_its_end()
    left = sum(count for key, count in after.items() if key in old)
    lost = await contents.lost(reader)
    return [
        _count("rows", sum(old.values())),
        _count("killed", len(lefts), Bar(at_least=kills)),
        Row.of("killed", "left", "ratio", lefts or [0.0]),
        _count("reads", traffic.reads, Bar(at_least=100)),
        _count("reads failed", traffic.failed_reads, Bar(at_most=0)),
        _count("writes", traffic.writes, Bar(at_least=100)),
        _count("writes failed", traffic.failed_writes, Bar(at_most=0)),
        _count("on the old key", left, Bar(at_most=0)),
        _count("lost or changed", lost, Bar(at_most=0)),
        Row.of("killed", "seconds", "s", [seconds]),
        Row.of("killed", "rows_per_s", "rows/s", [sum(old.values()) / seconds]),
        Row.of("undisturbed", "seconds", "s", [undisturbed]),
        Row.of("undisturbed", "rows_per_s", "rows/s", [resealed / undisturbed]),
    ]


async def _killed(
    run: _Run, reader: Store, old: dict[str, int], *, kills: int, rows: int, progress: Progress
) -> tuple[list[float], float]:
    """Kill it that often; the share of rows on the old key each time, and the seconds."""
    chance = random.Random(kills)  # noqa: S311 # nosec B311 - when, not what with
    points = sorted(chance.uniform(0, _LAST_KILL * rows) for _ in range(kills - 1))
    lefts: list[float] = []
    done = 0
    start = perf_counter()
    for number, point in enumerate((None, *points), 1):
        progress(f"killing {number} of {kills}")
        async with run.rotor() as (process, told):
            if point is not None:
                done += await _reached(told, point - done)
            await asyncio.sleep(chance.uniform(0, 0.05))
            process.kill()
        found = await _keys_in_use(reader)
        lefts.append(sum(found.get(key, 0) for key in old) / sum(found.values()))
    return lefts, perf_counter() - start


async def _reached(told: AsyncIterator[tuple[str, int]], rows: float) -> int:
    """Wait until so many rows are done, at least one batch; how many are."""
    done: dict[str, int] = {}
    async for what, count in told:
        if what == "ended":
            break
        done[what] = count
        if sum(done.values()) >= rows:
            return sum(done.values())
    raise RuntimeError("The rotation ended before it could be killed.")


async def _keys_in_use(store: Store) -> dict[str, int]:
    found: dict[str, int] = {}
    for use in await _uses(store):
        key = use.key_id or "in the clear"
        found[key] = found.get(key, 0) + use.rows
    return found


def _count(name: str, value: int, bar: Bar | None = None) -> Row:
    return Row.of(name, "count", "rows", [value], bar)
