"""`haive bench schemas`: tenants in schemas of their own, made and called by one server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from haive.core.persistence.bench import served
from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.timing import latency_rows, ratio_row, take_turns_by_call
from haive.core.persistence.multitenancy._schemas import drop, owner, provision_by
from haive.core.persistence.store import Store

if TYPE_CHECKING:
    from haive.core.persistence._transport import Transport
    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress
    from haive.core.persistence.models import Conversation

_METHOD = (
    "One schema a tenant, made one after the other; then one lone caller of one store, whose turns"
    " go to the tenant that was made first, to the one made last, and to one after the other of"
    " all. A turn is one message written and the conversation's last one read. All were called"
    " before, so their plans are made. create_cpu is the part of create that the server's session"
    " had a processor for: the rest is the client, the disk, and other programs. memory is of all"
    " sessions of the store, beyond a new one's."
    " served/N: PostgREST serves the schemas of N tenants; one_more is the time from the command to"
    " serve another one until it does, memory PostgREST's own."
)
# Plans are generic from the sixth execution on.
_WARM = 7
_ID = "bench-{}"
_BAR = Bar(at_most=500)


class _Scoped(Store):
    """A store on the connections of another one."""

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._scope = transport

    @property
    def _transport(self) -> Transport:
        return self._scope


class _Turns:
    """Calls in a tenant's schema."""

    def __init__(self, store: Store, conversation: Conversation) -> None:
        self._store = store
        self._conversation = conversation

    async def __call__(self) -> None:
        message = await self._store.add_message(self._conversation.id, "user", "x" * 300)
        await self._store.get_messages(self._conversation.id, after=message.seq - 1)


async def measure(
    server: Server, *, tenants: int, rounds: int, calls: int, progress: Progress
) -> Report:
    """Run the bench."""
    report = Report(bench="schemas", method=_METHOD, machine=server.machine)
    names = [_ID.format(number) for number in range(tenants)]
    served_rows: list[Row] = []
    try:
        await server.owner.executemany(
            "insert into haive.tenants (tenant_id, name, isolation) values ($1, $1, 'schema')",
            [(name,) for name in names],
        )
        schemas, taken, busy = await _made(server, names, progress)
        report.rows += _tenths("create_ms", taken, _BAR)
        report.rows.append(Row.of("create/slowest", "create_ms", "ms", [max(taken)], _BAR))
        report.rows += _tenths("create_cpu_ms", busy)
        async with server.store() as store:
            empty = await _memory(server)
            turns = await _warmed(store, names, schemas, progress)

            async def any_tenant(call: int) -> None:
                # Far from the one before: nothing of it is in the processor's caches.
                await turns[call * 7919 % tenants]()

            samples = await take_turns_by_call(
                {
                    "call/first": lambda _: turns[0](),
                    "call/last": lambda _: turns[-1](),
                    "call/any": any_tenant,
                },
                rounds=rounds,
                calls=calls,
                progress=progress,
            )
            memory = await _memory(server)
        if server.stack is not None:
            served_rows = await served.measure(server.stack, schemas, progress)
    finally:
        if server.stack is None:  # a stack of its own goes as a whole
            for number, name in enumerate(names):
                progress(f"removing {number:,} of {tenants:,}")
                await drop(server.dsn, "haive", name)
            await server.owner.execute("delete from haive.tenants where tenant_id = any($1)", names)
    p50 = {
        name: [sample.milliseconds(50) for sample in of_round] for name, of_round in samples.items()
    }
    report.rows += latency_rows(samples, (50, 99))
    for name in ("last", "any"):
        over, under = p50[f"call/{name}"], p50["call/first"]
        report.rows.append(ratio_row(f"{name}:first", over, under, Bar(at_most=1.3)))
    if empty is not None and memory is not None:
        used = (memory - empty) / tenants
        report.rows.append(Row.of("memory a tenant", "bytes", "bytes", [used]))
    report.rows += served_rows
    return report


def _tenths(metric: str, values: list[float], bar: Bar | None = None) -> list[Row]:
    """All, and the first and the last tenth: whether it slows down as they become many."""
    tenth = max(len(values) // 10, 1)
    parts = {"all": values, "first": values[:tenth], "last": values[-tenth:]}
    return [Row.of(f"create/{name}", metric, "ms", of, bar) for name, of in parts.items() if of]


async def _made(
    server: Server, names: list[str], progress: Progress
) -> tuple[list[str], list[float], list[float]]:
    """The schemas, how long each took, and for how long of that the server's session worked."""
    schemas, taken, busy = [], [], []
    for number, name in enumerate(names):
        progress(f"making {number:,} of {len(names):,}")
        start = perf_counter()
        async with owner(server.dsn) as connection:
            schemas.append(await provision_by(connection, "haive", name))
            if server.stack is not None:  # else it is another machine's process
                busy.append(_busy(connection.get_server_pid()))
        taken.append((perf_counter() - start) * 1e3)
    return schemas, taken, busy


def _busy(pid: int) -> float:
    """Milliseconds that a process has had a processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


async def _warmed(
    store: Store, names: list[str], schemas: list[str], progress: Progress
) -> list[_Turns]:
    turns: list[_Turns] = []
    for name, schema in zip(names, schemas, strict=True):
        progress(f"calling {len(turns):,} of {len(names):,}")
        scoped = _Scoped(store._transport.scoped(schema=schema, tenant=name))
        turn = _Turns(scoped, await scoped.create_conversation("bench"))
        for _ in range(_WARM):
            await turn()
        turns.append(turn)
    return turns


async def _memory(server: Server) -> int | None:
    """Bytes that the sessions of the store have for themselves; None where they run elsewhere."""
    rows = await server.owner.fetch(
        "select pid from pg_stat_activity where datname = current_database()"
        " and backend_type = 'client backend' and pid <> pg_backend_pid()"
    )
    files = [Path(f"/proc/{row['pid']}/smaps_rollup") for row in rows]
    try:
        texts = await asyncio.gather(*(asyncio.to_thread(file.read_text) for file in files))
    except OSError:
        return None
    lines = (line for text in texts for line in text.splitlines())
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
