"""`haive bench subscriptions`: how soon and how much is heard, and what that costs who writes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence.bench import chaos
from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.server import TENANT, Server, machine
from haive.core.persistence.bench.timing import (
    Sample,
    Subject,
    latency_rows,
    rate_rows,
    ratio_row,
    take_turns,
)
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.local import LocalStack
from haive.core.persistence.models import MessageRole, NewMessage
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.supabase import SupabaseStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from haive.core.persistence.bench.timing import Call, Progress, Samples
    from haive.core.persistence.events import Subscription
    from haive.core.persistence.store import Store

_SETTINGS = {"fsync": "on", "synchronous_commit": "on", "max_connections": "200"}
_METHOD = (
    "Cost: messages of 300 bytes; NAME/N is N callers, each with a conversation of its own."
    " plain has neither the trigger nor the indexes that reading the outbox needs; unwatched"
    " has them, and nobody listens; notify and realtime are watched, all of the tenant. All take"
    " turns, after a round that warms up. Latency: from before a message is inserted, by a direct"
    " connection, until the subscriber has the event. Rate: events of 256 conversations a"
    " statement, until the subscriber has the last one. Chaos: what the subscriber heard against"
    " the log, while connections are cut, slots lost, tokens replaced and Postgres killed."
)
_TEXT = "x" * 300
_PLAIN = (
    "drop trigger hint_events on haive.events",
    "drop index haive.events_order_idx",
    "drop index haive.events_conversation_idx",
    "drop index haive.events_thread_idx",
)
_WATCH = (
    "insert into haive_private.watches (tenant_id, channel, way, expires_at)"
    " values ($1, 'tenant', $2, now() + interval '1 day')"
)


async def measure(
    *,
    rounds: int,
    seconds: float,
    calls: int,
    events: int,
    chaos_events: int,
    disconnects: int,
    restarts: int,
    progress: Progress,
) -> Report:
    """Run the bench."""
    with TemporaryDirectory() as folder:
        async with LocalStack(data_dir=Path(folder), postgres_settings=_SETTINGS) as stack:
            owner = await asyncpg.connect(stack.database_url)
            try:
                await owner.execute(
                    "insert into haive.tenants (tenant_id, name) values ($1, $1)", TENANT
                )
                report = Report(bench="subscriptions", method=_METHOD, machine=await machine(owner))
                report.rows = await _costs(stack, owner, rounds, seconds, progress)
                for name in ("postgres", "supabase"):
                    async with _stores(stack, name) as (writer, store):
                        progress(f"latency: {name}")
                        report.rows += await _latency(writer, store, name, calls, rounds)
                        progress(f"rate: {name}")
                        report.rows.append(await _rate(writer, store, name, events, rounds))
            finally:
                await owner.close()
            for name in ("postgres", "supabase") if chaos_events else ():
                outcome = await chaos.run(
                    stack,
                    name,
                    events=chaos_events,
                    disconnects=disconnects,
                    restarts=restarts,
                    data_dir=folder,
                    progress=progress,
                )
                report.notes.append(f"chaos {name}: {outcome}")
                wrong = float(outcome.missing + outcome.twice + outcome.disorder)
                report.rows.append(
                    Row.of(f"chaos {name}", "wrong", "rows", [wrong], Bar(at_most=0))
                )
                report.rows.append(
                    Row.of(f"chaos {name}", "events", "rows", [float(outcome.events)])
                )
                report.rows.append(
                    Row.of(
                        f"chaos {name}",
                        "disconnects",
                        "rows",
                        [float(outcome.disconnects)],
                        Bar(at_least=disconnects),
                    )
                )
    return report


async def _costs(
    stack: LocalStack,
    owner: asyncpg.Connection[asyncpg.Record],
    rounds: int,
    seconds: float,
    progress: Progress,
) -> list[Row]:
    server = Server(dsn=stack.database_url, admin_dsn=stack.admin_url, owner=owner, machine={})
    async with AsyncExitStack() as opened:
        database = await opened.enter_async_context(server.databases())
        stores: dict[str, Store] = {}
        for name in ("plain", "unwatched", "notify"):
            dsn = await database()
            connection = await asyncpg.connect(dsn)
            for statement in _PLAIN if name == "plain" else ():
                await connection.execute(statement)
            if name == "notify":
                await connection.execute(_WATCH, "default", name)
            await connection.close()
            stores[name] = await opened.enter_async_context(
                PostgresStore(PersistenceConfig(connection_string=dsn))
            )
        # Realtime reads one database only.
        await owner.execute(_WATCH, TENANT, "realtime")
        stores["realtime"] = await opened.enter_async_context(
            PostgresStore(PersistenceConfig(connection_string=stack.database_url, tenant=TENANT))
        )
        subjects = [
            Subject(f"{name}/{callers}", await _adding(store, callers))
            for callers in (1, 256)
            for name, store in stores.items()
        ]
        samples: Samples = await take_turns(
            subjects, rounds=rounds, seconds=seconds, progress=progress
        )
        await owner.execute("delete from haive_private.watches")
    rows = rate_rows(samples)
    for callers in (1, 256):
        plain = [sample.rate for sample in samples[f"plain/{callers}"]]
        for name in ("unwatched", "notify", "realtime"):
            rates = [sample.rate for sample in samples[f"{name}/{callers}"]]
            bar = Bar(at_least=0.93) if name == "unwatched" else None
            rows.append(ratio_row(f"{name}:plain/{callers}", rates, plain, bar))
    return rows


async def _adding(store: Store, callers: int) -> list[Call]:
    made = [await store.create_conversation("bench") for _ in range(callers)]

    def adding(number: int) -> Call:
        conversation = made[number].id
        return lambda: store.add_message(conversation, "user", _TEXT)

    return [adding(number) for number in range(callers)]


@asynccontextmanager
async def _stores(stack: LocalStack, name: str) -> AsyncIterator[tuple[PostgresStore, Store]]:
    config = PersistenceConfig(connection_string=stack.database_url, tenant=TENANT)
    store: Store
    if name == "postgres":
        store = PostgresStore(config)
    else:
        store = SupabaseStore(stack.url, stack.secret_key, tenant=TENANT, enable_realtime=True)
    async with PostgresStore(config) as writer, store:
        yield writer, store


async def _latency(
    writer: PostgresStore, store: Store, name: str, calls: int, rounds: int
) -> list[Row]:
    """From before the insert until the event is in the subscriber's hands."""
    conversation = await writer.create_conversation("bench")
    samples: Samples = {f"insert to event {name}": []}
    async with store.subscribe(f"conversation:{conversation.id}") as events:
        await _heard(events)
        for _ in range(rounds):
            sample = Sample()
            for _ in range(calls // rounds):
                hearing = asyncio.create_task(anext(events))
                await asyncio.sleep(0)
                start = perf_counter()
                await asyncio.gather(writer.add_message(conversation.id, "user", _TEXT), hearing)
                sample.latencies.append(perf_counter() - start)
            sample.seconds = sum(sample.latencies)
            samples[f"insert to event {name}"].append(sample)
    bars = {(f"insert to event {name}", 50): Bar(at_most=5)}
    return latency_rows(samples, (50, 95), bars)


async def _rate(writer: PostgresStore, store: Store, name: str, events: int, rounds: int) -> Row:
    """Events of 256 conversations at once, until the last one is in the subscriber's hands."""
    made = [(await writer.create_conversation("bench")).id for _ in range(256)]
    rates = []
    async with store.subscribe("conversations") as subscription:
        await _heard(subscription)
        for _ in range(rounds):
            batches = max(events // rounds // len(made), 1)
            start = perf_counter()
            writing = asyncio.create_task(_write(writer, made, batches))
            for _ in range(batches * len(made)):
                await anext(subscription)
            rates.append(batches * len(made) / (perf_counter() - start))
            await writing
    return Row.of(f"sustained {name}", "events_per_s", "events/s", rates, Bar(at_least=5_000))


async def _write(writer: PostgresStore, ids: list[UUID], batches: int) -> None:
    for _ in range(batches):
        await writer.add_messages(
            [NewMessage(conversation_id=key, role=MessageRole.USER, content=_TEXT) for key in ids]
        )


async def _heard(subscription: Subscription) -> None:
    """Wait until hints arrive, which is what is measured."""
    async with asyncio.timeout(30):
        while not subscription.is_heard:  # noqa: ASYNC110 - it is of another task's making
            await asyncio.sleep(0.05)
