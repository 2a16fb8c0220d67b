"""Checks of what a caller gives: each says what is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from haive.core.persistence._encoding import check_text
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.models import aware

_MAX_QUERY_BYTES = 64 * 1024
# What names a memory, a user or a conversation.
_MAX_NAME_BYTES = 64 * 1024


def checked_query(value: object) -> str:
    """What is looked for: a text that says something, up to 64 KiB."""
    if not isinstance(value, str):
        raise InvalidInputError(f"The query is a {type(value).__name__}, not a text.")
    if not value.strip():
        raise InvalidInputError("The query is empty.")
    return check_text(value, "The query", _MAX_QUERY_BYTES)


def checked_id(value: object, name: str = "id") -> str:
    """The id of a memory: a text, or a UUID."""
    if not isinstance(value, str | UUID):
        raise InvalidInputError(f"{name} is a {type(value).__name__}, not the id of a memory.")
    return checked_name(str(value), name)


def checked_ids(value: object, name: str = "ids") -> list[str]:
    """One id of a memory, or several."""
    if isinstance(value, str | UUID):
        return [checked_id(value, name)]
    if not isinstance(value, Iterable):
        raise InvalidInputError(f"{name} is a {type(value).__name__}, not ids of memories.")
    return [checked_id(each, name) for each in value]


def checked_name(value: str, name: str) -> str:
    """A text that the database can look up."""
    return check_text(value, name, _MAX_NAME_BYTES)


def checked_texts(value: object) -> list[str]:
    """Several texts; a single one is meant otherwise than letter by letter."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InvalidInputError(
            f"texts is a {type(value).__name__}, not a list of texts.", hint="For one there is add."
        )
    return list(value)


def checked_count(value: object, name: str, most: int) -> int:
    """How many: a whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidInputError(f"{name} is a whole number from 1 to {most:,}.")
    return value


def checked_share(value: object, name: str, *, above_0: bool = False) -> float:
    """A number from 0 to 1."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= 1
        or (above_0 and value == 0)
    ):
        bounds = "over 0 and up to" if above_0 else "from 0 to"
        raise InvalidInputError(f"{name} is a number {bounds} 1.")
    return float(value)


def checked_flag(value: object, name: str) -> bool:
    """Yes or no: what only seems to be one of them would be read as the other."""
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} is True or False.")
    return value


def checked_time(value: object, name: str) -> datetime:
    """A moment; a naive one is in UTC."""
    if not isinstance(value, datetime):
        raise InvalidInputError(f"{name} is a {type(value).__name__}, not a datetime.")
    return aware(value)


def checked_window(value: object) -> timedelta | None:
    """How far back: a time that is more than nothing."""
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise InvalidInputError(f"time_window is a {type(value).__name__}, not a timedelta.")
    if value <= timedelta(0):
        raise InvalidInputError("time_window is more than nothing.")
    return value
