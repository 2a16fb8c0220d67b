"""From a caller's values to what the database takes, with every bound checked on the way."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import index
from typing import TYPE_CHECKING, Any
from uuid import UUID

import uuid_utils

from haive.core.persistence.errors import ContentTooLargeError, InvalidInputError
from haive.core.persistence.models import aware

if TYPE_CHECKING:
    from pydantic import ValidationError

MAX_CONTENT_BYTES = 8 * 1024 * 1024
MAX_PARTS_BYTES = 32 * 1024 * 1024
MAX_JSON_BYTES = 1024 * 1024
#: Where tags of personal data stand: in metadata, and in a conversation's context.
TAGS = "pii"
# A bigint of Postgres.
_MOST = 2**63 - 1


class Document(str):
    """JSON text that `to_json` made and checked."""

    __slots__ = ()


_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def new_id() -> UUID:
    """A UUIDv7: ids that are made one after the other lie beside each other in the index."""
    return UUID(bytes=uuid_utils.uuid7().bytes)


def as_uuid(value: object, name: str) -> UUID:
    """A UUID from a UUID or its text.

    Raises:
        InvalidInputError: It is neither.
    """
    if isinstance(value, UUID):
        return value
    try:
        return UUID(str(value))
    except ValueError:
        raise InvalidInputError(f"{name} is no UUID.") from None


def check_all(values: object, name: str, kind: type) -> None:
    """Raise an error unless these are values of one kind, such as a list of them.

    Raises:
        InvalidInputError: They are not.
    """
    if not isinstance(values, Sequence) or not all(isinstance(each, kind) for each in values):
        raise InvalidInputError(f"{name} is no list of {kind.__name__}.")


def whole_number(value: Any, name: str, least: int = -_MOST, most: int = _MOST) -> int:
    """A whole number within bounds, of any type that is one but bool.

    Raises:
        InvalidInputError: It is something else.
    """
    bounds = f"{name} is no whole number"
    if least > -_MOST:
        bounds += f" between {least} and {most:,}"
    try:
        number = index(value)
    except TypeError:
        raise InvalidInputError(f"{bounds}.") from None
    if isinstance(value, bool) or not least <= number <= most:
        raise InvalidInputError(f"{bounds}.")
    return int(number)


def check_text(text: str, name: str, limit: int) -> str:
    """The text itself, if the database can hold it.

    Raises:
        InvalidInputError: It has a NUL, or half of a surrogate pair.
        ContentTooLargeError: It is longer than ``limit`` bytes of UTF-8.
    """
    if "\x00" in text:
        raise InvalidInputError(f"{name} contains a NUL character, which Postgres cannot store.")
    size = len(text)
    if not text.isascii():
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise InvalidInputError(
                f"{name} contains half of a surrogate pair: it is no valid Unicode."
            ) from None
    if size > limit:
        raise ContentTooLargeError(
            f"{name} has {size:,} bytes; at most {limit:,} are stored.",
            hint="Store the bulk elsewhere and its address here.",
        )
    return text


def _plain(value: object) -> object:  # noqa: PLR0911 - a table of types
    if isinstance(value, datetime):
        return aware(value).isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    raise InvalidInputError(f"{type(value).__name__} cannot be stored as JSON.")


def to_json(value: object, name: str, limit: int = MAX_JSON_BYTES) -> Document:
    """JSON that Postgres takes: no NaN, no NUL, bounded.

    Datetimes become ISO 8601, in UTC if they are naive.

    Raises:
        InvalidInputError: Something in it has no JSON.
        ContentTooLargeError: It is longer than ``limit`` bytes.
    """
    try:
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
        )
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error.message}") from None
    except RecursionError:
        raise InvalidInputError(f"{name} is nested too deeply, or contains itself.") from None
    except ValueError as error:
        if "ircular" in str(error):
            raise InvalidInputError(f"{name} contains itself.") from None
        raise InvalidInputError(
            f"{name} contains NaN or an infinity, which JSON has not."
        ) from None
    except TypeError:
        raise InvalidInputError(f"{name} has a key that is no text.") from None
    if "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise InvalidInputError(f"{name} contains a NUL character, which Postgres cannot store.")
    return Document(check_text(text, name, limit))


def object_to_json(value: object, name: str) -> Document:
    """JSON of a mapping.

    Raises:
        InvalidInputError: It is no mapping, or `to_json` refuses it.
    """
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name} is a {type(value).__name__}, not a mapping.")
    return to_json(dict(value), name)


def describe(error: ValidationError) -> str:
    """What is wrong with which fields, without the values."""
    return "; ".join(
        f"{'.'.join(str(step) for step in problem['loc']) or 'value'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False, include_context=False)
    )


def decoded(text: str | None) -> dict[str, Any]:
    """The mapping in a piece of our own JSON; none for None."""
    value: dict[str, Any] = json.loads(text) if text else {}
    return value
