"""A memory as a backend keeps it: an id, a vector, and flat metadata that filters read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from haive.core.persistence.vector.config import IndexType, RetrievalWeights
    from haive.core.persistence.vector.filters import Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What all memories of one collection have in common; recorded beside them.

    ``model`` None is a collection without vectors: it is searched by words alone.
    """

    name: str
    model: str | None
    dimensions: int | None
    metric: str
    """``cosine``, ``l2`` or ``inner_product``."""
    language: str
    """A text search configuration of Postgres, ``english`` or another one."""
    index_type: IndexType
    m: int
    ef_construction: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One memory.

    ``metadata`` is JSON: what is searched for is in it, under the names of `Memory`'s fields, and
    what the caller gave beside them. Times are text, ``2026-01-02T03:04:05.000006Z``, always in
    UTC with six digits, so that their order as text is their order in time.
    """

    id: str
    metadata: Mapping[str, Any]
    vector: NDArray[np.float32] | None = None
    """Shape (dimensions,), of length 1 where the metric is cosine."""
    tokens: bytes | None = None
    """Packed token vectors for reranking, as the reranker made them."""
    once: bool = False
    """Whether to refuse it where another one with its ``words_hash``, kind and user holds already;
    replaced, where it is superseded by another one than it says. In Postgres alone, which can tell
    for certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is looked for."""

    text: str
    vector: NDArray[np.float32] | None
    limit: int
    filter: Filter | None
    weights: RetrievalWeights
    now: datetime
    """What recency counts from."""
    as_of: datetime | None = None
    """Memories that held then; None for now."""
    include_archived: bool = False
    recall: float = 0.97
    """Of the nearest vectors, the share to be found."""
    parts: bool = False
    """Whether `Hit.parts` is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A memory found, best first."""

    record: Record
    score: float
    parts: Mapping[str, float] = field(default_factory=dict)
    """What each signal gave, weighted: they add up to ``score``."""
