"""Fills a collection of another model with the memories of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.vector._shelf import PAGE, spoken
from haive.core.persistence.vector.models import Memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haive.core.persistence.vector._shelf import Shelf


async def reembed(source: Shelf, target: Shelf) -> int:
    """Make the memories of ``target`` those of ``source``, with its own vectors.

    A page of 500 at a time is embedded and written. What is there already and the same is passed
    over, so a call that was interrupted is repeated, and another one catches up with what was
    written, changed or forgotten meanwhile.

    Returns:
        How many were written, changed or removed.

    Raises:
        ConfigurationError: Both are the same collection.
        ModelError: There are no vectors; all pages before are complete.
    """
    if source.collection.name == target.collection.name:
        raise ConfigurationError(
            "A collection is not embedded into itself.", hint="Name another index_name."
        )
    changes = 0
    async for page in _pages(source):
        there = await target.get(memory.id for memory in page)
        new = [m for m in page if m.id not in there or spoken(m) != spoken(there[m.id])]
        written = {memory.id for memory in new}
        await target.write(new)
        known = [m for m in page if m.id not in written and m != there[m.id]]
        await target.rewrite(known)
        changes += len(new) + len(known)
    async for page in _pages(target):
        left = await source.get(memory.id for memory in page)
        gone = [memory.id for memory in page if memory.id not in left]
        changes += len(await target.backend.delete(gone)) if gone else 0
    return changes


async def _pages(shelf: Shelf) -> AsyncIterator[list[Memory]]:
    after: str | None = None
    while page := await shelf.backend.find(None, limit=PAGE, after=after):
        yield [Memory.from_metadata(record.id, record.metadata) for record in page]
        after = page[-1].id
