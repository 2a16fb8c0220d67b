"""`haive bench consolidation`: stopped anywhere and gone on with, it ends where it would have."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING

from haive.core.persistence.bench.consolidator import memory_in
from haive.core.persistence.bench.corpus import dialogues_of
from haive.core.persistence.bench.killed import begun, environment
from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from haive.core.persistence.bench.corpus import Dialogue
    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress
    from haive.core.persistence.vector.records import Record

_METHOD = (
    "{memories} memories of {dialogues} dialogues, {each} dialogues a user, in two databases that"
    " are copies of one another. In one a process consolidates them ({strategy}, originals"
    " archived); in the other it is killed with SIGKILL {stops} times, wherever chance says, and"
    " started again. different counts the memories that are not the same in both, with their"
    " vectors, but for the time at which they were written; again, what one more run writes."
)
_MODULE = "haive.core.persistence.bench.consolidator"
_BEGAN = datetime(2026, 1, 1, 8, tzinfo=UTC)
_OF_A_USER = 60
# Of all that is written: beyond, what was written and not yet told could be all that is left.
_LAST_STOP = 0.95
_PAGE = 500


async def measure(
    server: Server,
    *,
    file: str,
    dialogues: int | None,
    strategy: str,
    threshold: float,
    stops: int,
    progress: Progress,
) -> Report:
    """Run the bench."""
    progress("reading the dialogues")
    talks = [talk for _, talk in zip(range(dialogues or 1 << 40), dialogues_of(file), strict=False)]
    if not talks:
        raise InvalidInputError("The file has no dialogues.")
    until = _BEGAN + timedelta(hours=len(talks))
    how = (strategy, str(threshold), until.isoformat())
    async with server.databases() as make:
        through = await make()
        memories = await _fill(through, talks, progress)
        stopped = await make(through)
        progress("consolidating without a stop")
        groups, written, seconds = await _to_its_end(through, how)
        lefts, resumed = await _stopped(stopped, how, written, stops=stops, progress=progress)
        progress("comparing")
        different = await _different(through, stopped)
        progress("once more")
        _, again, repeated = await _to_its_end(stopped, how)
    return Report(
        bench="consolidation",
        method=_METHOD.format(
            memories=memories,
            dialogues=len(talks),
            each=_OF_A_USER,
            strategy=strategy,
            stops=stops,
        ),
        machine=server.machine,
        rows=[
            _count("memories", memories),
            _count("groups", groups, Bar(at_least=stops)),
            _count("stopped", len(lefts), Bar(at_least=stops)),
            Row.of("stopped", "left", "share", lefts),
            _count("different", different, Bar(at_most=0)),
            _count("again", again, Bar(at_most=0)),
            Row.of("through", "seconds", "s", [seconds]),
            Row.of("stopped", "seconds", "s", [resumed]),
            Row.of("again", "seconds", "s", [repeated]),
        ],
    )


async def _fill(dsn: str, talks: Sequence[Dialogue], progress: Progress) -> int:
    """Store the dialogues, an hour after the other; how many memories that makes."""
    async with _store(dsn) as store:
        memory = memory_in(store)
        for number, talk in enumerate(talks):
            if number % 50 == 0:
                progress(f"storing: {number:,}/{len(talks):,} dialogues")
            at = _BEGAN + timedelta(hours=number)
            messages = [
                {**message, "timestamp": at + timedelta(seconds=20 * place)}
                for place, message in enumerate(talk)
                if message["content"].strip()
            ]
            about = {
                "conversation_id": f"dialogue-{number}",
                "user_id": f"user-{number // _OF_A_USER}",
            }
            await memory.store_conversation(messages, about)
        return (await memory.stats()).total


async def _to_its_end(dsn: str, how: Sequence[str]) -> tuple[int, int, float]:
    """Run until it is done: how many groups there are, what was written, and the seconds."""
    start, written = perf_counter(), 0
    async with begun(_MODULE, *how, env=environment(DATABASE_URL=dsn)) as (_, told):
        async for what, count in told:
            if what == "ended":
                return count, written, perf_counter() - start
            written += count
    raise RuntimeError("The process that consolidates failed.")


async def _stopped(
    dsn: str, how: Sequence[str], written: int, *, stops: int, progress: Progress
) -> tuple[list[float], float]:
    """Kill it that often, then let it end; the share left each time, and the seconds of all."""
    chance = random.Random(stops)  # noqa: S311 # nosec B311 - when, not what with
    points = sorted(chance.uniform(0, _LAST_STOP * written) for _ in range(stops))
    done, lefts, start = 0, [], perf_counter()
    for number, point in enumerate(points, 1):
        progress(f"stopping {number} of {stops}")
        async with begun(_MODULE, *how, env=environment(DATABASE_URL=dsn)) as (process, told):
            async for what, count in told:
                if what == "ended":
                    raise RuntimeError("It ended before it could be stopped.")
                done += count
                if done >= point:
                    break
            process.kill()
        lefts.append(max(1 - done / written, 0.0))
    progress("letting it end")
    await _to_its_end(dsn, how)
    return lefts, perf_counter() - start


async def _different(one: str, other: str) -> int:
    """How many memories are in one of them alone, or not the same."""
    ours = {record.id: _state(record) async for record in _records(one)}
    different = 0
    async for record in _records(other):
        different += ours.pop(record.id, None) != _state(record)
    return different + len(ours)


async def _records(dsn: str) -> AsyncIterator[Record]:
    async with _store(dsn) as store:
        shelf = await memory_in(store)._open()
        async for record in shelf.records(None, vectors=True):
            yield record


def _state(record: Record) -> int:
    known = {name: value for name, value in record.metadata.items() if name != "created_at"}
    vector = b"" if record.vector is None else record.vector.tobytes()
    return hash((repr(sorted(known.items())), vector))


def _store(dsn: str) -> PostgresStore:
    return PostgresStore(PersistenceConfig(connection_string=dsn))


def _count(name: str, value: int, bar: Bar | None = None) -> Row:
    return Row.of(name, "count", "rows", [value], bar)
