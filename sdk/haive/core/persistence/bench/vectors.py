"""`haive bench vectors`: loading and searching memories, beside bare pgvector and vecs."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from haive.core.persistence.bench.clusters import FEW, SHARES, TENANTS, make
from haive.core.persistence.bench.nearest import GRID, Bare, Vecs
from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.server import running_stack
from haive.core.persistence.bench.timing import latency_rows, ratio_row, take_turns_by_call
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.config import IndexType, RetrievalWeights
from haive.core.persistence.vector.filters import parse
from haive.core.persistence.vector.records import Collection, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from haive.core.persistence.bench.clusters import Data
    from haive.core.persistence.bench.nearest import Search
    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress

    Backends = dict[str, PgvectorBackend]
    #: A way to search, the rows that it finds in, and how many of them it is asked for.
    Subject = tuple[Search, NDArray[np.int64], int]

_METHOD = (
    "Vectors in clusters of some 500, queries close to one; cosine, the ten nearest. copy is COPY"
    " in binary of the same rows into a bare table of id, vector and metadata; bare is its HNSW"
    " index, read by one prepared statement, vecs Supabase's client with its upserts of 5,000 rows:"
    " both with the ef_search that the recall took. haive is one call of the SDK: a search in its"
    " tenant, who has half of all rows. Searches take turns from call to call, after a round that"
    " warms up. tenant/N finds in N % of all rows, those of a tenant; filter/N and equal/N in N %"
    " of the largest tenant's, by the range of a number that has an index and by a value in a list."
    " few is a tenant with 300 rows that is asked for 60. Recall is against comparing all in numpy."
)
_LARGEST = "50"
_K = 10
_OF_FEW = 60
_QUERIES = 100


async def measure(
    *,
    vectors: int,
    dimensions: int,
    binary: bool,
    calls: int,
    rounds: int,
    memory: str,
    progress: Progress,
) -> Report:
    """Run the bench."""
    wanted = 0.97 if dimensions <= 2_000 and not binary else 0.95
    progress("making vectors")
    data = make(vectors, dimensions, queries=_QUERIES)
    async with running_stack(_settings()) as (server, _), AsyncExitStack() as opened:
        report = Report(bench="vectors", method=_METHOD, machine=server.machine)
        backends = {
            name: await _backend(server, name, dimensions, opened, binary=binary)
            for name in TENANTS
        }
        bare = Bare(server.owner, dimensions=dimensions, binary=binary)
        report.rows += await _load(backends, bare, data, progress)
        report.rows += await _build(backends, bare, memory, progress)
        subjects = _ours(backends, data, wanted)
        every = np.arange(len(data.ids))
        for candidates in GRID:
            progress(f"recall: bare, {candidates} candidates")
            search = await bare.search(data, _K, candidates)
            if await _recall(search, data, every, _K) >= wanted:
                break
        report.notes.append(f"bare looks at {candidates} candidates.")
        subjects["bare"] = (search, every, _K)
        theirs = await _vecs(
            server, data, report, opened, memory=memory, wanted=wanted, progress=progress
        )
        if theirs is not None:
            subjects["vecs"] = (theirs, every, _K)
        for name, (search, among, limit) in subjects.items():
            progress(f"recall: {name}")
            share = await _recall(search, data, among, limit)
            report.rows.append(_found(name, share, wanted))
        samples = await take_turns_by_call(
            {name: search for name, (search, _, _) in subjects.items()},
            rounds=rounds,
            calls=calls,
            progress=progress,
        )
    kinds = ("haive", "tenant/", "filter/", "equal/")
    bars = {(name, 95): Bar(at_most=25) for name in subjects if name.startswith(kinds)}
    report.rows += latency_rows(samples, (50, 95), bars | {("few", 50): Bar(at_most=3)})
    p95 = {name: [sample.milliseconds(95) for sample in each] for name, each in samples.items()}
    report.rows.append(ratio_row("haive/bare p95", p95["haive"], p95["bare"], Bar(at_most=1.5)))
    return report


def _settings() -> dict[str, str]:
    """Of a server that has this machine: a quarter of its memory, as Postgres advises."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"shared_buffers": f"{size // 4 // 2**20}MB"}


async def _backend(
    server: Server, name: str, dimensions: int, opened: AsyncExitStack, *, binary: bool
) -> PgvectorBackend:
    tenant = f"bench-{name}"
    await server.owner.execute(
        "insert into haive.tenants (tenant_id, name) values ($1, $1)", tenant
    )
    config = PersistenceConfig(connection_string=server.dsn, tenant=tenant)
    backend = PgvectorBackend(await opened.enter_async_context(PostgresStore(config)))
    await backend.open(
        Collection(
            name="bench",
            model="bench",
            dimensions=dimensions,
            metric="cosine",
            language="english",
            index_type=IndexType.BINARY if binary else IndexType.HNSW,
            m=16,
            ef_construction=64,
        )
    )
    return backend


async def _load(backends: Backends, bare: Bare, data: Data, progress: Progress) -> list[Row]:
    rates = []
    await bare.create()
    # The largest first, into empty tables.
    for name in (_LARGEST, "rest", "10", "1", "few", "01"):
        places = data.of(name)
        records = data.records(places)
        progress(f"loading: {len(places):,} rows of {name}")
        begin = perf_counter()
        await backends[name].load(records)
        ours = perf_counter() - begin
        progress(f"loading: {len(places):,} rows of {name}, bare")
        rates.append((len(places) / ours, len(places) / await bare.copy(data, places)))
    (first, copied), (second, _) = rates[:2]
    return [
        Row.of("haive", "load", "rows/s", [first]),
        Row.of("haive, not empty", "load", "rows/s", [second]),
        Row.of("copy", "load", "rows/s", [copied]),
        ratio_row("haive/copy", [first], [copied], Bar(at_least=0.5)),
    ]


async def _build(backends: Backends, bare: Bare, memory: str, progress: Progress) -> list[Row]:
    begin = perf_counter()
    for tenant, backend in backends.items():

        def told(name: str, share: float, tenant: str = tenant) -> None:
            progress(f"indexing for {tenant}: {name}, {share:.0%}")

        progress(f"indexing for {tenant}, and measuring")
        await backend.reindex(memory=memory, progress=told)
    ours = perf_counter() - begin
    progress("indexing: bare")
    return [
        Row.of("haive, with tenants' own and measuring", "build", "s", [ours]),
        Row.of("bare", "build", "s", [await bare.index(memory)]),
    ]


def _ours(backends: Backends, data: Data, wanted: float) -> dict[str, Subject]:
    def ours(name: str, where: dict[str, Any] | None = None, limit: int = _K) -> Search:
        condition = parse(where)

        async def search(call: int) -> list[str]:
            query = Query(
                text="",
                vector=data.queries[call % _QUERIES],
                limit=limit,
                filter=condition,
                weights=RetrievalWeights(),
                now=datetime.now(UTC),
                recall=wanted,
            )
            return [hit.record.id for hit in await backends[name].search(query)]

        return search

    largest = data.of(_LARGEST)
    subjects = {
        "haive": (ours(_LARGEST), largest, _K),
        "few": (ours("few", limit=_OF_FEW), data.of("few"), _OF_FEW),
    }
    for name in SHARES:
        subjects[f"tenant/{name}"] = (ours(name), data.of(name), _K)
    for name, share in SHARES.items():
        among = largest[data.chance[largest] < share]
        subjects[f"filter/{name}"] = (ours(_LARGEST, {"importance": {"$lt": share}}), among, _K)
        subjects[f"equal/{name}"] = (ours(_LARGEST, {"parts": name}), among, _K)
    return {name: subject for name, subject in subjects.items() if len(subject[1]) >= subject[2]}


async def _vecs(
    server: Server,
    data: Data,
    report: Report,
    opened: AsyncExitStack,
    *,
    memory: str,
    wanted: float,
    progress: Progress,
) -> Search | None:
    """Searches of vecs, or None where it is not installed or makes no index."""
    width = data.vectors.shape[1]
    if width > 2_000:
        report.notes.append("vecs makes no index of so wide vectors, and was left out.")
        return None
    try:
        theirs = Vecs(server, width)
    except ImportError:
        report.notes.append("vecs is not installed, and was left out.")
        return None
    opened.callback(theirs.close)
    progress("loading and indexing: vecs")
    report.rows.append(Row.of("vecs", "load", "rows/s", [await theirs.load(data, memory)]))
    for candidates in GRID:
        progress(f"recall: vecs, {candidates} candidates")
        search = theirs.search(data, _K, candidates)
        if await _recall(search, data, np.arange(len(data.ids)), _K) >= wanted:
            break
    report.notes.append(f"vecs looks at {candidates} candidates.")
    return search


async def _recall(search: Search, data: Data, among: NDArray[np.int64], limit: int) -> float:
    shares = []
    for query in range(_QUERIES):
        wanted = data.nearest(query, among, limit)
        shares.append(len(wanted & set(await search(query))) / len(wanted))
    return float(np.mean(shares))


def _found(name: str, share: float, wanted: float) -> Row:
    if name == "few":
        all_of_them = Bar(at_least=_OF_FEW)
        return Row.of(f"few, of {FEW}", "found_of_60", "rows", [share * _OF_FEW], all_of_them)
    bar = None if name in {"bare", "vecs"} else Bar(at_least=wanted)
    return Row.of(name, f"recall_at_{_K}", "share", [share], bar)
