"""Vectors without a model: words and their pieces, hashed."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.embedding._common import COMMON
from haive.core.persistence.embedding._measured import HASHING
from haive.core.persistence.embedding._words import letters_of, words_of
from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.embedding.calibration import Calibration

# A longer word is as rare as any.
_LONG = 10
_COMMON = 0.1
# Below this a call costs less than handing it to a thread.
_FEW = 64
# More at once take memory and no less time.
_AT_ONCE = 1024


class HashingEmbedder:
    """Vectors from the letters alone: no model, no download, any language.

    Words, and pieces of them of three to five characters, each take a place of the vector by their
    hash and a sign by another bit of it (Weinberger et al. 2009, Feature Hashing for Large Scale
    Multitask Learning), so that what falls on one place cancels out on average. A word that comes
    again counts less each time. A longer word counts more, as rarer words are longer in every
    language (Zipf), and the commonest words of seven languages count a tenth. Texts are alike that
    share words or parts of words; synonyms are not seen.

    The same on every machine and in every release with this name.

    Args:
        dimensions: Numbers in a vector, 32 to 4,096.

    Raises:
        InvalidInputError: Other dimensions.
    """

    def __init__(self, dimensions: int = 1024) -> None:
        if not 32 <= dimensions <= 4096:
            raise InvalidInputError("A HashingEmbedder has 32 to 4096 dimensions.")
        self._dimensions = dimensions

    @property
    def name(self) -> str:
        """``hashing-1-1024``: the method's version and the dimensions."""
        return f"hashing-1-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts: shape (len(texts), dimensions), each row of length 1."""
        if len(texts) < _FEW:
            return self._embed(texts)
        return await asyncio.to_thread(self._embed_many, texts)

    async def calibration(self) -> Calibration:
        """Measured on task dialogues, at 1,024 dimensions."""
        return HASHING

    def _embed_many(self, texts: Sequence[str]) -> NDArray[np.float32]:
        pieces = [texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE)]
        return np.concatenate([self._embed(piece) for piece in pieces])

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        size = self._dimensions
        if not texts:
            return np.zeros((0, size), np.float32)
        words: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        rows: list[int] = []
        repeated: list[float] = []
        for row, text in enumerate(texts):
            counts = Counter(words_of(text))
            words += map(_pieces, counts)
            rows += [row] * len(counts)
            repeated += [1 + math.log(count) for count in counts.values()]
        lengths = [len(hashes) for hashes, _ in words]
        places = np.concatenate([hashes for hashes, _ in words]) % size
        places += np.repeat(np.array(rows) * size, lengths)
        weights = np.concatenate([signed for _, signed in words]) * np.repeat(repeated, lengths)
        vectors = np.bincount(places, weights, len(texts) * size).reshape(len(texts), size)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[norms[:, 0] == 0, 0] = 1  # all of it has cancelled out
        norms[norms == 0] = 1
        unit: NDArray[np.float32] = (vectors / norms).astype(np.float32)
        return unit


@lru_cache(maxsize=65_536)
def _pieces(word: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where a word and its pieces go, and with which signed weight."""
    framed = f"<{word}>"
    grams = [
        framed[start : start + size]
        for size in (3, 4, 5)
        for start in range(len(framed) - size + 1)
        if size < len(framed)
    ]
    digests = [
        int.from_bytes(blake2b(piece.encode(), digest_size=8).digest(), "little")
        for piece in (f"={word}", *grams)
    ]
    weight = min(letters_of(word), _LONG) / _LONG * (_COMMON if word in COMMON else 1.0)
    piece_weight = weight / math.sqrt(len(grams)) if grams else 0.0
    weights = np.full(len(digests), piece_weight)
    weights[0] = weight
    signs = np.array([1.0 if digest >> 63 else -1.0 for digest in digests])
    return np.array([digest & (1 << 40) - 1 for digest in digests], np.int64), weights * signs
