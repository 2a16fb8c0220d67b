"""Savers over both transports, each in a tenant of its own, in plain and sealed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.checkpointer import CheckpointConfig, KeyRing
from haive.core.persistence.integrations.langgraph import HaiveSaver
from haive.core.persistence.local import LocalStack

OpenStore = Callable[..., Awaitable[Store]]
OpenSaver = Callable[..., Awaitable[HaiveSaver]]
_numbers = itertools.count(1)
KEY = KeyRing.generate()


@pytest.fixture
async def tenant(stack: LocalStack) -> str:
    name = f"integration-{next(_numbers)}"
    connection = await asyncpg.connect(stack.database_url)
    try:
        await connection.execute(
            "insert into haive.tenants (tenant_id, name) values ($1, $1)", name
        )
    finally:
        await connection.close()
    return name


@pytest.fixture(params=["postgres", "supabase"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["plain", "sealed"])
def key(request: pytest.FixtureRequest) -> str | None:
    return KEY if request.param == "sealed" else None


@pytest.fixture
async def open_store(stack: LocalStack, tenant: str, transport: str) -> AsyncIterator[OpenStore]:
    """Open one more store of the test's transport, in its tenant."""
    async with AsyncExitStack() as opened:

        async def open_one() -> Store:
            store: Store
            if transport == "postgres":
                store = PostgresStore(
                    PersistenceConfig(
                        connection_string=stack.database_url, pool_size=2, tenant=tenant
                    )
                )
            else:
                store = SupabaseStore(stack.url, stack.secret_key, tenant=tenant)
            return await opened.enter_async_context(store)

        yield open_one


@pytest.fixture
async def open_saver(open_store: OpenStore, key: str | None) -> OpenSaver:
    """Make one more saver, with a store and a cache of its own, as another process has them."""

    async def make(**settings: Any) -> HaiveSaver:
        config = CheckpointConfig(encryption_key=key, **settings)
        return HaiveSaver.from_store(await open_store(), config)

    return make


@pytest.fixture
async def saver(open_saver: OpenSaver) -> HaiveSaver:
    return await open_saver()


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[HaiveSaver], Counter[str]]:
    """Count the calls that a saver makes from now on, by function."""

    def watch(saver: HaiveSaver) -> Counter[str]:
        counted: Counter[str] = Counter()
        transport = saver._graphs.engine.store._transport
        call, rows = transport.call, transport.rows

        async def counting(function: str, *args: Any, **kwargs: Any) -> Any:
            counted[function] += 1
            return await call(function, *args, **kwargs)

        async def by_column(function: str, arguments: Any) -> Any:
            answer = await rows(function, arguments)
            counted[function] += answer is not None
            return answer

        monkeypatch.setattr(transport, "call", counting)
        monkeypatch.setattr(transport, "rows", by_column)
        return counted

    return watch
