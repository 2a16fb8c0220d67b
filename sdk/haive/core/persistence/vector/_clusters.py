"""Memories that are alike."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np

from haive.core.persistence.vector._batches import batches
from haive.core.persistence.vector._common import contradict
from haive.core.persistence.vector._shelf import PAGE, spoken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.vector._shelf import Shelf
    from haive.core.persistence.vector.models import Memory

    Told = Sequence[Mapping[str, Any]]

# More at once would take memory, and time by their square: what is far apart in time is compared
# with its neighbours in time alone.
_AT_ONCE = 20_000


async def clusters(
    parts: Iterable[Sequence[Memory]],
    threshold: float,
    shelf: Shelf,
    *,
    most: int | None = None,
    agreeing: Callable[[Memory], Mapping[str, Any]] | None = None,
) -> list[list[Memory]]:
    """Groups of memories that have a cosine of ``threshold`` or more to the first of the group.

    The first one that is in no group yet begins one and takes what is near to it, the nearest
    first. So the result depends on the memories and their order alone, and every member is alike
    to one that is there: a chain of small steps does not make one group of everything.

    Args:
        parts: Memories in order; those of different parts are not put together.
        threshold: 0 to 1.
        shelf: Where their vectors are.
        most: Members of a group.
        agreeing: Metadata in which no two members of a group contradict each other.
    """
    found: list[list[Memory]] = []
    pieces = [part[at : at + _AT_ONCE] for part in parts for at in range(0, len(part), _AT_ONCE)]
    for together in _read_together(pieces):
        memories = [memory for piece in together for memory in piece]
        vectors = await _vectors(memories, shelf)
        sizes = [len(piece) for piece in together]
        told = None if agreeing is None else [agreeing(memory) for memory in memories]
        groups = await asyncio.to_thread(_grouped_in_parts, vectors, sizes, threshold, most, told)
        found += [[memories[place] for place in group] for group in groups]
    return found


def _read_together(pieces: Iterable[Sequence[Memory]]) -> Iterator[list[Sequence[Memory]]]:
    """Pieces whose vectors are read at once: many parts have two members or three."""
    together: list[Sequence[Memory]] = []
    count = 0
    for piece in pieces:
        if together and count + len(piece) > _AT_ONCE:
            yield together
            together, count = [], 0
        together.append(piece)
        count += len(piece)
    if together:
        yield together


def _grouped_in_parts(
    vectors: NDArray[np.float32],
    sizes: Iterable[int],
    threshold: float,
    most: int | None,
    told: Told | None,
) -> list[list[int]]:
    found: list[list[int]] = []
    begin = 0
    for size in sizes:
        part = slice(begin, begin + size)
        groups = _grouped(vectors[part], threshold, most, None if told is None else told[part])
        found += [[begin + place for place in group] for group in groups]
        begin += size
    return found


def _grouped(
    vectors: NDArray[np.float32], threshold: float, most: int | None, told: Told | None
) -> list[list[int]]:
    """The places of the members of each group; minutes of work where nothing is alike."""
    found: list[list[int]] = []
    free = np.ones(len(vectors), dtype=bool)
    for place in range(len(vectors)):
        if not free[place]:
            continue
        free[place] = False
        rest = np.flatnonzero(free)
        # Rounded, so that the last bits of a sum decide nothing.
        cosines = np.round(vectors[rest] @ vectors[place], 4)
        alike = cosines >= round(threshold, 4)
        near = rest[alike]
        ranked: list[int] = near[np.lexsort((near, -cosines[alike]))].tolist()
        if told is not None:
            ranked = _agreeing(place, ranked, told)
        taken = ranked if most is None else ranked[: most - 1]
        free[taken] = False
        found.append([place, *sorted(taken)])
    return found


def _agreeing(first: int, ranked: Iterable[int], told: Told) -> list[int]:
    """Those that do not contradict the first one, nor those that are taken before them."""
    together = dict(told[first])
    taken: list[int] = []
    for place in ranked:
        if not contradict(told[place], together):
            together |= told[place]
            taken.append(place)
    return taken


async def _vectors(memories: Sequence[Memory], shelf: Shelf) -> NDArray[np.float32]:
    """The vectors of memories: those that are stored, and of the others new ones."""
    if shelf.embedder is None:
        return await shelf.meaning.embed([memory.text for memory in memories])
    stored: dict[str, NDArray[np.float32]] = {}
    for batch in batches((memory.id for memory in memories), PAGE):
        for record in await shelf.backend.get(batch, vectors=True):
            if record.vector is not None:
                stored[record.id] = record.vector
    missing = [memory for memory in memories if memory.id not in stored]
    if missing:
        made = await shelf.vectors([spoken(memory) for memory in missing])
        if made is not None:
            stored.update((memory.id, made[place]) for place, memory in enumerate(missing))
    return np.array([stored[memory.id] for memory in memories], dtype=np.float32)
