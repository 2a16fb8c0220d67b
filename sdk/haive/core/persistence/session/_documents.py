"""From what the database answers to sessions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from haive.core.persistence.models import (  # noqa: TC001
    Conversation,
    ConversationMetadata,
    Message,
)
from haive.core.persistence.session.session import (
    Permission,
    Session,
    SessionMessage,
    SessionStatus,
)

if TYPE_CHECKING:
    from haive.core.persistence._sealing import ContentKeys


class Inherited(BaseModel):
    """What a session has of one that it branched off, where the caller sees that."""

    model_config = ConfigDict(hide_input_in_errors=True)

    metadata: ConversationMetadata
    shared: bool
    """Whether all who see the session see that one, too."""


class SessionDocument(BaseModel):
    """What `haive_private.session_doc` makes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: UUID
    tenant_id: str
    status: SessionStatus
    message_count: int
    parent_id: UUID | None
    branch_index: int
    segment: int
    predecessor_id: UUID | None
    successor_id: UUID | None
    merged_into: UUID | None
    live: bool
    topic: str
    ttl: int | None
    max_messages: int | None
    active_at: datetime
    idle: float
    expires_at: datetime | None
    closed_at: datetime | None
    permissions: dict[str, list[Permission]]
    conversation: Conversation
    inherited: list[Inherited]

    def session(self) -> Session:
        """The session, with the contexts that it inherits beneath its own."""
        own = self.conversation.metadata
        return Session(
            agent_id=self.conversation.agent_id,
            user_id=self.conversation.user_id,
            title=own.title,
            tags=own.tags,
            context=self._context(self.inherited),
            branch_context=own.context if self.parent_id is not None else {},
            state=own.settings,
            version=self.conversation.updated_at,
            created_at=self.conversation.created_at,
            idle=timedelta(seconds=self.idle),
            **self.model_dump(exclude={"conversation", "inherited", "segment", "idle"}),
        )

    def beginning(self) -> dict[str, Any]:
        """What a successor begins with: of what is inherited, what all see who see the session."""
        own = self.conversation.metadata
        shared = [each for each in self.inherited if each.shared]
        return {"title": own.title, "context": self._context(shared), "settings": own.settings}

    def _context(self, inherited: list[Inherited]) -> dict[str, Any]:
        context: dict[str, Any] = {}
        for each in reversed(inherited):
            context |= each.metadata.context
        return context | self.conversation.metadata.context


class PageDocument(BaseModel):
    """What `list_sessions` answers."""

    sessions: list[SessionDocument]
    next_page: str | None


class TailsDocument(BaseModel):
    """What `read_merge` answers."""

    root_count: int
    segments: list[int]
    counts: list[int]
    primary: list[Message]
    secondary: list[Message] = Field(default_factory=list)


SESSION = TypeAdapter(SessionDocument)
SESSIONS = TypeAdapter(list[SessionDocument])
PAGE = TypeAdapter(PageDocument)
MESSAGES = TypeAdapter(list[SessionMessage])
TAILS = TypeAdapter(TailsDocument)


def open_session(keys: ContentKeys, document: dict[str, Any]) -> dict[str, Any]:
    """A session of the database's with what is sealed in it."""
    return {
        **document,
        "conversation": keys.open_conversation(document["conversation"]),
        "inherited": keys.open_conversations(document["inherited"]),
    }


def open_sessions(keys: ContentKeys, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Many of them."""
    return [open_session(keys, document) for document in documents]


def open_page(keys: ContentKeys, page: dict[str, Any]) -> dict[str, Any]:
    """A page of them."""
    return {**page, "sessions": open_sessions(keys, page["sessions"])}


def open_tails(keys: ContentKeys, tails: dict[str, Any]) -> dict[str, Any]:
    """The messages of two sessions with their content."""
    return {
        **tails,
        "primary": keys.open_messages(tails["primary"]),
        "secondary": keys.open_messages(tails["secondary"]),
    }
