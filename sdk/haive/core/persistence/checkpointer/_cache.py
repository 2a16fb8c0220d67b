"""The states that were saved or read last: what the next delta is made against."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from haive.core.persistence.checkpointer._chains import Known

# Most branches whose head is remembered: 200 bytes each.
_HEADS = 100_000


class StateCache:
    """States by thread, namespace and id, bounded in bytes; the oldest go first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._states: OrderedDict[tuple[str, str, UUID], Known] = OrderedDict()
        self._heads: OrderedDict[tuple[str, str, str], UUID] = OrderedDict()
        self.size = 0
        _CACHES.add(self)

    def get(self, thread_id: str, namespace: str, checkpoint_id: UUID) -> Known | None:
        """A state, if it is at hand."""
        key = (thread_id, namespace, checkpoint_id)
        known = self._states.get(key)
        if known is not None:
            self._states.move_to_end(key)
        return known

    def put(self, thread_id: str, namespace: str, known: Known) -> None:
        """Keep a state, at the cost of the oldest."""
        key = (thread_id, namespace, known.id)
        self._forget(key)
        if len(known.plain) > self.limit:
            return
        self._states[key] = known
        self.size += len(known.plain)
        while self.size > self.limit:
            _, oldest = self._states.popitem(last=False)
            self.size -= len(oldest.plain)

    def head(self, thread_id: str, namespace: str, branch: str) -> Known | None:
        """The state at the head of a branch, as far as is known here."""
        checkpoint_id = self._heads.get((thread_id, namespace, branch))
        return self.get(thread_id, namespace, checkpoint_id) if checkpoint_id else None

    def move_head(
        self, thread_id: str, namespace: str, branch: str, checkpoint_id: UUID | None
    ) -> None:
        """Remember the head of a branch; None forgets it."""
        key = (thread_id, namespace, branch)
        self._heads.pop(key, None)
        if checkpoint_id is not None:
            self._heads[key] = checkpoint_id
            if len(self._heads) > _HEADS:
                self._heads.popitem(last=False)

    def forget_thread(self, thread_id: str) -> None:
        """Drop what is known of a thread."""
        for key in [key for key in self._states if key[0] == thread_id]:
            self._forget(key)
        for head in [head for head in self._heads if head[0] == thread_id]:
            del self._heads[head]

    def _forget(self, key: tuple[str, str, UUID]) -> None:
        known = self._states.pop(key, None)
        if known is not None:
            self.size -= len(known.plain)


#: All there are in this process: what is erased is forgotten by whoever read it.
_CACHES: WeakSet[StateCache] = WeakSet()


def forget_everywhere(thread_ids: Iterable[str]) -> None:
    """Drop what any checkpointer of this process knows of these threads, of whatever tenant."""
    for thread_id in thread_ids:
        for cache in list(_CACHES):
            cache.forget_thread(thread_id)
