"""Ends memories: what does not hold any more is not said by what was made of it either."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from haive.core.persistence.vector._cascading import made_of
from haive.core.persistence.vector.models import CONSOLIDATION, DERIVED, Memory, MemoryKind

if TYPE_CHECKING:
    from datetime import datetime

    from haive.core.persistence.vector._shelf import Shelf


def ended(memory: Memory, when: datetime) -> Memory:
    """A memory that holds until then, or until before then where it did already."""
    return replace(memory, valid_to=when if memory.valid_to is None else min(memory.valid_to, when))


async def end_above(shelf: Shelf, memory: Memory) -> None:
    """Let what was made of a memory say nothing of it after its ``valid_to``.

    What a consolidation made of it ends with it, is still found with ``as_of``, and what it stood
    for is found again. What belongs to a conversation is made anew of what holds.
    """
    when = memory.valid_to
    if when is None:
        return
    known, fresh = {memory.id: memory}, [memory.id]
    while fresh:
        above = [
            each
            for each in await shelf.pointing_at("sources", fresh)
            if each.kind in DERIVED and each.user_id == memory.user_id and each.id not in known
        ]
        sources = await shelf.get(id_ for each in above for id_ in each.sources)
        anew: list[Memory] = []
        over: list[Memory] = []
        for each in above:
            holding = {
                id_: source
                for id_ in each.sources
                if (source := known.get(id_) or sources.get(id_))
                and source.valid_to is None
                and source.user_id == each.user_id
            }
            if holding and not _is_consolidated(each):
                anew.append(await made_of(each, holding, shelf))
            else:
                over.append(ended(each, when))
        await shelf.renew(anew)
        # First what it stood for, so that a call that was cut off leaves nothing hidden.
        await shelf.rewrite(
            [
                replace(each, archived=False, archived_for=None)
                for each in await shelf.pointing_at("archived_for", [one.id for one in over])
                if each.valid_to is None and each.user_id == memory.user_id and each.id != memory.id
            ]
        )
        await shelf.rewrite(over)
        known |= {each.id: each for each in [*anew, *over]}
        fresh = [each.id for each in [*anew, *over]]


def _is_consolidated(memory: Memory) -> bool:
    return memory.kind is MemoryKind.MERGED or CONSOLIDATION in memory.metadata
