"""From a draft to what the store takes: ids, defaults, and every bound checked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from asyncpg.pgproto import pgproto
from pydantic import TypeAdapter, ValidationError

from haive.core.persistence._encoding import MAX_JSON_BYTES, MAX_PARTS_BYTES, to_json
from haive.core.persistence._rows import MessageRow, message_row
from haive.core.persistence.errors import ContentTooLargeError, InvalidInputError
from haive.core.persistence.importing import ids
from haive.core.persistence.importing.records import ConversationDraft, MessageDraft, UnusableError
from haive.core.persistence.models import (
    ContentPart,
    ConversationMetadata,
    MessageRole,
    NewConversation,
    Timestamp,
    TokenUsage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROLES = {role.value: role for role in MessageRole}
_DEFAULT_AGENT = "imported"
_Model = TypeVar("_Model")
_PARTS: TypeAdapter[list[ContentPart]] = TypeAdapter(list[ContentPart])
_USAGE = TypeAdapter(TokenUsage)
_MOMENT: TypeAdapter[Timestamp] = TypeAdapter(Timestamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """What the caller says about all conversations of a file."""

    format: str
    agent: str | None = None
    user: str | None = None
    tags: Sequence[str] = ()
    source: str = ""


@dataclass(slots=True, kw_only=True)
class Prepared:
    """A conversation that is ready to be stored."""

    place: str
    id: UUID
    conversation: NewConversation
    messages: list[MessageRow] = field(default_factory=list)
    size: int = 0
    """About how many bytes its messages have."""
    ids: set[UUID] = field(default_factory=set)
    """Of its messages."""


def prepare(draft: ConversationDraft, number: int, settings: ImportSettings) -> Prepared:
    """Check a draft and give it its ids; messages that cannot be stored are noted in the draft.

    Args:
        draft: What the reader made.
        number: Which record of the file it is, for conversations without an id of their own.
        settings: What the caller says about all of them.

    Raises:
        UnusableError: The conversation cannot be stored, or has nothing to store.
    """
    if not draft.messages and not draft.may_be_empty:
        if draft.skipped and all(skipped.expected for skipped in draft.skipped):
            raise UnusableError("only hidden or empty messages", expected=True)
        raise UnusableError("no usable messages" if draft.skipped else "no messages")
    if draft.id is not None:
        conversation_id = _own_id(draft.id)
    else:
        key = _key(draft, number, settings)
        conversation_id = ids.conversation_id(settings.format, settings.source, key)
    prepared = Prepared(
        place=draft.place,
        id=conversation_id,
        conversation=_conversation(draft, conversation_id, settings),
    )
    for message in draft.messages:
        try:
            prepared.messages.append(_message(message, prepared))
        except UnusableError as error:
            draft.skip(str(error), message.position)
    if not prepared.messages and draft.messages:
        raise UnusableError("no usable messages")
    return prepared


def _key(draft: ConversationDraft, number: int, settings: ImportSettings) -> str:
    """What tells a conversation from the others of its source, today and at the next import."""
    if draft.key is not None:
        return f"id {draft.key}"
    if settings.source:
        return f"number {number}"
    said = [_fingerprint(message) for message in draft.messages]
    return f"content {ids.content_key(said)}"


def _fingerprint(message: MessageDraft) -> bytes:
    return message.role.encode(errors="surrogatepass") + b" " + _bytes(message.content)


def _bytes(content: str | list[dict[str, Any]]) -> bytes:
    if not isinstance(content, str):
        try:
            content = json.dumps(content, sort_keys=True)
        except (RecursionError, ValueError):
            return b""  # it will be refused for what it is
    return content.encode(errors="surrogatepass")


def _conversation(
    draft: ConversationDraft, conversation_id: UUID, settings: ImportSettings
) -> NewConversation:
    tags = [*draft.tags, *(tag for tag in settings.tags if tag not in draft.tags)]
    try:
        conversation = NewConversation(
            id=conversation_id,
            agent_id=settings.agent or draft.agent_id or _DEFAULT_AGENT,
            user_id=settings.user or draft.user_id,
            created_at=draft.created_at,  # type: ignore[arg-type] # pydantic reads ISO 8601
            metadata=ConversationMetadata(
                title=draft.title,
                tags=tags,
                context=draft.context,
                participants=draft.participants,
                settings=draft.settings,
            ),
        )
    except ValidationError as error:
        raise UnusableError(_invalid(error)) from None
    about = conversation.metadata.model_dump()
    about |= {"agent_id": conversation.agent_id, "user_id": conversation.user_id}
    for name in ("context", "settings"):
        if value := about.pop(name):
            _check_json(value, name, MAX_JSON_BYTES)
    _check_json(about, "the conversation", MAX_JSON_BYTES)
    return conversation


def _message(draft: MessageDraft, prepared: Prepared) -> MessageRow:
    role = _ROLES.get(draft.role)
    if role is None:
        raise UnusableError("unknown role")
    content: Any = draft.content
    if not isinstance(content, str):
        _check_json(content, "content", MAX_PARTS_BYTES)
        content = _valid(_PARTS, content, "content")
    usage = created_at = None
    if draft.token_usage is not None:
        usage = _valid(_USAGE, draft.token_usage, "token_usage")
    if draft.created_at is not None:
        created_at = _valid(_MOMENT, draft.created_at, "created_at")
    try:
        # What the store itself would make of it: from here on nobody looks at it again.
        row = message_row(
            prepared.id,
            role,
            content,
            draft.metadata,
            usage,
            _message_id(draft, prepared),
            created_at,
        )
    except (InvalidInputError, RecursionError) as error:
        raise UnusableError(reason(error)) from None
    prepared.size += row.weight
    prepared.ids.add(row.id)
    return row


def _message_id(draft: MessageDraft, prepared: Prepared) -> UUID:
    if draft.id is not None:
        given = _own_id(draft.id)
    elif draft.key is not None:
        given = ids.message_id(prepared.id, b"id", draft.key.encode(errors="surrogatepass"))
    else:
        given = None
    # An id that comes again does not tell what comes with it from what came before.
    if given is not None and given not in prepared.ids:
        return given
    # The content is in it, and the id before: where one message is the same, so are all that
    # stand before it, and what was changed at its source is another message.
    before = prepared.messages[-1].id if prepared.messages else None
    return ids.message_id(
        prepared.id,
        before.bytes if before else b"",
        draft.position.to_bytes(8, "big"),
        _fingerprint(draft),
    )


def _valid(adapter: TypeAdapter[_Model], value: object, name: str) -> _Model:
    try:
        valid: _Model = adapter.validator.validate_python(value)
    except ValidationError:
        raise UnusableError(f"{name} is not valid") from None
    return valid


def _own_id(text: str) -> UUID:
    try:
        return pgproto.UUID(text)  # a UUID, in a fifth of the time
    except ValueError:
        pass
    try:
        return UUID(text)
    except ValueError:
        raise UnusableError("an id that is no UUID") from None


def _check_json(value: object, name: str, limit: int) -> int:
    try:
        return len(to_json(value, name, limit))
    except (InvalidInputError, RecursionError) as error:
        raise UnusableError(reason(error)) from None


def reason(error: Exception) -> str:
    """Why something was refused, in words that are the same each time."""
    if isinstance(error, ContentTooLargeError):
        return "too large"
    if isinstance(error, InvalidInputError):
        return error.message.rstrip(".")
    return "nested too deeply"


def _invalid(error: ValidationError) -> str:
    """Which field is wrong: never its value, which is somebody's data."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = next((part for part in first["loc"] if isinstance(part, str)), "it")
    return f"{where} is not valid"
