"""`haive bench forgetting`: what a user said is gone, exactly that, and from everywhere."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING

from haive.core.persistence.bench.corpus import Writer
from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.vector import MemoryConfig, VectorMemory
from haive.core.persistence.vector._shelf import equals
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.filters import parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress
    from haive.core.persistence.vector import ForgetResult, Memory

_METHOD = (
    "{memories} turns of a user and a quarter as many of another, in conversations of {turns} with"
    " summaries and keywords, and summaries of clusters above them. First every fifth turn, with a"
    " word of its own, is forgotten by a filter, so that summaries are made anew; then the user."
    " miscounted is by how much the counts that are told differ from those that SQL and the sources"
    " of each memory gave before. found is what is still there of it: by the words and the vectors"
    " of its texts, archived ones too, by id, by filter, by its word in the table and in the"
    " statistics of words. other's changed are memories of the other user that are not as before."
)
_COLLECTION = "bench-forgetting"
_USER, _OTHER = "user-1", "user-2"
_BEGAN = datetime(2026, 1, 1, 8, tzinfo=UTC)
_TURNS = 20
# Every fifth turn says the mark; each turn says whose it is.
_MARKED = [1, 6, 11, 16]
_MARK, _SIGN, _OTHER_SIGN = "xylophone", "quixotry", "jubilee"
# Made-up texts are as far from one another as sentences of one topic.
_ALIKE = 0.35
_PROBES = 100


@dataclass(frozen=True, slots=True)
class _Figures:
    """What one forgetting did, and what it left."""

    result: ForgetResult
    seconds: float
    miscounted: int
    found: int


async def measure(server: Server, *, memories: int, progress: Progress) -> Report:
    """Run the bench."""
    config = MemoryConfig(index_name=_COLLECTION, embedder=HashingEmbedder(), near_duplicate=None)
    async with server.store() as store:
        memory = VectorMemory(config=config, backend=PgvectorBackend(store))
        await _fill(memory, _USER, memories, progress)
        await _fill(memory, _OTHER, memories // 4, progress)
        progress("consolidating")
        done = await memory.consolidate_memories(similarity_threshold=_ALIKE)
        others = await _of(memory, _OTHER)
        marked = {"user_id": _USER, "kind": "turn", "seq": {"$in": _MARKED}}
        some = await _forgotten(server, memory, marked, _MARK, progress)
        every = await _forgotten(server, memory, {"user_id": _USER}, _SIGN, progress)
        left = await _of(memory, _OTHER)
    rows = [
        _count("turns", memories),
        _count("clusters", len(done.created), Bar(at_least=1)),
        _count("some: rebuilt", len(some.result.rebuilt), Bar(at_least=1)),
    ]
    for name, figures in (("some", some), ("the user", every)):
        rows += [
            _count(f"{name}: forgotten", figures.result.total, Bar(at_least=1)),
            _count(f"{name}: miscounted", figures.miscounted, Bar(at_most=0)),
            _count(f"{name}: found", figures.found, Bar(at_most=0)),
            Row.of(name, "seconds", "s", [figures.seconds]),
            Row.of(name, "rows_per_s", "rows/s", [figures.result.total / figures.seconds]),
        ]
    changed = sum(left.get(each) != others.get(each) for each in left.keys() | others.keys())
    rows.append(_count("other's changed", changed, Bar(at_most=0)))
    return Report(
        bench="forgetting",
        method=_METHOD.format(memories=memories, turns=_TURNS),
        machine=server.machine,
        rows=rows,
    )


async def _fill(memory: VectorMemory, user: str, count: int, progress: Progress) -> None:
    """Store conversations whose turns all say who they are of, and some more than that."""
    writer = Writer(count)
    sign, mark = (_SIGN, _MARK) if user == _USER else (_OTHER_SIGN, "")
    for start in range(0, count, _TURNS):
        progress(f"storing: {start:,}/{count:,} turns of {user}")
        at = _BEGAN + timedelta(hours=start)
        turns = [
            {
                "role": message["role"],
                "content": f"{sign} {mark if seq in _MARKED else ''} {message['content']}",
                "timestamp": at + timedelta(minutes=seq),
            }
            for seq, message in enumerate(writer.messages(min(_TURNS, count - start), 160), 1)
        ]
        about = {"conversation_id": f"{user} {start}", "user_id": user}
        await memory.store_conversation(turns, about, extract_keywords=True, generate_summary=True)


async def _forgotten(
    server: Server,
    memory: VectorMemory,
    filters: Mapping[str, object],
    word: str,
    progress: Progress,
) -> _Figures:
    """Forget what passes a filter, and look for it."""
    there = await _of(memory, _USER)
    chosen = {record.id async for record in (await memory._open()).records(parse(filters))}
    expected = _closure(chosen, there)
    progress(f"forgetting {len(expected):,} memories")
    start = perf_counter()
    result = await memory.forget(filters=filters)
    seconds = perf_counter() - start
    told = {*result.forgotten, *result.removed}
    kinds = Counter(there[each].kind.value for each in expected)
    miscounted = len(told ^ expected) + sum(
        abs(result.counts.get(kind, 0) - kinds[kind]) for kind in result.counts.keys() | kinds
    )
    progress("looking for it")
    gone = [there[each] for each in sorted(expected)]
    found = await _still_found(memory, gone, filters, word) + await _in_tables(server, word)
    return _Figures(result=result, seconds=seconds, miscounted=miscounted, found=found)


def _closure(chosen: set[str], there: Mapping[str, Memory]) -> set[str]:
    """What has to go: the chosen ones, and whatever is made of these alone."""
    gone = set(chosen)
    while fresh := {
        memory.id
        for memory in there.values()
        if memory.id not in gone and memory.sources and gone.issuperset(memory.sources)
    }:
        gone |= fresh
    return gone


async def _still_found(
    memory: VectorMemory, gone: Sequence[Memory], filters: Mapping[str, object], word: str
) -> int:
    """How often searches and reads still give what went, or say its word."""
    ids = {each.id for each in gone}
    shelf = await memory._open()
    found = len(await shelf.get(ids)) + await shelf.backend.count(parse(filters))
    chance = random.Random(len(gone))  # noqa: S311 # nosec B311 - which texts are tried
    probes = [word, *(each.text for each in chance.sample(gone, min(_PROBES, len(gone))))]
    for text in probes:
        for hit in await memory.search(text, 100, include_archived=True):
            said = f"{hit.memory.text} {hit.memory.context} {hit.memory.keywords}"
            found += hit.id in ids or word in said
    return found


async def _in_tables(server: Server, word: str) -> int:
    """How many rows have a word: memories in any column, and statistics."""
    name = (
        "select format('vecs.%I', table_name) from haive_private.memory_collections where name = $1"
    )
    table = await server.owner.fetchval(name, _COLLECTION)
    counts = [
        await server.owner.fetchval(query, f"%{word[:-1]}%")
        for query in (
            f"select count(*) from {table} as m where m::text like $1",  # noqa: S608 # nosec B608 - of the catalogue
            "select count(*) from haive_private.memory_words where lexeme like $1",
        )
    ]
    return sum(counts)


async def _of(memory: VectorMemory, user: str) -> dict[str, Memory]:
    shelf = await memory._open()
    return {each.id: each for each in await shelf.find(equals(user_id=user))}


def _count(name: str, value: int, bar: Bar | None = None) -> Row:
    return Row.of(name, "count", "rows", [value], bar)
