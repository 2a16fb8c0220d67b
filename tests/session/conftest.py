"""Messages to make sessions of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from haive.core.persistence.models import Content, Message, MessageRole

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Talk:
    """Makes messages as they are stored."""

    primary = UUID(int=1)
    secondary = UUID(int=2)
    root = UUID(int=9)

    def message(
        self, conversation: UUID, seq: int, role: str, content: Content, *, at: float | None = None
    ) -> Message:
        """One message; at the minute of its place, unless told."""
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
        self, conversation: UUID, *said: tuple[str, Content], start: int = 1, at: float = 0.0
    ) -> list[Message]:
        """Messages one after the other, from ``("user", "text")``."""
        return [
            self.message(conversation, start + place, role, content, at=at + place)
            for place, (role, content) in enumerate(said)
        ]


@pytest.fixture(scope="session")
def talk() -> Talk:
    return Talk()
