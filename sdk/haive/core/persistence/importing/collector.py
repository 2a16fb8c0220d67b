"""Keeps Python's collector of cycles from what an import holds, which has none."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# New objects from which on it looks through them. By its own measure (700 in Python 3.11) it went
# over the batches that wait to be written again and again: a third of an import's CPU. From here
# on not looking at all is no faster.
_OBJECTS = 100_000

_lock = Lock()
_imports = 0
_before = gc.get_threshold()


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Have the process collect seldom while the block runs; of several, until the last one ends.

    Where the program collects more seldom itself, or not at all, that stays as it is.
    """
    global _before, _imports  # noqa: PLW0603 - the collector is the process's too
    with _lock:
        _imports += 1
        if _imports == 1:
            _before = gc.get_threshold()
            first, *others = _before
            if 0 < first < _OBJECTS:
                gc.set_threshold(_OBJECTS, *others)
    try:
        yield
    finally:
        with _lock:
            _imports -= 1
            if _imports == 0:
                gc.set_threshold(*_before)
