"""Subscriptions of tenants, wherever their rows are."""

from __future__ import annotations

import asyncio
import json

import pytest

from haive.core.persistence import SupabaseStore
from haive.core.persistence.errors import PersistenceError
from haive.core.persistence.multitenancy import IsolationLevel, TenantConfig, TenantManager
from haive.core.persistence.multitenancy._exposure import await_exposure, expose
from haive.core.persistence.multitenancy._names import tenant_schema


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


async def test_a_user_of_a_tenant_in_a_schema_of_its_own_is_woken(
    manager, tenant, take, heard, stack, probe
) -> None:
    name, stranger = f"{tenant}-schema", f"{tenant}-stranger"
    for each in (name, stranger):
        await _made(manager, each, IsolationLevel.SCHEMA)
    schema, beside = tenant_schema("haive", name), tenant_schema("haive", stranger)
    await expose(stack.database_url, [schema], beside=["haive"])
    async with manager.tenant_context(name) as writer:
        for user, role in {"ada": "member", "bob": "member", "rob": "reader"}.items():
            await writer.set_member(user, role)
        conversation = await writer.create_conversation(
            "agent", user_id="ada", metadata={"participants": ["rob"]}
        )
        channel = f"conversation:{conversation.id}"
        token = stack.mint_user_token("ada")
        async with SupabaseStore(
            stack.url,
            stack.publishable_key,
            schema=schema,
            tenant=name,
            access_token=token,
            enable_realtime=True,
        ) as store:
            await await_exposure(store._transport)
            async with store.subscribe(channel) as events:
                waiting = asyncio.ensure_future(take(events, 1))
                await heard(events)
                await writer.add_message(conversation.id, "user", "one")
                assert [event.first_seq for event in await waiting] == [1]

    topic = f"{schema}:{name}:{channel}"
    for extension in ("broadcast", "presence"):
        assert await probe("ada", topic, "insert", extension)
        assert not await probe("bob", topic, "select", extension)
    assert await probe("rob", topic, "select", "broadcast")
    assert not await probe("rob", topic, "insert", "broadcast")
    # Its own schema is asked, and no other one, whatever a topic says.
    for place, of in ((schema, stranger), (beside, name), ("haive", name), ("pg_catalog", name)):
        assert not await probe("ada", f"{place}:{of}:{channel}", "select", "broadcast")
    await manager.suspend_tenant(name)
    assert not await probe("ada", topic, "select", "broadcast")
    for each in (name, stranger):
        await manager.delete_tenant(each)
        await manager.purge_tenant(each)
