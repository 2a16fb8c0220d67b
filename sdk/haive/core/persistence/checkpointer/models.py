"""What the checkpointer answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


@dataclass(frozen=True, kw_only=True)  # no slots: so a history fills them in at once
class Checkpoint:
    """A saved state, or what is known about it."""

    id: UUID
    thread_id: str
    namespace: str
    """Which part of the thread: empty, or the path of a subgraph."""
    branch: str
    seq: int
    """Rises along the history of a thread."""
    parent_id: UUID | None
    created_at: datetime
    failed: bool
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    size: int
    """Bytes of the state before compression."""
    stored_bytes: int
    """Bytes that the state takes in the database."""
    depth: int
    """How many deltas lie between it and a state that is stored whole; 0: it is one itself."""
    encrypted: bool
    schema_hash: str | None = None
    state: Any = field(default=None, repr=False)
    """The state, where it was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """A line of checkpoints."""

    id: UUID
    name: str
    head_id: UUID | None
    """Its last checkpoint, before its first the one that it begins at; None where all are gone."""
    root_id: UUID | None
    """The checkpoint that it begins at; None for what begins a thread."""
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Thread:
    """A thread, and what its checkpoints come to."""

    thread_id: str
    user_id: str | None
    namespaces: tuple[str, ...]
    branches: int
    checkpoints: int
    stored_bytes: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What `Checkpointer.prune` did, or would do."""

    threads: int
    """How many lost something, each once whatever its namespaces."""
    removed: int
    rewritten: int
    """Survivors that were stored anew, because what they were a delta against is gone."""
