"""Objects of allowed classes as they were saved: no constructor and no validator is run.

These made the values that are stored. To run them again would make others of some, and refuse what
was assigned since. They are for what a class does not have any more as it is stored.
"""

from __future__ import annotations

import dataclasses
from copy import copy
from functools import lru_cache
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from haive.core.persistence.checkpointer import _tags as tags
from haive.core.persistence.checkpointer._fitting import checks_of
from haive.core.persistence.checkpointer._tags import RECORDS, type_name

if TYPE_CHECKING:
    from collections.abc import Callable

_set = object.__setattr__


def as_saved(code: int, cls: type, items: tuple[Any, ...]) -> object | None:
    """The object that was stored; None where its class has other fields or types now.

    Args:
        code: Of the tag that it is stored with.
        cls: The allowed class.
        items: What is stored of it.
    """
    make = _MAKERS.get(code)
    return None if make is None else make(cls, *items)


def _dataclass(cls: Any, fields: dict[str, Any]) -> object | None:
    layout = _fields_of(cls)
    if layout is None:
        return None
    names, needed, is_pydantics = layout
    if not needed <= fields.keys() <= names:
        return None
    if is_pydantics and not _fits(cls, fields, []):
        return None
    made: object = object.__new__(cls)
    for name, item in fields.items():
        _set(made, name, item)
    return made


@lru_cache(maxsize=1024)
def _fields_of(cls: Any) -> tuple[frozenset[str], frozenset[str], bool] | None:
    """The fields of a dataclass, those that are set in each object, and whether it is pydantic's.

    None where an object is not made of its fields alone, as an exception is not.
    """
    if type_name(cls) in RECORDS or cls.__new__ is not object.__new__:
        return None
    fields = dataclasses.fields(cls)
    needed = frozenset(field.name for field in fields if field.init or _has_default(field))
    known = frozenset(field.name for field in fields)
    return known, needed, hasattr(cls, "__pydantic_validator__")


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _namedtuple(cls: Any, fields: dict[str, Any]) -> object | None:
    if fields.keys() != set(cls._fields):
        return None
    made: object = tuple.__new__(cls, [fields[name] for name in cls._fields])
    return made


def _model(cls: Any, fields: dict[str, Any], unset: list[str], extra: dict[str, Any]) -> Any:
    layout = _layout_of(cls)
    if fields.keys() != layout.names or (extra and not layout.takes_any):
        return None
    if not _fits(cls, fields, unset):
        return None
    made: Any = object.__new__(cls)
    given = {*fields, *extra}.difference(unset)
    parts: dict[str, Any] = {"__dict__": fields, "__pydantic_fields_set__": given}
    if not layout.is_root:
        parts["__pydantic_extra__"] = extra if layout.has_extra else None
        _set(made, "__pydantic_private__", None)
    if cls.__pydantic_post_init__:
        # As for any object that is made: it has the private attributes. What it assigns to fields
        # does not stay.
        for name, part in parts.items():
            _set(made, name, copy(part))
        made.model_post_init(None)
    for name, part in parts.items():
        _set(made, name, part)
    return made


class _Layout(NamedTuple):
    """What the objects of a model have."""

    names: frozenset[str]
    has_extra: bool
    takes_any: bool
    """Of any type, which is what is not checked."""
    is_root: bool


@lru_cache(maxsize=1024)
def _layout_of(cls: Any) -> _Layout:
    own = cls.__mro__[: cls.__mro__.index(BaseModel)]
    typed = any("__pydantic_extra__" in get_annotations(each) for each in own)
    allows = cls.model_config.get("extra") == "allow"
    return _Layout(
        names=frozenset(cls.__pydantic_fields__),
        has_extra=allows,
        takes_any=allows and not typed,
        is_root=cls.__pydantic_root_model__,
    )


def _fits(cls: Any, fields: dict[str, Any], unset: list[str]) -> bool:
    try:
        for name, fits in checks_of(cls).items():
            if name not in fields or fits(fields[name]):
                continue
            if name not in unset or not is_default(cls, name, fields[name]):
                return False
    except Exception:  # noqa: BLE001 - what is asked is anybody's code: then pydantic shall tell
        return False
    return True


def is_default(cls: Any, name: str, value: object) -> bool:
    """Whether a field of a model has its default, which is never validated: `name: str = None`."""
    known = cls.model_fields.get(name)
    return known is not None and type(known.default) is type(value) and known.default == value


_MAKERS: dict[int, Callable[..., object | None]] = {
    tags.DATACLASS: _dataclass,
    tags.NAMEDTUPLE: _namedtuple,
    tags.MODEL: _model,
}
