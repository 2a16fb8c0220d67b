"""What is added is remembered once, and nothing is lost by that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.errors import ConflictError, InvalidInputError
from haive.core.persistence.vector import VectorMemory
from haive.core.persistence.vector._shelf import Shelf
from haive.core.persistence.vector.backends.protocol import MemoryBackend
from haive.core.persistence.vector.records import Record

FACT = "The door code of the house is 4711."


@pytest.fixture(params=["vectors", "words"])
def memory(make, request: pytest.FixtureRequest) -> VectorMemory:
    return make() if request.param == "vectors" else make(embedding_strategy="none")


async def total(memory: VectorMemory) -> int:
    return (await memory.stats()).total


async def test_calls_at_the_same_time_write_the_same_once(memory: VectorMemory, make) -> None:
    other = make() if memory.config.embedder else make(embedding_strategy="none")
    calls = [each.add(FACT, user_id="u") for _ in range(6) for each in (memory, other)]
    assert len(set(await asyncio.gather(*calls))) == 1
    assert await total(memory) == 1


async def test_processes_at_the_same_time_write_the_same_once(
    memory: VectorMemory, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "pgvector":
        pytest.skip("Other backends cannot tell.")
    # Without what this process knows, as if each call were another one.
    monkeypatch.setattr(
        "haive.core.persistence.vector._adding.one_at_a_time", lambda *_: asyncio.Lock()
    )
    ids = await asyncio.gather(*(memory.add(FACT, user_id="u") for _ in range(8)))
    assert len(set(ids)) == 1
    assert await total(memory) == 1


async def test_a_text_that_was_changed_behind_our_back_blocks_no_other(
    memory: VectorMemory, backend: MemoryBackend
) -> None:
    first = await memory.add(FACT, user_id="u")
    [record] = await backend.get([first])
    changed = {**record.metadata, "text": "It is another code now."}
    await backend.replace([Record(id=first, metadata=changed)])
    assert await memory.add(FACT, user_id="u") != first
    assert await total(memory) == 2


async def test_the_same_within_one_call_is_written_once(memory: VectorMemory) -> None:
    said = ["Anna lives in Berlin.", "Anna lives in Berlin", "anna lives in berlin", "Bo does not."]
    ids = await memory.add_many(said, user_id="u")
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert await total(memory) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("My main language is C++.", "My main language is C#."),
        ("It is -5 degrees in the freezer.", "It is 5 degrees in the freezer."),
        ("The room costs $500.", "The room costs \u20ac500."),
        ("My grade in maths is A+.", "My grade in maths is A-."),
        ("What I think of it: \U0001f44d", "What I think of it: \U0001f44e"),
        # "My boy is ill" and "my girl is ill": the vowels are marks.
        ("मेरा लड़का बीमार है।", "मेरी लड़की बीमार है।"),
    ],
)
async def test_signs_and_marks_make_a_difference(
    memory: VectorMemory, one: str, other: str
) -> None:
    first = await memory.add(one)
    await memory.search(one)  # what is recalled is no way round it
    assert await memory.add(other) != first
    assert await memory.add(one) == first
    assert await total(memory) == 2


async def test_texts_of_one_call_that_mean_the_same_are_one(make) -> None:
    memory = make(near_duplicate=0.8)
    said = ["I have three dogs and a black cat.", "I have three dogs, a black cat and so on."]
    assert len(set(await memory.add_many([*said, "I have four dogs and a black cat."]))) == 2


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("To be or not to be", ["we are", "he was", "so it is", "they have", "do not", "as if"]),
        ("dog", [f"dog dog dog {letter}" for letter in "abcdefgh"]),
    ],
)
async def test_the_same_words_are_found_whatever_ranks_before_them(
    make, text: str, others: Sequence[str]
) -> None:
    memory = make(embedding_strategy="none")
    first = await memory.add(text)
    await memory.add_many(others)
    assert await memory.add(text) == first


@pytest.mark.parametrize("number", ["The code is 5%.", "The code is 5."])
async def test_numbers_are_told_apart_by_more_than_their_digits(memory, number: str) -> None:
    other = await memory.add("The code is 5%." if number.endswith("5.") else "The code is 5.")
    assert await memory.add(number) != other


async def test_what_is_said_again_lasts_as_long_as_either(memory: VectorMemory, clock) -> None:
    first = await memory.add(FACT, ttl=60, metadata={"a": 1})
    assert await memory.add(FACT, {"b": 2}, importance=0.9, ttl=30) == first
    assert (await memory.get(first)).expires_at == clock.now + timedelta(seconds=60)
    assert await memory.add(FACT, ttl=90) == first
    assert (await memory.get(first)).expires_at == clock.now + timedelta(seconds=90)
    assert await memory.add(FACT) == first
    clock.forward(hours=1)
    [hit] = await memory.search("door code")
    assert (hit.id, hit.metadata) == (first, {"a": 1, "b": 2})
    assert (hit.memory.expires_at, hit.memory.importance) == (None, 0.9)
    assert (await memory.forget_expired()).total == 0


async def test_what_is_said_to_hold_on_holds_on(memory: VectorMemory, clock) -> None:
    first = await memory.add(FACT, {"valid_to": clock.now + timedelta(hours=1)})
    assert await memory.add(FACT) == first
    clock.forward(hours=2)
    assert [hit.id for hit in await memory.search("door code")] == [first]
    later = await memory.add("Rain falls.", {"valid_from": clock.now + timedelta(days=1)})
    assert await memory.add("Rain falls.") == later
    assert later in {hit.id for hit in await memory.search("rain")}


async def test_what_is_superseded_from_a_later_time_on_is_news_for_then(memory, clock) -> None:
    first = await memory.add(FACT)
    await memory.supersede(first, "It is 12.", {"valid_from": clock.now + timedelta(hours=1)})
    assert await memory.add(FACT) != first
    assert (await memory.get(first)).valid_to == clock.now + timedelta(hours=1)


async def test_merged_and_archived_memories_are_remembered(make) -> None:
    twice = make(near_duplicate=None)
    await twice.add_many([FACT] * 2, importance=0.3)
    [merged] = (await twice.consolidate_memories(consolidation_strategy="dedupe")).created
    memory = make()
    assert await memory.add(FACT) == merged
    by_hand = await memory.add("Bo drives a red car.")
    await memory.update(by_hand, archived=True)
    assert await memory.add("Bo drives a red car.") == by_hand
    assert by_hand in {hit.id for hit in await memory.search("red car")}


async def test_what_was_said_and_is_kept_as_a_note_has_what_the_note_says(
    memory: VectorMemory,
) -> None:
    said = [{"role": "user", "content": "My favourite colour is dark blue."}]
    await memory.store_conversation(said, {"user_id": "u", "mood": "good"})
    await memory.search("favourite colour")
    known = await memory.add(
        said[0]["content"], {"topic": "preference"}, user_id="u", importance=1.0
    )
    found = await memory.get(known)
    assert found.metadata == {"mood": "good", "topic": "preference"}
    assert found.importance == 1.0
    hits = await memory.search("colour", filters={"topic": "preference"})
    assert [hit.id for hit in hits] == [known]


async def test_what_was_merged_takes_what_is_said_of_it_again(make) -> None:
    twice = make(near_duplicate=None)
    await twice.add_many([FACT] * 2, importance=0.3)
    how = {"consolidation_strategy": "dedupe"}
    [merged] = (await twice.consolidate_memories(**how)).created
    assert await make().add(FACT, {"topic": "doors"}) == merged
    assert (await twice.get(merged)).metadata["topic"] == "doors"
    assert (await twice.consolidate_memories(**how)).removed == ()


async def test_without_vectors_many_notes_are_no_hindrance(
    make, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = make(embedding_strategy="none")
    await memory.add_many([f"Note {number} is here." for number in range(21)])
    monkeypatch.setattr("haive.core.persistence.vector.backends._fusing.WORDS_UP_TO", 20)
    assert await memory.add("One more note is here.")
    assert await total(memory) == 22


async def test_what_held_once_is_news_of_then(memory: VectorMemory, clock) -> None:
    now = await memory.add(FACT)
    then = {"valid_from": clock.now - timedelta(days=9), "valid_to": clock.now - timedelta(days=8)}
    old = await memory.add(FACT, then)
    assert old != now
    past = await memory.search("door code", as_of=clock.now - timedelta(days=8.5))
    assert [hit.id for hit in past] == [old]
    assert (await memory.get(now)).valid_to is None


async def test_what_was_merged_and_then_superseded_is_news_when_said_again(make, clock) -> None:
    twice = make(near_duplicate=None)
    await twice.add_many([FACT] * 2, importance=0.3)
    how = {"consolidation_strategy": "dedupe"}
    [merged] = (await twice.consolidate_memories(**how)).created
    clock.forward(minutes=1)
    await twice.supersede(merged, "Nobody has a code for that any more.")
    await twice.consolidate_memories(**how)
    assert not any(hit.text == FACT for hit in await twice.search("door code"))
    again = await make().add(FACT)
    assert again in {hit.id for hit in await twice.search("door code")}


@pytest.mark.parametrize("ahead", [timedelta(seconds=3), timedelta(hours=2)])
async def test_a_clock_that_is_ahead_hides_nothing(memory, clock, ahead: timedelta) -> None:
    at = clock.now + ahead
    note = await memory.add("The launch of the rocket is planned.", {"timestamp": at})
    whole = await memory.store_conversation(
        [{"role": "user", "content": "The rocket is on the launch pad.", "timestamp": at}],
        extract_keywords=True,
        generate_summary=True,
    )
    found = {hit.id: hit.memory for hit in await memory.search("rocket launch", top_k=20)}
    assert {note, whole} <= set(found)
    assert {"note", "turn", "summary", "keyword"} == {each.kind for each in found.values()}
    assert {each.timestamp for each in found.values()} == {at}
    assert {each.valid_from for each in found.values()} == {clock.now}


async def supersede_at_once(memory: VectorMemory) -> None:
    first = await memory.add("Anna lives in Berlin.", user_id="anna")
    calls = [memory.supersede(first, f"Anna lives in {city}.") for city in ("Rome", "Oslo", "Bonn")]
    done = await asyncio.gather(*calls, return_exceptions=True)
    [new] = [each for each in done if isinstance(each, str)]
    assert sum(isinstance(each, ConflictError) for each in done) == 2
    assert [each.id for each in await memory.history(first)] == [first, new]
    assert [hit.id for hit in await memory.search("Where does Anna live?")] == [new]
    assert await total(memory) == 2


async def test_of_calls_at_the_same_time_one_supersedes(memory: VectorMemory) -> None:
    await supersede_at_once(memory)


async def test_of_processes_at_the_same_time_one_supersedes(
    memory: VectorMemory, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "pgvector":
        pytest.skip("Other backends cannot tell.")
    monkeypatch.setattr(
        "haive.core.persistence.vector._adding.one_at_a_time", lambda *_: asyncio.Lock()
    )
    # All have looked before one writes.
    looked = asyncio.Barrier(3)
    write = Shelf.write

    async def together(self: Shelf, memories, *rest, **how) -> None:
        if memories and memories[0].text != "Anna lives in Berlin.":
            await looked.wait()
        await write(self, memories, *rest, **how)

    monkeypatch.setattr(Shelf, "write", together)
    await supersede_at_once(memory)


async def test_what_ended_before_does_not_hold_longer_for_being_superseded(memory, clock) -> None:
    ended = clock.forward(days=1)
    first = await memory.add("Anna lives in Berlin.", {"timestamp": ended - timedelta(days=1)})
    await memory.update(first, valid_to=ended)
    clock.forward(days=1)
    await memory.supersede(first, "Anna lives in Rome.")
    assert (await memory.get(first)).valid_to == ended


async def test_a_memory_is_superseded_by_one_of_the_same_user(memory: VectorMemory) -> None:
    first = await memory.add("Anna lives in Berlin.", user_id="anna")
    for call in (
        memory.supersede(first, "Anna lives in Rome.", user_id="bob"),
        memory.add("Anna lives in Rome.", supersedes=first),
    ):
        with pytest.raises(InvalidInputError, match="same user"):
            await call
    assert (await memory.get(first)).valid_to is None
    assert await total(memory) == 1


async def test_superseding_is_repeated_with_its_id(memory: VectorMemory, clock) -> None:
    first = await memory.add("Anna lives in Berlin.", user_id="anna")
    new = "01990000-0000-7000-8000-000000000002"
    for _ in range(2):
        how = {"id": new, "ttl": 60, "importance": 0.8}
        assert await memory.supersede(first, "Anna lives in Rome.", **how) == new
    made = await memory.get(new)
    assert (made.importance, made.expires_at) == (0.8, clock.now + timedelta(seconds=60))


class Counting(HashingEmbedder):
    calls = texts = 0

    async def embed(self, texts: Sequence[str]):
        self.calls, self.texts = self.calls + 1, self.texts + len(texts)
        return await super().embed(texts)


async def test_texts_are_read_once_and_together(make) -> None:
    embedder = Counting(256)
    memory = make(embedder=embedder)
    ids = await memory.add_many([f"Fact {n} about the thing {n * 7}" for n in range(50)])
    assert len(set(ids)) == 50
    # Once for their vectors; the reranker prepares nothing here.
    assert (embedder.calls, embedder.texts) == (1, 50)
    await memory.add_many([f"Fact {n} about the thing {n * 7}" for n in range(50)])
    assert embedder.texts == 50


async def test_who_wrote_a_note_and_what_is_made_of_turns_is_labelled(memory) -> None:
    whole = await memory.store_conversation(
        [
            {"role": "user", "content": "Which tea is in the red tin of the kitchen?"},
            {"role": "tool", "content": "The red tin of the kitchen has green tea."},
        ],
        extract_keywords=True,
        generate_summary=True,
    )
    assert (await memory.get(whole)).trust == "mixed"
    hits = await memory.search("red tin", top_k=20, filters={"kind": "keyword"})
    assert {hit.memory.trust for hit in hits} == {"mixed"}
    note = await memory.get(await memory.add("The tin is empty.", {"speaker": "Anna"}))
    assert (note.writer, note.trust) == ("Anna", "application")
    note = await memory.get(await memory.add("The tin is full.", {"role": "tool", "writer": "x"}))
    assert (note.writer, note.trust) == ("x", "tool")
    assert (await memory.get(await memory.add("The tin is red."))).writer == "application"


@pytest.mark.parametrize("user", [5, True, b"u"])
async def test_a_user_who_is_no_text_is_refused(memory: VectorMemory, user: object) -> None:
    with pytest.raises(InvalidInputError, match="user_id is a text"):
        await memory.add("The boat is red.", user_id=user)
    assert (await memory.stats()).total == 0


async def test_a_user_may_be_a_uuid(memory: VectorMemory) -> None:
    user = UUID(int=5)
    made = await memory.add("The boat is red.", user_id=user)
    assert await memory.add("The boat is red.", {"user_id": user}) == made
    assert (await memory.get(made)).user_id == str(user)


async def test_a_span_is_no_truth(memory: VectorMemory) -> None:
    with pytest.raises(InvalidInputError, match="ttl is a number of seconds"):
        await memory.add("The boat is red.", ttl=True)
