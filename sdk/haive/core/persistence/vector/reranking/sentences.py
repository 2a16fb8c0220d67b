"""Ranks by the sentence of each candidate that is nearest to the query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.embedding import QueryEmbedder
from haive.core.persistence.language.extractive import sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.embedding import Embedder
    from haive.core.persistence.vector.reranking.protocol import Candidate

# Of one candidate; what is longer is cut before it gets here.
_MOST = 40


class SentenceReranker:
    """Compares the query with each sentence and not with a whole text, which blurs what it says.

    It needs nothing that a collection does not have, and keeps nothing beside a text.

    Args:
        embedder: Of the query and the sentences.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def name(self) -> str:
        """``sentences-`` and the embedder's name."""
        return f"sentences-{self._embedder.name}"

    async def prepare(self, texts: Sequence[str]) -> None:
        """Nothing is kept."""

    async def rank(self, query: str, candidates: Sequence[Candidate]) -> list[float]:
        """The cosine of the query and the nearest sentence of each candidate.

        Raises:
            ModelError: There are no vectors.
        """
        if not candidates:
            return []
        parts = [sentences(each.text)[:_MOST] or [each.text] for each in candidates]
        flat = [sentence for each in parts for sentence in each]
        if isinstance(self._embedder, QueryEmbedder):
            asked = await self._embedder.embed_query(query)
            vectors = await self._embedder.embed(flat)
        else:
            together = await self._embedder.embed([query, *flat])
            asked, vectors = together[0], together[1:]
        cosines = vectors @ asked
        ends = np.cumsum([len(each) for each in parts])
        return [
            float(cosines[end - len(each) : end].max())
            for each, end in zip(parts, ends.tolist(), strict=True)
        ]
