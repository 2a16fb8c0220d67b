"""Sessions and their messages as they are stored."""

from __future__ import annotations

from datetime import datetime, timedelta  # noqa: TC003 - pydantic reads the annotations
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID  # noqa: TC003

from pydantic import BaseModel, ConfigDict, Field

from haive.core.persistence.models import Message


class SessionStatus(StrEnum):
    """Whether a session takes messages."""

    OPEN = "open"
    CLOSED = "closed"
    """Somebody closed it."""
    EXPIRED = "expired"
    """Nobody wrote to it for its ttl."""
    MERGED = "merged"
    """Its messages went into another session."""
    CONTINUED = "continued"
    """It was full, and goes on in its successor."""


class Permission(StrEnum):
    """What a participant may do in a session. The owner, whose ``user_id`` it has, may do all."""

    READ = "read"
    """See it, its messages and who else is there."""
    WRITE = "write"
    """Add messages, change its state, close it, merge it."""
    MODERATE = "moderate"
    """Hide messages, change permissions, remove participants."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Session(_Value):
    """A thread of a conversation. Its id is that of the conversation with its own messages."""

    id: UUID
    tenant_id: str
    agent_id: str
    user_id: str | None
    """Who owns it."""
    status: SessionStatus
    """At the moment when it was read."""
    title: str | None
    tags: list[str]
    context: dict[str, Any]
    """What it began with; of a branch, that of its parents with its own on top. Of parents that the
    caller does not see, there is none."""
    branch_context: dict[str, Any]
    """What of the context is the branch's own; empty where there is no parent."""
    state: dict[str, Any]
    """What participants share beside messages; see `SessionManager.update_state`."""
    version: datetime
    """Changes with the state, the context and who takes part: for compare-and-set."""
    message_count: int
    """How many messages it has, those that it shares with its parents included."""
    parent_id: UUID | None
    branch_index: int
    """How many messages it shares with its parent."""
    predecessor_id: UUID | None
    """The session that it continues."""
    successor_id: UUID | None
    """The session that it is continued in."""
    merged_into: UUID | None
    """The session that has its messages; None too where that was deleted."""
    live: bool
    """Whether its changes can be watched."""
    topic: str
    """The private realtime topic that its participants meet on; a new one when one is removed."""
    ttl: int | None
    """Seconds that it stays open after ``active_at``."""
    max_messages: int | None
    permissions: dict[str, list[Permission]]
    """What each participant may do; the owner is not among them."""
    created_at: datetime
    active_at: datetime
    """When somebody wrote to it, touched it or opened it last."""
    idle: timedelta
    """How long ago that was when it was read, by the database's clock."""
    expires_at: datetime | None
    closed_at: datetime | None
    merge: Merge | None = None
    """The merge that it comes from, where `SessionManager.merge_sessions` returned it."""

    @property
    def is_open(self) -> bool:
        """Whether it took messages when it was read."""
        return self.status is SessionStatus.OPEN

    def may(self, user_id: str, permission: Permission | str) -> bool:
        """Whether a user may do something in it."""
        return user_id == self.user_id or permission in self.permissions.get(user_id, ())


class SessionMessage(Message):
    """A message where it stands in a session.

    ``conversation_id`` and ``seq`` say where it is stored: of what a branch shares with its parent,
    in the parent.
    """

    index: int
    """1, 2, 3 … in the session. What is hidden or erased leaves a gap."""
    author: str | None = None
    """Who wrote it, where that was verified."""
    hidden: bool = False
    """Whether a moderator hid it; only moderators are shown such ones."""


class MergedRange(_Value):
    """Messages of a merged session that follow each other in one conversation."""

    conversation_id: UUID
    first_seq: int
    last_seq: int


class Merge(_Value):
    """The record of a merge: places of messages, and no content."""

    id: UUID
    session_id: UUID
    """The primary session, which has the messages of both since."""
    secondary_id: UUID
    strategy: str
    conflict_resolution: str
    root_count: int
    """How many messages the two had in common at their beginning."""
    entries: list[MergedRange]
    """What came from where, after the common beginning, in order."""
    dropped: list[dict[str, Any]]
    """What was left out: its place, ``reason``, ``because_of`` and ``similarity``."""
    conflicts: list[dict[str, Any]]
    """Where both answered the same differently, and what was kept."""
    summary_seq: int | None
    """The place of the summary among the primary's own messages."""
    summary_of: list[dict[str, Any]]
    """The messages that the summary was drawn from."""
    created_at: datetime
    undone_at: datetime | None


class SessionPage(list[Session]):
    """Sessions in order, and where the next page begins."""

    next_page: str | None

    def __init__(self, items: list[Session] | None = None, *, next_page: str | None = None) -> None:
        super().__init__(items or [])
        self.next_page = next_page


class PreviousSession(_Value):
    """A session that another one names in ``context["previous_sessions"]``."""

    id: str
    """As it is named there."""
    session: Session | None = None
    """None where there is none, or none that the caller may see."""
    messages: list[SessionMessage] = Field(default_factory=list)
    """Its last ones."""


Synchronization = Literal["real-time", "on-demand"]

Session.model_rebuild()
