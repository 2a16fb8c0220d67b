"""What is one memory said twice, and what are two of the same words."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import pytest

from haive.core.persistence.vector import VectorMemory, _adding, _duplicates
from haive.core.persistence.vector.backends.protocol import MemoryBackend

ALLERGIC = "I am allergic to peanuts and to shrimp."


@pytest.fixture(params=["vectors", "words"])
def memory(make, request: pytest.FixtureRequest) -> VectorMemory:
    return make() if request.param == "vectors" else make(embedding_strategy="none")


async def ids_of(memory: VectorMemory, **filters: Any) -> list[str]:
    return [hit.id for hit in await memory.search("allergic", filters=filters)]


@pytest.mark.parametrize("told", [{"speaker": "Bob"}, {"role": "tool"}, {}])
@pytest.mark.parametrize("once", [True, False])
async def test_what_another_one_says_is_another_memory(
    memory: VectorMemory, told: Mapping[str, str], once: bool
) -> None:
    annas = {"speaker": "Anna", "role": "user"}
    first = await memory.add(ALLERGIC, annas, user_id="room")
    others = ALLERGIC if once else f"{ALLERGIC[:-1]}!"
    second = await memory.add(others, {**annas, **told} if told else {}, user_id="room")
    assert second != first
    assert await memory.add(ALLERGIC, annas, user_id="room") == first
    assert (await memory.stats()).total == 2
    assert await ids_of(memory, speaker="Anna", role="user") == [first]


async def test_what_is_said_between_two_looks_is_one_memory(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, other = make(embedding_strategy="none"), make(embedding_strategy="none")
    look, looks, said = _duplicates._saying, 0, []

    async def later(*of: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 2:  # the last time before it is written
            said.append(await other.add(ALLERGIC, {"agent": "one"}, user_id="room"))
        return await look(*of)

    monkeypatch.setattr(_duplicates, "_saying", later)
    monkeypatch.setattr(_adding, "one_at_a_time", lambda *_: nullcontext())
    assert await memory.add(ALLERGIC, {"agent": "one"}, user_id="room") == said[0]
    assert (await memory.stats()).total == 1


async def test_what_only_means_the_same_is_told_apart_by_who_says_it(make) -> None:
    memory = make(near_duplicate=0.6)
    said = [ALLERGIC, "I am allergic to peanuts, and to shrimp too."]
    ids = [
        await memory.add(text, {"speaker": who}, user_id="room")
        for who in ("Anna", "Bob")
        for text in said
    ]
    assert ids[0] == ids[1] != ids[2] == ids[3]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"agent": "a"}, {"agent": "b"}),
        ({"agent": "a", "n": 1}, {"n": True}),
        ({"seen": {"by": "a"}}, {"seen": {"by": "b"}}),
    ],
)
async def test_what_has_other_metadata_is_another_memory(
    memory: VectorMemory, one: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    first = await memory.add(ALLERGIC, one, user_id="u")
    second = await memory.add(ALLERGIC, other, user_id="u")
    assert second != first
    assert await memory.add(ALLERGIC, one, user_id="u") == first
    assert await memory.add(ALLERGIC, other, user_id="u") == second
    assert (await memory.get(first)).metadata == one
    assert (await memory.stats()).total == 2


async def test_what_was_recalled_is_another_memory_under_other_metadata(memory) -> None:
    first = await memory.add(ALLERGIC, {"agent": "a"}, user_id="u")
    await memory.search("allergic")
    assert await memory.add(ALLERGIC, {"agent": "b"}, user_id="u") != first
    assert await memory.add(f"So {ALLERGIC}", user_id="u") == first


async def test_times_in_metadata_are_the_same_as_they_are_stored(memory: VectorMemory) -> None:
    seen = {"at": datetime(2026, 1, 2, tzinfo=UTC), "tags": ("a", "b")}
    first = await memory.add(ALLERGIC, seen)
    assert await memory.add(ALLERGIC, {**seen, "more": 1}) == first


async def test_who_first_said_it_and_when_stays(memory: VectorMemory, clock) -> None:
    began = {"conversation_id": "one", "timestamp": clock.now, "trust": "user", "writer": "a"}
    first = await memory.add(ALLERGIC, began)
    before = await memory.get(first)
    clock.forward(days=1)
    again = {"conversation_id": "two", "timestamp": clock.now, "trust": "web", "writer": "b"}
    assert await memory.add(ALLERGIC, again) == first
    after = await memory.get(first)
    for name in began:
        assert getattr(after, name) == getattr(before, name)


DEPLOYS = [
    "The deploy of the shop runs every night at three from the green cluster.",
    "The deploy of the shop runs nightly at three o clock from the green cluster.",
]
MERGE = {"consolidation_strategy": "dedupe", "similarity_threshold": 0.6}


async def merged_of(memory: VectorMemory, texts: list[str], clock) -> str:
    for text in texts:
        await memory.add(text, user_id="u")
        clock.forward(seconds=1)
    [made] = (await memory.consolidate_memories(**MERGE)).created
    return made


async def test_what_a_merged_one_contradicts_is_added_with_other_news(make, clock) -> None:
    memory = make(near_duplicate=0.99)
    merged = await merged_of(memory, DEPLOYS, clock)
    await memory.update(merged, metadata={"agent": "one"})
    news = [DEPLOYS[0], "Something else entirely that nobody has said so far."]
    ids = await memory.add_many(news, {"agent": "two"}, user_id="u")
    assert [(await memory.get(each)).text for each in ids] == news
    assert len({merged, *ids}) == 3
    assert await memory.add_many(news, {"agent": "two"}, user_id="u") == ids


async def test_what_was_said_of_a_merged_one_stays_with_it(make, clock) -> None:
    memory = make(near_duplicate=0.99)
    merged = await merged_of(memory, DEPLOYS, clock)
    for agent in ("one", "two"):
        told = await memory.add(DEPLOYS[0], {"agent": agent}, user_id="u")
        assert (told == merged) is (agent == "one")
    done = await memory.consolidate_memories(**MERGE)
    assert (done.created, done.removed) == ((merged,), ())
    # A merged one that takes its place has it too, and that of its sources as they are now.
    third = "The deploy of the shop runs always at three by night from the green cluster."
    await memory.add(third, {"topic": "shop"}, user_id="u")
    done = await memory.consolidate_memories(**MERGE)
    assert done.removed == (merged,)
    [hit] = await memory.search("deploy", filters={"agent": "one"})
    assert (hit.id,) == done.created
    assert hit.metadata == {"consolidation": "dedupe", "agent": "one", "topic": "shop"}
    [other] = await memory.search("deploy", filters={"agent": "two"})
    assert other.id == told
    assert (await memory.consolidate_memories(**MERGE)).plan == done.plan


async def test_a_merged_one_was_said_when_any_of_it_was_said_last(make, clock) -> None:
    memory = make(near_duplicate=0.99)
    for text in DEPLOYS:
        await memory.add(text, user_id="u")
        last = clock.now
        clock.forward(days=3)
    [merged] = (await memory.consolidate_memories(**MERGE)).created
    assert (await memory.get(merged)).renewed_at == last
    third = "The deploy of the shop runs always at three by night from the green cluster."
    await memory.add(third, user_id="u")
    said = clock.forward(hours=1)
    assert await memory.add(DEPLOYS[0], user_id="u") == merged
    assert (await memory.get(merged)).renewed_at == said
    [again] = (await memory.consolidate_memories(**MERGE)).created
    assert again != merged
    assert (await memory.get(again)).renewed_at == said


async def test_the_same_words_under_other_metadata_are_not_all_read_each_time(
    make, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = make(near_duplicate=0.95)
    ids = [await memory.add(ALLERGIC, {"run": n, "by": ["a"]}, user_id="u") for n in range(12)]
    read = []
    find = type(backend).find

    async def counted(self, where, **how):
        found = await find(self, where, **how)
        read.extend(found)
        return found

    monkeypatch.setattr(type(backend), "find", counted)
    monkeypatch.setattr("haive.core.persistence.vector._duplicates._FEW", 1)
    other = await memory.add(ALLERGIC, {"run": 12, "by": ["a"]}, user_id="u")
    assert {each.id for each in read} == {ids[0]}
    read.clear()
    assert await memory.add(ALLERGIC, {"run": 7}, user_id="u") == ids[7]
    assert {each.id for each in read} == {ids[7]}
    # What is no text or number is compared, and not asked for.
    assert await memory.add(ALLERGIC, {"by": ["b"]}, user_id="u") not in {*ids, other}
    assert await memory.add(ALLERGIC, {"by": ["a"], "run": 3}, user_id="u") == ids[3]


async def test_what_was_near_is_found_among_much_that_others_say(make) -> None:
    memory = make(near_duplicate=0.6)
    again = "I am allergic to peanuts, and to shrimp too."
    for number in range(12):
        await memory.add(ALLERGIC, {"agent": [number], "speaker": f"Anna {number}"}, user_id="u")
        await memory.add(ALLERGIC, {"agent": [number]}, user_id="u")
    before = (await memory.stats()).total
    for number in range(12):
        who = {"agent": [number], "speaker": f"Anna {number}"}
        assert (await memory.get(await memory.add(again, who, user_id="u"))).text == ALLERGIC
        found = await memory.add(again, {"agent": [number]}, user_id="u")
        assert (await memory.get(found)).text == ALLERGIC
    assert (await memory.stats()).total == before
