"""Many in lists of a bounded length."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")


def batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values in lists of at most ``size``."""
    every = list(values)
    for start in range(0, len(every), size):
        yield every[start : start + size]


def packed(
    values: Iterable[T], size: int, *, weight: Callable[[T], int], heaviest: int
) -> Iterator[list[T]]:
    """The values in lists of at most ``size`` and ``heaviest``; one that is heavier is alone."""
    batch: list[T] = []
    heavy = 0
    for value in values:
        weighs = weight(value)
        if batch and (len(batch) == size or heavy + weighs > heaviest):
            yield batch
            batch, heavy = [], 0
        batch.append(value)
        heavy += weighs
    if batch:
        yield batch
