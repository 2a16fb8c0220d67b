"""Tenants are made, entered, closed and removed, over both transports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.errors import (
    AccessDeniedError,
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PersistenceError,
    TenantMovingError,
    TenantSuspendedError,
    UnsupportedOperationError,
)
from haive.core.persistence.local import LocalStack
from haive.core.persistence.multitenancy import (
    IsolationLevel,
    ResourceQuota,
    TenantConfig,
    TenantManager,
    TenantStatus,
)
from haive.core.persistence.multitenancy import _tenant_store as tenant_stores

NewId = Callable[[], str]


async def test_a_tenant_keeps_what_it_was_made_with(base_store: Store, new_id: NewId) -> None:
    manager = TenantManager(
        base_store,
        TenantConfig(
            default_quota=ResourceQuota(max_conversations=10, max_requests_per_minute=1_000)
        ),
    )
    settings = {"timezone": "America/New_York", "data_retention_days": 90, "ours": {"plan": "b"}}
    made = await manager.create_tenant(
        new_id(),
        "Acme Corporation",
        settings,
        ResourceQuota(max_conversations=50, max_storage_gb=2),
    )
    assert made.name == "Acme Corporation"
    assert made.settings == settings
    assert made.isolation is IsolationLevel.ROW
    assert made.status is TenantStatus.ACTIVE
    assert made.quota == ResourceQuota(
        max_conversations=50, max_storage_gb=2, max_requests_per_minute=1_000
    )
    assert await manager.get_tenant(made.tenant_id) == made


async def test_making_a_tenant_twice_is_making_it_once(
    manager: TenantManager, new_id: NewId
) -> None:
    name = new_id()
    made = await asyncio.gather(*(manager.create_tenant(name, "Acme") for _ in range(5)))
    assert all(tenant == made[0] for tenant in made)
    with pytest.raises(ConflictError):
        await manager.create_tenant(name, "Somebody else")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Upper",
        "-dash",
        "a b",
        "a;drop table haive.tenants",
        "a'--",
        "ä",
        "a" * 64,
        "a/b",
        "a\n",
    ],
)
async def test_an_id_is_a_slug(manager: TenantManager, name: str) -> None:
    with pytest.raises(InvalidInputError):
        await manager.create_tenant(name)


@pytest.mark.parametrize(
    "settings",
    [
        {"timezone": "Mars/Olympus"},
        {"timezone": 3},
        {"timezone": "CET"},  # to Postgres without the summer that Brussels has
        {"timezone": "pst"},
        {"data_retention_days": 0},
        {"data_retention_days": 1.5},
        {"data_retention_days": "90"},
        {"compliance_mode": "NONE"},
        {"compliance_mode": ["HIPAA"]},
    ],
)
async def test_settings_mean_something(
    manager: TenantManager, new_id: NewId, settings: dict[str, object]
) -> None:
    name = new_id()
    with pytest.raises(InvalidInputError):
        await manager.create_tenant(name, settings=settings)
    with pytest.raises(NotFoundError):
        await manager.get_tenant(name)


@pytest.mark.parametrize("zone", ["UTC", "GMT", "Etc/GMT+3", "EST5EDT", "Europe/Brussels"])
async def test_a_name_of_a_time_zone_is_one(
    manager: TenantManager, new_id: NewId, zone: str
) -> None:
    made = await manager.create_tenant(new_id(), settings={"timezone": zone})
    assert made.settings == {"timezone": zone}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 201},
        {"name": 5},
        {"settings": [("a", 1)]},
        {"quota": {"max_conversations": 1}},
    ],
)
async def test_what_no_tenant_can_have_is_refused(
    manager: TenantManager, tenant_id: str, new_id: NewId, wrong: dict[str, Any]
) -> None:
    (named,) = wrong
    with pytest.raises(InvalidInputError, match=named):
        await manager.update_tenant(tenant_id, **wrong)
    if "quota" in wrong:
        wrong = {"custom_quota": wrong["quota"]}
    with pytest.raises(InvalidInputError, match=named):
        await manager.create_tenant(new_id(), **wrong)


async def test_a_location_is_of_a_database(manager: TenantManager, new_id: NewId) -> None:
    with pytest.raises(InvalidInputError, match="location"):
        await manager.create_tenant(new_id(), location="frankfurt")


async def test_all_tenants_are_listed_in_order(manager: TenantManager, new_id: NewId) -> None:
    made = {(await manager.create_tenant(new_id())).tenant_id for _ in range(3)}
    listed = [tenant.tenant_id async for tenant in manager.list_tenants()]
    assert made <= set(listed)
    assert listed == sorted(listed)
    suspended = [t.tenant_id async for t in manager.list_tenants(status=TenantStatus.SUSPENDED)]
    assert not made & set(suspended)


async def test_an_update_changes_what_is_given(manager: TenantManager, tenant_id: str) -> None:
    before = await manager.update_tenant(
        tenant_id, quota=ResourceQuota(max_conversations=5, max_storage_gb=1)
    )
    after = await manager.update_tenant(
        tenant_id, name="New", quota=ResourceQuota(max_conversations=None)
    )
    assert after.name == "New"
    assert after.settings == before.settings
    assert after.quota == ResourceQuota(max_storage_gb=1)


async def test_a_context_is_of_one_tenant_alone(manager: TenantManager, new_id: NewId) -> None:
    red, blue = [(await manager.create_tenant(new_id())).tenant_id for _ in range(2)]
    async with manager.tenant_context(red) as ours, manager.tenant_context(blue) as theirs:
        conversation = await ours.create_conversation("agent", metadata={"title": "red"})
        await ours.add_message(conversation.id, "user", "a secret of red")
        assert conversation.tenant_id == red
        with pytest.raises(NotFoundError):
            await theirs.get_conversation(conversation.id)
        with pytest.raises(NotFoundError):
            await theirs.add_message(conversation.id, "user", "not ours")
        assert await theirs.query_conversations() == []
        checkpoints = Checkpointer(ours)
        await checkpoints.save("thread", {"secret": "red"})
        assert len(await checkpoints.get_history("thread")) == 1
        assert await Checkpointer(theirs).get_history("thread") == []


async def test_a_block_closes_the_manager_and_leaves_the_store_open(
    base_store: Store, new_id: NewId
) -> None:
    async with TenantManager(base_store) as manager:
        tenant = await manager.create_tenant(new_id())
        async with manager.tenant_context(tenant.tenant_id) as store:
            assert repr(store) == f"<TenantStore tenant={tenant.tenant_id!r}, open>"
    assert repr(store) == f"<TenantStore tenant={tenant.tenant_id!r}, ended>"
    await base_store.query_conversations(limit=1)


async def test_one_pool_serves_many_tenants_at_once(manager: TenantManager, new_id: NewId) -> None:
    names = [(await manager.create_tenant(new_id())).tenant_id for _ in range(12)]

    async def work(name: str) -> None:
        async with manager.tenant_context(name) as store:
            conversation = await store.create_conversation("agent")
            for number in range(10):
                await store.add_message(conversation.id, "user", f"{name} {number}")
            messages = await store.get_messages(conversation.id)
            assert [message.text for message in messages] == [f"{name} {n}" for n in range(10)]
            (found,) = await store.query_conversations()
            assert found.tenant_id == name

    await asyncio.gather(*(work(name) for name in names))


async def test_a_store_ends_with_its_context(manager: TenantManager, tenant_id: str) -> None:
    async with manager.tenant_context(tenant_id) as store:
        conversation = await store.create_conversation("agent")
    with pytest.raises(PersistenceError, match="has ended"):
        await store.get_conversation(conversation.id)
    with pytest.raises(PersistenceError, match="has ended"):
        await store.add_message(conversation.id, "user", "late")


async def test_a_tenants_store_runs_no_sql_and_leads_nowhere_else(
    manager: TenantManager, tenant_id: str
) -> None:
    async with manager.tenant_context(tenant_id) as store:
        with pytest.raises(UnsupportedOperationError):
            await store.execute("select 1")
        with pytest.raises(UnsupportedOperationError):
            store._transport.scoped(tenant="default")


async def test_an_unknown_tenant_lets_nobody_in(manager: TenantManager, new_id: NewId) -> None:
    with pytest.raises(NotFoundError):
        async with manager.tenant_context(new_id()):
            pytest.fail("it was entered")


async def test_a_member_enters_with_a_token(
    stack: LocalStack, manager: TenantManager, new_id: NewId
) -> None:
    mine, other = [(await manager.create_tenant(new_id())).tenant_id for _ in range(2)]
    async with manager.tenant_context(mine) as store:
        await store.set_member("ada", "member")
    token = stack.mint_user_token("ada")
    async with SupabaseStore(stack.url, stack.publishable_key, access_token=token) as as_ada:
        hers = TenantManager(as_ada)
        async with hers.tenant_context(mine) as store:
            assert (await store.create_conversation("agent")).user_id == "ada"
        async with hers.tenant_context(other) as store:
            with pytest.raises(AccessDeniedError):
                await store.query_conversations()


async def test_a_suspended_tenant_is_closed_until_it_is_resumed(
    manager: TenantManager, tenant_id: str
) -> None:
    async with manager.tenant_context(tenant_id) as store:
        conversation = await store.create_conversation("agent")
        await manager.suspend_tenant(tenant_id)
        for call in (
            store.get_conversation(conversation.id),
            store.add_message(conversation.id, "user", "no"),
            store.query_conversations(),
            Checkpointer(store).save("thread", {}),
        ):
            with pytest.raises(TenantSuspendedError):
                await call
        await manager.resume_tenant(tenant_id)
        assert (await store.add_message(conversation.id, "user", "yes")).seq == 1


async def test_members_of_a_suspended_tenant_see_no_rows(
    stack: LocalStack, manager: TenantManager, tenant_id: str
) -> None:
    async with manager.tenant_context(tenant_id) as store:
        await store.set_member("owner-1", "owner")
        await store.create_conversation("agent")
    owner = await asyncpg.connect(stack.database_url)
    try:

        async def seen() -> int:
            async with owner.transaction():
                await owner.execute("set local role authenticated")
                await owner.execute(
                    "select set_config('request.jwt.claims', '{\"sub\": \"owner-1\"}', true)"
                )
                return await owner.fetchval(
                    "select count(*) from haive.conversations where tenant_id = $1", tenant_id
                )

        assert await seen() == 1
        await manager.suspend_tenant(tenant_id)
        assert await seen() == 0
    finally:
        await owner.close()


async def test_deletion_can_be_undone_and_purging_cannot(
    stack: LocalStack, manager: TenantManager, tenant_id: str
) -> None:
    async with manager.tenant_context(tenant_id) as store:
        conversation = await store.create_conversation("agent")
        await store.add_message(conversation.id, "user", "hello")
        await Checkpointer(store).save("thread", {"a": 1})
        with pytest.raises(ConflictError, match="not deleted"):
            await manager.purge_tenant(tenant_id)
        deleted = await manager.delete_tenant(tenant_id)
        assert deleted.deleted_at is not None
        with pytest.raises(NotFoundError):
            await store.get_conversation(conversation.id)
        assert (await manager.resume_tenant(tenant_id)).deleted_at is None
        assert (await store.get_conversation(conversation.id)).message_count == 1
    owner = await asyncpg.connect(stack.database_url)
    try:
        await owner.execute(
            "insert into haive_private.event_floors (tenant_id, xid) values ($1, '1')", tenant_id
        )
        await owner.execute(
            "insert into haive_private.watches values ($1, 'tenant', 'notify', now())", tenant_id
        )
        await manager.delete_tenant(tenant_id)
        assert await manager.purge_tenant(tenant_id) == 1
        with pytest.raises(NotFoundError):
            await manager.get_tenant(tenant_id)
        tables = await owner.fetch(
            "select c.oid::regclass::text from pg_class as c"
            " join pg_attribute as a on a.attrelid = c.oid and a.attname = 'tenant_id'"
            " where c.relkind = 'r'"
            " and c.relnamespace in ('haive'::regnamespace, 'haive_private'::regnamespace)"
            " and c.relname !~ '^audit_'"
        )
        assert len(tables) > 20
        for (table,) in tables:
            left = f"select count(*) from {table} where tenant_id = $1"
            assert await owner.fetchval(left, tenant_id) == 0, table
    finally:
        await owner.close()


async def test_the_default_tenant_always_exists(manager: TenantManager) -> None:
    with pytest.raises(InvalidInputError):
        await manager.delete_tenant("default")


async def test_writes_wait_for_a_move_and_reads_do_not(
    stack: LocalStack, manager: TenantManager, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with manager.tenant_context(tenant_id) as store:
        conversation = await store.create_conversation("agent")
        await manager._turn(tenant_id, TenantStatus.MOVING)
        assert (await store.get_conversation(conversation.id)).message_count == 0
        adding = asyncio.create_task(store.add_message(conversation.id, "user", "wait"))
        await asyncio.sleep(0.3)
        assert not adding.done()
        await manager.resume_tenant(tenant_id)
        assert (await adding).seq == 1

        monkeypatch.setattr(tenant_stores, "_PATIENCE", 0.2)
        await manager._turn(tenant_id, TenantStatus.MOVING)
        with pytest.raises(TenantMovingError):
            await store.add_message(conversation.id, "user", "too long")


async def test_users_administer_no_tenants(stack: LocalStack) -> None:
    token = stack.mint_user_token("mallory")
    async with SupabaseStore(stack.url, stack.publishable_key, access_token=token) as store:
        manager = TenantManager(store)
        for call in (
            manager.create_tenant("mine"),
            manager.get_tenant("default"),
            manager.suspend_tenant("default"),
            manager.purge_tenant("default"),
            anext(manager.list_tenants()),
        ):
            with pytest.raises(AccessDeniedError):
                await call


async def test_a_connection_that_policies_do_not_bind_is_refused(stack: LocalStack) -> None:
    config = PersistenceConfig(
        connection_string=stack.database_url, pool_size=1, transaction_pooler=True
    )
    async with PostgresStore(config) as store:
        with pytest.raises(ConfigurationError, match="does not bind"):
            await TenantManager(store).create_tenant("unbound")
        unchecked = TenantManager(store, TenantConfig(enable_row_level_security=False))
        assert (await unchecked.create_tenant("unbound")).tenant_id == "unbound"
