"""LangGraph's items as the database has them, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from langgraph.store.base import Item, SearchItem, get_text_at_path
from pydantic import BaseModel

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.vector._ids import EPOCH, derived_id

# Words behind here are not looked for in any memory.
_INDEXED = 100_000
# From here on a float comes back from the database as a whole number.
_WHOLE = 1e16


class ItemRow(BaseModel):
    """An item as the functions of the schema answer it."""

    id: str
    namespace: list[str]
    key: str
    value: dict[str, Any]
    exact: str | None
    created_at: str
    updated_at: str
    score: float | None

    def item(self) -> Item:
        """What LangGraph calls an item."""
        return Item(**self._fields())

    def found(self) -> SearchItem:
        """What it calls one that was found."""
        return SearchItem(**self._fields(), score=self.score)

    def _fields(self) -> dict[str, Any]:
        return {
            "namespace": tuple(self.namespace),
            "key": self.key,
            "value": self.value if self.exact is None else json.loads(self.exact),
            "created_at": datetime.fromisoformat(self.created_at),
            "updated_at": datetime.fromisoformat(self.updated_at),
        }


def item_id(namespace: tuple[str, ...], key: object, tenant: str, whose: str | None) -> str:
    """The id of the memory that an item is: always the same.

    Raises:
        InvalidInputError: The key is no text.
    """
    if not isinstance(key, str):
        raise InvalidInputError(f"The key of an item is a {type(key).__name__}, not a text.")
    return derived_id(EPOCH, "item", json.dumps([tenant, whose, list(namespace), key]))


def json_form(value: object, name: str) -> Any:
    """What a value is when it has gone through JSON, with nothing lost.

    Raises:
        InvalidInputError: JSON has not what is in it.
    """
    try:
        return _form(value, name)
    except RecursionError:
        raise InvalidInputError(f"{name} is nested too deeply, or contains itself.") from None


def _form(value: object, name: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError(f"{name} contains NaN or an infinity, which JSON has not.")
        return float(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise InvalidInputError(f"{name} has a key that is no text.")
        return {str.__str__(key): _form(inner, name) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_form(inner, name) for inner in value]
    raise InvalidInputError(
        f"{name} contains a {type(value).__name__}, which JSON has not.",
        hint="Make it a text, a number, a list or a dict before it is put.",
    )


def stored_form(form: Any) -> tuple[Any, str | None]:
    """A value as the database compares it; and where it would come back as another, its JSON."""
    stored = _stored(form)
    exact = stored != form or _has_other_numbers(form)
    return stored, json.dumps(form, separators=(",", ":")) if exact else None


def _stored(form: Any) -> Any:
    if isinstance(form, str):
        return storable(form)
    if isinstance(form, dict):
        return {storable(key): _stored(inner) for key, inner in form.items()}
    return [_stored(inner) for inner in form] if isinstance(form, list) else form


def _has_other_numbers(form: Any) -> bool:
    if isinstance(form, dict):
        return any(map(_has_other_numbers, form.values()))
    if isinstance(form, list):
        return any(map(_has_other_numbers, form))
    negative_zero = form == 0 and isinstance(form, float) and math.copysign(1, form) < 0
    return negative_zero or (isinstance(form, float) and abs(form) >= _WHOLE)


def storable(text: str) -> str:
    """A text without what Postgres has not: NUL and halves of surrogate pairs."""
    if text.isascii() and "\x00" not in text:
        return text
    return (
        text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def texts_of(form: dict[str, Any], paths: list[str]) -> list[str]:
    """What an item is found by: the texts at the paths, each once."""
    found = (text for path in paths for text in get_text_at_path(form, path))
    return [
        text for text in dict.fromkeys(storable(each)[:_INDEXED] for each in found) if text.strip()
    ]
