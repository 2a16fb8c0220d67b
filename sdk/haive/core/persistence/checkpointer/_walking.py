"""States that msgpack does not take as they are, packed value by value."""

from __future__ import annotations

from json import dumps
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import ormsgpack
from ormsgpack import Ext

from haive.core.persistence.checkpointer import _tags as tags
from haive.core.persistence.checkpointer._forming import OPTIONS, Refused, form_of, set_of
from haive.core.persistence.checkpointer._tags import kind_of
from haive.core.persistence.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

#: ormsgpack packs 254 levels and unpacks 1,023.
_MAX_DEPTH = 250


def packed_slowly(value: object) -> bytes:
    """Pack a state value by value: keys of all types, and an error knows where it is."""
    try:
        plain = _Walk().plain(value, "$")
        return ormsgpack.packb(plain, default=form_of, option=OPTIONS)
    except (ormsgpack.MsgpackEncodeError, RecursionError):
        raise StateError("The state is nested too deeply.") from None


class _Walk:
    """One walk through a state, that makes all of it what ormsgpack takes."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def plain(self, value: Any, path: str) -> object:
        kind = type(value)
        if kind is str:
            return _text(value, path)
        if value is None or kind in (bool, int, float, bytes, bytearray):
            return value
        if id(value) in self._open:
            raise StateError(f"{path} contains itself.", path=path)
        if len(self._open) >= _MAX_DEPTH:
            raise StateError(f"The state is nested more than {_MAX_DEPTH} levels deep.", path=path)
        self._open.add(id(value))
        make, parts = _taken_apart(value, path)
        made = make([self.plain(part, at) for at, part in parts])
        self._open.remove(id(value))
        return made


def _taken_apart(
    value: Any, path: str
) -> tuple[Callable[[list[Any]], object], list[tuple[str, Any]]]:
    """What makes a value again of its parts, and the parts, each with its path."""
    kind = type(value)
    if kind is dict:
        pairs = (((path, key), (path + _step(key), item)) for key, item in value.items())
        return _mapping, [part for pair in pairs for part in pair]
    if kind is list:
        return list, [(f"{path}[{place}]", item) for place, item in enumerate(value)]
    if issubclass(kind, set | frozenset):
        return lambda made: set_of(value, made, form_of), [(f"{path}[*]", item) for item in value]
    try:
        form: Any = form_of(value)
    except Refused as refused:
        raise StateError(
            f"{path}: {refused}.",
            path=path,
            hint="Keep plain data, dataclasses or pydantic models in a state.",
        ) from None
    if type(form) is Ext:
        return lambda _: form, []
    if type(form) is not list or not form or type(form[0]) is not Ext:
        return itemgetter(0), [(path, form)]  # what a subclass extends
    tag, *items = form
    named = kind_of(kind) is not None
    return lambda made: [tag, *made], [
        (path if named else f"{path}[{place}]", item) for place, item in enumerate(items)
    ]


def _mapping(parts: list[Any]) -> object:
    """A dict, or if a key is no text a list of keys and values."""
    if all(type(key) is str for key in parts[::2]):
        return dict(zip(parts[::2], parts[1::2], strict=True))
    return [Ext(tags.MAP, b""), *parts]


def _text(value: Any, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _not_unicode(path) from None
    return str(value)


def _not_unicode(path: str) -> StateError:
    return StateError(
        f"{path} contains half of a surrogate pair: it is no valid Unicode.", path=path
    )


def _step(key: object) -> str:
    if isinstance(key, str):
        return f".{key}" if key.isidentifier() else f"[{dumps(key)}]"
    return f"[{key}]" if isinstance(key, int) else f"[{type(key).__name__}]"
