"""`haive bench realtime`: how soon and how many events of the database reach a subscriber."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from realtime.types import RealtimePostgresChangesListenEvent
from supabase import acreate_client

from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.server import running_stack
from haive.core.persistence.bench.timing import latency_rows, take_turns_by_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from haive.core.persistence.bench.server import Connection
    from haive.core.persistence.bench.timing import Progress
    from haive.core.persistence.local import LocalStack

_METHOD = (
    "A local stack, all on one machine; events carry 200 bytes. insert is from realtime.send in a"
    " transaction of its own to the callback of supabase-py on a private channel, statement what"
    " of that is the statement; change an inserted row by postgres_changes under row level"
    " security, client one client's broadcast at another."
    " events: statements of 100 realtime.send, one after the other, until all have arrived: at"
    " supabase-py, at a plain WebSocket, at 50 of these."
)
_TEXT = "x" * 200
_BATCH = 100
_SUBSCRIBERS = 50
_PATIENCE = 60.0
_SCHEMA = """
create table public.bench_rows (id bigint generated always as identity primary key, body text);
alter table public.bench_rows enable row level security;
grant select on public.bench_rows to authenticated;
create policy "all read" on public.bench_rows for select to authenticated using (true);
alter publication supabase_realtime add table public.bench_rows;
create policy "all receive" on realtime.messages for select to authenticated using (true);
create policy "all send" on realtime.messages for insert to authenticated with check (true);
"""
_SEND = (
    "select realtime.send(jsonb_build_object('text', $2::text), 'event', $1)"
    " from generate_series(1, $3::integer)"
)


async def measure(*, calls: int, events: int, rounds: int, progress: Progress) -> Report:
    """Run the bench."""
    progress("starting")
    async with running_stack() as (server, stack):
        await server.owner.execute(_SCHEMA)
        report = Report(bench="realtime", method=_METHOD, machine=server.machine)
        report.rows += await _latencies(stack, server.owner, calls, rounds, progress)
        report.rows += await _rates(stack, server.owner, events, rounds, progress)
        return report


class _Arrivals:
    """Counts what arrives, and wakes who waits for so many."""

    def __init__(self) -> None:
        self.count = 0
        self._wanted = 0
        self._there = asyncio.Event()

    def note(self, _: object = None) -> None:
        self.count += 1
        if self.count >= self._wanted:
            self._there.set()

    async def wait_for(self, count: int) -> None:
        self._wanted = count
        self._there.clear()
        if self.count < count:
            await asyncio.wait_for(self._there.wait(), _PATIENCE)


@asynccontextmanager
async def _channel(
    stack: LocalStack, topic: str, set_up: Callable[[Any], object] = lambda _: None
) -> AsyncIterator[Any]:
    """A private channel of a signed-in user, by supabase-py."""
    client = await acreate_client(stack.url, stack.publishable_key)
    await client.realtime.set_auth(stack.mint_user_token(str(uuid.uuid4())))
    config = {
        "private": True,
        "broadcast": {"self": False, "ack": False},
        "presence": {"key": "", "enabled": False},
    }
    channel = client.channel(topic, {"config": config})  # type: ignore[arg-type]
    set_up(channel)
    await channel.subscribe()
    try:
        yield channel
    finally:
        await client.realtime.close()


async def _latencies(
    stack: LocalStack, owner: Connection, calls: int, rounds: int, progress: Progress
) -> list[Row]:
    arrivals = _Arrivals()

    def hear_changes(channel: Any) -> None:
        channel.on_postgres_changes(
            RealtimePostgresChangesListenEvent.Insert,
            arrivals.note,
            schema="public",
            table="bench_rows",
        )

    async with (
        _channel(stack, "latency", lambda channel: channel.on_broadcast("*", arrivals.note)),
        _channel(stack, "latency") as sender,
        _channel(stack, "changes", hear_changes),
    ):

        async def insert(_: int) -> None:
            wanted = arrivals.count + 1
            await owner.execute(_SEND, "latency", _TEXT, 1)
            await arrivals.wait_for(wanted)

        async def statement(_: int) -> None:
            await owner.execute(_SEND, "nobody listens", _TEXT, 1)

        async def change(_: int) -> None:
            wanted = arrivals.count + 1
            await owner.execute("insert into public.bench_rows (body) values ($1)", _TEXT)
            await arrivals.wait_for(wanted)

        async def client(_: int) -> None:
            wanted = arrivals.count + 1
            await sender.send_broadcast("event", {"text": _TEXT})
            await arrivals.wait_for(wanted)

        samples = await take_turns_by_call(
            {"statement": statement, "insert": insert, "change": change, "client": client},
            rounds=rounds,
            calls=calls,
            progress=progress,
        )
    return latency_rows(samples, (50, 95), {("insert", 50): Bar(at_most=5)})


async def _rates(
    stack: LocalStack, owner: Connection, events: int, rounds: int, progress: Progress
) -> list[Row]:
    arrivals = _Arrivals()

    async def rate(topic: str, subscribers: int) -> float:
        arrivals.count = 0
        begin = perf_counter()
        for _ in range(events // _BATCH):
            await owner.execute(_SEND, topic, _TEXT, _BATCH)
        await arrivals.wait_for(events // _BATCH * _BATCH * subscribers)
        return arrivals.count / (perf_counter() - begin)

    def hear(channel: Any) -> None:
        channel.on_broadcast("*", arrivals.note)

    async def all_rounds(name: str, topic: str, subscribers: int, bar: Bar | None) -> Row:
        rates = []
        for number in range(rounds + 1):
            progress(f"round {number} of {rounds}: {name}" if number else f"warming up: {name}")
            value = await rate(topic, subscribers)
            if number:
                rates.append(value)
        return Row.of(name, "events_per_s", "events/s", rates, bar)

    async with _channel(stack, "supabase-py", hear):
        rows = [await all_rounds("supabase-py", "supabase-py", 1, None)]
    for name, subscribers in (("websocket", 1), (f"websocket/{_SUBSCRIBERS}", _SUBSCRIBERS)):
        async with _websockets(stack, name, subscribers, arrivals.note):
            bar = Bar(at_least=5_000) if subscribers == 1 else None
            rows.append(await all_rounds(name, name, subscribers, bar))
    return rows


@asynccontextmanager
async def _websockets(
    stack: LocalStack, topic: str, count: int, note: Callable[[], None]
) -> AsyncIterator[None]:
    """Subscribers that count and do nothing else."""
    url = f"{stack.url}/realtime/v1/websocket"
    query = {"apikey": stack.publishable_key, "vsn": "2.0.0"}
    token = stack.mint_user_token(str(uuid.uuid4()))
    payload = {"config": {"private": True}, "access_token": token}
    join = orjson.dumps(["1", "1", f"realtime:{topic}", "phx_join", payload]).decode()

    async def listen(websocket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in websocket:
            if message.type == aiohttp.WSMsgType.TEXT:
                note()

    async with aiohttp.ClientSession() as session:
        listening = []
        for _ in range(count):
            websocket = await session.ws_connect(url, params=query)
            await websocket.send_str(join)
            await websocket.receive()  # that it has joined
            listening.append(asyncio.create_task(listen(websocket)))
        try:
            yield
        finally:
            for task in listening:
                task.cancel()
