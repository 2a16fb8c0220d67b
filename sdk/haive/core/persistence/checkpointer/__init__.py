"""Checkpoints: states of a workflow with their history, branches and differences."""

from haive.core.persistence._keys import KeyRing
from haive.core.persistence.checkpointer._diff import Change, ChangeKind, Difference
from haive.core.persistence.checkpointer.checkpointer import Checkpointer
from haive.core.persistence.checkpointer.config import (
    CheckpointConfig,
    CheckpointStrategy,
    RecoveryPolicy,
)
from haive.core.persistence.checkpointer.models import Branch, Checkpoint, Pruned, Thread

__all__ = [
    "Branch",
    "Change",
    "ChangeKind",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointStrategy",
    "Checkpointer",
    "Difference",
    "KeyRing",
    "Pruned",
    "RecoveryPolicy",
    "Thread",
]
