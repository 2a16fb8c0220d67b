"""Searches a collection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from haive.core.persistence.vector._arguments import checked_count, checked_query
from haive.core.persistence.vector._shelf import both, spoken
from haive.core.persistence.vector._values import time_text
from haive.core.persistence.vector.filters import All, AnyOf, Comparison, Not, Operator
from haive.core.persistence.vector.models import Memory, MemoryHit
from haive.core.persistence.vector.records import Hit, Query
from haive.core.persistence.vector.reranking.protocol import Candidate

if TYPE_CHECKING:
    from datetime import datetime

    from haive.core.persistence.vector._shelf import Shelf
    from haive.core.persistence.vector.filters import Filter

MAX_TOP_K = 1000
# How many candidates a reranker reads.
_RERANKED = 50
# Of the score, the reranker's share. Alone it forgets who spoke and what was said before: MaxSim
# has .73 of LoCoMo's evidence among its first ten, and with the search's score .80.
_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is looked for."""

    query: str
    top_k: int
    where: Filter | None
    rerank: bool = False
    explain: bool = False
    as_of: datetime | None = None
    include_archived: bool = False


async def search(asked: Asked, shelf: Shelf) -> list[MemoryHit]:
    """The best memories, best first.

    Raises:
        InvalidInputError: The query says nothing, or ``top_k`` is out of bounds.
        ModelError: The query has no vector, or the reranker no scores.
    """
    checked_query(asked.query)
    checked_count(asked.top_k, "top_k", MAX_TOP_K)
    then = None if asked.include_archived else asked.as_of
    query = Query(
        text=asked.query,
        vector=await shelf.query_vector(asked.query),
        limit=max(asked.top_k, _RERANKED) if asked.rerank else asked.top_k,
        filter=asked.where if then is None else both(_found(then), asked.where),
        weights=shelf.config.weights,
        now=asked.as_of or shelf.clock(),
        as_of=asked.as_of,
        include_archived=asked.include_archived or then is not None,
        recall=shelf.config.recall,
        parts=asked.explain or asked.rerank,
    )
    hits = await unexpired(query, shelf)
    found = [
        MemoryHit(
            memory=Memory.from_metadata(hit.record.id, hit.record.metadata),
            score=hit.score,
            parts=hit.parts,
        )
        for hit in hits
    ]
    if asked.rerank:
        found = await _reranked(asked.query, found, shelf)
    found = found[: asked.top_k]
    return found if asked.explain else [replace(hit, parts={}) for hit in found]


def _found(then: datetime) -> Filter:
    """What searches passed over then neither: what stands for it now did not hold yet."""
    return AnyOf(
        (
            Comparison(("archived",), Operator.EXISTS, value=False),
            Comparison(("archived",), Operator.EQ, None),
            Comparison(("archived",), Operator.EQ, value=False),
            All(
                (
                    Comparison(("archived_for",), Operator.GT, ""),
                    Comparison(("archived_from",), Operator.GT, time_text(then)),
                )
            ),
        )
    )


async def unexpired(query: Query, shelf: Shelf) -> list[Hit]:
    """The hits that have not expired.

    Few memories ever expire, and a filter has its price: it is added only where one came up.
    """
    moment = shelf.clock()
    now = time_text(moment)
    hits = await shelf.backend.search(query)
    if not any((hit.record.metadata.get("expires_at") or "~") <= now for hit in hits):
        return hits
    fresh = Not(expired_at(moment))
    return await shelf.backend.search(replace(query, filter=both(fresh, query.filter)))


def expired_at(moment: datetime) -> Filter:
    """The filter that a memory has expired by then."""
    return Comparison(("expires_at",), Operator.LTE, time_text(moment))


async def _reranked(query: str, hits: list[MemoryHit], shelf: Shelf) -> list[MemoryHit]:
    """The hits in a new order: by their scores so far, and of the best by the reranker's."""
    if not hits:
        return hits
    read = hits[:_RERANKED]
    tokens = await shelf.backend.tokens([hit.id for hit in read])
    scores = await shelf.reranker.rank(
        query,
        [Candidate(id=hit.id, text=spoken(hit.memory), tokens=tokens.get(hit.id)) for hit in read],
    )
    low, high = min(scores), max(scores)
    most = max([1e-9, *(hit.score for hit in hits)])
    found = []
    # What is not read has nothing of the reranker's, as the worst of what is.
    for hit, score in zip(hits, [*scores, *[low] * (len(hits) - len(read))], strict=True):
        parts = {name: part / most * (1 - _SHARE) for name, part in hit.parts.items()}
        parts["rerank"] = _SHARE * ((score - low) / (high - low) if high > low else 0.0)
        total = hit.score / most * (1 - _SHARE) + parts["rerank"]
        found.append(replace(hit, score=total, parts=parts))
    return sorted(found, key=lambda hit: (-hit.score, hit.id))
