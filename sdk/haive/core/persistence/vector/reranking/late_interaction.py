"""Scores from the vectors of single tokens, which are computed when a text is written."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.embedding import MiniLMEmbedder
from haive.core.persistence.vector.reranking._packing import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.embedding.minilm import TokenVectors
    from haive.core.persistence.vector.reranking.protocol import Candidate


class LateInteraction:
    """MaxSim (Khattab and Zaharia 2020, ColBERT) over the tokens of MiniLM: offline, without a key.

    Each token of the query looks for its like in a text; what it finds counts by how few of the
    candidates have that very token (the idf of BM25), so that names and rare words decide. Texts
    are read by the model once, when they are written; a search reads the query alone. A candidate
    without tokens, or with another model's, is read then, which takes 20 ms.

    Args:
        embedder: MiniLM or another model as a folder; the one that makes the vectors as well, best.

    Raises:
        ConfigurationError: The extra ``embeddings`` is not installed.
    """

    def __init__(self, embedder: MiniLMEmbedder | None = None) -> None:
        self._embedder = embedder or MiniLMEmbedder()

    @property
    def name(self) -> str:
        """``maxsim-`` and the model's name."""
        return f"maxsim-{self._embedder.name}"

    async def prepare(self, texts: Sequence[str]) -> list[bytes]:
        """The tokens of each text: 52 bytes a token, of 256 tokens at most.

        Raises:
            ConfigurationError: The model's file is damaged, or gives no vectors of tokens.
        """
        found = await self._embedder.token_vectors(texts)
        return [pack(tokens, self._embedder.name) for tokens in found]

    def reads_for(self, embedder: object) -> bool:
        """Whether `read` gives what this embedder gives."""
        return embedder is self._embedder

    async def read(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[bytes]]:
        """The vectors of texts, and what `prepare` gives: the model reads each of them once.

        Raises:
            ConfigurationError: The model's file is damaged, or gives no vectors of tokens.
        """
        vectors, found = await self._embedder.read(texts)
        return vectors, [pack(tokens, self._embedder.name) for tokens in found]

    async def rank(self, query: str, candidates: Sequence[Candidate]) -> list[float]:
        """A score of 0 to 1 for each candidate, in their order; 0 for a text without words.

        Raises:
            ConfigurationError: The model's file is damaged, or gives no vectors of tokens.
        """
        if not candidates:
            return []
        known = [self._unpacked(candidate.tokens) for candidate in candidates]
        missing = [place for place, tokens in enumerate(known) if tokens is None]
        [asked] = await self._embedder.token_vectors([query])
        # Packed as well: what is whole would look nearer than what is not.
        read = await self.prepare([candidates[place].text for place in missing])
        for place, packed in zip(missing, read, strict=True):
            known[place] = self._unpacked(packed)
        texts = [tokens for tokens in known if tokens is not None]
        found = await asyncio.to_thread(scores, asked, texts)
        return [float(score) for score in found]

    def _unpacked(self, packed: bytes | None) -> TokenVectors | None:
        return None if packed is None else unpack(packed, self._embedder.name)


def scores(query: TokenVectors, texts: Sequence[TokenVectors]) -> NDArray[np.float64]:
    """The mean over the query's tokens of their best cosine in each text, weighted by their idf.

    Args:
        query: Its tokens.
        texts: Those of the candidates, by which the idf is told.

    Returns:
        Shape (len(texts),), from 0 to 1.
    """
    found = np.zeros(len(texts))
    filled = [place for place, text in enumerate(texts) if len(text.ids)]
    if not filled or not len(query.ids):
        return found
    has = np.array([np.isin(query.ids, texts[place].ids) for place in filled])
    count, having = len(texts), has.sum(axis=0)
    idf = np.log1p((count - having + 0.5) / (having + 0.5))
    begins = np.cumsum([0] + [len(texts[place].ids) for place in filled[:-1]])
    cosines = query.vectors @ np.concatenate([texts[place].vectors for place in filled]).T
    best = np.maximum.reduceat(cosines, begins, axis=1)
    # Rounded, so that a text scores the same wherever it stands in the product of matrices.
    found[filled] = np.clip((idf @ best) / idf.sum(), 0, 1).round(6)
    return found
