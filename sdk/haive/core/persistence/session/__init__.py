"""Sessions: conversations in threads, with branches and merges."""

from haive.core.persistence.session.models import (
    ConflictResolution,
    DroppedMessage,
    MergeConflict,
    MergeEntry,
    MergePlan,
    MergeStrategy,
    MergeSummary,
    MessageRef,
    ThreadingStrategy,
)

__all__ = [
    "ConflictResolution",
    "DroppedMessage",
    "MergeConflict",
    "MergeEntry",
    "MergePlan",
    "MergeStrategy",
    "MergeSummary",
    "MessageRef",
    "ThreadingStrategy",
]
