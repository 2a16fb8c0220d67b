"""What the parts of tenants ask of their arguments."""

from __future__ import annotations

from datetime import timedelta

from haive.core.persistence._encoding import check_text
from haive.core.persistence.errors import InvalidInputError


def check_user(user_id: str) -> str:
    """A user's id, if it is one.

    Raises:
        InvalidInputError: It is no text of 1 to 200 characters.
    """
    return check_name(user_id, "user_id")


def check_name(value: object, name: str) -> str:
    """A name, if it can be stored as one.

    Raises:
        InvalidInputError: It is no text of 1 to 200 characters.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= 200:
        raise InvalidInputError(f"{name} is no text of 1 to 200 characters.")
    return check_text(value, name, 800)


def check_span(value: object, name: str) -> timedelta:
    """A length of time, if it is one.

    Raises:
        InvalidInputError: It is none.
    """
    if not isinstance(value, timedelta):
        raise InvalidInputError(f"{name} is no timedelta.")
    return value
