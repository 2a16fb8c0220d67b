"""Messages to make sessions of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from haive.core.persistence.models import Content, Message, MessageRole

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PRIMARY, SECONDARY, ROOT = UUID(int=1), UUID(int=2), UUID(int=9)


def message(
    conversation: UUID,
    seq: int,
    role: str,
    content: Content,
    *,
    at: float | None = None,
) -> Message:
    """A message as it is stored; a minute after the one before it, unless told."""
    return Message(
        id=UUID(int=conversation.int * 1_000_000 + seq),
        conversation_id=conversation,
        seq=seq,
        role=MessageRole(role),
        content=content,
        metadata={},
        created_at=BEGIN + timedelta(minutes=seq if at is None else at),
    )


def tail(
    conversation: UUID, *said: tuple[str, Content], start: int = 1, at: float = 0.0
) -> list[Message]:
    """Messages one after the other: `("user", "text")`."""
    return [
        message(conversation, start + place, role, content, at=at + place)
        for place, (role, content) in enumerate(said)
    ]
