"""A tenant of its own for each test, and both stores on it."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.local import LocalStack
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.store import Store
from haive.core.persistence.supabase import SupabaseStore

_tenants = itertools.count(1)


@pytest.fixture
async def new_tenant(stack: LocalStack) -> Callable[[], Any]:
    async def make() -> str:
        tenant = f"import-{next(_tenants)}"
        connection = await asyncpg.connect(stack.database_url)
        await connection.execute(
            "insert into haive.tenants (tenant_id, name) values ($1, $1)", tenant
        )
        await connection.close()
        return tenant

    return make


@pytest.fixture(params=["postgres", "supabase"])
async def new_store(
    request: pytest.FixtureRequest, stack: LocalStack, new_tenant: Callable[[], Any]
) -> AsyncIterator[Callable[[], Any]]:
    """Open a store on a tenant of its own: `await new_store()`."""
    async with AsyncExitStack() as opened:

        async def make() -> Store:
            tenant = await new_tenant()
            store: Store
            if request.param == "postgres":
                url = SecretStr(stack.database_url)
                config = PersistenceConfig(connection_string=url, tenant=tenant, pool_size=2)
                store = PostgresStore(config)
            else:
                store = SupabaseStore(stack.url, stack.secret_key, tenant=tenant)
            return await opened.enter_async_context(store)

        yield make


@pytest.fixture
async def store(new_store: Callable[[], Any]) -> Store:
    return await new_store()


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """Write records as JSON lines and return the file."""

    def write(*records: object, name: str = "records.jsonl") -> Path:
        data = b"".join(
            record if isinstance(record, bytes) else json.dumps(record).encode() + b"\n"
            for record in records
        )
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


@pytest.fixture
async def postgres_of_stack(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    """The owner's connection to the database that the API serves."""
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()
