"""What a reader makes of a file: drafts of conversations, and what it left out and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

What = Literal["file", "conversation", "message", "part"]

_LAST_SECOND = datetime.max.replace(tzinfo=UTC).timestamp()


class UnusableError(Exception):
    """A record that cannot be imported; its text is the reason, without content of the record."""

    def __init__(self, reason: str, *, expected: bool = False) -> None:
        super().__init__(reason)
        #: As in `Skipped`.
        self.expected = expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something that is not imported.

    ``expected`` is what every file of the format has, such as ChatGPT's hidden messages: it is
    reported, and no fault.
    """

    what: What
    reason: str
    place: str
    expected: bool = False


@dataclass(slots=True, kw_only=True)
class MessageDraft:
    """A message as its source has it; parts are the dictionaries of `models.ContentPart`."""

    position: int
    """1, 2, 3 … in the source's conversation, those that are skipped included."""
    role: str
    content: str | list[dict[str, Any]]
    key: str | None = None
    """The source's own id of the message."""
    id: str | None = None
    """Our id, in a file of our own."""
    metadata: dict[str, Any] = field(default_factory=dict)
    token_usage: dict[str, Any] | None = None
    created_at: datetime | str | None = None


@dataclass(slots=True, kw_only=True)
class ConversationDraft:
    """A conversation as its source has it."""

    place: str
    """Where in the file it stands: "line 3"."""
    key: str | None = None
    """The source's own id of the conversation."""
    id: str | None = None
    """Our id, in a file of our own."""
    agent_id: str | None = None
    user_id: str | None = None
    title: str | None = None
    tags: list[str] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)
    participants: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    created_at: datetime | str | None = None
    messages: list[MessageDraft] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    may_be_empty: bool = False
    """Whether a conversation without messages is one, as in a file of our own."""

    def skip(
        self, reason: str, position: int, *, what: What = "message", expected: bool = False
    ) -> None:
        """Note that a message, or a part of it, is left out."""
        place = f"{self.place}, message {position}"
        self.skipped.append(Skipped(what=what, reason=reason, place=place, expected=expected))


def as_object(value: object, name: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        UnusableError: It is none.
    """
    if not isinstance(value, dict):
        raise UnusableError(f"{name} is no JSON object")
    return value


def as_list(value: object, name: str) -> list[Any]:
    """Return a JSON array.

    Raises:
        UnusableError: It is none.
    """
    if not isinstance(value, list):
        raise UnusableError(f"{name} is no JSON array")
    return value


def as_text(value: object) -> str | None:
    """Return a text that says something, or a number as one, or None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def as_time(value: object) -> datetime | None:
    """Return a time given in seconds or milliseconds since 1970 or as ISO 8601, or None."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        # As seconds they would be of a year after 9999.
        return datetime.fromtimestamp(value / 1000 if value > _LAST_SECOND else value, UTC)
    except (OverflowError, ValueError, OSError):
        return None
