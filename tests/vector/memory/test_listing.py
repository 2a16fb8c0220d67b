"""What is remembered of a user, page by page."""

from __future__ import annotations

from datetime import timedelta

import pytest

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.vector import VectorMemory


@pytest.fixture
async def ids(memory: VectorMemory, clock) -> list[str]:
    """Of Anna, one of them archived and one expired; and one of Bo."""
    found = [await memory.add(f"Anna said {n}.", {"n": n}, user_id="anna") for n in range(5)]
    await memory.update(found[1], archived=True)
    found.append(await memory.add("Anna said it for a minute.", user_id="anna", ttl=60))
    await memory.add("Bo said it, too.", user_id="bo")
    clock.now += timedelta(hours=1)
    return found


async def test_all_of_a_user_is_listed_as_it_was_said(memory: VectorMemory, ids) -> None:
    found = await memory.list_memories("anna")
    assert [each.id for each in found] == ids
    assert found[0] == await memory.get(ids[0])
    assert len(await memory.list_memories()) == 7
    assert await memory.list_memories("nobody") == []


async def test_pages_follow_each_other_and_lose_nothing(memory: VectorMemory, ids) -> None:
    listed: list[str] = []
    while page := await memory.list_memories("anna", limit=2, after=listed[-1] if listed else None):
        assert len(page) <= 2
        listed += [each.id for each in page]
    assert listed == ids


async def test_filters_choose_what_is_listed(memory: VectorMemory, ids) -> None:
    async def listed(**filters: object) -> list[str]:
        return [each.id for each in await memory.list_memories("anna", filters=filters)]

    assert await listed(n={"$gte": 3}) == ids[3:5]
    assert await listed(archived=True) == [ids[1]]
    assert await listed(user_id="bo") == []


async def test_what_was_listed_is_not_recalled(memory: VectorMemory) -> None:
    await memory.add("Anna lives in a small house by the sea.", user_id="anna")
    await memory.list_memories("anna")
    recital = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "Anna lives in a small house by the sea."},
    ]
    whole = await memory.store_conversation(recital, {"user_id": "anna"})
    assert {turn.role for turn in await memory.provenance(whole)} == {"user", "assistant"}


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1001}, {"after": 5}, {"user_id": 5}])
async def test_what_makes_no_sense_is_refused(memory: VectorMemory, wrong) -> None:
    with pytest.raises(InvalidInputError):
        await memory.list_memories(**wrong)
