"""`haive bench checkpoints`: what states of workflows take, in bytes and in time."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence.bench import savers
from haive.core.persistence.bench.corpus import Writer, dialogues_of, states_of
from haive.core.persistence.bench.link import slow_link
from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.savers import AT_ONCE
from haive.core.persistence.bench.timing import Sample, ratio_row
from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from haive.core.persistence.bench.corpus import Dialogue
    from haive.core.persistence.bench.savers import Saver, SlowSaver
    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress

    Databases = Callable[[], Awaitable[str]]
    Tables = tuple[tuple[str, ...], tuple[str, ...]]
    Opener = Callable[[str], AbstractAsyncContextManager[Saver]]
    SlowOpener = Callable[[str, Dialogue], AbstractAsyncContextManager[SlowSaver]]

_METHOD = (
    "{steps} steps, each with one more message of 800 bytes, the same for all, each in an empty"
    " database of its own: ours is Checkpointer, ours-sealed the same with a key,"
    " langgraph-postgres AsyncPostgresSaver.aput, langgraph-delta that saver with its writes in a"
    " graph whose messages are a DeltaChannel(100), ours-langgraph HaiveSaver in that graph with an"
    " ordinary channel."
    " disk_bytes are all tables with indexes and toast, growth_bytes without what they take empty."
    " restore is the latest state with nothing in the cache, history all checkpoints, ours without"
    " states. slow: a link with a round trip of 20 ms. large: a state of 4.7 MB and an edit of one"
    " of its messages. sizes: {states} states of 10 KB to 5 MB, each stored whole."
)
_MESSAGE_BYTES = 800
_READS = 60
_LINK_SECONDS = 0.02
_SLOW_STEPS = 12
_LARGE_BYTES = 4_700_000
_STATES = 60
_DIALOGUES = 3_000  # more than the largest state takes
_SMALLEST, _LARGEST = 10_000, 5_000_000

_BARS = {
    ("ours", "disk_bytes"): Bar(at_most=450_000),
    ("ours-langgraph", "disk_bytes"): Bar(at_most=900_000),
    ("ours", "restore_p50_ms"): Bar(at_most=1.5),
    ("ours", "history_p50_ms"): Bar(at_most=2),
    ("ours/slow", "save_round_trips"): Bar(at_most=1),
    ("large", "stored_bytes"): Bar(at_most=4_096),
    ("large", "save_p50_ms"): Bar(at_most=60),
    ("sizes", "compressed_average_bytes"): Bar(at_most=1_000_000),
}


@dataclass(frozen=True, slots=True)
class _Subject:
    name: str
    open: Opener
    tables: Tables


class _Figures:
    """Values by name and metric, one for each round."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str, str], list[float]] = defaultdict(list)

    def add(self, name: str, metric: str, unit: str, value: float) -> None:
        self.values[name, metric, unit].append(value)

    def rows(self) -> list[Row]:
        return [
            Row.of(name, metric, unit, rounds, _BARS.get((name, metric)))
            for (name, metric, unit), rounds in self.values.items()
        ]

    def of(self, name: str, metric: str) -> list[float]:
        for (of, measured, _), rounds in self.values.items():
            if (of, measured) == (name, metric):
                return rounds
        return []


async def measure(
    server: Server, *, steps: int, rounds: int, input_file: str | None, progress: Progress
) -> Report:
    """Run the bench."""
    report = Report(
        bench="checkpoints",
        method=_METHOD.format(steps=steps, states=_STATES),
        machine=server.machine,
    )
    messages = Writer(1).messages(steps, _MESSAGE_BYTES)
    subjects = [
        _Subject("ours", savers.ours, savers.OUR_TABLES),
        _Subject("ours-sealed", savers.ours_sealed, savers.OUR_TABLES),
    ]
    slow: dict[str, SlowOpener] = {"ours": savers.ours_slow}
    if (absent := savers.missing()) is None:
        subjects += [
            _Subject("langgraph-postgres", savers.langgraph_postgres, savers.PEER_TABLES),
            _Subject("langgraph-delta", savers.langgraph_delta, savers.PEER_TABLES),
            _Subject("ours-langgraph", savers.ours_langgraph, savers.OUR_TABLES),
        ]
        slow["langgraph-postgres"] = savers.peer_slow
    else:
        report.notes.append(absent)
    figures = _Figures()
    async with server.databases() as new_database:
        await _warm_up(new_database, subjects, messages[:20], progress)
        for number in range(1, rounds + 1):
            for subject in subjects:
                progress(f"round {number} of {rounds}: {subject.name}")
                await _steps(await new_database(), subject, messages, figures)
            for name, opener in slow.items():
                progress(f"round {number} of {rounds}: {name} over the slow link")
                await _slow(await new_database(), name, opener, figures)
            progress(f"round {number} of {rounds}: a large state")
            await _large(await new_database(), figures)
        progress("states of many sizes")
        report.notes += await _sizes(await new_database(), input_file, figures)
    report.rows = [*figures.rows(), *_ratios(figures)]
    return report


def _ratios(figures: _Figures) -> list[Row]:
    rows = []
    for name, metric, least in (("", "puts_per_s", 3), ("/slow", "puts_at_once_per_s", 8)):
        peer = figures.of(f"langgraph-postgres{name}", metric)
        if peer:
            ours = figures.of(f"ours{name}", metric)
            rows.append(
                ratio_row(f"ours:langgraph-postgres{name}", ours, peer, Bar(at_least=least))
            )
    return rows


# -- step by step ----------------------------------------------------------------------------------


async def _warm_up(
    new_database: Databases, subjects: list[_Subject], messages: Dialogue, progress: Progress
) -> None:
    for subject in subjects:
        progress(f"warming up: {subject.name}")
        await _steps(await new_database(), subject, messages, _Figures())


async def _steps(dsn: str, subject: _Subject, messages: Dialogue, figures: _Figures) -> None:
    whole, growing = subject.tables
    async with AsyncExitStack() as opened:
        saver = await opened.enter_async_context(subject.open(dsn))
        watcher = await asyncpg.connect(dsn)
        opened.push_async_callback(watcher.close)
        empty = await _disk(watcher, (*whole, *growing))
        before = await _disk(watcher, growing)
        lsn = await watcher.fetchval("select pg_current_wal_insert_lsn()")
        sample = await saver.save_all(messages)
        wal = await watcher.fetchval("select pg_current_wal_insert_lsn() - $1::pg_lsn", lsn)
        full = await _disk(watcher, (*whole, *growing))
        restores = Sample([await saver.restore() for _ in range(_READS)])
        histories = Sample([await saver.history() for _ in range(max(3, _READS // 6))])
    name = subject.name
    figures.add(name, "disk_bytes", "bytes", full - before)
    figures.add(name, "growth_bytes", "bytes", full - empty)
    figures.add(name, "wal_bytes", "bytes", int(wal))
    figures.add(name, "puts_per_s", "puts/s", sample.rate)
    figures.add(name, "put_p50_ms", "ms", sample.milliseconds(50))
    figures.add(name, "restore_p50_ms", "ms", restores.milliseconds(50))
    figures.add(name, "history_p50_ms", "ms", histories.milliseconds(50))


async def _disk(connection: asyncpg.Connection[asyncpg.Record], tables: tuple[str, ...]) -> int:
    found: int = await connection.fetchval(
        "select coalesce(sum(pg_total_relation_size(t::regclass)), 0)::bigint"
        " from unnest($1::text[]) as t",
        list(tables),
    )
    return found


# -- over the slow link ----------------------------------------------------------------------------


async def _slow(dsn: str, name: str, opener: SlowOpener, figures: _Figures) -> None:
    messages = Writer(2).messages(2 + 2 * _SLOW_STEPS, _MESSAGE_BYTES)
    async with slow_link(dsn, _LINK_SECONDS) as link, opener(link.dsn, messages) as saver:

        async def run(threads: range, steps: range) -> Sample:
            sample = Sample()

            async def one(thread: int) -> None:
                for step in steps:
                    start = perf_counter()
                    await saver.put(thread, step)
                    sample.latencies.append(perf_counter() - start)

            begin = perf_counter()
            async with asyncio.TaskGroup() as group:
                for thread in threads:
                    group.create_task(one(thread))
            sample.seconds = perf_counter() - begin
            return sample

        # The first saves begin the threads and prepare the statements of every connection.
        await run(range(AT_ONCE), range(2))
        together = await run(range(AT_ONCE), range(2, 2 + _SLOW_STEPS))
        before = link.round_trips
        alone = await run(range(1), range(2 + _SLOW_STEPS, 2 + 2 * _SLOW_STEPS))
        trips = link.round_trips - before
    figures.add(f"{name}/slow", "save_round_trips", "round trips", trips / _SLOW_STEPS)
    figures.add(f"{name}/slow", "save_p50_ms", "ms", alone.milliseconds(50))
    figures.add(f"{name}/slow", "puts_at_once_per_s", "puts/s", together.rate)


# -- large states ----------------------------------------------------------------------------------


async def _large(dsn: str, figures: _Figures) -> None:
    writer = Writer(3)
    count = _LARGE_BYTES // (_MESSAGE_BYTES + 30)  # with its keys
    messages = writer.messages(count, _MESSAGE_BYTES)
    state = {"messages": messages, "status": "running"}
    chance = random.Random(3)  # noqa: S311 - made-up edits # nosec B311
    taken, stored = Sample(), []
    async with PostgresStore(PersistenceConfig(connection_string=dsn)) as store:
        checkpointer = Checkpointer(store)
        await checkpointer.save("large", state)
        for _ in range(7):
            edited = chance.randrange(count)
            messages[edited] = {"role": "user", "content": writer.text(_MESSAGE_BYTES)}
            start = perf_counter()
            saved = await checkpointer.save("large", state)
            taken.latencies.append(perf_counter() - start)
            stored.append((await checkpointer.get(saved)).stored_bytes)
    figures.add("large", "stored_bytes", "bytes", statistics.median(stored))
    figures.add("large", "save_p50_ms", "ms", taken.milliseconds(50))


async def _sizes(dsn: str, input_file: str | None, figures: _Figures) -> list[str]:
    ratio = (_LARGEST / _SMALLEST) ** (1 / (_STATES - 1))
    sizes = [round(_SMALLEST * ratio**number) for number in range(_STATES)]
    if input_file is None:
        dialogues = Writer(4).dialogues(_DIALOGUES)
    else:
        dialogues = list(dialogues_of(input_file))
    if not dialogues:
        return ["No dialogues: the compressed average is left out."]
    plain, stored = [], []
    async with PostgresStore(PersistenceConfig(connection_string=dsn)) as store:
        checkpointer = Checkpointer(store)
        for number, state in enumerate(states_of(dialogues, sizes)):
            saved = await checkpointer.save(f"state-{number}", state)
            found = await checkpointer.get(saved)
            plain.append(found.size)
            stored.append(found.stored_bytes)
    for metric, value in (
        ("average_bytes", statistics.mean(plain)),
        ("compressed_average_bytes", statistics.mean(stored)),
        ("maximum_bytes", max(plain)),
        ("compressed_maximum_bytes", max(stored)),
    ):
        figures.add("sizes", metric, "bytes", value)
    return []
