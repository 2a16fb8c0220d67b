"""Which namespaces of a thread are calls of subgraphs that nothing goes back to any more.

LangGraph saves each call of a subgraph in a namespace of its own, which has the id of a task after
a colon. Its metadata name the checkpoints that it was called from. A subgraph with a memory of its
own, which has a namespace without a task, outlives its calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from haive.core.persistence.checkpointer._documents import Found

_TASK = ":"
# What a run may take that saves at its end.
_RUN = timedelta(days=1)


def is_call(namespace: str) -> bool:
    """Whether a namespace is that of one call."""
    return _TASK in namespace


def is_lost(metadata: Mapping[str, Any], seq: int, saved: Mapping[str, Mapping[UUID, int]]) -> bool:
    """Whether a checkpoint that a call was made from is gone.

    A run saves while it goes on, so what is not there may be on its way: only a call that was saved
    before something that is there has lost it. Ids do not tell, as not all are of one version.

    Args:
        metadata: Those of the last checkpoint of the call.
        seq: The place of that checkpoint.
        saved: The places of the checkpoints of each namespace, by their ids.
    """
    parents = metadata.get("parents")
    if not isinstance(parents, Mapping):
        return False
    for namespace, parent in parents.items():
        places = saved.get(namespace)
        if not places:
            continue
        with suppress(TypeError, ValueError, AttributeError):
            if UUID(parent) not in places and seq < max(places.values()):
                return True
    return False


def is_waiting(last: Found) -> bool:
    """Whether a call has begun a step that is not done: it was interrupted, or has failed.

    With durability="exit" such a call is saved, and what it was made from only when the run ends.
    Another run of the thread may save meanwhile, and it then looks as if that were gone.

    Args:
        last: The last checkpoint of the call, with its pending writes.
    """
    return bool(last.writes) and last.checkpoints[0].created_at > last.now - _RUN
