"""Our own lines: one conversation each, with all that is stored of it and its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence._json import json_bytes
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
    from haive.core.persistence.session import Session

VERSION = 1
# What tells of a line that it is a session's; the rest of it is not exported.
_OF_SESSIONS = {"status", "parent_id", "branch_index"}


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
            found = as_object(message, "a message")
            if found.get("hidden") is True:
                # Only sessions hide: what is imported would show it to everybody.
                conversation.skip("hidden by a moderator", position, expected=True)
                continue
            conversation.messages.append(_message(found, position))
        except UnusableError as error:
            conversation.skip(str(error), position)
    return conversation


def _message(record: dict[str, Any], position: int) -> MessageDraft:
    usage = record.get("token_usage")
    own = as_text(record.get("id"))
    # The id of what is shared is its own where it is stored: here it makes another one.
    is_shared = "conversation_id" in record
    return MessageDraft(
        position=position,
        id=None if is_shared else own,
        key=own if is_shared else None,
        role=as_text(record.get("role")) or "",
        content=record.get("content", ""),
        metadata=as_object(record.get("metadata") or {}, "metadata"),
        token_usage=None if usage is None else as_object(usage, "token_usage"),
        created_at=as_text(record.get("created_at")),
    )


def head(conversation: Conversation, session: Session | None = None) -> bytes:
    """The begin of a conversation's line; messages and `TAIL` complete it."""
    record: dict[str, Any] = {
        "haive": VERSION,
        **conversation.model_dump(mode="json", exclude={"messages"}),
    }
    if session is not None:
        record["session"] = session.model_dump(mode="json", include=_OF_SESSIONS)
    return json_bytes(record)[:-1] + b',"messages":['


def message(stored: Message, session: Session | None = None) -> bytes:
    """A message of a conversation's line; a comma belongs between two of them.

    Of a session's, ``seq`` is where it stands in the session, and ``conversation_id`` says of what
    is shared where it is stored.
    """
    record = stored.model_dump(mode="json")
    if session is None or stored.conversation_id == session.id:
        del record["conversation_id"]
    if session is not None:
        record["seq"] = record.pop("index")
        if not record["hidden"]:
            del record["hidden"]
    return json_bytes(record)


TAIL = b"]}\n"
