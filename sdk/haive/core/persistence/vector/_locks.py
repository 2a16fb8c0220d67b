"""Locks between the calls of one process that write the same memories."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from haive.core.persistence.vector._shelf import Shelf

_LOCKS: WeakValueDictionary[tuple[object, ...], asyncio.Lock] = WeakValueDictionary()


def one_at_a_time(shelf: Shelf, user_id: str | None, talk: str | None = None) -> asyncio.Lock:
    """Held while what is written depends on what a user's memories are, or those of a talk."""
    loop = id(asyncio.get_running_loop())
    key = loop, shelf.backend.name, shelf.collection.name, shelf.tenant, user_id, talk
    lock = _LOCKS.get(key)
    if lock is None:
        lock = _LOCKS[key] = asyncio.Lock()
    return lock
