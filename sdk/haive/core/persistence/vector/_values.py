"""JSON with one form for each value, and how two of its values compare."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from numbers import Integral, Real
from typing import Any
from uuid import UUID

from haive.core.persistence.errors import InvalidInputError

MAX_DEPTH = 10
# Floats hold every integer up to here; what is beyond is compared by its digits.
_EXACT = 2**53
_MOST = 10**300
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


def to_json_value(value: object, name: str = "the value", depth: int = 0) -> Any:
    """A value as metadata and filters have it.

    Dates and datetimes become text in UTC (naive ones are in UTC), ``2026-01-02T03:04:05.000006Z``,
    whose order as text is their order in time. Sets become sorted lists, decimals numbers.

    Raises:
        InvalidInputError: It has no JSON, is no valid text, or is nested more than 10 deep.
    """
    # Of what most values are, without asking for their kinds.
    if type(value) is str:
        return _text(value, name)
    if value is None or isinstance(value, bool) or (type(value) is float and isfinite(value)):
        return value
    if isinstance(value, Enum):
        return to_json_value(value.value, name, depth)
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, (dict, list, tuple, Mapping, Set)):
        if depth == MAX_DEPTH:
            raise InvalidInputError(f"{name} is nested more than {MAX_DEPTH} deep.")
        return _composite(value, name, depth)
    return _scalar(value, name)


def time_text(when: date) -> str:
    """A time as text, ``2026-01-02T03:04:05.000006Z``; a day is its beginning in UTC."""
    if not isinstance(when, datetime):
        when = datetime(when.year, when.month, when.day, tzinfo=UTC)
    elif when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    # strftime writes the year 33 with two digits, so it is not asked.
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def seconds_of(text: str) -> float | None:
    """Seconds since 1970 of a text that `time_text` made, to the microsecond; None of another."""
    if _TIME.fullmatch(text) is None:
        return None
    try:
        since = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    except ValueError:
        return None
    return since / timedelta(seconds=1)


def equal(left: Any, right: Any) -> bool:
    """Whether two JSON values are the same; a boolean is no number, and 1 is 1.0."""
    if is_number(left) and is_number(right):
        return compare(left, right) == 0
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and bool(left == right)


def compare(left: Any, right: Any) -> int | None:
    """-1, 0 or 1 of two numbers or two texts; None of anything else, which has no order."""
    if is_number(left) and is_number(right):
        if abs(left) > _EXACT or abs(right) > _EXACT:
            left, right = Decimal(repr(left)), Decimal(repr(right))
    elif not (isinstance(left, str) and isinstance(right, str)):
        return None
    return int(left > right) - int(left < right)


def is_number(value: object) -> bool:
    """Whether a JSON value is a number: booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: str, name: str) -> str:
    if "\x00" in value:
        raise InvalidInputError(f"{name} contains a NUL character, which Postgres cannot store.")
    if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        raise InvalidInputError(
            f"{name} contains half of a surrogate pair: it is no valid Unicode."
        )
    return str(value)


def _composite(value: Any, name: str, depth: int) -> Any:
    if isinstance(value, (dict, Mapping)):
        if not all(isinstance(key, str) for key in value):
            raise InvalidInputError(f"{name} has a key that is no text.")
        return {
            _text(key, name): to_json_value(inner, f"{name}.{key}", depth + 1)
            for key, inner in value.items()
        }
    found = [to_json_value(inner, name, depth + 1) for inner in value]
    return sorted(found, key=repr) if isinstance(value, Set) else found


def _scalar(value: object, name: str) -> Any:
    if isinstance(value, date):
        try:
            return time_text(value)
        except OverflowError:
            raise InvalidInputError(f"{name} is no time of the years 1 to 9999 in UTC.") from None
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Integral):
        number: int | float = int(value)
        if abs(number) > _MOST:
            raise InvalidInputError(f"{name} is a number of more than 300 digits.")
    elif isinstance(value, Real | Decimal):
        number = float(value)
        if not isfinite(number):
            raise InvalidInputError(f"{name} is NaN or an infinity, which JSON has not.")
    else:
        raise InvalidInputError(f"{name} is a {type(value).__name__}, which has no JSON.")
    return number
