"""The peers of `haive bench vectors`: a bare table of pgvector's, and Supabase's client vecs."""

from __future__ import annotations

import asyncio
import json
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.typing import NDArray

    from haive.core.persistence.bench.clusters import Data
    from haive.core.persistence.bench.server import Connection, Server

    #: Takes the number of a call, and answers with ids.
    Search = Callable[[int], Awaitable[list[str]]]

#: How many candidates are tried, fewest first.
GRID = (20, 40, 64, 80, 100, 130, 160, 200, 250, 400, 640, 1000)
_UPSERTED = 5_000


class Bare:
    """A table of id, vector and metadata with one index, and nothing else.

    Args:
        connection: Its own from now on: settings stay.
        dimensions: Above 2,000 numbers have 16 bits, as an index takes no others.
        binary: The index is of bits, and what it finds is sorted by distance.
    """

    def __init__(self, connection: Connection, *, dimensions: int, binary: bool) -> None:
        self._connection = connection
        self._dimensions = dimensions
        self._binary = binary
        self._kind = "vector" if dimensions <= 2_000 else "halfvec"

    async def create(self) -> None:
        """Make the table; a vector stays in its row, as in ours."""
        kind = f"extensions.{self._kind}({self._dimensions})"
        await self._connection.execute(
            f"create table public.bare (id varchar, vec {kind}, metadata jsonb);"
            " alter table public.bare alter column vec set storage plain,"
            " set (toast_tuple_target = 8160)"
        )
        await self._connection.set_type_codec(
            self._kind, schema="extensions", encoder=self._packed, decoder=bytes, format="binary"
        )

    async def copy(self, data: Data, places: NDArray[np.int64]) -> float:
        """COPY rows in, in binary, and return the seconds that it took."""
        rows = [(data.ids[n], data.vectors[n], json.dumps(data.metadata(n))) for n in places]
        begin = perf_counter()
        await self._connection.copy_records_to_table(
            "bare", columns=("id", "vec", "metadata"), records=rows
        )
        return perf_counter() - begin

    async def index(self, memory: str) -> float:
        """Build the index, and return the seconds that it took."""
        begin = perf_counter()
        await self._connection.execute(
            "select pg_catalog.set_config('maintenance_work_mem', $1, false)", memory
        )
        what = (
            f"(extensions.binary_quantize(vec)::bit({self._dimensions})) extensions.bit_hamming_ops"
            if self._binary
            else f"vec extensions.{self._kind}_cosine_ops"
        )
        await self._connection.execute(f"create index on public.bare using hnsw ({what})")
        seconds = perf_counter() - begin
        await self._connection.execute("analyze public.bare")
        return seconds

    async def search(self, data: Data, limit: int, candidates: int) -> Search:
        """One prepared statement that looks at so many candidates."""
        distance = "vec operator(extensions.<=>) $1"
        if self._binary:
            bits = f"extensions.binary_quantize(%s)::bit({self._dimensions})"
            asked = bits % f"$1::extensions.{self._kind}"
            nearest = (
                f"select id from (select id, vec from public.bare"  # noqa: S608 # nosec B608 - of numbers
                f" order by {bits % 'vec'} operator(extensions.<~>) {asked}"
                f" limit {candidates}) as b order by {distance} limit {limit}"
            )
        else:
            nearest = f"select id from public.bare order by {distance} limit {limit}"  # noqa: S608 # nosec B608 - of numbers
        await self._connection.execute(f"set hnsw.ef_search = {candidates}")
        statement = await self._connection.prepare(nearest)

        async def search(call: int) -> list[str]:
            rows = await statement.fetch(data.queries[call % len(data.queries)])
            return [row["id"] for row in rows]

        return search

    def _packed(self, vector: Any) -> bytes:
        numbers = np.asarray(vector, ">f4" if self._kind == "vector" else ">f2")
        return len(numbers).to_bytes(2, "big") + b"\0\0" + numbers.tobytes()


class Vecs:
    """A collection of vecs with all rows of `Bare`.

    Raises:
        ImportError: vecs is not installed.
    """

    def __init__(self, server: Server, dimensions: int) -> None:
        import vecs  # type: ignore[import-untyped]  # noqa: PLC0415 - a peer, which is not always there

        # With SQLAlchemy 2.1 a plain postgresql:// would mean another driver.
        self._client = vecs.create_client(
            server.dsn.replace("postgresql://", "postgresql+psycopg2://")
        )
        self._server = server
        self._docs = self._client.get_or_create_collection(name="theirs", dimension=dimensions)

    async def load(self, data: Data, memory: str) -> float:
        """Upsert some rows and return how many a second; then the rest by SQL, and the index."""
        some = range(min(_UPSERTED, len(data.ids)))
        rows = [(data.ids[n], data.vectors[n], data.metadata(n)) for n in some]
        begin = perf_counter()
        await asyncio.to_thread(self._docs.upsert, rows)
        seconds = perf_counter() - begin
        owner = self._server.owner
        await owner.execute(
            "insert into vecs.theirs (id, vec, metadata)"
            " select id, vec, metadata from public.bare on conflict do nothing"
        )
        await owner.execute(
            "select pg_catalog.set_config('maintenance_work_mem', $1, false)", memory
        )
        await owner.execute(
            "create index ix_vector_cosine_ops_hnsw_bench on vecs.theirs"
            " using hnsw (vec extensions.vector_cosine_ops)"
        )
        await owner.execute("analyze vecs.theirs")
        return len(some) / seconds

    def search(self, data: Data, limit: int, candidates: int) -> Search:
        """A query that looks at so many candidates."""

        async def search(call: int) -> list[str]:
            found = await asyncio.to_thread(
                self._docs.query,
                data.queries[call % len(data.queries)],
                limit=limit,
                measure="cosine_distance",
                ef_search=candidates,
            )
            return [str(key) for key in found]

        return search

    def close(self) -> None:
        """Close its connections."""
        self._client.disconnect()
