"""Plain dialogues: `{"id", "services", "turns": [{"speaker", "text"}]}`."""

from __future__ import annotations

from haive.core.persistence.importing.records import (
    ConversationDraft,
    MessageDraft,
    UnusableError,
    as_list,
    as_object,
    as_text,
)

# "system" is here the one that answers, as in the literature on dialogue systems.
_ROLES = {
    "agent": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "system": "assistant",
    "user": "user",
}
_KNOWN = {"id", "services", "turns"}


def draft(value: object, place: str) -> ConversationDraft:
    """Make a conversation of a dialogue; its services become tags.

    Raises:
        UnusableError: It is no dialogue.
    """
    record = as_object(value, "the record")
    if "turns" not in record:
        raise UnusableError("no turns")
    key = as_text(record.get("id"))
    services = record.get("services")
    source = {"format": "dialogues", "id": key}
    extra = {name: field for name, field in record.items() if name not in _KNOWN}
    conversation = ConversationDraft(
        place=place,
        key=key,
        tags=[tag for tag in map(as_text, services) if tag] if isinstance(services, list) else [],
        context={"source": source, **extra},
    )
    for position, turn in enumerate(as_list(record["turns"], "turns"), 1):
        try:
            conversation.messages.append(_message(turn, position))
        except UnusableError as error:
            conversation.skip(str(error), position)
    return conversation


def _message(value: object, position: int) -> MessageDraft:
    turn = as_object(value, "a turn")
    speaker = turn.get("speaker")
    role = _ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise UnusableError("unknown speaker")
    text = turn.get("text")
    if not isinstance(text, str):
        raise UnusableError("no text")
    extra = {name: field for name, field in turn.items() if name not in {"speaker", "text"}}
    return MessageDraft(position=position, role=role, content=text, metadata=extra)
