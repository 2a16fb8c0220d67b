"""Stores over both transports, each test in a tenant of its own, and servers to break."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.events import Event, Subscription
from haive.core.persistence.local import LocalStack

OpenStore = Callable[..., Awaitable[Store]]
_numbers = itertools.count(1)


@pytest.fixture
async def owner(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def tenant(owner: asyncpg.Connection) -> str:
    name = f"events-{next(_numbers)}"
    await owner.execute("insert into haive.tenants (tenant_id, name) values ($1, $1)", name)
    return name


@pytest.fixture(params=["postgres", "supabase"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def open_store(stack: LocalStack, tenant: str) -> AsyncIterator[OpenStore]:
    """Open a store in the test's tenant: `await open_store("supabase", key=…)`."""
    async with AsyncExitStack() as opened:

        async def open_one(transport: str, *, key: str | None = None, **settings: object) -> Store:
            settings = {"tenant": tenant, **settings}
            store: Store
            if transport == "postgres":
                config = PersistenceConfig(
                    **{"connection_string": stack.database_url, "pool_size": 2, **settings}
                )
                store = PostgresStore(config)
            else:
                settings = {"enable_realtime": True, **settings}
                store = SupabaseStore(stack.url, key or stack.secret_key, **settings)
            return await opened.enter_async_context(store)

        yield open_one


@pytest.fixture
async def store(open_store: OpenStore, transport: str) -> Store:
    """The store that is subscribed to."""
    return await open_store(transport)


@pytest.fixture
async def other(open_store: OpenStore) -> Store:
    """Somebody else, who writes."""
    return await open_store("postgres")


@pytest.fixture
def heard() -> Callable[[Subscription], Awaitable[None]]:
    """Wait until hints would arrive."""

    async def wait(subscription: Subscription) -> None:
        async with asyncio.timeout(20):
            while not subscription.is_heard:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def take() -> Callable[..., Awaitable[list[Event]]]:
    """Take so many events: `await take(subscription, 3)`."""

    async def events(subscription: Subscription, count: int, seconds: float = 20) -> list[Event]:
        async with asyncio.timeout(seconds):
            return [await anext(subscription) for _ in range(count)]

    return events


@pytest.fixture
def probe(owner):
    """Try what the server tries: `await probe("ada", topic, "insert", "presence")`."""

    @asynccontextmanager
    async def undone():
        transaction = owner.transaction()
        await transaction.start()
        try:
            yield
        finally:
            await transaction.rollback()

    async def ask(user, topic, verb, extension):
        async with undone():
            if verb == "select":
                await owner.execute(
                    "insert into realtime.messages (topic, extension, private)"
                    " values ($1, $2, true)",
                    *(topic, extension),
                )
            claims = json.dumps({"sub": user, "role": "authenticated"})
            await owner.execute(
                "select set_config('request.jwt.claims', $1, true),"
                " set_config('realtime.topic', $2, true),"
                " set_config('role', 'authenticated', true)",
                *(claims, topic),
            )
            if verb == "select":
                query = "select count(*) from realtime.messages where topic = $1"
                return await owner.fetchval(query, topic) > 0
            try:
                await owner.execute(
                    "insert into realtime.messages (topic, extension, private)"
                    " values ($1, $2, true)",
                    *(topic, extension),
                )
            except asyncpg.InsufficientPrivilegeError:
                return False
            return True

    return ask
