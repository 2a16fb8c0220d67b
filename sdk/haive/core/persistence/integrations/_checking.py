"""Arguments that LangChain passes through unchecked."""

from __future__ import annotations

from typing import Any

from haive.core.persistence._encoding import check_text
from haive.core.persistence.errors import InvalidInputError

_LONGEST = 1_000


def checked_name(value: object, name: str) -> str:
    """A name that a caller has for something.

    Raises:
        InvalidInputError: It is no text of 1 to 1,000 characters.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST:
        raise InvalidInputError(f"{name} is a text of 1 to {_LONGEST:,} characters.")
    return check_text(value, name, 4 * _LONGEST)


def checked_user(value: object) -> str | None:
    """A user's id, or None.

    Raises:
        InvalidInputError: It is neither.
    """
    return None if value is None else checked_name(value, "user_id")


def listed(values: object, name: str) -> list[Any]:
    """A list of what was given.

    Raises:
        InvalidInputError: It is one text or a mapping, or cannot be iterated over.
    """
    if isinstance(values, str | bytes | dict) or not hasattr(values, "__iter__"):
        raise InvalidInputError(f"{name} is a list.")
    return list(values)


def no_more(given: dict[str, Any]) -> None:
    """Refuse what would do nothing.

    Raises:
        InvalidInputError: There is such an argument.
    """
    if given:
        raise InvalidInputError(f"This takes no {', '.join(sorted(given))}.")
