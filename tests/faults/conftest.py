"""A checker of what must hold, a proxy that loses answers, and stores to break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.models import Message

OpenStore = Callable[..., Awaitable[PostgresStore]]
FindFaults = Callable[..., Awaitable[list[str]]]

# Each answers rows of what is wrong, and a healthy database with none.
_FAULTS = {
    "seq has gaps": """
        select conversation_id from haive.messages group by conversation_id
        having min(seq) <> 1 or max(seq) <> count(*)
    """,
    "the counters are not the sums": """
        select c.id from haive.conversations as c
        left join haive.messages as m on m.tenant_id = c.tenant_id and m.conversation_id = c.id
        group by c.tenant_id, c.id
        having c.message_count <> count(m.seq)
            or c.input_tokens <> coalesce(sum(m.input_tokens), 0)
            or c.output_tokens <> coalesce(sum(m.output_tokens), 0)
            or c.cost <> coalesce(sum(m.cost), 0)
            or c.last_message_at <> coalesce(max(m.created_at), c.created_at)
    """,
    "the events do not cover each message once": """
        select coalesce(e.conversation_id, m.conversation_id)
        from (
            select conversation_id, seq from haive.events,
            lateral generate_series(first_seq, last_seq) as seq
            where kind = 'messages.added'
        ) as e
        full join haive.messages as m on m.conversation_id = e.conversation_id and m.seq = e.seq
        group by 1, coalesce(e.seq, m.seq)
        having count(e.seq) <> 1 or count(m.seq) <> 1
    """,
    "one content stands there twice": """
        select min(conversation_id::text) from haive.messages group by content having count(*) > 1
    """,
}


@pytest.fixture
def find_faults() -> FindFaults:
    """Compare a database with what callers were told: `await find_faults(dsn, acknowledged)`.

    Contents must differ from message to message. ``batches`` are the ids of all-or-nothing calls,
    whether they were answered or not.
    """

    async def find(dsn: str, acknowledged: list[Message], batches: list[list[object]]) -> list[str]:
        connection = await asyncpg.connect(dsn)
        try:
            faults = [
                f"{fault}: {len(rows)}"
                for fault, query in _FAULTS.items()
                if (rows := await connection.fetch(query))
            ]
            rows = await connection.fetch(
                "select id, conversation_id, seq, content, created_at from haive.messages"
            )
        finally:
            await connection.close()
        stored = {row["id"]: tuple(row)[1:] for row in rows}
        told = {m.id: (m.conversation_id, m.seq, m.text, m.created_at) for m in acknowledged}
        lost = told.keys() - stored.keys()
        other = [key for key in told.keys() & stored.keys() if told[key] != stored[key]]
        partial = [ids for ids in batches if 0 < len(stored.keys() & set(ids)) < len(ids)]
        counted = {
            "acknowledged messages are lost": lost,
            "acknowledged messages are not as they were told": other,
            "all-or-nothing calls are there in part": partial,
        }
        return faults + [f"{fault}: {len(found)}" for fault, found in counted.items() if found]

    return find


@pytest.fixture
async def open_store(database: str) -> AsyncIterator[OpenStore]:
    """Open a store of the test's database: `await open_store(retry_timeout=0)`."""
    async with AsyncExitStack() as opened:

        async def open_one(dsn: str = database, **settings: object) -> PostgresStore:
            return await opened.enter_async_context(
                PostgresStore(PersistenceConfig(connection_string=dsn, **settings))
            )

        yield open_one


class Proxy:
    """Stands between a client and a server, and can lose answers.

    ``lose(marker, end, times)`` arms it: once a client has sent ``marker``, the first answer that
    contains ``end`` is dropped, and the connection with it. What was asked for is done by then.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self._marker = b""
        self._end = b""
        self._times = 0
        self.lost = 0

    async def start(self) -> int:
        """Listen, and return the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def lose(self, marker: bytes, end: bytes, times: int = 1) -> None:
        """Lose that many answers to what contains the marker."""
        self._marker, self._end, self._times, self.lost = marker, end, times, 0

    async def stop(self) -> None:
        """Be gone, with every connection."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            await self._relay(reader, writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        marked = False

        async def ask() -> None:
            nonlocal marked
            recent = b""
            while data := await reader.read(1 << 16):
                recent = recent[-len(self._marker) :] + data
                marked = marked or (self._times > 0 and self._marker in recent)
                server_writer.write(data)
                await server_writer.drain()

        async def answer() -> None:
            recent = b""
            while data := await server_reader.read(1 << 16):
                recent = recent[-len(self._end) :] + data
                if marked and self._times > 0 and self._end in recent:
                    self._times -= 1
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()

        both = {asyncio.create_task(ask()), asyncio.create_task(answer())}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            writer.transport.abort()
            server_writer.transport.abort()


@pytest.fixture
async def proxy_to() -> AsyncIterator[Callable[[str], Awaitable[tuple[Proxy, str]]]]:
    """Put a proxy before an address: `proxy, url = await proxy_to(url)`."""
    async with AsyncExitStack() as started:

        async def start(url: str) -> tuple[Proxy, str]:
            parts = urlsplit(url)
            assert parts.hostname is not None
            assert parts.port is not None
            proxy = Proxy(parts.hostname, parts.port)
            port = await proxy.start()
            started.push_async_callback(proxy.stop)
            return proxy, url.replace(f":{parts.port}", f":{port}", 1)

        yield start


@pytest.fixture
def postgres_pids() -> Callable[[Path], list[int]]:
    """Return a function from a stack's data directory to its Postgres, postmaster first."""

    def look(data_dir: Path) -> list[int]:
        try:
            text = (data_dir / "postgres" / "postmaster.pid").read_text()
            postmaster = int(text.split("\n")[0])
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        except (OSError, ValueError):  # it is starting again this very moment
            return []
        return [postmaster, *map(int, children.split())]

    return look
