"""The states that were saved or read last: what the next delta is made against."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from haive.core.persistence.checkpointer._chains import Known

#: What a state takes beside its own bytes, for its key, chain and places here: 610 to 840 bytes.
ENTRY_BYTES = 800
# Most branches whose head is remembered: 300 bytes each.
_HEADS = 100_000

_Key = tuple[str, str, "UUID | str"]


class StateCache:
    """States by thread, namespace and id, bounded in bytes; the oldest go first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._states: OrderedDict[_Key, Known] = OrderedDict()
        self._heads: OrderedDict[_Key, UUID] = OrderedDict()
        # The keys of both by thread: ids of states and names of branches are no equals.
        self._of_thread: dict[str, set[_Key]] = {}
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
        if _cost(known) > self.limit:
            return
        self._states[key] = known
        self._of_thread.setdefault(thread_id, set()).add(key)
        self.size += _cost(known)
        while self.size > self.limit:
            self._forget(next(iter(self._states)))

    def head(self, thread_id: str, namespace: str, branch: str) -> Known | None:
        """The state at the head of a branch, as far as is known here."""
        checkpoint_id = self._heads.get((thread_id, namespace, branch))
        return self.get(thread_id, namespace, checkpoint_id) if checkpoint_id else None

    def move_head(
        self, thread_id: str, namespace: str, branch: str, checkpoint_id: UUID | None
    ) -> None:
        """Remember the head of a branch; None forgets it."""
        key = (thread_id, namespace, branch)
        self._forget(key)
        if checkpoint_id is not None:
            self._heads[key] = checkpoint_id
            self._of_thread.setdefault(thread_id, set()).add(key)
            if len(self._heads) > _HEADS:
                self._forget(next(iter(self._heads)))

    def forget_thread(self, thread_id: str) -> None:
        """Drop what is known of a thread."""
        for key in list(self._of_thread.get(thread_id, ())):
            self._forget(key)

    def _forget(self, key: _Key) -> None:
        known = self._states.pop(key, None)
        if known is not None:
            self.size -= _cost(known)
        self._heads.pop(key, None)
        keys = self._of_thread.get(key[0])
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self._of_thread[key[0]]


def _cost(known: Known) -> int:
    return len(known.plain) + ENTRY_BYTES


#: All there are in this process: what is erased is forgotten by whoever read it.
_CACHES: WeakSet[StateCache] = WeakSet()


def forget_everywhere(thread_ids: Iterable[str]) -> None:
    """Drop what any checkpointer of this process knows of these threads, of whatever tenant."""
    for thread_id in thread_ids:
        for cache in list(_CACHES):
            cache.forget_thread(thread_id)
