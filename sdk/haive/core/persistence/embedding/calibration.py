"""Cosines of any embedder on one scale."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Beyond this two vectors are one, whatever float32 has lost.
_SAME = 1 - 1e-5
_ALMOST = 1 - 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a cosine means: which share of messages that do not belong together stays below it.

    A raw cosine of 0.3 is close for one embedder and far for another one. Here each is replaced by
    its rank among the cosines of a message and a session of *another* topic. So a similarity of
    0.8 says: of messages that belong elsewhere, 80 % are less alike than this one. It is a share,
    from 0 to 1, never falls when the cosine rises, and is 1 only for what is the same.

    Attributes:
        unrelated: Cosines of messages and sessions of other topics at equal shares, rising: the
            lowest, …, the highest.
    """

    unrelated: tuple[float, ...]

    def __post_init__(self) -> None:
        points = self.unrelated
        if len(points) < 2 or any(a > b for a, b in pairwise(points)):
            raise InvalidInputError("A calibration has two or more cosines, none below the last.")

    @classmethod
    def of(
        cls, cosines: Sequence[float] | NDArray[np.floating], *, points: int = 21
    ) -> Calibration:
        """Measure it on cosines of what does not belong together; a few hundred are enough.

        Raises:
            InvalidInputError: There are fewer than two.
        """
        values = np.asarray(cosines, dtype=np.float64)
        if values.size < 2:
            raise InvalidInputError("A calibration is measured on two cosines or more.")
        return cls(unrelated=tuple(np.quantile(values, np.linspace(0, 1, points)).tolist()))

    def similarity(self, cosine: float) -> float:
        """The share of what does not belong together that is less alike than this, 0 to 1."""
        points = self.unrelated
        if cosine >= _SAME:
            return 1.0
        place = bisect_right(points, cosine)
        if place == 0:
            return 0.0
        top = 1 - 0.5 / len(points)
        if place == len(points):
            # More alike than all that was measured: what is left of the scale, up to the same.
            rest = (cosine - points[-1]) / max(_SAME - points[-1], 1e-9)
            return min(top + (1 - top) * max(rest, 0.0), _ALMOST)
        low, high = points[place - 1], points[place]
        return (place - 1 + (cosine - low) / (high - low)) / (len(points) - 1) * top

    def sameness(self, cosine: float) -> float:
        """How far a cosine is from the middle of what does not belong together to the same, 0 to 1.

        For what is nearly the same, where `similarity` is close to 1 for all: a text with a word
        changed is at 0.9 or so.
        """
        return float(self.sameness_of(np.array([cosine]))[0])

    def sameness_of(self, cosines: NDArray[np.floating]) -> NDArray[np.float32]:
        """`sameness` of many, in their shape."""
        middle = self.unrelated[len(self.unrelated) // 2]
        shares = np.clip((cosines - middle) / max(1 - middle, 1e-9), 0.0, 1.0)
        return np.where(cosines >= _SAME, 1.0, shares).astype(np.float32)
