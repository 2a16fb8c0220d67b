"""Sessions: threads of conversation that branch, merge, expire and are shared."""

from haive.core.persistence.session._presence import SessionPresence
from haive.core.persistence.session.config import SessionConfig
from haive.core.persistence.session.manager import SessionManager
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
from haive.core.persistence.session.session import (
    Merge,
    MergedRange,
    Permission,
    PreviousSession,
    Session,
    SessionMessage,
    SessionPage,
    SessionStatus,
)

__all__ = [
    "ConflictResolution",
    "DroppedMessage",
    "Merge",
    "MergeConflict",
    "MergeEntry",
    "MergePlan",
    "MergeStrategy",
    "MergeSummary",
    "MergedRange",
    "MessageRef",
    "Permission",
    "PreviousSession",
    "Session",
    "SessionConfig",
    "SessionManager",
    "SessionMessage",
    "SessionPage",
    "SessionPresence",
    "SessionStatus",
    "ThreadingStrategy",
]
