"""Subscriptions of tenants, wherever their rows are."""

from __future__ import annotations

import asyncio
import json

import pytest

from haive.core.persistence.errors import PersistenceError
from haive.core.persistence.multitenancy import IsolationLevel, TenantConfig, TenantManager


@pytest.fixture
async def manager(open_store) -> TenantManager:
    base = await open_store("postgres", tenant=None)
    manager = TenantManager(base, TenantConfig(enable_row_level_security=False))
    yield manager
    await manager.aclose()


async def _made(manager, name, isolation):
    await manager.create_tenant(name, isolation_level=isolation)


@pytest.mark.parametrize("isolation", [IsolationLevel.ROW, IsolationLevel.SCHEMA])
async def test_a_tenant_hears_of_itself_and_of_nobody_else(
    manager, isolation, tenant, heard, take, monkeypatch
) -> None:
    await _made(manager, f"{tenant}-mine", isolation)
    await _made(manager, f"{tenant}-other", isolation)
    async with (
        manager.tenant_context(f"{tenant}-mine") as mine,
        manager.tenant_context(f"{tenant}-other") as other,
    ):
        async with mine.subscribe("conversations") as events:
            waiting = asyncio.ensure_future(take(events, 1))
            await heard(events)
            await other.create_conversation("agent")
            conversation = await mine.create_conversation("agent")
            assert [event.conversation_id for event in await waiting] == [conversation.id]
        subscription = mine.subscribe("conversations", after="0")
        await subscription.__aenter__()
    # The context has ended, and with it what was heard through it.
    with pytest.raises(PersistenceError, match="ended"):
        await take(subscription, 2)
    await subscription.aclose()
    for name in ("mine", "other"):
        await manager.delete_tenant(f"{tenant}-{name}")
        await manager.purge_tenant(f"{tenant}-{name}")


async def test_a_subscription_follows_a_tenant_that_moves(manager, tenant, take, owner) -> None:
    name = f"{tenant}-moves"
    await _made(manager, name, IsolationLevel.ROW)
    async with manager.tenant_context(name) as store:
        conversation = await store.create_conversation("agent")
        async with store.subscribe(f"conversation:{conversation.id}") as events:
            await store.add_message(conversation.id, "user", "one")
            assert [event.first_seq for event in await take(events, 1)] == [1]
            await store.add_message(conversation.id, "user", "two")
            await manager.move_tenant(name, IsolationLevel.SCHEMA)
            await store.add_message(conversation.id, "user", "three")
            assert [event.first_seq for event in await take(events, 2, 60)] == [2, 3]
    await manager.delete_tenant(name)
    assert json.loads(await owner.fetchval("select haive.get_tenant($1)", name))
    await manager.purge_tenant(name)
