"""A state as a plain tree: what is searched, compared and shown to people."""

from __future__ import annotations

import hashlib
import sys
from base64 import b64encode
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from haive.core.persistence.checkpointer._paths import child
from haive.core.persistence.checkpointer._text import json_text
from haive.core.persistence.errors import StateError

# Of an array with more numbers than a reader takes in, the type, shape and hash are shown.
_SMALL_ARRAY = 64
_PLAIN = frozenset({str, int, float, bool, type(None)})


@dataclass(slots=True)
class _Frame:
    """A container that is being viewed."""

    source: object
    items: Iterator[tuple[Any, Any]]
    out: dict[str, Any] | list[Any]
    is_set: bool
    key: Any = 0

    def put(self, key: Any, value: object) -> None:
        if isinstance(self.out, dict):
            self.out[key] = value
        else:
            self.out.append(value)


def view(value: object) -> Any:
    """The plain tree of any value: dicts with text keys, lists, text, numbers, booleans and None.

    Datetimes become ISO 8601, timedeltas seconds, sets sorted lists, bytes ``base64:…``, enums
    their values, and models, dataclasses and named tuples dicts of their fields. Of an array with
    more than 64 elements the tree has type, shape and SHA-256, of an object that is nothing of
    these the name of its class. The tree shares nothing with the value.

    Raises:
        StateError: It contains itself; ``path`` says where.
    """
    viewed: list[Any] = []
    top = _Frame(None, iter([(0, value)]), viewed, is_set=False)
    frames = [top]
    entered: set[int] = set()
    while True:
        frame = frames[-1]
        for key, item in frame.items:
            if type(item) in _PLAIN:
                frame.put(key, item)
                continue
            plain = _unwrapped(item)
            opened = _opened(plain)
            if opened is None:
                frame.put(key, _leaf(plain))
                continue
            frame.key = key
            if id(item) in entered:
                raise StateError(
                    "The state contains itself.", path=_path(frames), hint="Break the cycle."
                )
            entered.add(id(item))
            opened.source = item
            frames.append(opened)
            break
        else:
            if frame is top:
                break
            frames.pop()
            entered.discard(id(frame.source))
            if frame.is_set and isinstance(frame.out, list):
                frame.out.sort(key=_rank)
            frames[-1].put(frames[-1].key, frame.out)
    return viewed[0]


def _path(frames: list[_Frame]) -> str:
    path = "$"
    for frame in frames[1:]:
        path = child(path, frame.key)
    return path


def _unwrapped(value: Any) -> Any:
    """What an enum, an array or a scalar of numpy has inside."""
    while isinstance(value, Enum):
        value = value.value
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return value
    if isinstance(value, numpy.ndarray):
        # The bytes of an array of objects are addresses: they say nothing of its content.
        if value.size <= _SMALL_ARRAY or value.dtype.hasobject:
            return value.tolist()
        digest = hashlib.sha256(value.tobytes()).hexdigest()
        return {"dtype": str(value.dtype), "shape": list(value.shape), "sha256": digest}
    if isinstance(value, numpy.generic):
        inside = value.item()
        return str(inside) if isinstance(inside, numpy.generic) else inside
    return value


def _opened(value: Any) -> _Frame | None:  # noqa: PLR0911 - a table of types
    """A frame for what has parts, None for a leaf."""
    if isinstance(value, Mapping):
        return _Frame(value, _with_text_keys(value), {}, is_set=False)
    if isinstance(value, list | tuple | deque):
        names = getattr(value, "_fields", None)
        if isinstance(value, tuple) and names is not None:
            return _Frame(value, zip(names, value, strict=True), {}, is_set=False)
        return _Frame(value, enumerate(value), [], is_set=False)
    if isinstance(value, set | frozenset):
        return _Frame(value, enumerate(value), [], is_set=True)
    if is_dataclass(value) and not isinstance(value, type):
        items = ((one.name, getattr(value, one.name)) for one in fields(value) if _has(value, one))
        return _Frame(value, items, {}, is_set=False)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return _Frame(value, _of_model(value), {}, is_set=False)
    return None


def _has(value: object, one: Any) -> bool:
    # A field that the constructor does not take can be unset.
    return hasattr(value, one.name)


def _of_model(model: Any) -> Iterator[tuple[str, Any]]:
    stored = model.__dict__
    for name in type(model).model_fields:
        if name in stored:  # else it was left out of `model_construct`
            yield name, stored[name]
    yield from (model.model_extra or {}).items()


def _with_text_keys(value: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    if all(type(key) is str for key in value):
        return iter(value.items())
    texts = {key: _key_text(key) for key in value}
    # {1: …, "1": …} keeps both: a text has its own name, the other one says what it is.
    taken = {texts[key] for key in value if isinstance(key, str)}
    for key in value:
        if not isinstance(key, str):
            while texts[key] in taken:
                texts[key] += f" ({type(key).__name__})"
            taken.add(texts[key])
    return ((texts[key], item) for key, item in value.items())


def _key_text(key: object) -> str:
    viewed = view(key)
    return viewed if isinstance(viewed, str) else json_text(viewed)


def _leaf(value: Any) -> Any:  # noqa: PLR0911 - a table of types
    if value is None or isinstance(value, bool):
        return value
    # Of a subclass only the text or the number.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID | PurePath | Fraction | complex):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"base64:{b64encode(bytes(value)).decode()}"
    # No repr: it can be of any length, show a secret, or name an address in memory.
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def _rank(value: Any) -> tuple[int, float, str]:
    """Where a member of a set stands: numbers by value, everything else by its text."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:  # noqa: PLR0124 - no NaN
        return (0, value, "")
    return (1, 0, json_text(value))
