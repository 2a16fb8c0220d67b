"""Messages on their way into a session, and into its successor where it is full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime  # noqa: TC003
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations

from pydantic import BaseModel, TypeAdapter, ValidationError

from haive.core.persistence._encoding import describe, new_id, to_json
from haive.core.persistence._rows import message_row
from haive.core.persistence.errors import (
    DatabaseError,
    InvalidInputError,
    PersistenceError,
    SessionClosedError,
    SessionFullError,
)
from haive.core.persistence.models import NewMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence.models import ContentPart, Message, MessageRole, TokenUsage
    from haive.core.persistence.session._calls import SessionCalls
    from haive.core.persistence.session.session import Session


class _Place(BaseModel):
    id: UUID
    seq: int
    created_at: datetime


_PLACES = TypeAdapter(list[_Place])
# How many successors a message follows: each is one that filled up since it was asked for.
_ATTEMPTS = 100
_LIMIT = 256 * 1024 * 1024


class Writer:
    """Adds messages to sessions.

    Args:
        calls: The way to them.
    """

    def __init__(self, calls: SessionCalls) -> None:
        self._calls = calls
        self._store = calls.store

    def row(  # noqa: PLR0917 - as message_row
        self,
        session_id: UUID | str,
        role: MessageRole | str,
        content: str | Sequence[ContentPart | dict[str, Any]],
        metadata: dict[str, Any] | None,
        token_usage: TokenUsage | dict[str, Any] | None,
        message_id: UUID | str | None,
        created_at: datetime | None,
    ) -> MessageRow:
        """A message, checked, and looked through where the store has a policy."""
        redactor = self._store._redactor
        if redactor is not None:
            content, metadata = redactor.message(content, metadata)
        return message_row(session_id, role, content, metadata, token_usage, message_id, created_at)

    async def add(self, row: MessageRow, as_user: str | None) -> Message:
        """Add one message; see `SessionManager.add_message`."""
        if as_user is not None:
            return (await self._add([row], as_user))[0]
        full: PersistenceError
        for _ in range(_ATTEMPTS):
            try:
                return await self._store._add_row(row)
            except SessionFullError as error:
                full = error
                successor = (await self.successor(row.conversation_id, None)).id
            except SessionClosedError as error:
                if error.successor_id is None:
                    raise
                full, successor = error, error.successor_id
            row = replace(row, conversation_id=successor)
        raise full

    async def add_many(
        self,
        session_id: UUID,
        messages: Sequence[NewMessage | Mapping[str, Any]],
        as_user: str | None,
    ) -> list[Message]:
        """Add several messages; see `SessionManager.add_messages`."""
        new = [self._message(session_id, each) for each in messages]
        rows = self._store._rows(new)
        return await self._add(rows, as_user) if rows else []

    @staticmethod
    def _message(session_id: UUID, message: NewMessage | Mapping[str, Any]) -> NewMessage:
        if isinstance(message, NewMessage):
            return message.model_copy(update={"conversation_id": session_id})
        if not isinstance(message, Mapping):
            raise InvalidInputError("A message is a NewMessage or a mapping.")
        try:
            return NewMessage.model_validate({**message, "conversation_id": session_id})
        except ValidationError as error:
            raise InvalidInputError(describe(error)) from None

    async def _add(self, rows: Sequence[MessageRow], as_user: str | None) -> list[Message]:
        full: PersistenceError
        for _ in range(_ATTEMPTS):
            try:
                return await self._write(rows, as_user)
            except SessionFullError as error:
                session = await self._calls.get(rows[0].conversation_id, as_user)
                if session.max_messages is not None and len(rows) > session.max_messages:
                    raise  # too many for any of them: none is begun in vain
                full = error
                successor = (await self.successor(session.id, as_user)).id
            except SessionClosedError as error:
                if error.successor_id is None:
                    raise
                full, successor = error, error.successor_id
            rows = [replace(row, conversation_id=successor) for row in rows]
        raise full

    async def _write(self, rows: Sequence[MessageRow], as_user: str | None) -> list[Message]:
        ready = await self._store._sealed(rows)
        places = await self._store._transport.call(
            "add_session_messages",
            {
                "session_id": rows[0].conversation_id,
                "messages": to_json([row.document() for row in ready], "messages", _LIMIT),
                "acting_user": as_user,
            },
            _PLACES,
            safe=True,
        )
        if len(places) != len(rows):
            raise DatabaseError("The answer of the database cannot be read.")
        return [
            row.stored(place.seq, place.created_at)
            for row, place in zip(ready, places, strict=True)
        ]

    async def successor(self, session_id: UUID, as_user: str | None) -> Session:
        """The session that one goes on in."""
        successor: dict[str, Any] = {"id": new_id()}
        if self._store._sealer is not None:
            successor = await self._store._conversation_document(
                successor | await self._calls.beginning(session_id, as_user)
            )
        return await self._calls.proceed(session_id, successor, as_user)
