"""Where memories are from, and what came in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haive.core.persistence.vector._shelf import Shelf
    from haive.core.persistence.vector.models import Memory


async def versions(memory: Memory, shelf: Shelf) -> list[Memory]:
    """All that a memory superseded, itself, and all that superseded it, the oldest first."""
    older: list[Memory] = []
    seen, frontier = {memory.id}, [memory.id]
    while frontier:
        found = await shelf.pointing_at("superseded_by", frontier)
        fresh = sorted((m for m in found if m.id not in seen), key=lambda m: m.id, reverse=True)
        older += fresh
        frontier = [each.id for each in fresh]
        seen.update(frontier)
    newer: list[Memory] = []
    following = memory.superseded_by
    while following is not None and following not in seen:
        seen.add(following)
        one = (await shelf.get([following])).get(following)
        if one is None:
            break
        newer.append(one)
        following = one.superseded_by
    return [*older[::-1], memory, *newer]


async def provenance(memory: Memory, shelf: Shelf) -> list[Memory]:
    """What a memory was made of in the end, by id."""
    ends: dict[str, Memory] = {}
    seen, frontier = {memory.id}, [memory]
    while frontier:
        wanted: list[str] = []
        for each in frontier:
            if not each.sources:
                ends[each.id] = each
            wanted += [source for source in each.sources if source not in seen]
        seen.update(wanted)
        frontier = list((await shelf.get(wanted)).values())
    return sorted(ends.values(), key=lambda each: each.id)
