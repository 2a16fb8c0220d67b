"""Stores with a policy, over both transports, each test in a tenant of its own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.local import LocalStack
from haive.core.persistence.privacy import PIIPolicy

OpenStore = Callable[..., Awaitable[Store]]
_numbers = itertools.count(1)


@pytest.fixture
async def connection(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    """The owner of the schema, who sees every row."""
    opened = await asyncpg.connect(stack.database_url)
    yield opened
    await opened.close()


@pytest.fixture(params=["postgres", "supabase"])
async def open_store(
    request: pytest.FixtureRequest, stack: LocalStack, connection: asyncpg.Connection
) -> AsyncIterator[OpenStore]:
    """Open a store with a policy: `await open_store(mode="mask")`; with none: `open_store()`."""
    tenant = f"privacy-{next(_numbers)}"
    await connection.execute("insert into haive.tenants (tenant_id, name) values ($1, $1)", tenant)
    async with AsyncExitStack() as opened:

        async def open_one(**policy: object) -> Store:
            pii = PIIPolicy(**policy) if policy else None
            store: Store
            if request.param == "postgres":
                config = PersistenceConfig(
                    connection_string=stack.database_url, tenant=tenant, pool_size=2
                )
                store = PostgresStore(config, pii=pii)
            else:
                store = SupabaseStore(stack.url, stack.secret_key, tenant=tenant, pii=pii)
            return await opened.enter_async_context(store)

        yield open_one
