"""What is asked for, checked where its name is known: the database says which type it wanted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from haive.core.persistence._encoding import whole_number
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.models import aware

_LISTS = frozenset({"tags", "any_tags", "participants"})
_COUNTS = frozenset({"min_messages", "max_messages"})
_TIMES = frozenset(
    f"{what}_{when}" for what in ("created", "updated", "active") for when in ("after", "before")
)


def checked_filters(filters: object) -> dict[str, Any]:
    """Filters of `Store.query_conversations`, with times that name their zone.

    Which filters there are, and what the other ones take, is for the database to say.

    Raises:
        InvalidInputError: A value is not what its filter takes.
    """
    if filters is None:
        return {}
    if not isinstance(filters, Mapping):
        raise InvalidInputError("filters is no mapping.")
    return {
        name: value if value is None else _checked(name, value) for name, value in filters.items()
    }


def _checked(name: object, value: object) -> object:
    if name in _TIMES:
        return _time(f"filter {name}", value).isoformat()
    if name in _COUNTS:
        return whole_number(value, f"filter {name}")
    if name in _LISTS:
        if not isinstance(value, list | tuple | set | frozenset) or not all(
            isinstance(each, str) for each in value
        ):
            raise InvalidInputError(f"filter {name} is no list of texts.")
        return list(value)
    return value


def _time(name: str, value: object) -> datetime:
    """The time that a value means; without a zone it is UTC, whatever the server's is."""
    try:
        if isinstance(value, datetime):
            return aware(value)
        if isinstance(value, date):
            value = value.isoformat()
        if isinstance(value, str):
            return aware(datetime.fromisoformat(value))
    except ValueError:
        pass
    raise InvalidInputError(f"{name} is no time: pass a datetime, or ISO 8601.")
