"""An audited tenant, its store over both transports, and the owner's and the superuser's view."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import asyncpg
import httpx
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.local import LocalStack

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Record:
    """The log of a tenant, as the owner sees it."""

    owner: asyncpg.Connection
    tenant: str

    async def seq(self) -> int:
        query = "select coalesce(max(seq), 0) from haive.audit_log where tenant_id = $1"
        return await self.owner.fetchval(query, self.tenant)

    async def since(self, seq: int = 0) -> list[asyncpg.Record]:
        query = "select * from haive.audit_log where tenant_id = $1 and seq > $2 order by seq"
        return await self.owner.fetch(query, self.tenant, seq)

    async def told(self, seq: int = 0) -> list[str]:
        """What was put on record, as `insert messages 2`."""
        rows = await self.since(seq)
        return [f"{row['action']} {row['object']} {row['row_count']}" for row in rows]

    async def switch(self, audit: str) -> None:
        query = "update haive.tenants set audit = $2 where tenant_id = $1"
        await self.owner.execute(query, self.tenant, audit)


async def _json(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )


@pytest.fixture
async def owner(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.database_url)
    await _json(connection)
    yield connection
    await connection.close()


@pytest.fixture
async def superuser(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    """Who may do anything to the log, and does."""
    path = httpx.URL(stack.database_url).path
    connection = await asyncpg.connect(str(httpx.URL(stack.admin_url).copy_with(path=path)))
    yield connection
    await connection.close()


@pytest.fixture
async def record(owner: asyncpg.Connection) -> Record:
    """The record of a new tenant whose writes and reads are on it."""
    name = f"audit-{next(_numbers)}"
    await owner.execute(
        "insert into haive.tenants (tenant_id, name, audit) values ($1, $1, 'all')", name
    )
    return Record(owner, name)


@pytest.fixture(params=["postgres", "supabase"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture
async def open_store(stack: LocalStack, record: Record) -> AsyncIterator[OpenStore]:
    async with AsyncExitStack() as opened:

        async def open_one(transport: str = "postgres") -> Store:
            store: Store
            if transport == "postgres":
                config = PersistenceConfig(
                    connection_string=stack.database_url, pool_size=2, tenant=record.tenant
                )
                store = PostgresStore(config)
            else:
                store = SupabaseStore(stack.url, stack.secret_key, tenant=record.tenant)
            return await opened.enter_async_context(store)

        yield open_one


@pytest.fixture
async def store(open_store: OpenStore, transport: str) -> Store:
    return await open_store(transport)


@pytest.fixture
async def direct(open_store: OpenStore) -> Store:
    """A store on a direct connection."""
    return await open_store()


@pytest.fixture
async def client(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    """A direct connection of a service, on the stack's own database."""
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute("set role haive_client")
    yield connection
    await connection.close()
