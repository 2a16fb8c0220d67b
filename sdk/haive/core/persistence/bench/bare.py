"""The limit: group commit into a bare table, with nothing of ours between asyncpg and it."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence._encoding import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from uuid import UUID

    from haive.core.persistence.bench.server import Connection
    from haive.core.persistence.bench.timing import Call

    BareRow = tuple[UUID, UUID, int, str, str]

SCHEMA = "haive_bench"

_TABLES = f"""
drop schema if exists {SCHEMA} cascade;
create schema {SCHEMA};
create table {SCHEMA}.conversations (id uuid primary key);
create table {SCHEMA}.messages (
  id uuid primary key,
  conversation_id uuid not null references {SCHEMA}.conversations (id),
  seq bigint not null,
  role text not null,
  content text not null,
  created_at timestamptz not null default now(),
  unique (conversation_id, seq)
);
create index on {SCHEMA}.messages (created_at);
"""
_COLUMNS = "(id, conversation_id, seq, role, content)"
# No text of a caller's is in these: the name of the schema is a constant.
_INSERT_ONE = f"insert into {SCHEMA}.messages {_COLUMNS} values ($1, $2, $3, $4, $5)"  # noqa: S608 # nosec B608
_INSERT_ALL = (
    f"insert into {SCHEMA}.messages {_COLUMNS} "  # noqa: S608 # nosec B608
    "select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[])"
)


class Gatherer:
    """The discipline of a group commit: what waits goes into the next statement.

    Args:
        write: Writes rows in one statement.
        flights: How many statements may be in flight.
        largest: Most rows of one; with more flights than one the rows are shared out among them.
    """

    def __init__(
        self,
        write: Callable[[Sequence[BareRow]], Awaitable[object]],
        *,
        flights: int = 1,
        largest: int | None = None,
    ) -> None:
        self._write = write
        self._most_flights = flights
        self._largest = largest
        self._waiting: deque[tuple[BareRow, asyncio.Future[None]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._outstanding = 0
        self._launching = False

    async def add(self, row: BareRow) -> None:
        """Write a row, and return when it is durable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((row, future))
        self._outstanding += 1
        if not self._launching and len(self._tasks) < self._most_flights:
            self._launching = True
            loop.call_soon(self._launch)
        await future

    def _launch(self) -> None:
        self._launching = False
        while self._waiting and len(self._tasks) < self._most_flights:
            size = len(self._waiting)
            if self._largest is not None:
                share = -(-self._outstanding // self._most_flights)
                size = min(size, self._largest, max(32, share))
            batch = [self._waiting.popleft() for _ in range(size)]
            self._tasks.add(asyncio.create_task(self._fly(batch)))

    async def _fly(self, batch: list[tuple[BareRow, asyncio.Future[None]]]) -> None:
        try:
            await self._write([row for row, _ in batch])
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
            raise
        for _, future in batch:
            future.set_result(None)
        self._outstanding -= len(batch)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.discard(task)
        if self._waiting and not self._launching:
            self._launching = True
            asyncio.get_running_loop().call_soon(self._launch)


class BareTable:
    """Ways to write into the bare table."""

    def __init__(self, owner: Connection, pool: asyncpg.Pool[asyncpg.Record], text: str) -> None:
        self._owner = owner
        self._pool = pool
        self._text = text

    async def lone(self) -> list[Call]:
        """One caller with an insert of its own."""
        connection = await self._pool.acquire()

        async def insert(row: BareRow) -> None:
            await connection.execute(_INSERT_ONE, *row)

        return await self._callers(1, insert)

    async def grouped(self, count: int) -> list[Call]:
        """Callers with one statement in flight."""
        return await self._callers(count, Gatherer(self._write).add)

    async def pipelined(self, count: int) -> list[Call]:
        """Callers with the discipline of `GroupCommit`: two in flight, of at most 256 rows."""
        return await self._callers(count, Gatherer(self._write, flights=2, largest=256).add)

    async def _write(self, rows: Sequence[BareRow]) -> None:
        columns = [list(column) for column in zip(*rows, strict=True)]
        async with self._pool.acquire() as connection:
            await connection.execute(_INSERT_ALL, *columns)

    async def _callers(
        self, count: int, insert: Callable[[BareRow], Awaitable[None]]
    ) -> list[Call]:
        ids = [new_id() for _ in range(count)]
        await self._owner.execute(
            f"insert into {SCHEMA}.conversations select * from unnest($1::uuid[])",  # noqa: S608 # nosec B608
            ids,
        )

        async def add(conversation_id: UUID, places: list[int]) -> None:
            places[0] += 1
            await insert((new_id(), conversation_id, places[0], "user", self._text))

        return [partial(add, conversation_id, [0]) for conversation_id in ids]


@asynccontextmanager
async def bare_table(owner: Connection, dsn: str, text: str) -> AsyncIterator[BareTable]:
    """The table in a schema of its own, which goes afterwards."""
    await owner.execute(_TABLES)
    try:
        async with asyncpg.create_pool(dsn, min_size=3, max_size=3, reset=_keep) as pool:
            table = BareTable(owner, pool, text)
            yield table
            pool.terminate()
    finally:
        await owner.execute(f"drop schema {SCHEMA} cascade")


async def _keep(_: object) -> None:
    """Nothing is undone when a connection goes back: that would be a round trip."""
