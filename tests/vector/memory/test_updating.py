"""A memory that is changed in its place, alone and by several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.vector import MemoryKind, VectorMemory, _updating


async def texts(memory: VectorMemory, user: str) -> dict[str, str]:
    found = await (await memory._open()).find(None)
    return {m.kind.value: m.text for m in found if m.user_id == user}


async def test_what_is_another_users_now_is_quoted_by_nothing_of_the_one_before(
    memory: VectorMemory, clock: Callable[[], datetime]
) -> None:
    said = [
        {"content": "The code is purple.", "role": "user"},
        {"content": "The harbour is deep.", "role": "user"},
        {"content": "The tea is green.", "role": "user"},
    ]
    about = {"user_id": "anna", "conversation_id": "talk"}
    whole = await memory.store_conversation(
        said, about, extract_keywords=True, generate_summary=True
    )
    [_, second, third] = (await memory.get(whole)).sources
    moved = await memory.update(second, metadata={"user_id": "bo"})
    assert moved == await memory.get(second)
    assert (moved.user_id, moved.context, moved.context_ids) == ("bo", None, ())
    left = await texts(memory, "anna")
    assert "harbour" not in f"{left['summary']} {left['keyword']}"
    assert "purple" in left["summary"]
    assert (await memory.get(whole)).renewed_at == clock()
    assert (await memory.get(third)).context == "The code is purple."
    result = await memory.forget(filters={"user_id": "anna"})
    assert result.counts == {"turn": 2, "summary": 1, "keyword": 1}
    assert await texts(memory, "bo") == {"turn": "The harbour is deep."}


async def test_a_summary_of_one_that_is_another_users_now_goes(memory: VectorMemory) -> None:
    whole = await memory.store_conversation(
        ["The code is purple."], {"user_id": "anna"}, generate_summary=True
    )
    with pytest.raises(InvalidInputError, match="belongs to whom"):
        await memory.update(whole, metadata={"user_id": "bo"})
    [turn] = (await memory.get(whole)).sources
    await memory.update(turn, metadata={"user_id": "bo"})
    assert await texts(memory, "anna") == {}


async def test_what_is_changed_at_once_is_all_kept(memory: VectorMemory) -> None:
    made = await memory.add("The boat is red.")
    await asyncio.gather(*(memory.update(made, metadata={f"k{n}": n}) for n in range(6)))
    assert (await memory.get(made)).metadata == {f"k{n}": n for n in range(6)}


@pytest.mark.parametrize("kind", ["pgvector"], indirect=True)
@pytest.mark.parametrize("change", [{"importance": 0.9}, {"text": "The boat is dark red."}])
async def test_what_another_process_supersedes_meanwhile_stays_superseded(
    make, monkeypatch: pytest.MonkeyPatch, change
) -> None:
    memory, other = make(), make()
    made, newer = await memory.add("The boat is red."), []
    read = _updating._there

    async def read_too_early(memory_id, shelf):
        found = await read(memory_id, shelf)
        if not newer:
            newer.append(await other.supersede(made, "The boat is blue."))
        return found

    async def read_once(memory_id, shelf):
        # The first read is of the user alone.
        monkeypatch.setattr(_updating, "_there", read_too_early)
        return await read(memory_id, shelf)

    monkeypatch.setattr(_updating, "_there", read_once)
    monkeypatch.setattr(_updating, "one_at_a_time", lambda *_: asyncio.Lock())
    changed = await memory.update(made, **change)
    assert changed == await memory.get(made)
    assert changed.superseded_by == newer[0]
    assert changed.valid_to is not None
    assert all(getattr(changed, name) == value for name, value in change.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"archived": "no"}, "archived is True or False"),
        ({"archived": 1}, "archived is True or False"),
        ({"valid_to": datetime(2000, 1, 1, tzinfo=UTC)}, "valid_to is before valid_from"),
        ({"metadata": {"user_id": 5}}, "user_id is a text"),
        ({"metadata": {"consolidation": "dedupe"}}, "metadata has consolidation"),
    ],
)
async def test_what_would_be_read_otherwise_is_refused(memory, change, said) -> None:
    made = await memory.add("The boat is red.")
    before = await memory.get(made)
    with pytest.raises(InvalidInputError, match=said):
        await memory.update(made, **change)
    assert await memory.get(made) == before


async def test_a_conversation_that_is_stored_by_several_at_once_is_whole(memory) -> None:
    said = [f"Turn {n} is about harbour {n}." for n in range(6)]
    stored = (memory.store_conversation(said[:n], {"conversation_id": "t"}) for n in (2, 6, 4, 3))
    wholes = {await each for each in asyncio.as_completed(list(stored))}
    [whole] = [await memory.get(each) for each in wholes]
    assert whole.kind is MemoryKind.CONVERSATION
    assert [turn.text for turn in await turns_of(memory, whole.sources)] == said


async def turns_of(memory: VectorMemory, ids):
    return [await memory.get(each) for each in ids]
