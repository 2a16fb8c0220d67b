"""A message between the caller and the database."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from haive.core.persistence._encoding import (
    MAX_CONTENT_BYTES,
    MAX_PARTS_BYTES,
    as_uuid,
    check_text,
    decoded,
    describe,
    new_id,
    object_to_json,
    to_json,
)
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.models import (
    ContentPart,
    Message,
    MessageRole,
    NewMessage,
    TokenUsage,
    aware,
    text_of,
)

if TYPE_CHECKING:
    from uuid import UUID

    from haive.core.persistence._encoding import Document

_set = object.__setattr__
ROLES: dict[object, MessageRole] = {role.value: role for role in MessageRole}
PARTS: TypeAdapter[list[ContentPart]] = TypeAdapter(list[ContentPart])


@dataclass(slots=True)  # not frozen: a third of the time to make one
class MessageRow:
    """A message that has been checked and encoded."""

    conversation_id: UUID
    id: UUID
    role: MessageRole
    text: str
    content: str | list[ContentPart]
    parts: str | None
    metadata: str | None
    usage: TokenUsage | None
    created_at: datetime | None
    sealed: bytes | None = None
    sealed_with: str | None = None
    #: The row that was sealed, which its caller knows.
    plain: MessageRow | None = None

    @property
    def weight(self) -> int:
        """About how many bytes it takes on the way."""
        if self.sealed is not None:
            return len(self.sealed)
        return len(self.text) + len(self.parts or "") + len(self.metadata or "")

    def stored(self, seq: int, created_at: datetime) -> Message:
        """The message as it now is in the database."""
        if self.plain is not None:
            return self.plain.stored(seq, created_at)
        # Everything in it was checked on the way in: 1 µs, where model_construct takes 5.
        message = Message.__new__(Message)
        values = {
            "id": self.id,
            "conversation_id": self.conversation_id,
            "seq": seq,
            "role": self.role,
            "content": self.content,
            "metadata": decoded(self.metadata),
            "token_usage": self.usage,
            "created_at": created_at,
        }
        _set(message, "__dict__", values)
        _set(message, "__pydantic_fields_set__", set(values))
        _set(message, "__pydantic_extra__", None)
        _set(message, "__pydantic_private__", None)
        return message

    def document(self) -> dict[str, Any]:
        """The row as `add_messages` takes it as JSON."""
        document: dict[str, Any] = {
            "conversation_id": str(self.conversation_id),
            "id": str(self.id),
            "role": self.role.value,
            "content": self.text,
        }
        if self.parts is not None:
            document["parts"] = json.loads(self.parts)
        if self.metadata is not None:
            document["metadata"] = json.loads(self.metadata)
        if self.sealed is not None:
            document["sealed"] = b64encode(self.sealed).decode("ascii")
            document["sealed_with"] = self.sealed_with
        if self.usage is not None:
            document |= {
                "input_tokens": self.usage.input_tokens,
                "output_tokens": self.usage.output_tokens,
                "model": self.usage.model,
                "cost": None if self.usage.cost is None else str(self.usage.cost),
            }
        if self.created_at is not None:
            document["created_at"] = self.created_at.isoformat()
        return document


def message_row(  # noqa: PLR0917 - one call for each message: keywords cost 0.3 µs
    conversation_id: UUID | str,
    role: MessageRole | str,
    content: str | Sequence[ContentPart | dict[str, Any]],
    metadata: dict[str, Any] | None,
    token_usage: TokenUsage | dict[str, Any] | None,
    message_id: UUID | str | None,
    created_at: datetime | None,
) -> MessageRow:
    """Check and encode a message.

    Raises:
        InvalidInputError: Something in it cannot be stored.
        ContentTooLargeError: Something in it is over its limit.
    """
    try:
        known = ROLES.get(role)
    except TypeError:  # a list, a dict: nothing that could be looked up
        known = None
    if known is None:
        raise InvalidInputError(f"role is one of {', '.join(MessageRole)}.")
    parts = None
    if not isinstance(content, str):
        content = checked_parts(content)
        parts = json_of_parts(content)
    if token_usage is not None and not isinstance(token_usage, TokenUsage):
        try:
            token_usage = TokenUsage.model_validate(token_usage)
        except ValidationError as error:
            raise InvalidInputError(f"token_usage: {describe(error)}") from None
    if token_usage is not None and token_usage.model is not None:
        check_text(token_usage.model, "token_usage.model", 4 * 200)  # 200 characters
    return MessageRow(
        conversation_id=as_uuid(conversation_id, "conversation_id"),
        id=new_id() if message_id is None else as_uuid(message_id, "id"),
        role=known,
        text=check_text(text_of(content), "content", MAX_CONTENT_BYTES),
        content=content,
        parts=parts,
        metadata=None if metadata in ({}, None) else object_to_json(metadata, "metadata"),
        usage=token_usage,
        created_at=_moment(created_at),
    )


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidInputError("created_at is no datetime.")
    return aware(value)


def row_of(message: NewMessage) -> MessageRow:
    """Check and encode a `NewMessage`."""
    return message_row(
        message.conversation_id,
        message.role,
        message.content,
        message.metadata,
        message.token_usage,
        message.id,
        message.created_at,
    )


def json_of_parts(parts: Sequence[ContentPart]) -> Document:
    """Parts as they are stored.

    Raises:
        InvalidInputError: Something in them has no JSON.
        ContentTooLargeError: They are over their limit.
    """
    # Not in the mode "json", which makes null of NaN, text of bytes, and leaves naive times naive.
    return to_json([part.model_dump() for part in parts], "content", MAX_PARTS_BYTES)


def checked_parts(content: object) -> list[ContentPart]:
    """The parts of a content.

    Raises:
        InvalidInputError: It has no parts, or not those that are known.
    """
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise InvalidInputError("content is text or a list of parts.")
    try:
        return PARTS.validate_python(list(content))
    except ValidationError as error:
        raise InvalidInputError(f"content: {describe(error)}") from None
