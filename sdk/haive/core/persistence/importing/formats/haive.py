"""Our own lines: one conversation each, with all that is stored of it and its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import json_bytes
from haive.core.persistence.importing.records import (
    ConversationDraft,
    MessageDraft,
    UnusableError,
    as_list,
    as_object,
    as_text,
)

if TYPE_CHECKING:
    from haive.core.persistence.models import Conversation, Message

VERSION = 1


def draft(value: object, place: str) -> ConversationDraft:
    """Make the conversation that `line` wrote.

    Raises:
        UnusableError: It is none.
    """
    record = as_object(value, "the record")
    version = record.get("haive", VERSION)
    if version != VERSION:
        raise UnusableError("written by a newer version of haive")
    metadata = as_object(record.get("metadata") or {}, "metadata")
    conversation = ConversationDraft(
        place=place,
        id=as_text(record.get("id")),
        agent_id=record.get("agent_id"),
        user_id=record.get("user_id"),
        title=metadata.get("title"),
        tags=as_list(metadata.get("tags") or [], "tags"),
        context=as_object(metadata.get("context") or {}, "context"),
        participants=as_list(metadata.get("participants") or [], "participants"),
        settings=as_object(metadata.get("settings") or {}, "settings"),
        created_at=as_text(record.get("created_at")),
        may_be_empty=True,
    )
    for position, message in enumerate(as_list(record.get("messages") or [], "messages"), 1):
        try:
            conversation.messages.append(_message(message, position))
        except UnusableError as error:
            conversation.skip(str(error), position)
    return conversation


def _message(value: object, position: int) -> MessageDraft:
    record = as_object(value, "a message")
    usage = record.get("token_usage")
    return MessageDraft(
        position=position,
        id=as_text(record.get("id")),
        role=as_text(record.get("role")) or "",
        content=record.get("content", ""),
        metadata=as_object(record.get("metadata") or {}, "metadata"),
        token_usage=None if usage is None else as_object(usage, "token_usage"),
        created_at=as_text(record.get("created_at")),
    )


def head(conversation: Conversation) -> bytes:
    """The begin of a conversation's line; messages and `TAIL` complete it."""
    record: dict[str, Any] = {
        "haive": VERSION,
        **conversation.model_dump(mode="json", exclude={"messages"}),
    }
    return json_bytes(record)[:-1] + b',"messages":['


def message(stored: Message) -> bytes:
    """A message of a conversation's line; a comma belongs between two of them."""
    return json_bytes(stored.model_dump(mode="json", exclude={"conversation_id"}))


TAIL = b"]}\n"
