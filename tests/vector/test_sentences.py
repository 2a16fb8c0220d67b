"""Ranking by the nearest sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.vector.reranking import Candidate
from haive.core.persistence.vector.reranking.sentences import SentenceReranker


class Asking(HashingEmbedder):
    """A model that reads questions otherwise than texts: the other way round."""

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        return -(await super().embed(texts))

    async def embed_query(self, text: str) -> np.ndarray:
        return (await super().embed([text]))[0]


def candidates(*texts: str) -> list[Candidate]:
    return [Candidate(id=text, text=text, tokens=None) for text in texts]


async def test_the_nearest_sentence_of_each_counts() -> None:
    ranks = SentenceReranker(HashingEmbedder(256))
    near, far = await ranks.rank("red boat", candidates("Tea is green. Red boat.", "Tea is green."))
    assert near > far
    assert await ranks.rank("red boat", []) == []


async def test_a_question_is_read_as_one() -> None:
    ranks = SentenceReranker(Asking(256))
    [same] = await ranks.rank("red boat", candidates("red boat"))
    assert same == np.float32(-1)
