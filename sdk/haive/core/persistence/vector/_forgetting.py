"""Forgets memories, and all that was made of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import NotFoundError
from haive.core.persistence.vector._batches import batches
from haive.core.persistence.vector._cascading import Cascade
from haive.core.persistence.vector._keywords import has_keyword
from haive.core.persistence.vector._shelf import PAGE
from haive.core.persistence.vector.models import DERIVED, ForgetResult, Memory, MemoryKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from haive.core.persistence.vector._shelf import Shelf


async def forget(shelf: Shelf, ids: Iterable[str]) -> ForgetResult:
    """Forget memories.

    What was made of them alone goes along, and what was made of others too is made anew of those;
    a memory that stood for several that were merged takes these along. Where a text stands as the
    context of the next turn, it goes there as well. Nothing is removed before all that is made anew
    is written, so a call that was interrupted is repeated with the same ids; and once it is
    removed, what others wrote of it meanwhile is looked for.

    Raises:
        ConflictError: Others go on writing of what is forgotten.
    """
    asked = await shelf.get(ids)
    cascade = Cascade(shelf, await _with_merged(asked, shelf))
    await cascade.run()
    removed = await _delete(shelf, cascade.gone)
    while late := await cascade.settle():
        removed += await _delete(shelf, {each: cascade.gone[each] for each in late})
    kinds = Counter(cascade.gone[each].kind.value for each in removed)
    return ForgetResult(
        counts=dict(kinds),
        forgotten=tuple(each for each in removed if each in asked),
        removed=tuple(each for each in removed if each not in asked),
        rebuilt=tuple(sorted(cascade.rebuilt)),
    )


async def change(shelf: Shelf, memory: Memory) -> tuple[str, ...]:
    """Write a memory whose text has changed, and what was made of it anew; the ids of that.

    Raises:
        NotFoundError: It was forgotten meanwhile, and stays so.
    """
    left = tuple(word for word in memory.keywords if has_keyword(memory.text, word))
    memory = replace(memory, keywords=left)
    cascade = Cascade(shelf)
    await cascade.run({memory.id: memory})
    if not await shelf.renew([memory], once=True):
        await _delete(shelf, {each: cascade.gone[each] for each in await cascade.settle()})
        raise NotFoundError("There is no such memory.")
    return tuple(sorted(cascade.rebuilt))


async def hand_over(shelf: Shelf, memory: Memory, changed: Memory) -> Memory:
    """Write a memory that is another user's from now on; what it is then.

    What was made of it, quotes it or stands for it is the other one's still, and does so no more.

    Raises:
        NotFoundError: It was forgotten meanwhile, and stays so.
    """
    cascade = Cascade(shelf, {memory.id: memory})
    await cascade.run()
    changes: dict[str, Any] = {"context": None, "context_ids": (), "superseded_by": None}
    if memory.archived_for is not None:
        changes |= {"archived": False, "archived_for": None, "archived_from": None}
    changed = replace(changed, **changes)
    written = await shelf.renew([changed])
    while True:
        left = {each: one for each, one in cascade.gone.items() if each != memory.id}
        await _delete(shelf, left)
        if not await cascade.settle():
            break
    if not written:
        raise NotFoundError("There is no such memory.")
    return changed


async def _with_merged(asked: Mapping[str, Memory], shelf: Shelf) -> dict[str, Memory]:
    """The memories, with those that a merged one among them stands for."""
    gone = dict(asked)
    fresh = list(asked.values())
    while merged := {each.id: each for each in fresh if each.kind is MemoryKind.MERGED}:
        behind = await shelf.pointing_at("archived_for", merged)
        fresh = [
            memory
            for memory in behind
            if memory.id not in gone
            and memory.archived_for in merged
            and memory.user_id == merged[memory.archived_for].user_id
        ]
        gone.update((memory.id, memory) for memory in fresh)
    return gone


async def _delete(shelf: Shelf, gone: Mapping[str, Memory]) -> list[str]:
    """Remove them: what was made of others first, so that what is asked for is there to the end."""
    ordered = sorted(gone, key=lambda each: gone[each].kind not in DERIVED)
    removed: list[str] = []
    for batch in batches(ordered, PAGE):
        removed += await shelf.backend.delete(batch)
    return removed
