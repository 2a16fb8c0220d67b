"""Managers of tenants over both transports, with tenants of their own names."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.local import LocalStack
from haive.core.persistence.multitenancy import TenantConfig, TenantManager

_numbers = itertools.count(1)


@pytest.fixture(params=["postgres", "supabase"])
async def base_store(request: pytest.FixtureRequest, stack: LocalStack) -> AsyncIterator[Store]:
    store: Store
    if request.param == "postgres":
        config = PersistenceConfig(connection_string=stack.database_url, pool_size=2)
        store = PostgresStore(config)
    else:
        store = SupabaseStore(stack.url, stack.secret_key)
    async with store:
        yield store


@pytest.fixture
def manager(base_store: Store) -> TenantManager:
    return TenantManager(base_store, TenantConfig())


@pytest.fixture
def new_id() -> Callable[[], str]:
    """Ids of tenants that nobody has."""
    return lambda: f"tenant-{next(_numbers)}"


@pytest.fixture
async def tenant_id(manager: TenantManager, new_id: Callable[[], str]) -> str:
    """A tenant that is there."""
    return (await manager.create_tenant(new_id())).tenant_id


AsUser = Callable[..., SupabaseStore]


@pytest.fixture
async def as_user(stack: LocalStack) -> AsyncIterator[AsUser]:
    """A store of a signed-in user: `as_user("ada")`, in their only tenant or a named one."""
    async with AsyncExitStack() as opened:

        def open_one(user_id: str, tenant: str | None = None) -> SupabaseStore:
            token = stack.mint_user_token(user_id)
            store = SupabaseStore(
                stack.url, stack.publishable_key, access_token=token, tenant=tenant
            )
            opened.push_async_callback(store.aclose)
            return store

        yield open_one
