"""Which checkpoints others are replayed from, and must not be pruned before them.

LangGraph's ``DeltaChannel`` stores the value of a channel in some checkpoints only. In the others
it is what the pending writes of their ancestors make of the last stored one, so these are part of
the state. The metadata counts the steps since then, for each such channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet
    from uuid import UUID

_COUNTERS = "counters_since_delta_snapshot"


def replayed_keys(metadata: Mapping[str, Any]) -> frozenset[str]:
    """The channels that the metadata of a checkpoint counts steps for."""
    counters = metadata.get(_COUNTERS)
    return frozenset(counters) if isinstance(counters, Mapping) else frozenset()


def absent_keys(envelope: object, keys: AbstractSet[str]) -> frozenset[str]:
    """Those of some channels that were written before a checkpoint and are not stored in it.

    Args:
        envelope: The state and what an adapter keeps beside it.
        keys: The channels.
    """
    if not isinstance(envelope, list) or len(envelope) != 2:
        return frozenset()
    state, extra = envelope
    checkpoint = extra.get("langgraph") if isinstance(extra, Mapping) else None
    if not isinstance(checkpoint, Mapping) or not isinstance(state, Mapping):
        return frozenset()
    return frozenset(keys & checkpoint.get("channel_versions", {}).keys() - state.keys())


def replayed_from(
    parents: Mapping[UUID, UUID | None],
    absent: Mapping[UUID, frozenset[str]],
    kept: Iterable[UUID],
) -> set[UUID]:
    """The ancestors that some checkpoints are replayed from.

    Args:
        parents: Each checkpoint's parent; None begins a thread.
        absent: The channels that each one does not store, though they were written.
        kept: The checkpoints.
    """
    needed: set[UUID] = set()
    for checkpoint_id in kept:
        missing = absent.get(checkpoint_id, frozenset())
        ancestor = parents.get(checkpoint_id)
        while missing and ancestor is not None:
            needed.add(ancestor)
            missing &= absent.get(ancestor, frozenset())
            ancestor = parents.get(ancestor)
    return needed
