"""Fills a collection of another model with the memories of one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from haive.core.persistence._json import json_bytes
from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.vector._shelf import PAGE, spoken
from haive.core.persistence.vector.models import Memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haive.core.persistence.vector._shelf import Shelf


async def reembed(source: Shelf, target: Shelf) -> int:
    """Copy the memories of ``source`` to ``target``, with its own vectors, and keep copies up.

    A page of 500 at a time is embedded and written. Each copy says what it is a copy of. So a call
    that was interrupted is repeated, and another one catches up with what was written, changed or
    forgotten in the source meanwhile; what was written or changed in the target itself stays.

    Returns:
        How many were written, changed or removed.

    Raises:
        ConfigurationError: Both are the same collection.
        ModelError: There are no vectors; all pages before are complete.
    """
    name = source.collection.name
    if name == target.collection.name:
        raise ConfigurationError(
            "A collection is not embedded into itself.", hint="Name another index_name."
        )
    changes = 0
    async for page in _pages(source):
        there = await target.get(memory.id for memory in page)
        copies = [replace(memory, copy_of=_origin(memory, name)) for memory in page]
        new = [copy for copy in copies if copy.id not in there]
        stale = [
            copy
            for copy in copies
            if copy.id in there
            and there[copy.id].copy_of != copy.copy_of
            and _is_as_copied(there[copy.id], name)
        ]
        await target.write(new)
        changes += len(new)
        changes += await target.renew([c for c in stale if spoken(c) != spoken(there[c.id])])
        changes += await target.rewrite([c for c in stale if spoken(c) == spoken(there[c.id])])
    async for page in _pages(target):
        copied = [memory for memory in page if _is_as_copied(memory, name)]
        left = await source.get(memory.id for memory in copied)
        gone = [memory.id for memory in copied if memory.id not in left]
        changes += len(await target.backend.delete(gone)) if gone else 0
    return changes


def _origin(memory: Memory, collection: str) -> str:
    """Where a memory is copied from, and what it said there."""
    said = replace(memory, copy_of=None).to_metadata()
    digest = hashlib.sha256(json_bytes(said, sort_keys=True)).hexdigest()
    return f"{collection}:{digest[:32]}"


def _is_as_copied(memory: Memory, collection: str) -> bool:
    """Whether a memory is a copy out of a collection that nobody has changed since."""
    return memory.copy_of == _origin(memory, collection)


async def _pages(shelf: Shelf) -> AsyncIterator[list[Memory]]:
    after: str | None = None
    while page := await shelf.backend.find(None, limit=PAGE, after=after):
        yield [Memory.from_metadata(record.id, record.metadata) for record in page]
        after = page[-1].id
