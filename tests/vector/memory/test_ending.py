"""What was made of memories says nothing that does not hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from haive.core.persistence.vector import VectorMemory

BUDGET = "The project budget is {} euro in the plan of {}."


@pytest.fixture
def memory(make) -> VectorMemory:
    return make(near_duplicate=None)


async def budgets(memory: VectorMemory, clock) -> list[str]:
    """Two facts, four days apart, and a day after the second of them."""
    first = await memory.add(BUDGET.format(100, "March"), user_id="a", importance=0.3)
    clock.forward(days=4)
    second = await memory.add(BUDGET.format(900, "June"), user_id="a", importance=0.3)
    clock.forward(days=1)
    return [first, second]


async def found(memory: VectorMemory, **how: object) -> str:
    hits = await memory.search("project budget plan", top_k=20, **how)
    return "\n".join(f"{hit.memory.kind} {hit.text}" for hit in hits)


@pytest.mark.parametrize("archive", [False, True])
async def test_the_past_knows_no_summary_of_later_facts(memory, clock, archive: bool) -> None:
    day = clock.now + timedelta(days=1)
    await budgets(memory, clock)
    how = {"similarity_threshold": 0.5, "archive_originals": archive}
    assert (await memory.consolidate_memories(**how)).created
    then = await found(memory, as_of=day)
    assert then == "note The project budget is 100 euro in the plan of March."
    now = await found(memory)
    assert "summary" in now
    assert ("note" in now) is not archive
    assert await found(memory, as_of=clock.now) == now


async def test_what_was_archived_by_hand_is_not_found_in_the_past(memory, clock) -> None:
    first, _ = await budgets(memory, clock)
    await memory.update(first, archived=True)
    assert "100" not in await found(memory, as_of=clock.now - timedelta(days=2))


@pytest.mark.parametrize("strategy", ["hierarchical", "dedupe", "summarize"])
async def test_a_summary_ends_with_what_it_was_made_of(memory, clock, strategy: str) -> None:
    clock.forward(hours=-12)
    ids = [
        await memory.add(BUDGET.format(100, month), user_id="a", importance=0.3)
        for month in ("spring", "summer", "autumn")
    ]
    clock.forward(minutes=1)
    how = {"similarity_threshold": 0.5, "consolidation_strategy": strategy,
           "archive_originals": True}  # fmt: skip
    [made] = (await memory.consolidate_memories(**how)).created
    before = clock.now
    clock.forward(minutes=1)
    new = await memory.supersede(ids[0], "Nothing is left of the project budget.")
    assert (await memory.get(made)).valid_to == clock.now
    hits = await memory.search("project budget plan", top_k=20)
    assert {hit.id for hit in hits} == {new, ids[1], ids[2]}
    assert made in {hit.id for hit in await memory.search("project budget plan", as_of=before)}
    [again] = (await memory.consolidate_memories(**how)).created
    assert set((await memory.get(again)).sources) in ({ids[1], ids[2]}, {ids[1], ids[2], new})


async def test_a_summary_ends_where_a_source_is_ended_by_hand(memory, clock) -> None:
    first, _ = await budgets(memory, clock)
    [made] = (await memory.consolidate_memories(similarity_threshold=0.5)).created
    await memory.update(first, valid_to=clock.now)
    assert (await memory.get(made)).valid_to == clock.now
    assert "summary" not in await found(memory)


async def test_what_belongs_to_a_conversation_is_made_anew_of_what_holds(memory, clock) -> None:
    said = ["Anna lives in Berlin near the old harbour.", "Her dog Minka likes the harbour too."]
    whole = await memory.store_conversation(
        [{"role": "user", "content": text, "timestamp": clock.now} for text in said],
        {"user_id": "a", "conversation_id": "talk"},
        extract_keywords=True,
        generate_summary=True,
    )
    sources = (await memory.get(whole)).sources
    clock.forward(days=1)
    await memory.supersede(sources[0], "She moved to Lisbon.")
    summary = await memory.get(whole)
    assert (summary.text, summary.valid_to, summary.sources) == (said[1], None, sources)
    hits = await memory.search("Where does Anna live? Berlin", top_k=20)
    assert not any("Berlin" in hit.text for hit in hits)
    await memory.update(sources[1], valid_to=clock.now)
    assert (await memory.get(whole)).valid_to == clock.now


@pytest.mark.parametrize("strategy", ["hierarchical", "dedupe", "summarize"])
async def test_what_expires_is_not_in_a_summary_that_stays(memory, clock, strategy: str) -> None:
    for colour, ttl in (("red", None), ("blue", None), ("green", 60), ("black", 90)):
        await memory.add(
            f"The door code of the {colour} house is 4711.",
            user_id="a", ttl=ttl, importance=0.3,
        )  # fmt: skip
    how = {"similarity_threshold": 0.3, "consolidation_strategy": strategy}
    done = await memory.consolidate_memories(**how)
    expiries = [(await memory.get(each)).expires_at for each in done.created]
    # What says the same lasts as long as any of it.
    until = clock.now + timedelta(seconds=90 if strategy == "dedupe" else 60)
    assert sorted(map(str, expiries)) == sorted(["None", str(until)])
    clock.forward(seconds=91)
    hits = await memory.search("door code", top_k=20)
    assert not any("green" in hit.text or "black" in hit.text for hit in hits)
    assert any("red" in hit.text or "blue" in hit.text for hit in hits)


async def test_what_holds_again_is_merged_again(memory, clock) -> None:
    fact = "The door code is 4711."
    ids = await memory.add_many([fact] * 2, importance=0.3)
    how = {"consolidation_strategy": "dedupe"}
    [merged] = (await memory.consolidate_memories(**how)).created
    clock.forward(minutes=1)
    await memory.update(ids[0], valid_to=clock.now)
    assert [hit.id for hit in await memory.search("door code")] == [ids[1]]
    await memory.update(ids[0], valid_to=None)
    await memory.consolidate_memories(**how)
    clock.forward(minutes=1)
    assert [hit.id for hit in await memory.search("door code")] == [merged]
    # What somebody ended by itself stays so.
    await memory.update(merged, valid_to=clock.now)
    await memory.consolidate_memories(**how)
    assert await memory.search("door code") == []


async def test_memories_of_another_user_are_not_ended(memory, clock) -> None:
    first, _ = await budgets(memory, clock)
    [made] = (await memory.consolidate_memories(similarity_threshold=0.5)).created
    shelf = await memory._open()
    await shelf.write([replace(await memory.get(made), user_id="b")])
    await memory.update(first, valid_to=clock.now)
    assert (await memory.get(made)).valid_to is None


async def test_what_has_ended_does_not_come_back_into_the_whole(memory: VectorMemory) -> None:
    said = ["Anna lives in Berlin.", "Anna likes green tea.", "Anna has a grey cat."]
    about = {"conversation_id": "talk-1", "user_id": "anna"}
    how = {"generate_summary": True, "extract_keywords": True}
    whole = await memory.get(await memory.store_conversation(said, about, **how))
    await memory.supersede(whole.sources[0], "Anna lives in Lisbon.")
    assert "Berlin" not in (await memory.get(whole.id)).text
    await memory.forget(whole.sources[1])
    assert "Berlin" not in (await memory.get(whole.id)).text
    assert await memory.store_conversation([*said, "Anna is tall."], about, **how) == whole.id
    again = await memory.get(whole.id)
    assert "Berlin" not in again.text
    assert "tall" in again.text
    assert (await memory.get(whole.sources[0])).valid_to is not None
