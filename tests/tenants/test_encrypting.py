"""A tenant that was made in the clear is sealed later, while it is worked in."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import uuid4

import asyncpg
import pytest
from pydantic import BaseModel

from haive.core.persistence._keys import KeyRing
from haive.core.persistence._sealing import Sealer
from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.encryption import DataKeys, EnvironmentKey, FileKeyStore
from haive.core.persistence.errors import (
    ConfigurationError,
    ConflictError,
    DecryptionError,
    InvalidInputError,
)
from haive.core.persistence.multitenancy import TenantConfig, TenantManager
from haive.core.persistence.multitenancy import manager as managing
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.config import IndexType
from haive.core.persistence.vector.records import Collection, Record


@pytest.fixture
def keyed(base_store, tmp_path, monkeypatch):
    """A manager that has keys, and makes tenants in the clear."""
    monkeypatch.setattr(managing, "Sealer", partial(Sealer, max_age=0.2))
    kek = EnvironmentKey(environ={"TENANT_MASTER_KEY": KeyRing.generate()})
    keys = DataKeys(kek, FileKeyStore(tmp_path / "keys"))
    return TenantManager(base_store, TenantConfig(), keys=keys)


async def test_all_of_it_is_sealed_and_read_all_the_time(keyed, new_id, stack):
    tenant = (await keyed.create_tenant(new_id())).tenant_id
    texts = [f"message {number}" for number in range(60)]
    async with keyed.tenant_context(tenant) as store:
        conversation = (await store.create_conversation("agent")).id
        for text in texts:
            await store.add_message(conversation, "user", text)
        await Checkpointer(store).save("thread", {"n": 1})

        halfway = []

        async def read():
            async with keyed.tenant_context(tenant) as other:
                halfway.append([m.text for m in await other.get_messages(conversation)])

        reads = []
        sealed = await keyed.encrypt_tenant(
            tenant, batch=20, progress=lambda *_: reads.append(asyncio.create_task(read()))
        )
        await asyncio.gather(*reads)
        # Who was in it before has no key, and puts nothing into it.
        with pytest.raises(InvalidInputError, match="sealed by the client"):
            await store.add_message(conversation, "user", "in the clear")

    assert (sealed.began, sealed.rows, sealed.checkpoints) == (False, 61, 1)
    assert len(reads) > 4
    assert halfway == [texts] * len(reads)
    assert (await keyed.get_tenant(tenant)).encrypted
    async with keyed.tenant_context(tenant) as store:
        await store.add_message(conversation, "user", "sealed from the start")
        found = [message.text for message in await store.get_messages(conversation)]
        assert found == [*texts, "sealed from the start"]
        assert (await Checkpointer(store).recover("thread")).state == {"n": 1}
    owner = await asyncpg.connect(stack.database_url)
    plain = "select count(*) from haive.messages where tenant_id = $1 and sealed is null"
    assert await owner.fetchval(plain, tenant) == 0
    await owner.close()

    again = await keyed.encrypt_tenant(tenant)
    assert (again.key_id, again.began, again.rows) == (sealed.key_id, False, 0)


async def test_one_that_was_ended_is_gone_on_with(keyed, new_id):
    tenant = (await keyed.create_tenant(new_id())).tenant_id
    async with keyed.tenant_context(tenant) as store:
        conversation = (await store.create_conversation("agent")).id
        for number in range(60):
            await store.add_message(conversation, "user", f"message {number}")

    class EndedError(Exception):
        pass

    def end(table, count):
        if table == "messages":
            raise EndedError

    with pytest.raises(EndedError):
        await keyed.encrypt_tenant(tenant, batch=20, progress=end)
    # What is in the clear is taken as it is while it is being sealed, and no longer.
    async with keyed.tenant_context(tenant) as store:
        with pytest.raises(DecryptionError, match="not sealed"):
            await store.get_messages(conversation)
    sealed = await keyed.encrypt_tenant(tenant, batch=20)
    assert (sealed.began, sealed.rows) == (False, 40)


async def test_a_schema_that_no_checkpoint_has_is_sealed_too(keyed, new_id, stack):
    class State(BaseModel):
        step: int

    tenant = (await keyed.create_tenant(new_id())).tenant_id
    async with keyed.tenant_context(tenant) as store:
        checkpointer = Checkpointer(store)
        await checkpointer.save("thread", State(step=1))
        await checkpointer.delete_thread("thread")
    sealed = await keyed.encrypt_tenant(tenant)
    owner = await asyncpg.connect(stack.database_url)
    schemas = "select key_id from haive.checkpoint_schemas where tenant_id = $1"
    assert [row["key_id"] for row in await owner.fetch(schemas, tenant)] == [sealed.key_id]
    await owner.close()
    assert (await keyed.rotate_keys(tenant)).began


async def test_without_keys_nothing_is_changed(manager, tenant_id):
    with pytest.raises(ConfigurationError, match="no keys"):
        await manager.encrypt_tenant(tenant_id)
    assert not (await manager.get_tenant(tenant_id)).encrypted


async def test_one_with_memories_is_not_sealed_until_they_are_forgotten(keyed, new_id):
    tenant = (await keyed.create_tenant(new_id())).tenant_id
    collection = Collection(
        name=new_id().lower()[:40], model=None, dimensions=None, metric="cosine",
        language="english", index_type=IndexType.FLAT, m=16, ef_construction=64,
    )  # fmt: skip
    async with keyed.tenant_context(tenant) as store:
        backend = PgvectorBackend(store)
        await backend.open(collection)
        key = str(uuid4())
        await backend.put([Record(id=key, metadata={"text": "in the clear"}, vector=None)])
        with pytest.raises(ConflictError, match="has memories") as refused:
            await keyed.encrypt_tenant(tenant)
        assert "Forget them first" in refused.value.hint
        assert not (await keyed.get_tenant(tenant)).encrypted
        await backend.delete([key])
    await keyed.encrypt_tenant(tenant)
    assert (await keyed.get_tenant(tenant)).encrypted


async def test_a_second_call_that_is_refused_hides_nothing_from_the_first(
    keyed, new_id, monkeypatch
):
    tenant = (await keyed.create_tenant(new_id())).tenant_id
    async with keyed.tenant_context(tenant) as store:
        conversation = (await store.create_conversation("agent")).id
        await store.add_message(conversation, "user", "in the clear")
    begun, on = asyncio.Event(), asyncio.Event()
    rotate = managing.rotate

    async def slow(*given, **how):
        if begun.is_set():
            raise ConflictError("Somebody else rotates the keys.")
        begun.set()
        await on.wait()
        return await rotate(*given, **how)

    monkeypatch.setattr(managing, "rotate", slow)
    first = asyncio.create_task(keyed.encrypt_tenant(tenant))
    await begun.wait()
    with pytest.raises(ConflictError):
        await keyed.encrypt_tenant(tenant)
    async with keyed.tenant_context(tenant) as store:
        assert [m.text for m in await store.get_messages(conversation)] == ["in the clear"]
    on.set()
    assert (await first).rows == 2
