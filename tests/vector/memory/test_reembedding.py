"""A collection moves to another model while it serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.vector import VectorMemory
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.backends.protocol import MemoryBackend
from haive.core.persistence.vector.backends.qdrant import QdrantBackend


def beside(backend: MemoryBackend) -> MemoryBackend:
    """Another backend over the same database."""
    if isinstance(backend, PgvectorBackend):
        return PgvectorBackend(backend._store)
    return QdrantBackend(client=backend._client)


async def ids(memory: VectorMemory) -> dict[str, Any]:
    """All memories by id, but for what they are copies of."""
    found = await (await memory._open()).find(None)
    return {each.id: replace(each, copy_of=None) for each in found}


async def test_memories_are_the_same_and_found_by_the_other_model(make, backend) -> None:
    old = make(near_duplicate=None)
    made = await old.add_many([f"The boat number {n} is red." for n in range(20)])
    new = make(
        over=beside(backend), index_name=f"{old.config.index_name}-new",
        embedder=HashingEmbedder(64), near_duplicate=None,
    )  # fmt: skip
    assert await old.reembed(new) == 20
    assert await ids(new) == await ids(old)
    assert (await new.stats()).dimensions == 64
    assert (await new.search("boat number 7"))[0].text == "The boat number 7 is red."
    # It serves meanwhile; another call catches up.
    await old.forget(made[0])
    await old.update(made[1], text="The boat number 1 is blue.")
    await old.update(made[2], importance=1.0)
    added = await old.add("The tea is green.")
    assert await old.reembed(new) == 4
    assert await ids(new) == await ids(old)
    assert added in await ids(new)
    assert await old.reembed(new) == 0
    with pytest.raises(ConfigurationError, match="itself"):
        await old.reembed(old)


async def test_memories_with_numbers_beyond_64_bits_are_copied_once(make, backend) -> None:
    if not isinstance(backend, PgvectorBackend):
        pytest.skip("It keeps no such numbers.")
    old = make(near_duplicate=None)
    await old.add("The account is new.", metadata={"account": 12345678901234567890123})
    new = make(
        over=beside(backend), index_name=f"{old.config.index_name}-new", near_duplicate=None,
        embedder=HashingEmbedder(64),
    )  # fmt: skip
    assert await old.reembed(new) == 1
    assert await ids(new) == await ids(old)
    assert await old.reembed(new) == 0


async def test_what_is_written_after_the_switch_stays(make, backend, clock) -> None:
    old = make(near_duplicate=None)
    first, second, third, fourth = await old.add_many(
        ["The boat is red.", "Anna lives in Berlin.", "The tea is green.", "The door is open."]
    )
    new = make(
        over=beside(backend), index_name=f"{old.config.index_name}-new", near_duplicate=None,
        embedder=HashingEmbedder(64),
    )  # fmt: skip
    await old.reembed(new)
    # Written here in the last moment, and there from then on.
    late = await old.add("The late one is here.")
    await old.update(first, text="The boat is blue.")
    await old.update(third, text="The tea is black.")
    await old.forget(fourth)
    clock.forward(hours=1)
    added = await new.add("A new fact.")
    moved = await new.supersede(second, "Anna lives in Lisbon.")
    await new.update(third, text="The tea is white.")
    assert await old.reembed(new) == 3
    texts = {each.id: each.text for each in (await ids(new)).values()}
    assert texts == {
        first: "The boat is blue.", second: "Anna lives in Berlin.", third: "The tea is white.",
        late: "The late one is here.", added: "A new fact.", moved: "Anna lives in Lisbon.",
    }  # fmt: skip
    assert (await new.get(second)).superseded_by == moved
    assert await old.reembed(new) == 0


async def test_stopped_it_is_gone_on_with(make, backend, monkeypatch) -> None:
    monkeypatch.setattr("haive.core.persistence.vector._reembedding.PAGE", 5)
    old = make(near_duplicate=None)
    await old.add_many([f"The boat number {n} is red." for n in range(12)])
    embedder = HashingEmbedder(64)
    new = make(over=beside(backend), index_name=f"{old.config.index_name}-new", embedder=embedder)
    whole, calls = embedder.embed, 0

    async def failing(texts: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ConnectionError("pulled")
        return await whole(texts)

    monkeypatch.setattr(embedder, "embed", failing)
    with pytest.raises(ConnectionError):
        await old.reembed(new)
    assert len(await ids(new)) == 10
    assert await old.reembed(new) == 2
    assert await ids(new) == await ids(old)
