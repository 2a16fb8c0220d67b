"""What sessions are made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from uuid import UUID

    from haive.core.persistence.models import Message


class ThreadingStrategy(StrEnum):
    """How the session of a message is found."""

    TOPIC_BASED = "topic_based"
    """The one whose topic it is of."""
    TIME_BASED = "time_based"
    """The latest one, unless it has rested for too long."""
    LINEAR = "linear"
    """The latest one."""
    MANUAL = "manual"
    """The one that the caller names."""


class MergeStrategy(StrEnum):
    """How two sessions become one."""

    APPEND = "append"
    """First what the primary one says, then what the secondary one says."""
    CHRONOLOGICAL = "chronological"
    """By time, each side in its own order."""
    PRIMARY_WINS = "primary_wins"
    """Where both answered the same, the primary's answer; then what else is new."""
    SECONDARY_WINS = "secondary_wins"
    """Where both answered the same, the secondary's answer; what else is new as it stands."""
    INTELLIGENT = "intelligent"
    """Aligned turn by turn: what is said twice goes, contradictions are resolved, a summary."""


class ConflictResolution(StrEnum):
    """What stays where the two sides contradict each other."""

    PRIMARY_WINS = "primary_wins"
    SECONDARY_WINS = "secondary_wins"
    LATEST = "latest"
    """What was said last."""
    KEEP_BOTH = "keep_both"


Side = Literal["primary", "secondary"]
DropReason = Literal["same_message", "near_duplicate", "conflict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRef:
    """A message, by its place."""

    conversation_id: UUID
    seq: int

    @classmethod
    def of(cls, message: Message) -> MessageRef:
        """Where a message stands."""
        return cls(conversation_id=message.conversation_id, seq=message.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeEntry:
    """A message of the merged session."""

    message: MessageRef
    side: Side
    """Where it comes from; what both have comes from the primary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedMessage:
    """A message that is not in the merged session."""

    message: MessageRef
    side: Side
    reason: DropReason
    because_of: MessageRef
    """The message that stays in its place."""
    similarity: float | None
    """How alike the two are, 0 to 1, and 1 for the same message; None if it was not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeConflict:
    """A prompt that both sides answered, and differently."""

    primary: tuple[MessageRef, ...]
    """What the primary answered."""
    secondary: tuple[MessageRef, ...]
    kept: Literal["primary", "secondary", "both"]
    reason: str
    """What contradicts what: ``numbers: 3 / 4``."""
    by: str
    """What found it: ``heuristic``, or the model's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSummary:
    """What a merge came to, in words."""

    text: str
    sources: tuple[MessageRef, ...]
    """The messages that it was drawn from, in their order."""
    by: str
    """``extractive``, or the model's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePlan:
    """What a merge does; nothing is done yet."""

    entries: tuple[MergeEntry, ...]
    """The messages after the common root, in their new order."""
    dropped: tuple[DroppedMessage, ...] = ()
    conflicts: tuple[MergeConflict, ...] = ()
    summary: MergeSummary | None = None
