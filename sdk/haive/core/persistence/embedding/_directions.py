"""Vectors that somebody else's model made, as ours are: rows of numbers, of length 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.errors import ModelAnswerError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def directions(made: object, by: str) -> NDArray[np.float32]:
    """What a model made as an array of shape (texts, dimensions), each row of length 1.

    Args:
        made: Rows of numbers, in whatever holds them.
        by: Who made them, for the error.

    Raises:
        ModelAnswerError: They are no rows of numbers, or one has no direction.
    """
    try:
        vectors = np.array(made, np.float64)
    except (TypeError, ValueError):
        raise ModelAnswerError(f"{by} made vectors that are no numbers.") from None
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise ModelAnswerError(f"{by} made vectors of the shape {vectors.shape}.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ModelAnswerError(f"A vector of {by} has no direction.")
    unit: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
    return unit
