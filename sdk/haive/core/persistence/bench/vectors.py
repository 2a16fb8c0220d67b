"""`haive bench vectors`: loading and searching memories, beside bare pgvector and vecs."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import uuid_utils

from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.server import running_stack
from haive.core.persistence.bench.timing import latency_rows, ratio_row, take_turns_by_call
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.vector.backends._pgvector_owner import packed
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.config import IndexType, RetrievalWeights
from haive.core.persistence.vector.filters import parse
from haive.core.persistence.vector.records import Collection, Query, Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.typing import NDArray

    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress

    Vectors = NDArray[np.float32]
    Search = Callable[[int], Awaitable[list[str]]]

_METHOD = (
    "Vectors in clusters of some 500, queries close to one; cosine, the ten nearest. copy is COPY"
    " into a bare table of id, vector and metadata; bare is its HNSW index, read by one prepared"
    " statement with the ef_search that its recall took; vecs is Supabase's client, its upserts of"
    " 5,000 rows. haive is one call of the SDK: hybrid search in its tenant. Searches take turns"
    " from call to call, after a round that warms up. tenant/N and filter/N find in N % of all"
    " rows: those of a tenant, or those of the largest tenant that pass a filter. Recall is against"
    " comparing all of them in numpy."
)
_SHARES = {"01": 0.001, "1": 0.01, "10": 0.1, "50": 0.5}
_LARGEST = "50"
_K = 10
_GRID = (20, 40, 64, 100, 160, 250, 400, 640, 1000)
_WANTED = 0.97
_UPSERTED = 5_000
_QUERIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    vectors: Vectors
    queries: Vectors
    ids: list[str]
    owners: NDArray[np.int64]
    """Of each vector the place of its tenant: those of `_SHARES`, and the one with the rest."""
    chance: NDArray[np.float64]
    """Of each vector, what filters select by: even in 0 to 1."""

    def nearest(self, query: int, among: NDArray[Any]) -> set[str]:
        """The ids of the true nearest."""
        near = np.argsort(-(self.vectors[among] @ self.queries[query]))[:_K]
        return {self.ids[place] for place in among[near]}


async def measure(
    *, vectors: int, dimensions: int, calls: int, rounds: int, memory: str, progress: Progress
) -> Report:
    """Run the bench."""
    progress("making vectors")
    data = _data(vectors, dimensions)
    async with running_stack() as (server, _), AsyncExitStack() as opened:
        report = Report(bench="vectors", method=_METHOD, machine=server.machine)
        backends: list[PgvectorBackend] = []
        for name in (*_SHARES, "rest"):
            tenant = f"bench-{name}"
            await server.owner.execute(
                "insert into haive.tenants (tenant_id, name) values ($1, $1)", tenant
            )
            config = PersistenceConfig(connection_string=server.dsn, tenant=tenant)
            store = await opened.enter_async_context(PostgresStore(config))
            backends.append(PgvectorBackend(store))
            await backends[-1].open(_collection(dimensions))
        report.rows += await _load(server, backends, data, progress)
        report.rows += await _build(server, backends, memory, progress)
        theirs = await _vecs(server, data, report, progress)
        subjects, found = await _subjects(server, backends, data, theirs)
        for name, search in subjects.items():
            progress(f"recall: {name}")
            report.rows.append(await _recall(name, search, data, found[name]))
        samples = await take_turns_by_call(
            dict(subjects), rounds=rounds, calls=calls, progress=progress
        )
    bars = {
        (name, 95): Bar(at_most=25) for name in subjects if name.startswith(("tenant/", "filter/"))
    }
    report.rows += latency_rows(samples, (50, 95), bars)
    p95 = {name: [sample.milliseconds(95) for sample in each] for name, each in samples.items()}
    report.rows.append(ratio_row("haive/bare p95", p95["haive"], p95["bare"], Bar(at_most=1.5)))
    return report


def _data(number: int, dimensions: int) -> _Data:
    rng = np.random.default_rng(1)
    centers = rng.standard_normal((max(1, number // 500), dimensions)).astype(np.float32)
    vectors = centers[rng.integers(0, len(centers), number)]
    vectors += 0.6 * rng.standard_normal((number, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[rng.integers(0, number, _QUERIES)]
    noise = rng.standard_normal(queries.shape).astype(np.float32)
    queries = queries + 0.4 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return _Data(
        vectors=vectors,
        queries=(queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32),
        ids=[str(UUID(bytes=uuid_utils.uuid7().bytes)) for _ in range(number)],
        owners=np.searchsorted(np.cumsum(list(_SHARES.values())), rng.random(number)),
        chance=rng.random(number),
    )


def _collection(dimensions: int) -> Collection:
    return Collection(
        name="bench",
        model="bench",
        dimensions=dimensions,
        metric="cosine",
        language="english",
        index_type=IndexType.HNSW,
        m=16,
        ef_construction=64,
    )


def _metadata(data: _Data, place: Any) -> dict[str, Any]:
    # The shares that a filter for equality selects, of rows that are otherwise alike.
    part = next((name for name, share in _SHARES.items() if data.chance[place] < share), "rest")
    return {"part": part, "importance": float(data.chance[place])}


async def _load(
    server: Server, backends: list[PgvectorBackend], data: _Data, progress: Progress
) -> list[Row]:
    rates = []
    # The one with the rest first, into an empty table.
    for owner in (len(_SHARES), *range(len(_SHARES))):
        progress(f"loading: tenant {owner + 1} of {len(backends)}")
        records = [
            Record(id=data.ids[place], metadata=_metadata(data, place), vector=data.vectors[place])
            for place in np.flatnonzero(data.owners == owner)
        ]
        begin = perf_counter()
        await backends[owner].load(records)
        rates.append(len(records) / (perf_counter() - begin))
    progress("loading: bare")
    width = data.vectors.shape[1]
    await server.owner.execute(
        f"create table public.bare (id varchar, vec extensions.vector({int(width)}),"
        " metadata jsonb)"
    )
    await server.owner.set_type_codec(
        "vector", schema="extensions", encoder=packed, decoder=bytes, format="binary"
    )
    rows = [
        (data.ids[place], data.vectors[place], json.dumps(_metadata(data, place)))
        for place in range(len(data.ids))
    ]
    begin = perf_counter()
    await server.owner.copy_records_to_table(
        "bare", columns=("id", "vec", "metadata"), records=rows
    )
    copied = len(rows) / (perf_counter() - begin)
    return [
        Row.of("haive", "load", "rows/s", [rates[0]]),
        Row.of("haive, not empty", "load", "rows/s", [rates[-1]]),
        Row.of("copy", "load", "rows/s", [copied]),
        ratio_row("haive/copy", [rates[0]], [copied], Bar(at_least=0.5)),
    ]


async def _build(
    server: Server, backends: list[PgvectorBackend], memory: str, progress: Progress
) -> list[Row]:
    progress("building the index: haive")
    begin = perf_counter()
    for backend in reversed(backends):
        await backend.reindex(memory=memory)
    ours = perf_counter() - begin
    progress("building the index: bare")
    begin = perf_counter()
    await server.owner.execute(
        "select pg_catalog.set_config('maintenance_work_mem', $1, false)", memory
    )
    await server.owner.execute(
        "create index on public.bare using hnsw (vec extensions.vector_cosine_ops)"
    )
    bare = perf_counter() - begin
    await server.owner.execute("analyze public.bare")
    return [
        Row.of("haive, with tenants' own and measuring", "build", "s", [ours]),
        Row.of("bare", "build", "s", [bare]),
    ]


async def _vecs(server: Server, data: _Data, report: Report, progress: Progress) -> Any:
    """A collection of vecs with all vectors, or None where it is not installed."""
    try:
        import vecs  # type: ignore[import-untyped]  # noqa: PLC0415 - a peer, which is not always there
    except ImportError:
        report.notes.append("vecs is not installed, and was left out.")
        return None
    progress("loading: vecs")

    def fill() -> tuple[Any, float]:
        # With SQLAlchemy 2.1 a plain postgresql:// would mean another driver.
        client = vecs.create_client(server.dsn.replace("postgresql://", "postgresql+psycopg2://"))
        docs = client.get_or_create_collection(name="theirs", dimension=data.vectors.shape[1])
        some = range(min(_UPSERTED, len(data.ids)))
        begin = perf_counter()
        docs.upsert([(data.ids[n], data.vectors[n], _metadata(data, n)) for n in some])
        return docs, len(some) / (perf_counter() - begin)

    docs, rate = await asyncio.to_thread(fill)
    report.rows.append(Row.of("vecs", "load", "rows/s", [rate]))
    # The rest by COPY: it would take vecs minutes.
    await server.owner.execute(
        "insert into vecs.theirs (id, vec, metadata)"
        " select id, vec, metadata from public.bare on conflict do nothing"
    )
    await server.owner.execute(
        "create index ix_vector_cosine_ops_hnsw_bench on vecs.theirs"
        " using hnsw (vec extensions.vector_cosine_ops)"
    )
    await server.owner.execute("analyze vecs.theirs")
    return docs


async def _subjects(
    server: Server, backends: list[PgvectorBackend], data: _Data, theirs: Any
) -> tuple[dict[str, Search], dict[str, NDArray[Any]]]:
    every = np.arange(len(data.ids))
    subjects: dict[str, Search] = {}
    found: dict[str, NDArray[Any]] = {}
    largest = list(_SHARES).index(_LARGEST)

    def ours(backend: PgvectorBackend, where: dict[str, Any] | None = None) -> Search:
        async def search(call: int) -> list[str]:
            query = Query(
                text="",
                vector=data.queries[call % _QUERIES],
                limit=_K,
                filter=parse(where),
                weights=RetrievalWeights(),
                now=datetime.now(UTC),
            )
            return [hit.record.id for hit in await backend.search(query)]

        return search

    of_largest = np.flatnonzero(data.owners == largest)
    subjects["haive"], found["haive"] = ours(backends[largest]), of_largest
    subjects["bare"], found["bare"] = await _bare(server, data), every
    if theirs is not None:
        subjects["vecs"], found["vecs"] = _by_vecs(theirs, data), every
    for owner, name in enumerate(_SHARES):
        among = np.flatnonzero(data.owners == owner)
        if len(among) >= _K:
            subjects[f"tenant/{name}"], found[f"tenant/{name}"] = ours(backends[owner]), among
    for name, share in _SHARES.items():
        among = of_largest[data.chance[of_largest] < share]
        if len(among) >= _K:
            where = {"importance": {"$lt": share}}
            subjects[f"filter/{name}"], found[f"filter/{name}"] = (
                ours(backends[largest], where),
                among,
            )
    return subjects, found


async def _bare(server: Server, data: _Data) -> Search:
    connection = server.owner
    statement = await connection.prepare(
        "select id from public.bare order by vec operator(extensions.<=>) $1 limit 10"
    )

    async def search(call: int) -> list[str]:
        rows = await statement.fetch(data.queries[call % _QUERIES])
        return [row["id"] for row in rows]

    every = np.arange(len(data.ids))
    for candidates in _GRID:
        await connection.execute(f"set hnsw.ef_search = {candidates}")
        if (await _recall("bare", search, data, every)).value >= _WANTED:
            break
    return search


def _by_vecs(docs: Any, data: _Data) -> Search:
    async def search(call: int) -> list[str]:
        found = await asyncio.to_thread(
            docs.query, data.queries[call % _QUERIES], limit=_K, measure="cosine_distance"
        )
        return [str(key) for key in found]

    return search


async def _recall(name: str, search: Search, data: _Data, among: NDArray[Any]) -> Row:
    shares = []
    for query in range(_QUERIES):
        wanted = data.nearest(query, among)
        shares.append(len(wanted & set(await search(query))) / len(wanted))
    bar = None if name in {"bare", "vecs"} else Bar(at_least=_WANTED)
    return Row.of(name, "recall_at_10", "share", [float(np.mean(shares))], bar)
