"""Every test of this folder runs over both transports, each in a tenant of its own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.local import LocalStack

OpenStore = Callable[..., Awaitable[Store]]
_numbers = itertools.count(1)


@pytest.fixture
async def tenant(stack: LocalStack) -> str:
    name = f"store-{next(_numbers)}"
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


@pytest.fixture
async def open_store(stack: LocalStack, tenant: str, transport: str) -> AsyncIterator[OpenStore]:
    """Open one more store of the test's transport, in its tenant unless told another."""
    async with AsyncExitStack() as opened:

        async def open_one(**settings: object) -> Store:
            settings = {"tenant": tenant, **settings}
            store: Store
            if transport == "postgres":
                config = PersistenceConfig(
                    connection_string=stack.database_url, pool_size=2, **settings
                )
                store = PostgresStore(config)
            else:
                store = SupabaseStore(stack.url, stack.secret_key, **settings)
            return await opened.enter_async_context(store)

        yield open_one


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
def unopened(stack: LocalStack, transport: str) -> Callable[[], Store]:
    """A store of the test's transport that is not open, for a loop of the test's own."""

    def made() -> Store:
        if transport == "postgres":
            return PostgresStore(PersistenceConfig(connection_string=stack.database_url))
        return SupabaseStore(stack.url, stack.secret_key)

    return made
