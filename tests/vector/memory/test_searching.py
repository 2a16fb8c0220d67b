"""What a search answers, now and as of then."""

from __future__ import annotations

from datetime import timedelta

import pytest

from haive.core.persistence.embedding import FunctionEmbedder, HashingEmbedder
from haive.core.persistence.errors import (
    ConflictError,
    InvalidInputError,
    ModelAnswerError,
    NotFoundError,
)
from haive.core.persistence.vector import RetrievalWeights, VectorMemory
from haive.core.persistence.vector._importance import importance_of
from haive.core.persistence.vector.reranking.sentences import SentenceReranker


async def texts(memory: VectorMemory, query: str, **how: object) -> list[str]:
    return [hit.text for hit in await memory.search(query, **how)]


async def test_a_search_explains_each_hit_when_it_is_asked_to(memory: VectorMemory) -> None:
    await memory.add_many(["Anna likes green tea.", "Bo drives a red car.", "The tea is hot."])
    for rerank in (False, True):
        hits = await memory.search("green tea", rerank=rerank, explain=True)
        assert hits[0].text == "Anna likes green tea."
        assert all(sum(hit.parts.values()) == pytest.approx(hit.score) for hit in hits)
        assert ("rerank" in hits[0].parts) is rerank
    assert (await memory.search("green tea"))[0].parts == {}


async def test_a_reranker_reads_the_best_50_and_the_others_follow(make) -> None:
    class Reads(SentenceReranker):
        read = 0

        async def rank(self, query, candidates):
            self.read = max(self.read, len(candidates))
            return await super().rank(query, candidates)

    memory = make(near_duplicate=None)
    memory._reranker = reranker = Reads(HashingEmbedder())
    await memory.add_many([f"Tea number {n} is green." for n in range(70)])
    plain = await memory.search("green tea", 70)
    hits = await memory.search("green tea", 70, rerank=True, explain=True)
    assert reranker.read == 50
    assert len({hit.id for hit in hits}) == 70
    assert {hit.id for hit in hits[:50]} == {hit.id for hit in plain[:50]}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(sum(hit.parts.values()) == pytest.approx(hit.score) for hit in hits)
    assert len(await memory.search("green tea", 3, rerank=True)) == 3


async def test_a_speaker_that_changes_is_found_by_and_importance_is_never_nothing(
    make, clock
) -> None:
    memory = make()
    note = await memory.add("The replica runs in Frankfurt.", {"speaker": "Bo"}, importance=0.9)
    [before] = await memory._shelf.backend.get([note], vectors=True)
    changed = await memory.update(note, metadata={"speaker": "Anna", "importance": None})
    [after] = await memory._shelf.backend.get([note], vectors=True)
    wanted = await memory._shelf.vectors(["Anna: The replica runs in Frankfurt."])
    assert after.vector == pytest.approx(wanted[0], abs=1e-6)
    assert before.vector != pytest.approx(wanted[0], abs=1e-6)
    assert changed.importance == importance_of(changed.text) == (await memory.get(note)).importance


async def test_metadata_is_left_out_when_it_is_not_wanted(memory: VectorMemory) -> None:
    await memory.add("Anna likes green tea.", {"topic": "tea"})
    [hit] = await memory.search("tea")
    assert hit.metadata == {"topic": "tea"}
    [hit] = await memory.search("tea", include_metadata=False)
    assert (hit.metadata, hit.text) == ({}, "Anna likes green tea.")


async def test_a_newer_fact_holds_and_the_past_can_be_asked(memory: VectorMemory, clock) -> None:
    monday = clock.now
    first = await memory.add("Anna lives in Berlin.", user_id="anna")
    tuesday = clock.forward(days=1)
    second = await memory.supersede(first, "Anna lives in Lisbon.")
    clock.forward(days=1)
    third = await memory.supersede(second, "Anna lives in Porto.")
    query = "Where does Anna live?"
    assert await texts(memory, query) == ["Anna lives in Porto."]
    assert await texts(memory, query, as_of=monday) == ["Anna lives in Berlin."]
    assert await texts(memory, query, as_of=tuesday) == ["Anna lives in Lisbon."]
    assert await texts(memory, query, as_of=monday - timedelta(seconds=1)) == []
    chain = [first, second, third]
    for each in chain:
        assert [memory.id for memory in await memory.history(each)] == chain
    assert {(await memory.get(each)).user_id for each in chain} == {"anna"}
    assert (await memory.stats()).superseded == 2


async def test_what_ends_or_expires_is_not_counted_as_superseded(memory, clock) -> None:
    await memory.add("The offer holds.", {"valid_to": clock.now + timedelta(days=30)})
    await memory.add("The door code is 4711.", ttl=60)
    await memory.add("The window is closed.", ttl=6000)
    before = await memory.stats()
    assert (before.total, before.superseded, before.expired) == (3, 0, 0)
    clock.forward(minutes=2)
    after = await memory.stats()
    assert (after.total, after.superseded, after.expired) == (3, 0, 1)
    await memory.forget_expired()
    assert ((await memory.stats()).total, (await memory.stats()).expired) == (2, 0)


async def test_a_memory_is_superseded_once_and_by_nothing_older(memory, clock) -> None:
    first = await memory.add("Anna lives in Berlin.")
    second = await memory.supersede(first, "Anna lives in Lisbon.")
    with pytest.raises(ConflictError, match=second):
        await memory.supersede(first, "Anna lives in Rome.")
    with pytest.raises(InvalidInputError, match="before"):
        await memory.supersede(second, "x y z", {"valid_from": clock.now - timedelta(days=1)})
    with pytest.raises(NotFoundError):
        await memory.add("Anna lives in Rome.", supersedes="0190a5c0-0000-7000-8000-000000000000")
    assert (await memory.stats()).total == 2


async def test_what_has_expired_is_not_found_and_then_gone(memory: VectorMemory, clock) -> None:
    await memory.add("The code of the door is 4711.", ttl=60)
    for number in range(3):
        await memory.add(f"The code of the safe has {number + 5} digits.")
    assert len(await texts(memory, "code", top_k=3)) == 3
    clock.forward(seconds=61)
    found = await texts(memory, "code of the door", top_k=3)
    assert len(found) == 3
    assert not any("4711" in text for text in found)
    assert (await memory.forget_expired()).counts == {"note": 1}
    assert (await memory.stats()).total == 3


async def test_the_same_is_remembered_once_and_news_is_news(memory: VectorMemory) -> None:
    first = await memory.add("I have three dogs and a cat called Minka.", user_id="anna")
    assert await memory.add("I have three dogs, and a cat called Minka!", user_id="anna") == first
    for news in (
        "I have four dogs and a cat called Minka.",
        "I have 3 dogs and a cat called Minka.",
        "I have no three dogs and a cat called Minka.",
        "I have three dogs and a cat called Molly.",
    ):
        assert await memory.add(news, user_id="anna") != first
    other = await memory.add("I have three dogs and a cat called Minka.", user_id="bo")
    assert other != first
    assert (
        await memory.add_many(["So it is.", "So it is."], user_id="bo")
        == [(await memory.search("So it is.", filters={"user_id": "bo"}))[0].id] * 2
    )


async def test_with_the_guard_off_everything_is_written(make) -> None:
    memory = make(near_duplicate=None)
    assert len({await memory.add("The same.") for _ in range(3)}) == 3


async def test_what_was_just_recalled_is_not_added_again(memory: VectorMemory) -> None:
    first = await memory.add("Anna's sister Clara lives in Lisbon.", user_id="anna")
    await memory.search("Clara")
    said = "So: Anna's sister Clara lives in Lisbon."
    assert await memory.add(said, user_id="anna") == first
    assert await memory.add(f"{said} She works there as a painter.", user_id="anna") != first


async def test_without_vectors_words_are_enough(make) -> None:
    memory = make(embedding_strategy="none")
    first = await memory.add("Anna likes green tea.")
    assert await memory.add("Anna likes green tea") == first
    await memory.add("Bo drives a red car.")
    assert (await texts(memory, "Who drives a car?"))[0] == "Bo drives a red car."
    assert (await memory.stats()).model is None


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"top_k": 1001}, {"top_k": True}])
async def test_a_search_out_of_bounds_is_refused(memory: VectorMemory, wrong) -> None:
    with pytest.raises(InvalidInputError, match="top_k"):
        await memory.search("tea", **wrong)
    with pytest.raises(InvalidInputError, match="empty"):
        await memory.search("  ")
    with pytest.raises(InvalidInputError, match=r"\$near"):
        await memory.search("tea", filters={"importance": {"$near": 1}})


class Turning(HashingEmbedder):
    """Reads a question as the opposite of what it says."""

    width = 256

    async def embed_query(self, text: str):
        return -(await self.embed([text]))[0][: self.width]


async def test_an_embedder_that_reads_questions_otherwise_is_asked_to(make) -> None:
    only = RetrievalWeights(words=0, context=0, vector=1, speaker=0, neighbours=0)
    embedder = Turning(256)
    memory = make(embedder=embedder, weights=only)
    await memory.add_many(["Anna likes green tea.", "Bo drives a red car."])
    assert (await texts(memory, "green tea", top_k=2))[-1] == "Anna likes green tea."
    embedder.width = 255
    with pytest.raises(ModelAnswerError, match="255"):
        await memory.search("green tea")


async def test_a_function_makes_the_vectors(make) -> None:
    def letters(given: list[str]) -> list[list[int]]:
        return [[text.count(letter) for letter in "abc"] + [1] for text in given]

    embedder = FunctionEmbedder(letters, name="letters-1", dimensions=4)
    memory = make(embedder=embedder, weights=RetrievalWeights(words=0, context=0, neighbours=0))
    await memory.add_many(["aaaa", "bbbb", "cccc"])
    assert (await texts(memory, "xbx"))[0] == "bbbb"
