"""What a caller calls a conversation, as one that is remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from haive.core.persistence._encoding import as_uuid
from haive.core.persistence.errors import InvalidInputError, NotFoundError
from haive.core.persistence.models import Conversation, Message, aware
from haive.core.persistence.session import SessionManager, SessionMessage
from haive.core.persistence.vector._arguments import checked_name
from haive.core.persistence.vector._conversations import Talk, Turn
from haive.core.persistence.vector._ids import EPOCH, derived_id
from haive.core.persistence.vector._values import to_json_value
from haive.core.persistence.vector.models import CONSOLIDATION, OURS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haive.core.persistence.store import Store

#: What of a memory a caller says by its name in the metadata; everything else of ours is found out.
GIVEN = frozenset(
    {"user_id", "conversation_id", "speaker", "role", "timestamp", "importance", "trust", "writer",
     "valid_from", "valid_to", "expires_at"}
)  # fmt: skip
# Messages give these themselves.
_OF_TURNS = frozenset({"speaker", "role", "valid_from", "valid_to"})
_PAGE = 500


async def talk_of(
    conversation: object,
    metadata: Mapping[str, Any],
    store: Callable[[], Awaitable[Store]],
    at_hand: Store | None,
) -> Talk:
    """The conversation to remember.

    Args:
        conversation: A `Conversation`, its id, or its messages: `Message`, or mappings with
            ``role`` and ``content`` and, where known, ``speaker`` (or ``name``), ``timestamp`` (or
            ``created_at``), ``id`` and ``importance``.
        metadata: The caller's.
        store: Opens the store that messages are read from.
        at_hand: The one that is there, where messages that are given are looked up.

    Raises:
        InvalidInputError: It is nothing of these, or messages of several conversations.
        NotFoundError: There is no such conversation.
    """
    fields, rest = split(metadata)
    if refused := sorted(name for name in _OF_TURNS if fields.get(name) is not None):
        raise InvalidInputError(
            f"metadata has {', '.join(refused)}, which is not of a whole conversation.",
            hint="Messages say who spoke, and hold from when they were said.",
        )
    if CONSOLIDATION in rest:
        # A summary that has it is taken for a consolidation's, and replaced by the next one.
        raise InvalidInputError(f"metadata has {CONSOLIDATION}, which is not the caller's to say.")
    if isinstance(conversation, str | UUID):
        opened = await store()
        conversation = await opened.get_conversation(as_uuid(conversation, "conversation"))
    if isinstance(conversation, Conversation):
        messages: Sequence[object] | None = conversation.messages
        if messages is None or len(messages) < conversation.message_count:
            opened = await store()
            messages = await _read(conversation.id, opened)
        elif at_hand is not None:
            of_session = await _of_session(conversation.id, at_hand)
            messages = messages if of_session is None else of_session
        identity = str(conversation.id)
        if str(fields.get("conversation_id") or identity) != identity:
            raise InvalidInputError("metadata has another conversation_id than the conversation.")
        user_id, began = conversation.user_id, conversation.created_at
    elif isinstance(conversation, Sequence) and not isinstance(conversation, bytes):
        messages = list(conversation)
        if at_hand is not None:
            messages = await _as_in_session(messages, fields.get("conversation_id"), at_hand)
        identity, user_id, began = "", None, None
    else:
        raise InvalidInputError(
            f"conversation is a {type(conversation).__name__}.",
            hint="Give a Conversation, its id, or a list of messages.",
        )
    turns = [
        turn_of(message, number)
        for number, message in enumerate(messages, 1)
        if not (isinstance(message, SessionMessage) and message.hidden)
    ]
    if not identity:
        identity = str(fields.get("conversation_id") or _named_by(messages, turns))
        began = next((turn.at for turn in turns if turn.at is not None), None)
    return Talk(
        id=identity,
        user_id=fields.pop("user_id", None) or user_id,
        began=began,
        turns=turns,
        fields={
            name: value
            for name, value in fields.items()
            if name not in _OF_TURNS and name != "conversation_id"
        },
        metadata=to_json_value(rest, "metadata"),
    )


async def _read(conversation_id: UUID, store: Store) -> Sequence[Message]:
    """All messages that there are to see; of a branch those that it begins with as well."""
    found = await _of_session(conversation_id, store)
    if found is not None:
        return found
    return [message async for message in store.iter_messages(conversation_id)]


async def _of_session(session_id: UUID, store: Store) -> Sequence[Message] | None:
    """All messages of a session; None where there is no such session."""
    try:
        return [message async for message in SessionManager(store).iter_messages(session_id)]
    except NotFoundError:
        return None


async def _as_in_session(
    messages: Sequence[object], named: str | None, store: Store
) -> Sequence[object]:
    """Messages of a session where they stand in it, without what was hidden since.

    Stored, those of a branch count from 1, as what it begins with does.
    """
    plain = {
        message.id: message
        for message in messages
        if isinstance(message, Message) and not isinstance(message, SessionMessage)
    }
    stored = [*{message.conversation_id for message in plain.values()}]
    if len(stored) != 1 or named not in {None, str(stored[0])}:
        return messages
    seen = await _in_session(stored[0], plain, store)
    if seen is None:
        return messages
    placed: list[object] = []
    for message in messages:
        if not isinstance(message, Message) or message.id not in plain:
            placed.append(message)
        elif message.id in seen:
            placed.append(seen[message.id])
    return placed


async def _in_session(
    session_id: UUID, wanted: Mapping[UUID, Message], store: Store
) -> dict[UUID, Message] | None:
    """Those of a session's own messages that are to be seen, with what they are given to say."""
    manager = SessionManager(store)
    try:
        count = (await manager.get_session(session_id)).message_count
    except NotFoundError:
        return None
    first = min(message.seq for message in wanted.values())
    found: dict[UUID, Message] = {}
    # From the end, as what is given is often new. By indexes: a page may be all hidden.
    for start in range((count - 1) // _PAGE * _PAGE, -1, -_PAGE):
        page = await manager.messages(
            session_id, after=start, before=start + _PAGE + 1, limit=_PAGE
        )
        for message in page:
            if message.id in wanted:
                given = wanted[message.id]
                found[message.id] = message.model_copy(
                    update={"content": given.content, "metadata": given.metadata}
                )
        own = [message.seq for message in page if message.conversation_id == session_id]
        if len(found) == len(wanted) or (own and min(own) <= first):
            break
    return found


def split(metadata: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a caller's metadata is ours, checked, and the rest.

    Raises:
        InvalidInputError: It names what only this package writes, or has a value that is none.
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InvalidInputError(f"metadata is a {type(metadata).__name__}, not a mapping.")
    given = dict(metadata or {})
    if refused := sorted(set(given) & set(OURS) - GIVEN):
        raise InvalidInputError(
            f"metadata has {', '.join(refused)}, which is not the caller's to say."
        )
    fields = {name: given.pop(name) for name in sorted(GIVEN & set(given))}
    for name in ("timestamp", "valid_from", "valid_to", "expires_at"):
        if fields.get(name) is not None:
            fields[name] = _time(fields[name], name)
    if fields.get("importance") is not None:
        fields["importance"] = checked_importance(fields["importance"])
    if fields.get("user_id") is not None:
        fields["user_id"] = checked_user(fields["user_id"])
    for name in ("speaker", "role", "trust", "writer"):
        if not isinstance(fields.get(name), str | None):
            raise InvalidInputError(f"{name} is a text.")
    if fields.get("conversation_id") is not None:
        fields["conversation_id"] = checked_name(str(fields["conversation_id"]), "conversation_id")
    since, until = fields.get("valid_from"), fields.get("valid_to")
    if since is not None and until is not None and until < since:
        raise InvalidInputError("valid_to is before valid_from.")
    return fields, given


def checked_user(value: object) -> str:
    """Whose a memory is: a text, or a UUID.

    Raises:
        InvalidInputError: It is neither: as a number it would be nobody's.
    """
    if not isinstance(value, str | UUID):
        raise InvalidInputError("user_id is a text.")
    return str(value)


def checked_importance(value: object) -> float:
    """An importance.

    Raises:
        InvalidInputError: It is no number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidInputError("importance is a number from 0 to 1.")
    return float(value)


def turn_of(message: object, number: int) -> Turn:
    """One message as a turn."""
    if isinstance(message, Message):
        seen = message if isinstance(message, SessionMessage) else None
        return Turn(
            # Of two conversations that a branch is stored in, both count from 1.
            seq=message.seq if seen is None else seen.index,
            text=message.text,
            role=message.role.value,
            speaker=_speaker(message.metadata) or (None if seen is None else seen.author),
            at=message.created_at,
            stored_id=str(message.id),
            stored_in=str(message.conversation_id),
            numbered=True,
        )
    if isinstance(message, str):
        return Turn(seq=number, text=message)
    if not isinstance(message, Mapping):
        raise InvalidInputError(f"Message {number} is a {type(message).__name__}.")
    text = message.get("content", message.get("text"))
    if not isinstance(text, str):
        raise InvalidInputError(f"Message {number} has no text as its content.")
    at = message.get("timestamp", message.get("created_at"))
    role, seq = message.get("role"), message.get("seq", number)
    if isinstance(seq, bool) or not isinstance(seq, int) or not isinstance(role, str | None):
        raise InvalidInputError(f"Message {number} has a seq that is no number, or a role no text.")
    importance = message.get("importance")
    return Turn(
        seq=seq,
        text=text,
        role=None if role is None else str(role),
        speaker=_speaker(message),
        at=None if at is None else _time(at, f"The time of message {number}"),
        message_id=None if message.get("id") is None else str(message["id"]),
        importance=None if importance is None else checked_importance(importance),
        numbered="seq" in message,
    )


def _speaker(known: Mapping[str, Any]) -> str | None:
    found = known.get("speaker", known.get("name"))
    return found if isinstance(found, str) and found.strip() else None


def _time(value: object, name: str) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidInputError(f"{name} is no time.") from None
    if not isinstance(value, datetime):
        raise InvalidInputError(f"{name} is a {type(value).__name__}, not a time.")
    return aware(value)


def _named_by(messages: Sequence[object], turns: Sequence[Turn]) -> str:
    """A name for a conversation that has none: the same for the same messages.

    Raises:
        InvalidInputError: The messages are stored in several conversations.
    """
    stored = {str(m.conversation_id) for m in messages if isinstance(m, Message)}
    if len(stored) > 1:
        raise InvalidInputError(
            "The messages are of several conversations, as those of a branch are.",
            hint="Give the id of the session, or name theirs as conversation_id in the metadata.",
        )
    if stored:
        return stored.pop()
    said = [f"{turn.role}\x1e{turn.speaker}\x1e{turn.text}" for turn in turns]
    return derived_id(turns[0].at or EPOCH if turns else EPOCH, "talk", *said)
