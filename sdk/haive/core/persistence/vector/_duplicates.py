"""Whether something is remembered already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haive.core.persistence.embedding._words import words_of
from haive.core.persistence.session._contradictions import Claims
from haive.core.persistence.vector._shelf import both, equals, spoken
from haive.core.persistence.vector.config import RetrievalWeights
from haive.core.persistence.vector.models import Memory
from haive.core.persistence.vector.records import Query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from haive.core.persistence.vector._shelf import Shelf

NEAREST = RetrievalWeights(
    words=0.0, context=0.0, vector=1.0, neighbours=0.0, speaker=0.0, recency=0.0, importance=0.0
)
_WORDS = RetrievalWeights(
    words=1.0, context=0.0, vector=0.0, neighbours=0.0, speaker=0.0, recency=0.0, importance=0.0
)
_LOOKED_AT = 5


async def duplicate_of(memory: Memory, shelf: Shelf, threshold: float) -> Memory | None:
    """The memory that says the same already, of the same user and kind, if there is one that holds.

    The same is what has the same words; and where there are vectors, what has a cosine of
    ``threshold`` or more and claims nothing else: "I have three dogs" is as near to "I have four
    dogs" as can be, and is news.
    """
    vectors = await shelf.vectors([spoken(memory)])
    hits = await shelf.backend.search(
        Query(
            text=memory.text,
            vector=None if vectors is None else vectors[0],
            limit=_LOOKED_AT,
            filter=both(equals(user_id=memory.user_id), equals(kind=memory.kind.value)),
            weights=_WORDS if vectors is None else NEAREST,
            now=shelf.clock(),
        )
    )
    ids = [hit.record.id for hit in hits]
    near = {} if vectors is None else await _cosines(ids, vectors, shelf)
    now = shelf.clock()
    for hit in hits:
        other = Memory.from_metadata(hit.record.id, hit.record.metadata)
        if other.id == memory.id or (other.expires_at is not None and other.expires_at <= now):
            continue
        if words_of(other.text) == words_of(memory.text):
            return other
        if near.get(other.id, 0.0) >= threshold and _claim_alike(memory.text, other.text):
            return other
    return None


async def _cosines(ids: list[str], vectors: NDArray[np.float32], shelf: Shelf) -> dict[str, float]:
    records = await shelf.backend.get(ids, vectors=True)
    return {r.id: float(r.vector @ vectors[0]) for r in records if r.vector is not None}


def _claim_alike(one: str, other: str) -> bool:
    """Whether two texts have the same numbers and names and are both negated or both not."""
    return Claims.of(one) == Claims.of(other)
