"""Tests of this folder run over both transports, with a tenant and a collection of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from making_notes import collection_of, make_tenant

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.local import LocalStack
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.records import Collection

OpenStore = Callable[..., Awaitable[Store]]
OpenBackend = Callable[..., Awaitable[PgvectorBackend]]


@pytest.fixture(params=["postgres", "supabase"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def owner(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    """The owner's connection to the stack's database, which vecs would have too."""
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def tenant(owner: asyncpg.Connection) -> str:
    return await make_tenant(owner)


@pytest.fixture
async def open_store(stack: LocalStack, tenant: str, transport: str) -> AsyncIterator[OpenStore]:
    """Open a store of the test's transport, in its tenant unless told another."""
    async with AsyncExitStack() as opened:

        async def open_one(**settings: Any) -> Store:
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
def collection() -> Collection:
    return collection_of()


@pytest.fixture
async def open_backend(open_store: OpenStore, collection: Collection) -> OpenBackend:
    """Open a backend: `await open_backend(tenant="other")`, or another collection."""

    async def open_one(of: Collection = collection, **settings: Any) -> PgvectorBackend:
        backend = PgvectorBackend(await open_store(**settings))
        await backend.open(of)
        return backend

    return open_one


@pytest.fixture
async def backend(open_backend: OpenBackend) -> PgvectorBackend:
    return await open_backend()
