"""What JSON has not, as JSON, and what it was.

A document becomes the dict of its fields, a tuple a list, a date its text: they are searched, and
looked through for personal data, as any other. Which were what is kept beside, by their paths; and
which numbers were floats, of those that Postgres writes out as whole ones.
Objects of other models come back as dicts: no class is looked for because it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.documents import Document
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    Form = tuple[str, list[str | int]]

# By the name of a form: what has it, what it is in JSON or in what else has a form, and back.
_FORMS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "document": (Document, dict, lambda given: Document(**given)),
    "tuple": (tuple, list, tuple),
    "set": (set, list, set),
    "frozenset": (frozenset, list, frozenset),
    "map": (dict, lambda found: list(map(list, found.items())), dict),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "timedelta": (
        timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: timedelta(*parts),
    ),
    "uuid": (UUID, str, UUID),
    "decimal": (Decimal, str, Decimal),
    "float": (float, float, float),
}
_BY_CLASS = {cls: name for name, (cls, _, _) in _FORMS.items()}


def in_json(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Form]]:
    """Values as JSON has them, and the forms of those that it has not, the inner ones first.

    Raises:
        InvalidInputError: One has no form; the message names its class.
    """
    forms: list[Form] = []
    try:
        return {name: _in_json(value, [name], forms) for name, value in values.items()}, forms
    except RecursionError:
        raise InvalidInputError("A message is nested too deeply, or contains itself.") from None


def _in_json(value: Any, path: list[str | int], forms: list[Form]) -> Any:
    if value is None or type(value) in {str, bool, int}:
        return value
    if isinstance(value, str | int | float) and not isinstance(value, Enum):
        if isinstance(value, float) and "e" in float.__repr__(value):
            forms.append(("float", path))
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _in_json(item, [*path, key], forms) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_json(item, [*path, place], forms) for place, item in enumerate(value)]
    name = "map" if isinstance(value, Mapping) else _BY_CLASS.get(type(value))
    if name is None and (plain := _plain(value)) is not value:
        return _in_json(plain, path, forms)
    if name is None:
        raise InvalidInputError(
            f"A message has a {type(value).__name__} in {path[0]}, which JSON has not.",
            hint="Make it a dict, a list or a text before it is added.",
        )
    found = _in_json(_FORMS[name][1](value), path, forms)
    forms.append((name, path))
    return found


def _plain(value: Any) -> Any:
    """What is there of an object whose class is not looked for, or the object itself.

    `with_structured_output` leaves what it parsed in the message: a dict is better than none.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, BaseModel):
        with suppress(PydanticSerializationError):
            return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def as_they_were(values: Mapping[str, Any], forms: object) -> dict[str, Any]:
    """Values that were stored, with their forms.

    What has another form by now, such as a date that was masked, is as it is stored.
    """
    if not isinstance(forms, list):
        return dict(values)
    found = deepcopy(dict(values))
    for form in forms:
        with suppress(LookupError, TypeError, ValueError, ArithmeticError):
            name, (*way, last) = form
            place: Any = found
            for step in way:
                place = place[step]
            place[last] = _FORMS[name][2](place[last])
    return found
