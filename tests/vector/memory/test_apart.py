"""What belongs to one user or tenant is not touched by what another one stores."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest
import qdrant_client
from making_notes import make_tenant
from qdrant_client import AsyncQdrantClient

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnsupportedOperationError,
)
from haive.core.persistence.local import LocalStack
from haive.core.persistence.multitenancy import TenantConfig, TenantManager
from haive.core.persistence.vector import MemoryConfig, VectorMemory
from haive.core.persistence.vector.backends.protocol import MemoryBackend
from haive.core.persistence.vector.backends.qdrant import QdrantBackend
from haive.core.persistence.vector.records import Record


async def texts(memory: VectorMemory, user: str) -> set[str]:
    hits = await memory.search("hello tea words", top_k=20, filters={"user_id": user})
    return {hit.text for hit in hits if hit.memory.kind == "turn"}


async def test_the_conversations_of_two_users_may_have_one_name(memory: VectorMemory) -> None:
    first = await memory.store_conversation(
        ["Hello tea"], {"user_id": "a", "conversation_id": "main"}
    )
    second = await memory.store_conversation(
        ["Other words"], {"user_id": "b", "conversation_id": "main"}
    )
    assert first != second
    assert await texts(memory, "a") == {"Hello tea"}
    assert await texts(memory, "b") == {"Other words"}


async def test_two_users_may_say_the_same(memory: VectorMemory) -> None:
    for user in ("a", "b"):
        await memory.store_conversation(["Hello tea"], {"user_id": user})
    assert await texts(memory, "a") == await texts(memory, "b") == {"Hello tea"}


async def test_two_tenants_may_store_the_same_conversation(stack: LocalStack) -> None:
    owner = await asyncpg.connect(stack.database_url)
    tenants = [await make_tenant(owner) for _ in range(2)]
    await owner.close()
    for tenant in tenants:
        config = PersistenceConfig(connection_string=stack.database_url, pool_size=2, tenant=tenant)
        settings = MemoryConfig(index_name="two-tenants", embedding_strategy="none")
        async with (
            PostgresStore(config) as store,
            VectorMemory(config=settings, store=store) as one,
        ):
            await one.store_conversation(["Hello tea"], {"conversation_id": "main"})
            assert [hit.text for hit in await one.search("tea")] == ["Hello tea"]


async def test_tenants_keep_their_memories_apart_in_another_vector_database(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = AsyncQdrantClient(":memory:")
    # One database in this process for both, as a server would be.
    monkeypatch.setattr(qdrant_client, "AsyncQdrantClient", lambda *_, **__: client)
    monkeypatch.setenv("QDRANT_URL", ":memory:")
    settings = MemoryConfig(index_name="apart", embedding_strategy="none")
    owner = await asyncpg.connect(stack.database_url)
    names = [await make_tenant(owner) for _ in range(2)]
    await owner.close()
    config = PersistenceConfig(connection_string=stack.database_url, pool_size=2)
    async with PostgresStore(config) as base:
        manager = TenantManager(base)
        async with (
            manager.tenant_context(names[0]) as first,
            manager.tenant_context(names[1]) as second,
        ):
            one, two = (VectorMemory("qdrant", settings, store=store) for store in (first, second))
            await one.add("Hello tea")
            assert [hit.text for hit in await one.search("tea")] == ["Hello tea"]
            assert await two.search("tea") == []
            elsewhere = QdrantBackend(tenant=names[1], client=client)
            with pytest.raises(ConfigurationError, match="store is another's"):
                await VectorMemory(config=settings, store=first, backend=elsewhere).stats()
            with pytest.raises(ConfigurationError, match="tenant= is another"):
                await VectorMemory("qdrant", settings, store=first, tenant=names[1]).stats()
    await client.close()


async def test_what_is_sealed_is_remembered_nowhere_in_the_clear(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_URL", ":memory:")
    monkeypatch.setenv("TENANT_MASTER_KEY", "00" * 32)
    settings = MemoryConfig(index_name="sealed", embedding_strategy="none")
    config = PersistenceConfig(connection_string=stack.database_url, pool_size=2)
    async with PostgresStore(config) as base:
        manager = TenantManager(base, TenantConfig(enable_encryption_at_rest=True))
        await manager.create_tenant("sealed-memories")
        async with manager.tenant_context("sealed-memories") as store:
            with pytest.raises(UnsupportedOperationError, match="sealed"):
                await VectorMemory("qdrant", settings, store=store).add("Hello tea")
            with pytest.raises(InvalidInputError, match="sealed"):
                await VectorMemory("pgvector", settings, store=store).add("Hello tea")


async def test_what_one_user_recalled_is_news_of_another(memory: VectorMemory) -> None:
    said = "I am allergic to roasted peanuts"
    await memory.add(said, user_id="a")
    await memory.search("peanuts")
    second = await memory.get(await memory.add(said, user_id="b"))
    assert second.user_id == "b"


async def test_what_does_not_hold_any_more_is_said_again_as_news(memory: VectorMemory) -> None:
    said = "I am allergic to roasted peanuts"
    first = await memory.add(said, user_id="a")
    await memory.search("peanuts")
    await memory.supersede(first, "I am allergic to nothing any more", user_id="a")
    assert await memory.add(said, user_id="a") != first


async def test_a_memory_that_means_nothing_makes_no_other_unreadable(
    memory: VectorMemory, backend: MemoryBackend
) -> None:
    note = await memory.add("Hello tea", user_id="a")
    shelf = await memory._open()
    record = Record(
        id="01990000-0000-7000-8000-000000000001",
        metadata={
            "text": "Hello tea too", "kind": "x", "timestamp": "soon", "importance": "high",
            "seq": 1.5, "sources": "all", "user_id": "a",
        },
        vector=(await shelf.vectors(["tea"]))[0],
    )  # fmt: skip
    await backend.put([record])
    hits = await memory.search("hello tea", filters={"user_id": "a"})
    assert {hit.text for hit in hits} == {"Hello tea", "Hello tea too"}
    strange = await memory.get(record.id)
    assert (strange.kind, strange.timestamp, strange.importance) == ("note", None, 0.5)
    assert (await memory.forget(filters={"user_id": "a"})).forgotten == (record.id, note)


async def test_a_note_whose_call_was_cut_off_still_supersedes_when_repeated(
    memory: VectorMemory, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch, clock
) -> None:
    first = await memory.add("Anna lives in Berlin", user_id="a")
    clock.forward(hours=1)
    new = "01990000-0000-7000-8000-000000000002"
    shelf = await memory._open()

    async def cut_off(_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(type(shelf), "rewrite", lambda self, memories: cut_off(memories))
        with pytest.raises(ConnectionError):
            await memory.add("Anna lives in Rome", user_id="a", supersedes=first, id=new)
    assert (await memory.get(first)).superseded_by is None
    assert await memory.add("Anna lives in Rome", user_id="a", supersedes=first, id=new) == new
    assert (await memory.get(first)).superseded_by == new


class Interrupting:
    """A model during whose answer a memory is forgotten."""

    name = "interrupting"

    def __init__(self) -> None:
        self.during = None

    async def complete(self, prompt: str, *, system: str = "", max_tokens: int = 512) -> str:
        del prompt, system, max_tokens
        during, self.during = self.during, None
        if during is not None:
            await during()
        return "They talked of tea."


async def test_what_is_forgotten_while_it_is_consolidated_stays_forgotten(make, clock) -> None:
    chat = Interrupting()
    memory = make(chat=chat)
    ids = [
        await memory.add(f"Anna drank green tea number {n} in the kitchen", user_id="a")
        for n in range(4)
    ]

    async def forget_one() -> None:
        await memory.forget(ids[1])

    chat.during = forget_one
    clock.forward(minutes=1)
    run = {"similarity_threshold": 0.5, "archive_originals": True}
    with pytest.raises(ConflictError, match="while they were consolidated"):
        await memory.consolidate_memories(timedelta(days=1), **run)
    with pytest.raises(NotFoundError):
        await memory.get(ids[1])
    [group] = (await memory.consolidate_memories(timedelta(days=1), **run)).plan.groups
    assert set(group.sources) == {ids[0], ids[2], ids[3]}
