"""A manager's tenants in schemas and databases of their own, over both transports."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from haive.core.persistence import Store
from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    KeyDestroyedError,
    NotFoundError,
    PersistenceError,
    QuotaExceededError,
    SchemaMissingError,
    TenantSuspendedError,
    UnsupportedOperationError,
)
from haive.core.persistence.local import LocalStack
from haive.core.persistence.multitenancy import (
    AuditMode,
    IsolationLevel,
    ResourceQuota,
    Tenant,
    TenantConfig,
    TenantManager,
    TenantStatus,
)
from haive.core.persistence.multitenancy import _copying as copying
from haive.core.persistence.multitenancy import _moving as moving
from haive.core.persistence.multitenancy import manager as managers
from haive.core.persistence.supabase import SupabaseStore
from haive.core.persistence.vector import MemoryConfig, VectorMemory

NewId = Callable[[], str]


@pytest.fixture
async def owner(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def schemas(base_store: Store, stack: LocalStack) -> AsyncIterator[TenantManager]:
    """A manager whose tenants get schemas; they are gone after the test."""
    manager = TenantManager(
        base_store,
        TenantConfig(
            isolation_level=IsolationLevel.SCHEMA,
            audit=AuditMode.OFF,
            admin_connection_string=stack.database_url,
        ),
    )
    before = {tenant.tenant_id async for tenant in manager.list_tenants()}
    yield manager
    async for tenant in manager.list_tenants():
        if tenant.tenant_id not in before:
            await manager.delete_tenant(tenant.tenant_id)
            await manager.purge_tenant(tenant.tenant_id)


async def test_a_tenant_lives_and_ends_in_its_schema(
    schemas: TenantManager, owner: asyncpg.Connection, new_id: NewId
) -> None:
    name = new_id()
    quota = ResourceQuota(max_conversations=2)
    made = await schemas.create_tenant(name, custom_quota=quota)
    assert await schemas.create_tenant(name, custom_quota=quota) == made
    with pytest.raises(ConflictError):
        await schemas.create_tenant(name)
    async with schemas.tenant_context(name) as store:
        conversation = await store.create_conversation("agent")
        await store.add_message(conversation.id, "user", "here")
        await Checkpointer(store).save("thread", {"a": 1})
        count = f"select count(*) from {made.location}.messages where tenant_id = $1"
        assert await owner.fetchval(count, name) == 1
        base = "select count(*) from haive.conversations where tenant_id = $1"
        assert await owner.fetchval(base, name) == 0

        await store.create_conversation("agent")
        with pytest.raises(QuotaExceededError) as refused:
            await store.create_conversation("agent")
        assert (refused.value.resource, refused.value.limit) == ("conversations", 2)
        await schemas.update_tenant(name, quota=ResourceQuota(max_conversations=3))
        await store.create_conversation("agent")

        assert (await schemas.usage(name)).conversations.used == 3
        numbers = await schemas.get_analytics([name], ["conversation_count", "message_count"])
        assert numbers[name].conversation_count == 3
        assert numbers[name].message_count == 1

        await schemas.suspend_tenant(name)
        with pytest.raises(TenantSuspendedError):
            await store.get_conversation(conversation.id)
        await schemas.resume_tenant(name)
        assert (await store.get_conversation(conversation.id)).message_count == 1

        await owner.execute(f"drop function {made.location}.set_member")
        with pytest.raises(SchemaMissingError, match="`haive migrate`: `supabase db push` does"):
            await store.set_member("ada", "member")

    await schemas.delete_tenant(name)
    assert await schemas.purge_tenant(name) == 3
    gone = "select count(*) from pg_namespace where nspname in ($1::text, $1 || '_private')"
    assert await owner.fetchval(gone, made.location) == 0
    with pytest.raises(NotFoundError):
        await schemas.get_tenant(name)


async def test_what_was_put_on_record_outlives_its_tenant(
    schemas: TenantManager, owner: asyncpg.Connection, new_id: NewId
) -> None:
    name = new_id()
    made = await schemas.create_tenant(name, audit=AuditMode.WRITES)
    async with schemas.tenant_context(name) as store:
        await store.create_conversation("agent")
    await schemas.delete_tenant(name)
    assert await schemas.purge_tenant(name) == 1
    log = f"select array_agg(object || ' ' || action order by seq) from {made.location}.audit_log"
    recorded = await owner.fetchval(log)
    assert "conversations insert" in recorded
    assert recorded[-1] == "tenants delete"
    with pytest.raises(ConflictError, match="had the id"):
        await schemas.create_tenant(name)


@pytest.mark.parametrize("step", ["purge", "drop", "_platform"])
async def test_a_purge_that_was_ended_is_repeated(
    schemas: TenantManager,
    owner: asyncpg.Connection,
    new_id: NewId,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    name = new_id()
    made = await schemas.create_tenant(name)
    async with schemas.tenant_context(name) as store:
        await store.create_conversation("agent")
    await schemas.delete_tenant(name)

    async def ended(*_: object, **__: object) -> int:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        home = schemas if step == "_platform" else managers
        if step == "_platform":
            found = await schemas.get_tenant(name)

            async def get_tenant(_: str) -> Tenant:
                return found

            patched.setattr(schemas, "get_tenant", get_tenant)
        patched.setattr(home, step, ended)
        with pytest.raises(asyncio.CancelledError):
            await schemas.purge_tenant(name)
    await schemas.purge_tenant(name)
    gone = "select count(*) from pg_namespace where nspname in ($1::text, $1 || '_private')"
    assert await owner.fetchval(gone, made.location) == 0
    with pytest.raises(NotFoundError):
        await schemas.get_tenant(name)


async def test_a_tenant_is_moved_while_it_is_written_to(
    base_store: Store, stack: LocalStack, new_id: NewId
) -> None:
    manager = TenantManager(base_store, TenantConfig(admin_connection_string=stack.database_url))
    name = (await manager.create_tenant(new_id())).tenant_id
    written: list[str] = []
    wrote = asyncio.Event()
    async with manager.tenant_context(name) as store:
        conversation = await store.create_conversation("agent")
        stop = asyncio.Event()

        async def write() -> None:
            while not stop.is_set():
                message = await store.add_message(conversation.id, "user", str(len(written)))
                written.append(message.text)
                wrote.set()

        writing = asyncio.create_task(write())
        for to in (IsolationLevel.SCHEMA, IsolationLevel.ROW, IsolationLevel.SCHEMA):
            await asyncio.sleep(0.1)
            assert (await manager.move_tenant(name, to)).isolation is to
            wrote.clear()
            await wrote.wait()
        stop.set()
        await writing
        stored = [message.text async for message in store.iter_messages(conversation.id)]
    assert stored == written
    assert stored == [str(number) for number in range(len(stored))]
    await manager.delete_tenant(name)
    await manager.purge_tenant(name)


@pytest.mark.parametrize("to", [IsolationLevel.SCHEMA, IsolationLevel.ROW])
async def test_what_is_changed_during_a_move_holds_where_the_tenant_goes(
    schemas: TenantManager,
    base_store: Store,
    new_id: NewId,
    monkeypatch: pytest.MonkeyPatch,
    to: IsolationLevel,
) -> None:
    before = IsolationLevel.ROW if to is IsolationLevel.SCHEMA else IsolationLevel.SCHEMA
    name = (await schemas.create_tenant(new_id(), isolation_level=before)).tenant_id

    async def move_rows(*arguments: object) -> dict[str, int]:
        # The change has looked where the tenant is, and waits for the move.
        update = asyncio.create_task(schemas.suspend_tenant(name))
        await asyncio.sleep(0.5)
        assert not update.done()
        updates.append(update)
        return await copying.move_rows(*arguments)  # type: ignore[arg-type]

    updates: list[asyncio.Task[Tenant]] = []
    monkeypatch.setattr(moving, "move_rows", move_rows)
    await schemas.move_tenant(name, to)
    assert (await updates[0]).status is TenantStatus.SUSPENDED
    async with TenantManager(base_store).tenant_context(name) as store:
        with pytest.raises(TenantSuspendedError):
            await store.create_conversation("agent")


async def test_memories_are_moved_whatever_the_default_tenant_is(
    base_store: Store, stack: LocalStack, new_id: NewId
) -> None:
    manager = TenantManager(base_store, TenantConfig(admin_connection_string=stack.database_url))
    name = (await manager.create_tenant(new_id())).tenant_id
    async with manager.tenant_context(name) as store:
        config = MemoryConfig(index_name="moved", embedding_strategy="none")
        memory = VectorMemory(config=config, store=store)
        await memory.add("The boat is red.")
        await manager.move_tenant(name, IsolationLevel.SCHEMA)
        await manager.suspend_tenant("default")
        try:
            await manager.move_tenant(name, IsolationLevel.ROW)
        finally:
            await manager.resume_tenant("default")
        assert [hit.text for hit in await memory.search("boat")] == ["The boat is red."]
    await manager.delete_tenant(name)
    await manager.purge_tenant(name)


async def test_rest_alone_makes_no_schema(stack: LocalStack, new_id: NewId) -> None:
    async with SupabaseStore(stack.url, stack.secret_key) as store:
        manager = TenantManager(store, TenantConfig(isolation_level=IsolationLevel.SCHEMA))
        name = new_id()
        with pytest.raises(UnsupportedOperationError, match="no schemas"):
            await manager.create_tenant(name)
        with pytest.raises(NotFoundError):
            await manager.get_tenant(name)


async def test_a_tenant_has_a_database_of_its_own(
    base_store: Store,
    owner: asyncpg.Connection,
    new_database: Callable[..., Awaitable[str]],
    new_id: NewId,
) -> None:
    dsn, name = await new_database(), new_id()
    config = TenantConfig(isolation_level=IsolationLevel.DATABASE, databases={"eu-1": dsn})
    async with TenantManager(base_store, config) as manager:
        with pytest.raises(ConfigurationError):
            await manager.create_tenant(name)
        made = await manager.create_tenant(
            name, location="eu-1", custom_quota=ResourceQuota(max_conversations=1)
        )
        assert (made.isolation, made.location) == (IsolationLevel.DATABASE, "eu-1")
        async with manager.tenant_context(name) as store:
            conversation = await store.create_conversation("agent")
            with pytest.raises(QuotaExceededError):
                await store.create_conversation("agent")
            there = await asyncpg.connect(dsn)
            found = await there.fetchval("select tenant_id from haive.conversations")
            await there.close()
            assert found == name
            # Who does not know that database still hears of all others.
            beside = new_id()
            knows_less = TenantManager(base_store, TenantConfig())
            await knows_less.create_tenant(beside)
            numbers = await knows_less.get_analytics([name, beside], ["conversation_count"])
            assert list(numbers.unreached) == [name]
            assert numbers[name].conversation_count is None
            assert numbers.totals.conversation_count == numbers[beside].conversation_count == 0
            numbers = await manager.get_analytics([name, beside], ["conversation_count"])
            assert (numbers.unreached, numbers[name].conversation_count) == ({}, 1)
            await manager.suspend_tenant(name)
            with pytest.raises(TenantSuspendedError):
                await store.get_conversation(conversation.id)
        register = await owner.fetchrow("select * from haive.tenants where tenant_id = $1", name)
        assert dsn not in str(register)
        await manager.delete_tenant(name)
        assert await manager.purge_tenant(name) == 1


async def test_a_tenant_whose_database_is_gone_is_taken_out_of_the_register(
    base_store: Store, new_database: Callable[..., Awaitable[str]], new_id: NewId
) -> None:
    dsn = await new_database()
    config = TenantConfig(isolation_level=IsolationLevel.DATABASE, databases={"eu-1": dsn})
    async with TenantManager(base_store, config) as manager:
        name = (await manager.create_tenant(new_id(), location="eu-1")).tenant_id
        with pytest.raises(ConflictError, match="answers"):
            await manager.purge_tenant(name, database_is_gone=True)
        assert (await manager.get_tenant(name)).status is TenantStatus.ACTIVE
        shares = await manager.create_tenant(new_id(), isolation_level=IsolationLevel.ROW)
        with pytest.raises(InvalidInputError, match="no database of its own"):
            await manager.purge_tenant(shares.tenant_id, database_is_gone=True)

    config = config.model_copy(
        update={"databases": {"eu-1": dsn.rpartition("/")[0] + "/there_is_none"}}
    )
    async with TenantManager(base_store, config) as manager:
        with pytest.raises(PersistenceError):
            await manager.delete_tenant(name)
        with pytest.raises(ConflictError):
            await manager.purge_tenant(name)
        await manager.purge_tenant(name, database_is_gone=True)
        with pytest.raises(NotFoundError):
            await manager.get_tenant(name)


async def test_a_tenant_is_encrypted_rotated_and_made_unreadable(
    base_store: Store,
    owner: asyncpg.Connection,
    new_id: NewId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = TenantConfig(enable_encryption_at_rest=True)
    monkeypatch.delenv("TENANT_MASTER_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="TENANT_MASTER_KEY"):
        TenantManager(base_store, config)
    monkeypatch.setenv("TENANT_MASTER_KEY", base64.b64encode(os.urandom(32)).decode())
    manager = TenantManager(base_store, config)
    name = (
        await manager.create_tenant(
            new_id(), settings={"compliance_mode": "HIPAA", "data_retention_days": 90}
        )
    ).tenant_id
    async with manager.tenant_context(name) as store:
        conversation = await store.create_conversation("agent", metadata={"title": "canary-1"})
        await store.add_message(conversation.id, "user", "canary-2", metadata={"a": "canary-3"})
        await Checkpointer(store).save("thread", {"secret": "canary-4"})
        with pytest.raises(UnsupportedOperationError):
            await store.query_conversations(filters={"text": "canary"})
        for table in ("conversations", "messages", "checkpoints", "events", "audit_log"):
            rows = await owner.fetch(
                f"select t::text as row from haive.{table} as t where tenant_id = $1", name
            )
            assert "canary" not in str([row["row"] for row in rows]), table

        store._sealer.max_age = 0.0  # else all processes are given a minute to hear of a new key
        rotated = await manager.rotate_keys(name)
        assert (rotated.rows, rotated.checkpoints) == (2, 1)
        (message,) = await store.get_messages(conversation.id)
        assert (message.text, message.metadata) == ("canary-2", {"a": "canary-3"})
        assert (await store.get_conversation(conversation.id)).metadata.title == "canary-1"
        recovered = await Checkpointer(store).recover("thread")
        assert recovered.state == {"secret": "canary-4"}

    assert (await manager.destroy_keys(name)).backups_stay_readable
    async with manager.tenant_context(name) as store:
        with pytest.raises(KeyDestroyedError):
            await store.get_messages(conversation.id)
    await manager.delete_tenant(name)
    assert await manager.purge_tenant(name) == 1


async def test_a_mode_that_cannot_be_met_is_refused(base_store: Store, new_id: NewId) -> None:
    manager = TenantManager(base_store)
    name = new_id()
    with pytest.raises(ConfigurationError, match="HIPAA"):
        await manager.create_tenant(name, settings={"compliance_mode": "HIPAA"})
    with pytest.raises(NotFoundError):
        await manager.get_tenant(name)
