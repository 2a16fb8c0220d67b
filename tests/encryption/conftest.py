"""An encrypted tenant, its keys in either place, and stores with them and without."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence._keys import KeyRing
from haive.core.persistence.encryption import (
    DatabaseKeyStore,
    DataKeys,
    EnvironmentKey,
    FileKeyStore,
    Sealer,
)
from haive.core.persistence.local import LocalStack

OpenStore = Callable[..., Awaitable[Store]]
MAX_AGE = 0.2
_numbers = itertools.count(1)


@pytest.fixture
async def owner(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    """The owner of the schema, who sees and changes every row."""
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def tenant(owner: asyncpg.Connection) -> str:
    """A tenant whose content is sealed."""
    name = f"sealed-{next(_numbers)}"
    await owner.execute(
        "insert into haive.tenants (tenant_id, name, encrypted) values ($1, $1, true)", name
    )
    return name


@pytest.fixture(params=["postgres", "supabase"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kek() -> EnvironmentKey:
    return EnvironmentKey(environ={"TENANT_MASTER_KEY": KeyRing.generate()})


@pytest.fixture
async def keys(tmp_path: Path, kek: EnvironmentKey, tenant: str) -> DataKeys:
    """The tenant's data keys, in a folder."""
    keys = DataKeys(kek, FileKeyStore(tmp_path / "keys"))
    await keys.create(tenant)
    return keys


@pytest.fixture
async def open_store(
    stack: LocalStack, tenant: str, transport: str, keys: DataKeys
) -> AsyncIterator[OpenStore]:
    """Open a store of the test's transport in its tenant, that seals with the tenant's keys.

    `sealed=False` makes one that has no keys; other settings go to the sealer.
    """
    async with AsyncExitStack() as opened:

        async def open_one(
            *, sealed: bool = True, within: str = tenant, over: str = transport, **settings: object
        ) -> Store:
            store: Store
            if over == "postgres":
                store = PostgresStore(
                    PersistenceConfig(
                        connection_string=stack.database_url, pool_size=2, tenant=within
                    )
                )
            else:
                store = SupabaseStore(stack.url, stack.secret_key, tenant=within)
            await opened.enter_async_context(store)
            if sealed:
                settings = {"max_age": MAX_AGE, **settings}
                source = settings.pop("source", keys)
                store._sealer = Sealer(within, source, **settings)
            return store

        yield open_one


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture(params=["file", "database"])
def key_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Store], object]:
    """Make a key store of either kind, from a store."""
    if request.param == "file":
        return lambda store: FileKeyStore(tmp_path / "either")
    return DatabaseKeyStore
