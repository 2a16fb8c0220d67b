"""What a search and a reranker say, as one score."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: So many of the best hits of a search are read again, or all that are asked for if those are more.
CANDIDATES = 100
# A reranker alone forgets who spoke and what was said before: of LoCoMo's evidence MaxSim alone has
# .73 among its first ten, with the search's score .80.
_WEIGHT = 0.7


def blend(scores: Sequence[float], ranks: Sequence[float]) -> list[float]:
    """Add the scores of a search and those of a reranker, each scaled to 0…1; the first counts 1.

    Args:
        scores: `Hit.score` of each candidate.
        ranks: What `Reranker.rank` gave, in the same order.

    Raises:
        ValueError: There are not as many of one as of the other.
    """
    pairs = zip(_scaled(scores), _scaled(ranks), strict=True)
    return [score + _WEIGHT * rank for score, rank in pairs]


def _scaled(values: Sequence[float]) -> list[float]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    if high == low:
        return [0.0] * len(values)
    return [(value - low) / (high - low) for value in values]
