"""Whether a subscriber hears of everything once and in order while all around it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence.bench.breaking import Breaker, breaker
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.errors import PersistenceError
from haive.core.persistence.models import MessageRole, NewMessage
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.supabase import SupabaseStore

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from uuid import UUID

    from haive.core.persistence.local import LocalStack
    from haive.core.persistence.store import Store

TENANT = "chaos"
_CONVERSATIONS = 64
_USER = "chaos-user"
# PostgREST takes a token for so many seconds after its end.
_LEEWAY = 30
# Seconds of a token, and without anything new after which what is missing counts as lost.
_TOKEN, _PATIENCE = 5, 120.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it."""

    events: int
    """That were committed."""
    missing: int
    """That were not heard of."""
    twice: int
    """That were heard of again."""
    disorder: int
    """That came after a later one of the same conversation."""
    disconnects: int
    restarts: int
    slots: int
    """Replication slots, and with them what they had not sent, that were lost."""
    tokens: int
    """That ended while they were worked with."""
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the subscriber heard the log, and nothing else."""
        return not (self.missing or self.twice or self.disorder)


async def run(
    stack: LocalStack,
    transport: str,
    *,
    events: int,
    disconnects: int,
    restarts: int,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Write events and break things until so many were written and broken.

    Args:
        stack: What is broken.
        transport: ``postgres`` or ``supabase``: the way of the subscriber.
        events: How many to write, at least.
        disconnects: How many connections to break.
        restarts: How often Postgres is killed.
        data_dir: Where the stack's data is, to kill its Postgres; needed for restarts.
        progress: Told how far it is.
    """
    begin = monotonic()
    for name in ("asyncpg", "realtime"):  # that connections broke is the point
        logging.getLogger(name).setLevel(logging.CRITICAL)
    owner = await _owner(stack)
    await owner.execute(
        "insert into haive.tenants (tenant_id, name) values ($1, $1) on conflict do nothing", TENANT
    )
    await owner.execute("delete from haive.events where tenant_id = $1", TENANT)
    await owner.close()
    async with AsyncExitStack() as opened:
        writer = await opened.enter_async_context(
            PostgresStore(PersistenceConfig(connection_string=stack.database_url, tenant=TENANT))
        )
        await writer.set_member(_USER, "admin")
        address = stack.database_url if transport == "postgres" else stack.url
        proxy = await opened.enter_async_context(breaker(address))
        store = await opened.enter_async_context(_store(stack, transport, proxy))
        heard: list[tuple[UUID | None, int | None]] = []
        state = _State()
        subscription = await opened.enter_async_context(store.events("tenant"))

        async def listen() -> None:
            async for event in subscription:
                heard.append((event.conversation_id, event.first_seq))  # noqa: PERF401 - it is looked at meanwhile

        listening = asyncio.create_task(listen())
        writing = asyncio.create_task(_write(writer, events, state))
        breaking = asyncio.create_task(
            _break(
                stack,
                store,
                proxy,
                state,
                disconnects=disconnects,
                restarts=restarts,
                data_dir=data_dir,
            )
        )
        renewing = asyncio.create_task(_renew(stack, store, state))
        last, since = 0, monotonic()
        try:
            while True:
                await asyncio.sleep(0.2)
                progress(
                    f"{transport}: {state.written:,} written, {len(heard):,} heard,"
                    f" {proxy.cuts:,} disconnects"
                )
                done = writing.done() and breaking.done()
                if listening.done() or (done and len(heard) >= await _count(stack)):
                    break
                if len(heard) > last or not done:
                    last, since = len(heard), monotonic()
                elif monotonic() - since > _PATIENCE:
                    break
            await asyncio.sleep(1)  # for what comes twice
        finally:
            tasks = (listening, writing, breaking, renewing)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
    owner = await _owner(stack)
    rows = await owner.fetch(
        "select conversation_id, first_seq from haive.events where tenant_id = $1", TENANT
    )
    await owner.close()
    log = {tuple(row) for row in rows}
    return Outcome(
        events=len(rows),
        missing=len(log - set(heard)),
        twice=len(heard) - len(set(heard)),
        disorder=_disorder(heard),
        disconnects=proxy.cuts,
        restarts=state.restarts,
        slots=state.slots,
        tokens=state.tokens,
        seconds=monotonic() - begin,
    )


@dataclass
class _State:
    written: int = 0
    restarts: int = 0
    slots: int = 0
    tokens: int = 0


def _store(stack: LocalStack, transport: str, proxy: Breaker) -> Store:
    if transport == "postgres":
        return PostgresStore(
            PersistenceConfig(connection_string=proxy.url, tenant=TENANT, pool_size=2)
        )
    return SupabaseStore(
        proxy.url,
        stack.publishable_key,
        access_token=_token(stack),
        tenant=TENANT,
        enable_realtime=True,
    )


def _token(stack: LocalStack) -> str:
    return stack.mint_user_token(_USER, exp=int(time()) + _TOKEN - _LEEWAY)


async def _owner(stack: LocalStack) -> asyncpg.Connection[asyncpg.Record]:
    for _ in range(200):
        with suppress(OSError, asyncpg.PostgresError):
            return await asyncpg.connect(stack.admin_url)
        await asyncio.sleep(0.1)
    raise PersistenceError("The server did not come back.")


async def _count(stack: LocalStack) -> int:
    owner = await _owner(stack)
    try:
        query = "select count(*) from haive.events where tenant_id = $1"
        return int(await owner.fetchval(query, TENANT))
    finally:
        await owner.close()


async def _write(store: PostgresStore, events: int, state: _State) -> None:
    """Write through restarts: whoever retries with the same ids writes nothing twice."""
    ids = [(await store.create_conversation("agent")).id for _ in range(_CONVERSATIONS)]

    async def one(conversation_id: UUID, count: int) -> None:
        for _ in range(count):
            message = NewMessage(
                conversation_id=conversation_id, role=MessageRole.USER, content="hello"
            )
            while True:
                try:
                    await store.add_messages([message])
                    break
                except PersistenceError as error:
                    if not error.retryable:
                        raise
            state.written += 1

    await asyncio.gather(*(one(key, events // _CONVERSATIONS + 1) for key in ids))


async def _break(
    stack: LocalStack,
    store: Store,
    proxy: Breaker,
    state: _State,
    *,
    disconnects: int,
    restarts: int,
    data_dir: str | os.PathLike[str] | None,
) -> None:
    dice = random.Random(disconnects)  # no secret # noqa: S311 # nosec B311
    rounds = 0
    while proxy.cuts < disconnects or state.restarts < restarts:
        await asyncio.sleep(dice.uniform(0.02, 0.2))
        rounds += 1
        if proxy.cuts < disconnects:
            proxy.cut()
        if state.restarts < restarts and rounds % 50 == 25 and data_dir is not None:
            _kill_postgres(Path(data_dir))
            state.restarts += 1
        elif rounds % 20 == 10:
            state.slots += await _lose_slots(stack)


async def _renew(stack: LocalStack, store: Store, state: _State) -> None:
    """Bring a new token a moment after the old one has ended."""
    while isinstance(store, SupabaseStore):
        await asyncio.sleep(_TOKEN + 1)
        store.set_access_token(_token(stack))
        state.tokens += 1


def _kill_postgres(data_dir: Path) -> None:
    import os  # noqa: PLC0415 - here alone

    with suppress(OSError, ValueError, IndexError):
        text = (data_dir / "postgres" / "postmaster.pid").read_text()
        os.kill(int(text.split("\n")[0]), signal.SIGKILL)


async def _lose_slots(stack: LocalStack) -> int:
    """End what reads the log for Realtime, and the listeners of our own."""
    owner = await _owner(stack)
    try:
        return int(
            await owner.fetchval(
                "select count(pg_terminate_backend(active_pid)) from pg_replication_slots"
                " where active_pid is not null"
            )
        )
    except asyncpg.PostgresError:
        return 0
    finally:
        await owner.close()


def _disorder(heard: list[tuple[UUID | None, int | None]]) -> int:
    last: dict[UUID | None, int] = {}
    wrong = 0
    for conversation_id, seq in heard:
        if seq is not None:
            wrong += seq <= last.get(conversation_id, 0)
            last[conversation_id] = seq
    return wrong
