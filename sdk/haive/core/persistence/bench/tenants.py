"""`haive bench tenants`: what limits and the record cost a message, and whether a limit holds."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import AsyncExitStack
from time import perf_counter
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.timing import (
    Subject,
    latency_rows,
    rate_rows,
    ratio_row,
    take_turns,
    take_turns_by_call,
)
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.errors import QuotaExceededError
from haive.core.persistence.multitenancy import (
    AuditMode,
    ResourceQuota,
    TenantConfig,
    TenantManager,
)
from haive.core.persistence.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Call, Progress, Samples
    from haive.core.persistence.store import Store

_TEXT = "x" * 300
_USAGE = {"input_tokens": 60, "output_tokens": 40}
_METHOD = (
    "Messages of 300 bytes with token counts from one process; NAME/N is N callers, each awaiting"
    " its call before the next, with a conversation of its own. plain is a tenant that is neither"
    " metered nor audited; metered has limits of conversations, storage and tokens; rated one of"
    " requests a minute too; audited puts writes on record besides. All take turns, after"
    " a round that warms up. context is the time of a tenant_context. race: 1,000"
    " creates at once at a limit of 100, while sessions that create are killed."
)

# Far away: what it costs to keep a limit, not to be at one.
_FAR = ResourceQuota(max_conversations=10**9, max_storage_gb=10**6, max_tokens_per_month=10**15)
_RATED = ResourceQuota(max_requests_per_minute=10**9).over(_FAR)
_TENANTS: dict[str, tuple[ResourceQuota | None, AuditMode]] = {
    "plain": (None, AuditMode.OFF),
    "metered": (_FAR, AuditMode.OFF),
    "rated": (_RATED, AuditMode.OFF),
    "audited": (_RATED, AuditMode.WRITES),
}
_CREATES, _LIMIT = 1_000, 100


async def measure(
    server: Server, *, rounds: int, seconds: float, races: int, progress: Progress
) -> Report:
    """Run the bench."""
    report = Report(bench="tenants", method=_METHOD, machine=server.machine)
    async with AsyncExitStack() as opened:
        store = await opened.enter_async_context(
            PostgresStore(PersistenceConfig(connection_string=server.dsn))
        )
        manager = TenantManager(
            store, TenantConfig(enable_row_level_security=False, audit=AuditMode.OFF)
        )
        stores = {
            name: await opened.enter_async_context(_tenant(manager, server, name))
            for name in _TENANTS
        }
        subjects = [
            Subject(f"{name}/{callers}", await _adding(tenant, callers))
            for callers in (1, 256)
            for name, tenant in stores.items()
        ]
        samples = await take_turns(subjects, rounds=rounds, seconds=seconds, progress=progress)
        report.rows = [*rate_rows(samples), *_ratios(samples)]
        report.rows += await _contexts(manager, rounds, progress)
        report.rows.append(await _races(manager, server, races, progress))
    return report


@contextlib.asynccontextmanager
async def _tenant(manager: TenantManager, server: Server, name: str) -> AsyncIterator[Store]:
    quota, audit = _TENANTS[name]
    tenant_id = f"bench-{name}"
    await manager.create_tenant(tenant_id, None, {}, quota, audit=audit)
    if quota is None:
        # The manager meters all that it makes.
        await server.owner.execute(
            """select haive.update_tenant($1, '{"metered": false}')""", tenant_id
        )
    try:
        async with manager.tenant_context(tenant_id) as store:
            yield store
    finally:
        await manager.delete_tenant(tenant_id)
        await manager.purge_tenant(tenant_id)


async def _adding(store: Store, callers: int) -> list[Call]:
    made = [await store.create_conversation("bench") for _ in range(callers)]

    def adding(number: int) -> Call:
        conversation = made[number].id
        return lambda: store.add_message(conversation, "user", _TEXT, token_usage=_USAGE)

    return [adding(number) for number in range(callers)]


def _ratios(samples: Samples) -> list[Row]:
    return [
        ratio_row(
            f"{name}:plain/{callers}",
            [sample.rate for sample in samples[f"{name}/{callers}"]],
            [sample.rate for sample in samples[f"plain/{callers}"]],
            Bar(at_least=0.75),
        )
        for callers in (1, 256)
        for name in _TENANTS
        if name != "plain"
    ]


async def _contexts(manager: TenantManager, rounds: int, progress: Progress) -> list[Row]:
    async def enter(_: int) -> None:
        async with manager.tenant_context("bench-metered"):
            pass

    samples = await take_turns_by_call(
        {"context": enter}, rounds=rounds, calls=2_000, progress=progress
    )
    return latency_rows(samples, (50, 99), {("context", 50): Bar(at_most=0.1)})


async def _races(manager: TenantManager, server: Server, races: int, progress: Progress) -> Row:
    """How many conversations there are after each race, and the farthest from the limit."""
    made = []
    for number in range(races):
        progress(f"race {number + 1} of {races}")
        tenant_id = f"bench-race-{number}"
        await manager.create_tenant(tenant_id, None, {}, ResourceQuota(max_conversations=_LIMIT))
        killing = asyncio.create_task(_kill(server.admin_dsn, random.Random(number)))  # noqa: S311 # nosec B311
        try:
            async with manager.tenant_context(tenant_id) as store:
                passed = sum(await asyncio.gather(*(_create(store) for _ in range(_CREATES))))
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
        stored = await server.owner.fetchval(
            "select count(*) from haive.conversations where tenant_id = $1", tenant_id
        )
        made.append(float(stored if stored == passed else -1))
        await manager.delete_tenant(tenant_id)
        await manager.purge_tenant(tenant_id)
    farthest = max(abs(count - _LIMIT) for count in made)
    return Row(
        name="race",
        metric="off_the_limit",
        value=farthest,
        unit="rows",
        low=min(made),
        high=max(made),
        bar=Bar(at_most=0),
    )


async def _create(store: Store) -> bool:
    try:
        await store.create_conversation("bench")
    except QuotaExceededError:
        return False
    return True


async def _kill(dsn: str, chance: random.Random) -> None:
    """End a session that creates, again and again."""
    connection = await asyncpg.connect(dsn)
    try:
        until = perf_counter() + 60
        while perf_counter() < until:
            await asyncio.sleep(chance.uniform(0.01, 0.1))
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where query like '%create_conversations%' and pid <> pg_backend_pid()"
                " and datname = current_database() and state = 'active' order by random() limit 1"
            )
    finally:
        await connection.close()
