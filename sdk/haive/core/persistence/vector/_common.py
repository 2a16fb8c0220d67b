"""What memories have in common beside their words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import TAGS
from haive.core.persistence.vector._values import equal, to_json_value
from haive.core.persistence.vector.models import CONSOLIDATION, DOCUMENT, Memory, MemoryKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haive.core.persistence.vector._shelf import Shelf

# What this package writes beside what the caller gave.
_BESIDE = frozenset({CONSOLIDATION, DOCUMENT, TAGS})


def contradict(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two callers' metadata have another value under one name, as of two agents."""
    names = (one.keys() & other.keys()) - _BESIDE
    return any(not _has(one, name, other[name]) for name in names)


def said_by(memory: Memory) -> tuple[str, str]:
    """Who says it: what Anna says of herself is not said by Bob."""
    return memory.speaker or "", memory.role or ""


def common(kind: MemoryKind, sources: Sequence[Memory]) -> dict[str, Any]:
    """Fields of what is made of memories: who said all of them, and the caller's metadata.

    A merged one stands for each, and is found by what any has; the first one's value counts. Of
    a summary it is what all have.
    """
    found: dict[str, Any] = {}
    for memory in reversed(sources):
        found |= memory.metadata
    if kind is not MemoryKind.MERGED:
        found = {
            name: value
            for name, value in found.items()
            if all(_has(memory.metadata, name, value) for memory in sources)
        }
    speakers = {memory.speaker for memory in sources}
    roles = {memory.role for memory in sources}
    return {
        "metadata": {name: value for name, value in found.items() if name not in _BESIDE},
        "speaker": speakers.pop() if len(speakers) == 1 else None,
        "role": roles.pop() if len(roles) == 1 else None,
    }


def follow(memory: Memory, before: Sequence[Memory], after: Sequence[Memory]) -> Memory:
    """What a consolidation made, with what its sources have now; what it was given itself stays."""
    was, now = common(memory.kind, before), common(memory.kind, after)
    now["metadata"] |= given_itself(memory, before)
    for name in ("speaker", "role"):
        if getattr(memory, name) != was[name]:
            del now[name]
    return replace(memory, **now)


def given_itself(memory: Memory, sources: Sequence[Memory]) -> dict[str, Any]:
    """Metadata that what a consolidation made has beside those of its sources."""
    theirs = common(memory.kind, sources)["metadata"]
    return {name: value for name, value in memory.metadata.items() if not _has(theirs, name, value)}


async def follow_above(shelf: Shelf, changed: Sequence[Memory]) -> None:
    """Let what consolidations made of memories follow them, whose texts stay as they are.

    Args:
        shelf: Where all of them are, the changed ones as they were before still.
        changed: What they will be; they belong to who they belonged to.
    """
    own = {memory.id for memory in changed}
    whose = {memory.user_id for memory in changed}
    now = {memory.id: memory for memory in changed}
    fresh = list(own)
    while fresh:
        above = [
            memory
            for memory in await shelf.pointing_at("sources", fresh)
            if CONSOLIDATION in memory.metadata and memory.user_id in whose
        ]
        # As they are stored still.
        there = await shelf.get(each for memory in above for each in memory.sources)
        fresh = []
        for memory in above:
            sources = [there[each] for each in memory.sources if each in there]
            made = follow(memory, sources, [now.get(each.id, each) for each in sources])
            if made != now.get(memory.id, memory):
                now[memory.id] = made
                fresh.append(memory.id)
    await shelf.renew([memory for memory in now.values() if memory.id not in own])


def _has(metadata: Mapping[str, Any], name: str, value: object) -> bool:
    if name not in metadata:
        return False
    return equal(to_json_value(metadata[name], name), to_json_value(value, name))
