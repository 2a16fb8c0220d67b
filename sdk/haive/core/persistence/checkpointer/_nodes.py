"""Watches the nodes of running workflows, and says when the strategy saves."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import Any

from haive.core.persistence.checkpointer._search import shallow
from haive.core.persistence.checkpointer.config import CheckpointStrategy

# Most workflows that are watched at once; one that was forgotten begins to count anew.
_WATCHED = 10_000
# Characters of a text that is kept as it is.
_LONG_TEXT = 256

Where = tuple[str, str, str]


@dataclass(slots=True)
class _Watch:
    nodes: int = 0
    shape: dict[str, Any] | None = field(default=None)


class NodeWatch:
    """Counts nodes and notices changes, by thread, namespace and branch."""

    def __init__(self, strategy: CheckpointStrategy, interval: int) -> None:
        self._strategy = strategy
        self._interval = interval
        self._watches: OrderedDict[Where, _Watch] = OrderedDict()

    def wants(self, where: Where, state: object) -> bool:
        """Whether this state shall be saved, as far as can be told without packing it."""
        if self._strategy in {CheckpointStrategy.EVERY_NODE, CheckpointStrategy.ON_CHANGE}:
            return True
        watch = self._watches.setdefault(where, _Watch())
        self._watches.move_to_end(where)
        if len(self._watches) > _WATCHED:
            self._watches.popitem(last=False)
        watch.nodes += 1
        due = watch.nodes >= self._interval
        if self._strategy is CheckpointStrategy.INTERVAL:
            return due
        return due or watch.shape is None or shape(state) != watch.shape

    def saved(self, where: Where, state: object) -> None:
        """The state was saved, or equals the one that was."""
        if where in self._watches:
            self._watches[where].nodes = 0
            if self._strategy is CheckpointStrategy.ADAPTIVE:
                self._watches[where].shape = shape(state)

    def forget_thread(self, thread_id: str) -> None:
        """The thread was deleted: what comes under its name begins anew."""
        for where in [where for where in self._watches if where[0] == thread_id]:
            del self._watches[where]


def shape(state: object) -> dict[str, Any]:
    """The keys at the top of a state with their words, switches and members of enums: phases.

    Of long texts there is a hash, so that what is watched takes little memory.
    """
    return {str(key): _mark(value) for key, value in shallow(state, containers=True).items()}


def _mark(value: object) -> object:
    if isinstance(value, Enum) and not isinstance(value, str):
        return value.name  # also where its value is a number: it counts nothing
    if isinstance(value, str) and len(value) > _LONG_TEXT:
        return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return value if value is None or isinstance(value, str | bool) else ...
