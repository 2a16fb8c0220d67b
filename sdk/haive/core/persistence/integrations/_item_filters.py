"""LangGraph's filters of items as those of memories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haive.core.persistence.errors import InvalidFilterError, InvalidInputError
from haive.core.persistence.integrations._item_values import json_form, storable, stored_form
from haive.core.persistence.vector._values import is_number

_ORDERS = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
_MOST_KEYS = 18


def filter_document(where: object) -> dict[str, Any] | None:
    """A filter as the functions of the schema take it; None where all items pass.

    Raises:
        InvalidFilterError: An operator is unknown, or what it compares with has no order or no
            JSON.
    """
    if where is None:
        return None
    if not isinstance(where, Mapping):
        raise InvalidFilterError(f"A filter is a {type(where).__name__}, not a mapping.")
    parts = [_compared((_key(key),), value) for key, value in where.items()]
    return _all(parts) if parts else None


def _compared(keys: tuple[str, ...], wanted: object) -> dict[str, Any]:
    if len(keys) > _MOST_KEYS:
        raise InvalidFilterError(f"A filter is nested at most {_MOST_KEYS} deep.")
    if not isinstance(wanted, Mapping):
        return _equal(keys, wanted)
    if any(str(key).startswith("$") for key in wanted):
        return _all([_operated(keys, key, value) for key, value in wanted.items()])
    inner = [_compared((*keys, _key(key)), value) for key, value in wanted.items()]
    return _all([{"op": "type", "path": _path(keys), "value": "object"}, *inner])


def _operated(keys: tuple[str, ...], operator: str, value: object) -> dict[str, Any]:
    if operator == "$eq":
        return _equal(keys, value)
    if operator == "$ne":
        return {"op": "not", "parts": [_equal(keys, value)]}
    if operator not in _ORDERS:
        raise InvalidFilterError(
            f"Unsupported operator: {str(operator)[:40]}",
            hint=f"There are $eq, $ne, {', '.join(_ORDERS)}.",
        )
    form = _form(keys, value)
    if not (is_number(form) or isinstance(form, str)):
        raise InvalidFilterError(f"{operator} at {keys[-1][:40]} compares numbers and texts.")
    return {"op": _ORDERS[operator], "path": _path(keys), "value": form}


def _equal(keys: tuple[str, ...], value: object) -> dict[str, Any]:
    same = {"op": "is", "path": _path(keys), "value": _form(keys, value)}
    if value is not None:
        return same
    # What is not there is None, as Python's dicts have it.
    return {"op": "or", "parts": [same, {"op": "exists", "path": _path(keys), "value": False}]}


def _form(keys: tuple[str, ...], value: object) -> Any:
    try:
        return stored_form(json_form(value, f"The filter at {keys[-1][:40]}"))[0]
    except InvalidInputError as error:
        raise InvalidFilterError(error.message) from None


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidFilterError("A filter has a key that is no text.")
    return storable(key)


def _path(keys: tuple[str, ...]) -> list[str]:
    return ["value", *keys]


def _all(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"op": "and", "parts": parts}
