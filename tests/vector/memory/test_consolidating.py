"""Memories that belong together become one, once."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from haive.core.persistence.embedding import FunctionEmbedder
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.vector import MemoryKind, VectorMemory
from haive.core.persistence.vector.backends.protocol import MemoryBackend

TOPICS = {
    "boats": "The harbour master counts the {} boats in dock {} of the old harbour.",
    "tea": "A pot of {} tea costs {} coins in the little shop at the market.",
    "trains": "The {} train leaves platform {} for the mountains in the early morning.",
}
COLOURS = ["red", "blue", "green", "black", "white"]
# No numbers: those of two texts that say the same are the same.
NAMES = "abcdefghijklmnop"
BOAT = "The boat is red and lies at the old pier."


def notes(each: int) -> list[str]:
    return [
        form.format(COLOURS[n % len(COLOURS)], NAMES[n])
        for n in range(each)
        for form in TOPICS.values()
    ]


async def state(memory: VectorMemory) -> dict[str, Any]:
    """All that is stored, but for when it was written."""
    shelf = await memory._open()
    found = await shelf.find(None)
    return {each.id: replace(each, created_at=None) for each in found}


async def fill(memory: VectorMemory, clock, each: int = 12) -> list[str]:
    """Notes of two users with ids that are the same each time."""
    ids = []
    for number, text in enumerate(notes(each)):
        user = "anna" if number % 2 else "bo"
        made = await memory.add(
            text,
            {"timestamp": clock.now - timedelta(hours=number)},
            user_id=user,
            importance=0.9 if number % 10 == 0 else 0.3,
            id=f"0190a5c0-0000-7000-8000-{number:012d}",
        )
        ids.append(made)
    return ids


@pytest.fixture
def memory(make) -> VectorMemory:
    return make(near_duplicate=None)


async def test_clusters_get_summaries_and_summaries_above(memory: VectorMemory, clock) -> None:
    ids = await fill(memory, clock)
    done = await memory.consolidate_memories(similarity_threshold=0.5)
    assert done.plan.considered == len(ids)
    first = [group for group in done.plan.groups if group.level == 1]
    assert len(first) == 6  # three topics of two users
    for group in first:
        sources = [await memory.get(each) for each in group.sources]
        assert len({source.user_id for source in sources}) == 1
        assert len({topic for topic in TOPICS for s in sources if topic[:3] in s.text}) == 1
        made = await memory.get(group.id)
        assert (made.kind, made.user_id) == (MemoryKind.SUMMARY, sources[0].user_id)
        assert set(made.text.splitlines()) <= {source.text for source in sources}
        assert [each.id for each in await memory.provenance(made.id)] == sorted(group.sources)
    assert (await memory.stats()).archived == 0


async def test_a_dry_run_shows_the_same_plan_and_writes_nothing(memory, clock) -> None:
    await fill(memory, clock)
    before = await state(memory)
    planned = await memory.consolidate_memories(similarity_threshold=0.5, dry_run=True)
    assert planned.dry_run
    assert not planned.created
    assert await state(memory) == before
    done = await memory.consolidate_memories(similarity_threshold=0.5)
    assert done.plan == planned.plan


@pytest.mark.parametrize("strategy", ["hierarchical", "dedupe", "summarize"])
async def test_a_second_run_changes_nothing(memory: VectorMemory, clock, strategy: str) -> None:
    await fill(memory, clock)
    how = {"similarity_threshold": 0.6, "consolidation_strategy": strategy,
           "archive_originals": True}  # fmt: skip
    done = await memory.consolidate_memories(**how)
    assert done.created
    after = await state(memory)
    clock.forward(minutes=5)
    again = await memory.consolidate_memories(**how)
    assert (again.plan, again.removed) == (done.plan, ())
    assert await state(memory) == after


async def test_important_memories_are_preserved(memory: VectorMemory, clock) -> None:
    ids = await fill(memory, clock)
    for strategy in ("hierarchical", "dedupe"):
        await memory.consolidate_memories(
            similarity_threshold=0.5, consolidation_strategy=strategy, archive_originals=True
        )
    kept = [await memory.get(each) for each in ids[::10]]
    assert all(each.importance == 0.9 and not each.archived for each in kept)
    await memory.consolidate_memories(
        similarity_threshold=0.5, archive_originals=True, preserve_important=False
    )
    assert any([(await memory.get(each)).archived for each in ids[::10]])


async def test_what_says_the_same_is_one_in_searches(memory: VectorMemory) -> None:
    await memory.add_many(["The boat is red."] * 4, importance=0.2)
    await memory.add("The tea is green.", importance=0.2)
    done = await memory.consolidate_memories(consolidation_strategy="dedupe")
    [merged] = done.created
    found = await memory.search("What colour is the boat?", top_k=10)
    assert [hit.text for hit in found] == ["The boat is red.", "The tea is green."]
    assert found[0].id == merged
    assert len(await memory.provenance(merged)) == 4
    assert len(await memory.search("boat", include_archived=True)) == 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The budget of the project is 100 euro.", "The budget of the project is 900 euro."),
        ("The flight to Rome leaves on Monday.", "The flight to Rome leaves on Friday."),
        ("Anna does like coffee.", "Anna does not like coffee."),
        ("It is 5 degrees in the cellar.", "It is -5 degrees in the cellar."),
        ("The main language is C++ here.", "The main language is C# here."),
    ],
)
async def test_what_contradicts_is_not_merged(memory: VectorMemory, one: str, other: str) -> None:
    await memory.add_many([one, other, one], importance=0.2)
    how = {"consolidation_strategy": "dedupe", "similarity_threshold": 0.5}
    [group] = (await memory.consolidate_memories(**how)).plan.groups
    assert [(await memory.get(each)).text for each in group.sources] == [one, one]
    assert {hit.text for hit in await memory.search(one)} == {one, other}


async def test_merged_memories_last_as_long_as_any_of_them(memory: VectorMemory, clock) -> None:
    for ttl in (60, 36_000):
        await memory.add("The door code is 4711.", ttl=ttl, importance=0.3)
    await memory.consolidate_memories(consolidation_strategy="dedupe")
    clock.forward(seconds=61)
    assert len(await memory.search("door code")) == 1
    assert (await memory.forget_expired()).counts == {"note": 1}
    assert [hit.text for hit in await memory.search("door code")] == ["The door code is 4711."]
    clock.forward(hours=10)
    assert (await memory.forget_expired()).counts == {"note": 1, "merged": 1}


async def test_only_what_is_in_the_window_and_passes_is_considered(memory, clock) -> None:
    await fill(memory, clock)
    day = await memory.consolidate_memories(timedelta(hours=9.5), dry_run=True)
    assert day.plan.considered == 10
    anna = await memory.consolidate_memories(filters={"user_id": "anna"}, dry_run=True)
    assert anna.plan.considered == 18


async def test_turns_without_a_time_are_considered_where_no_window_is_asked_for(memory) -> None:
    said = [TOPICS["boats"].format(colour, 1) for colour in ("red", "blue", "green")]
    await memory.store_conversation(
        [{"role": "user", "content": text} for text in said], {"conversation_id": "talk"}
    )
    done = await memory.consolidate_memories(similarity_threshold=0.5)
    assert done.plan.considered == 3
    assert [len(group.sources) for group in done.plan.groups] == [3]
    assert (await memory.consolidate_memories(timedelta(days=1))).plan.considered == 0


async def test_a_cluster_that_has_grown_replaces_its_summary(memory: VectorMemory, clock) -> None:
    form = TOPICS["boats"]
    for number in range(3):
        await memory.add(form.format("red", number))
    first = await memory.consolidate_memories(similarity_threshold=0.5)
    await memory.add(form.format("red", 3))
    second = await memory.consolidate_memories(similarity_threshold=0.5)
    assert second.removed == first.created
    [made] = second.created
    assert len((await memory.get(made)).sources) == 4
    assert (await memory.stats()).kinds == {"note": 4, "summary": 1}


class Stopping:
    """A backend that fails at one of its writes, before or after it is done."""

    def __init__(self, inner: MemoryBackend, at: int, *, after: bool) -> None:
        self._inner = inner
        self.writes = 0
        self._at = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in {"put", "delete"}:
            return found

        async def counted(*arguments: object) -> object:
            self.writes += 1
            if self.writes == self._at and not self._after:
                raise ConnectionError("pulled")
            result = await found(*arguments)
            if self.writes == self._at:
                raise ConnectionError("pulled")
            return result

        return counted


@pytest.mark.parametrize("strategy", ["hierarchical", "dedupe", "summarize"])
async def test_stopped_at_random_points_and_gone_on_with_it_ends_the_same(
    make, backend: MemoryBackend, clock, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    # Small groups, so that there are some above them.
    monkeypatch.setattr("haive.core.persistence.vector._consolidating._MOST", 4)
    how = {"similarity_threshold": 0.55, "consolidation_strategy": strategy,
           "archive_originals": True}  # fmt: skip
    settings = {"near_duplicate": None}
    counting = Stopping(backend, 0, after=False)
    through = make(over=counting, **settings)
    # An earlier consolidation of fewer, so that there is something to replace.
    await fill(through, clock, 6)
    await through.consolidate_memories(**how)
    await fill(through, clock)
    counting.writes = 0
    done = await through.consolidate_memories(**how)
    levels = {group.level for group in done.plan.groups}
    assert (2 in levels) is (strategy == "hierarchical")
    wanted, writes = await state(through), counting.writes
    assert writes >= 2
    points = random.Random(strategy)
    for _ in range(10):
        await through.forget(list(wanted))
        memory = make(**settings)
        await memory.forget([*wanted, *await state(memory)])
        assert await state(memory) == {}
        await fill(memory, clock, 6)
        await memory.consolidate_memories(**how)
        await fill(memory, clock)
        at, after = points.randint(1, writes), points.random() < 0.5
        with pytest.raises(ConnectionError):
            await make(over=Stopping(backend, at, after=after), **settings).consolidate_memories(
                **how
            )
        await memory.consolidate_memories(**how)
        assert await state(memory) == wanted, (at, after)


@pytest.mark.parametrize(
    "wrong",
    [
        {"consolidation_strategy": "magic"},
        {"similarity_threshold": 0},
        {"similarity_threshold": 1.1},
        {"time_window": timedelta(0)},
    ],
)
async def test_what_makes_no_sense_is_refused(memory: VectorMemory, wrong) -> None:
    with pytest.raises(InvalidInputError, match=r"strategy|similarity|time_window"):
        await memory.consolidate_memories(**wrong)


@pytest.mark.parametrize("strategy", ["hierarchical", "dedupe", "summarize"])
async def test_nobodys_memories_are_not_put_together_with_a_nameless_users(
    make, strategy: str
) -> None:
    memory = make(near_duplicate=None)
    for user in ("", None):
        for _ in range(2):
            await memory.add("The boat is red.", user_id=user)
    done = await memory.consolidate_memories(consolidation_strategy=strategy)
    owners = [{(await memory.get(id_)).user_id for id_ in g.sources} for g in done.plan.groups]
    assert len(owners) == 2
    assert {""} in owners
    assert {None} in owners


async def test_a_window_may_be_longer_than_all_time(memory: VectorMemory, clock) -> None:
    await memory.add_many(["The boat is red.", "The boat is very red."])
    everything = await memory.consolidate_memories(timedelta(days=10**6), dry_run=True)
    assert everything.plan.considered == 2


async def test_vectors_of_many_small_parts_are_read_together(
    make, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = make(near_duplicate=None)
    await memory.add_many([f"Invoice {n} was paid." for n in range(40)] * 2, importance=0.3)
    calls = []
    get = type(backend).get

    async def counted(self, ids, **how):
        calls.append(how.get("vectors"))
        return await get(self, ids, **how)

    monkeypatch.setattr(type(backend), "get", counted)
    done = await memory.consolidate_memories(consolidation_strategy="dedupe", dry_run=True)
    assert len(done.plan.groups) == 40
    assert calls.count(True) == 1


@pytest.mark.parametrize("strategy", ["dedupe", "summarize", "hierarchical"])
async def test_what_all_have_their_memory_has_too(memory: VectorMemory, strategy: str) -> None:
    about = {"project": "x", "speaker": "Anna", "role": "user", "list": ["a"]}
    for text in (BOAT, BOAT.lower()):
        await memory.add(text, {**about, f"of {text[0]}": 1}, importance=0.3)
    done = await memory.consolidate_memories(
        consolidation_strategy=strategy, archive_originals=True
    )
    [made] = done.created
    [hit] = await memory.search("boat", filters={"project": "x", "speaker": "Anna"})
    assert (hit.id, hit.memory.role) == (made, "user")
    assert hit.metadata["list"] == ["a"]
    # One that says the same is found by what any of them has.
    assert (hit.metadata.keys() >= {"of T", "of t"}) is (strategy == "dedupe")
    assert [each.id for each in await memory.search("boat", filters={"of T": 1})] == (
        [made] if strategy == "dedupe" else []
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"speaker": "Anna"}, {"speaker": "Bob"}),
        ({"role": "user"}, {"role": "assistant"}),
        ({"agent": "a"}, {"agent": "b"}),
    ],
)
async def test_what_is_another_ones_is_not_merged(memory: VectorMemory, one, other) -> None:
    texts = [BOAT, BOAT.lower()]
    mine = [await memory.add(text, one, importance=0.3) for text in texts]
    theirs = [await memory.add(text, other, importance=0.3) for text in texts]
    done = await memory.consolidate_memories(consolidation_strategy="dedupe")
    assert {frozenset(group.sources) for group in done.plan.groups} == {
        frozenset(mine), frozenset(theirs),
    }  # fmt: skip
    for whose in (one, other):
        assert len(await memory.search("boat", filters=whose)) == 1


async def test_what_several_do_not_have_their_summary_has_not(memory: VectorMemory) -> None:
    for who in ("Anna", "Bob"):
        await memory.add(BOAT, {"speaker": who, "role": "user", "by": who}, importance=0.3)
    [made] = (await memory.consolidate_memories(consolidation_strategy="summarize")).created
    summary = await memory.get(made)
    assert (summary.speaker, summary.role) == (None, "user")
    assert "by" not in summary.metadata


@pytest.mark.parametrize("strategy", ["dedupe", "summarize"])
async def test_what_was_made_has_no_metadata_of_what_is_forgotten_or_changed(
    memory: VectorMemory, strategy: str
) -> None:
    texts = [BOAT, BOAT.lower(), BOAT[:-1]]
    ids = [
        await memory.add(text, {"project": "x", f"of {n}": n}, importance=0.3)
        for n, text in enumerate(texts)
    ]
    [made] = (await memory.consolidate_memories(consolidation_strategy=strategy)).created
    await memory.update(made, metadata={"own": True})
    await memory.forget(ids[0])
    for changed in ids[1:]:
        await memory.update(changed, metadata={"project": "y", "of 1": None})
    after = await memory.get(made)
    wanted = {"consolidation": strategy, "project": "y", "own": True}
    assert after.metadata == wanted | ({"of 2": 2} if strategy == "dedupe" else {})


async def test_what_was_made_of_turns_follows_what_becomes_known_of_them(
    memory: VectorMemory,
) -> None:
    said = [
        {"seq": n, "role": "user", "content": text, "importance": 0.3}
        for n, text in enumerate((BOAT, BOAT.lower(), BOAT[:-1]), 1)
    ]
    about = {"conversation_id": "talk", "project": "old"}
    await memory.store_conversation(said[:2], about)
    [merged] = (await memory.consolidate_memories(consolidation_strategy="dedupe")).created
    [summary] = (await memory.consolidate_memories(consolidation_strategy="summarize")).created
    named = [{**turn, "speaker": "Anna"} for turn in said]
    await memory.store_conversation(named, {**about, "project": "new"})
    for made in (merged, summary):
        found = await memory.get(made)
        assert (found.metadata["project"], found.speaker) == ("new", "Anna")
    assert await memory.search("boat", filters={"project": "old"}) == []
    [group] = (await memory.consolidate_memories(consolidation_strategy="dedupe")).plan.groups
    assert len(group.sources) == 3


async def test_who_is_said_to_have_said_what_was_made_stays(memory: VectorMemory) -> None:
    first = await memory.add(BOAT, {"role": "user"}, importance=0.3)
    await memory.add(BOAT.lower(), {"role": "user"}, importance=0.3)
    [made] = (await memory.consolidate_memories(consolidation_strategy="summarize")).created
    await memory.update(made, metadata={"speaker": "Carl"})
    await memory.update(first, metadata={"role": "tool", "project": "x"})
    after = await memory.get(made)
    assert (after.speaker, after.role) == ("Carl", None)


async def test_what_is_merged_with_more_keeps_what_it_was_given(make) -> None:
    apart, memory = make(near_duplicate=None), make()
    for text in (BOAT, BOAT.lower()):
        await apart.add(text, importance=0.3)
    [first] = (await memory.consolidate_memories(consolidation_strategy="dedupe")).created
    assert await memory.add(BOAT, importance=0.9) == first
    await memory.update(first, metadata={"speaker": "Carl"})
    for speaker in ("Anna", "Carl"):
        await apart.add(BOAT[:-1], {"speaker": speaker}, importance=0.3)
    done = await memory.consolidate_memories(consolidation_strategy="dedupe")
    assert done.removed == (first,)
    [made] = done.created
    after = await memory.get(made)
    assert (len(after.sources), after.importance, after.speaker) == (3, 0.9, "Carl")


@pytest.mark.parametrize(
    ("degrees", "merged"),
    [
        # The two of one agent are alike to the other's, and not to each other.
        ({"zero": 0, "plus": 18, "minus": -18}, None),
        # The two of one agent are alike, and the last one is not to the other's.
        ({"zero": 0, "plus": 15, "minus": 30}, {"plus", "minus"}),
    ],
)
async def test_what_is_merged_is_alike_to_one_that_is_there(
    make, clock, degrees: dict[str, float], merged: set[str] | None
) -> None:
    def embed(texts: list[str]) -> NDArray[np.float32]:
        angles = np.radians([degrees[text.split()[0]] for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    embedder = FunctionEmbedder(embed, name="angles", dimensions=2)
    memory = make(embedder=embedder, near_duplicate=None)
    for word, agent in (("zero", "a"), ("plus", "b"), ("minus", "b")):
        await memory.add(f"{word} is said here", {"agent": agent}, importance=0.3)
        clock.forward(seconds=1)
    done = await memory.consolidate_memories(
        consolidation_strategy="dedupe", similarity_threshold=0.95
    )
    found = [
        {(await memory.get(each)).text.split()[0] for each in group.sources}
        for group in done.plan.groups
    ]
    assert found == ([] if merged is None else [merged])
