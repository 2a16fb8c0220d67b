"""Which namespaces of a thread are calls of subgraphs that nothing goes back to any more.

LangGraph saves each call of a subgraph in a namespace of its own, which has the id of a task after
a colon. Its metadata name the checkpoints that it was called from. A subgraph with a memory of its
own, which has a namespace without a task, outlives its calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_TASK = ":"


def is_call(namespace: str) -> bool:
    """Whether a namespace is that of one call."""
    return _TASK in namespace


def is_lost(metadata: Mapping[str, Any], saved: Mapping[str, AbstractSet[UUID]]) -> bool:
    """Whether a checkpoint that a call was made from is gone.

    A run saves while it goes on, so what is not there may be on its way: only what was saved before
    something that is there has gone.

    Args:
        metadata: Those of the last checkpoint of the call.
        saved: The ids of the checkpoints of each namespace.
    """
    parents = metadata.get("parents")
    if not isinstance(parents, Mapping):
        return False
    for namespace, parent in parents.items():
        ids = saved.get(namespace)
        if not ids:
            continue
        with suppress(TypeError, ValueError, AttributeError):
            parent_id = UUID(parent)
            if parent_id not in ids and parent_id < max(ids):
                return True
    return False
