"""Checks arguments before they leave: the database would only say that one of them is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from haive.core.persistence._encoding import check_text, whole_number
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.models import aware

# The domains haive_private.name and haive_private.namespace.
_NAME_CHARACTERS, _NAMESPACE_BYTES = 200, 1000
_NAMES = frozenset(
    {"thread_id", "new_thread_id", "branch", "fork", "name", "user_id", "page_after"}
)
_NUMBERS = frozenset({"page_size", "before_seq"})
_FLAGS = frozenset({"failed", "details", "states"})


def check_arguments(arguments: Mapping[str, object]) -> None:
    """Check what is sent to a function, by the names of its arguments.

    Raises:
        InvalidInputError: One is of another type, or too long; the message names it.
    """
    for name, value in arguments.items():
        if name in _NAMES:
            check_name(value, name)
        elif name == "namespace":
            check_namespace(value)
        elif name in _NUMBERS:
            whole_number(value, name)
        elif name in _FLAGS and not isinstance(value, bool):
            raise InvalidInputError(f"{name} is neither True nor False.")


def check_name(value: object, name: str) -> None:
    """Check the name of a thread, a branch or a user.

    Raises:
        InvalidInputError: It is no text of 1 to 200 characters.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_CHARACTERS:
        raise InvalidInputError(f"{name} is no text of 1 to {_NAME_CHARACTERS} characters.")
    check_text(value, name, 4 * _NAME_CHARACTERS)


def check_branch_name(value: object, name: str) -> None:
    """Check the name of a branch that is to be made.

    Raises:
        InvalidInputError: It is no name, or could be taken for the id of a branch.
    """
    check_name(value, name)
    if is_uuid(str(value)):
        raise InvalidInputError(f"{name} is a UUID, and would be taken for the id of a branch.")


def is_uuid(text: str) -> bool:
    """Whether text is a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def check_namespace(value: object) -> None:
    """Check the name of a part of a thread.

    Raises:
        InvalidInputError: It is no text, or too long.
    """
    if not isinstance(value, str):
        raise InvalidInputError("namespace is no text.")
    check_text(value, "namespace", _NAMESPACE_BYTES)


def check_place(thread_id: object, namespace: object, branch: object = None) -> None:
    """Check where something is.

    Raises:
        InvalidInputError: That is no place.
    """
    check_name(thread_id, "thread_id")
    check_namespace(namespace)
    if branch is not None and not isinstance(branch, UUID):
        check_name(branch, "branch")


def moment(value: datetime | None, name: str) -> datetime | None:
    """A time with its zone; naive ones are UTC.

    Raises:
        InvalidInputError: It is no time.
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidInputError(f"{name} is no datetime.")
    return aware(value)


def is_model(value: object) -> bool:
    """Whether this is a class of pydantic models."""
    return isinstance(value, type) and issubclass(value, BaseModel)


def mapping(value: object, name: str) -> dict[str, Any]:
    """A mapping as a dict; None is an empty one.

    Raises:
        InvalidInputError: It is no mapping.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name} is no mapping.")
    return dict(value)
