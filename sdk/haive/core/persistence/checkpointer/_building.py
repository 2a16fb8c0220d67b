"""Values from what is stored of them; of what raises here the codec makes one error."""

from __future__ import annotations

import dataclasses
import re
import struct
import sys
from collections import deque
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from math import prod
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from haive.core.persistence.checkpointer import _tags as tags
from haive.core.persistence.checkpointer._as_saved import as_saved, is_default
from haive.core.persistence.checkpointer._tags import ADDRESSES, DTYPE, RECORDS, is_short, type_name

if TYPE_CHECKING:
    from collections.abc import Callable

# Of this operating system or another, to be asked of the disk (P, W) or not.
_PATHS: dict[str, type[PurePath]] = {
    "p": PurePosixPath,
    "w": PureWindowsPath,
    "P": PosixPath,
    "W": WindowsPath,
}
_OFFSET = re.compile(r"-?\d{1,12}")
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+/-]{1,64}")
_MICROSECOND = timedelta(microseconds=1)


class UnknownZoneError(ValueError):
    """Its message is that of the error which the codec makes of it."""


def _parts_of_iso(data: bytes) -> tuple[str, tzinfo | None, int]:
    text = str(data, "ascii")
    fold = int(text.endswith("~"))
    text, bracket, zone = text.removesuffix("~").partition("[")
    return text, _zone_of(zone.removesuffix("]")) if bracket else None, fold


def _zone_of(text: str) -> tzinfo:
    if _OFFSET.fullmatch(text):
        return timezone(int(text) * _MICROSECOND)
    return _zone_named(text)


def _zone_named(name: str) -> ZoneInfo:
    if not _ZONE_NAME.fullmatch(name):  # it becomes the name of a file
        raise ValueError
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise UnknownZoneError(
            "A time is of a zone that this machine does not know; install tzdata."
        ) from None


def _zone(data: bytes) -> ZoneInfo | timezone:
    text = str(data, "ascii")
    if text.startswith("="):
        return timezone(int(text[1:]) * _MICROSECOND)
    return _zone_named(text)


def _address(data: bytes) -> object:
    text = str(data, "ascii")
    for letter, cls in ADDRESSES:
        if text[:1] == letter:
            return cls(text[1:])
    raise ValueError


def _datetime(data: bytes) -> datetime:
    text, zone, fold = _parts_of_iso(data)
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _time(data: bytes) -> time:
    text, zone, fold = _parts_of_iso(data)
    return time.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _path(data: bytes) -> PurePath:
    text = str(data, "utf-8", "surrogatepass")
    cls = _PATHS.get(text[:1])
    if cls is None:
        raise ValueError
    if issubclass(cls, Path) and not isinstance(Path(), cls):  # of the other operating system
        cls = _PATHS[text[0].lower()]
    return cls(text[1:])


#: What an extension stands for; what one raises becomes ormsgpack's error.
LEAVES: dict[int, Callable[[bytes], object]] = {
    tags.INT: lambda data: int.from_bytes(data, "big", signed=True),
    tags.DATETIME: _datetime,
    tags.DATE: lambda data: date.fromisoformat(str(data, "ascii")),
    tags.TIME: _time,
    tags.TIMEDELTA: lambda data: timedelta(*struct.unpack(">iii", data)),
    tags.DECIMAL: lambda data: Decimal(str(data, "ascii")),
    tags.COMPLEX: lambda data: complex(*struct.unpack(">dd", data)),
    tags.UUID: lambda data: UUID(bytes=data),
    tags.PATH: _path,
    tags.ZONE: _zone,
    tags.ADDRESS: _address,
}


def _hashed(kind: type, items: tuple[Any, ...]) -> object:
    try:
        return kind(items)
    except TypeError:  # members whose class is not allowed are dicts
        return list(items)


def _deque(_: str, maxlen: int | None, *items: Any) -> deque[Any]:
    if maxlen is not None and maxlen < len(items):
        raise ValueError
    return deque(items, maxlen)


def _map(_: str, *items: Any) -> object:
    pairs = list(zip(items[::2], items[1::2], strict=True))
    try:
        return dict(pairs)
    except TypeError:  # keys whose class is not allowed are dicts
        return pairs


def _fraction(_: str, numerator: int, denominator: int) -> Fraction:
    if type(numerator) is not int or type(denominator) is not int or denominator < 1:
        raise TypeError
    if not is_short(numerator, denominator):
        raise ValueError
    return Fraction(numerator, denominator)


def _array(dtype: str, shape: list[int], data: bytes) -> object:
    # Text such as "O" would have numpy read the bytes as addresses.
    if type(shape) is not list or type(data) is not bytes or not DTYPE.fullmatch(dtype):
        raise TypeError
    if len(shape) > 64 or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return {"dtype": dtype, "shape": shape, "data": data}
    itemsize = numpy.dtype(dtype).itemsize
    if prod(shape) * itemsize != len(data) or (shape and not itemsize):
        raise ValueError
    return numpy.ndarray(shape, dtype, data).copy()


def _scalar(dtype: str, data: bytes) -> object:
    found: Any = _array(dtype, [], data)
    return found if type(found) is dict else found[()]


#: What a list that begins with a tag stands for, from the tag's text and the rest of the list.
BUILDERS: dict[int, Callable[..., object]] = {
    tags.TUPLE: lambda _, *items: items,
    tags.SET: lambda _, *items: _hashed(set, items),
    tags.FROZENSET: lambda _, *items: _hashed(frozenset, items),
    tags.DEQUE: _deque,
    tags.MAP: _map,
    tags.FRACTION: _fraction,
    tags.ARRAY: _array,
    tags.SCALAR: _scalar,
}


#: What lists of members and pairs become again once these can be hashed.
HASHED: dict[int, Callable[[list[Any]], object]] = {
    tags.SET: set,
    tags.FROZENSET: frozenset,
    tags.MAP: dict,
}


def _dataclass(cls: Any, fields: dict[str, Any]) -> object:
    if type_name(cls) in RECORDS:
        return cls(**fields)
    late = {field.name for field in dataclasses.fields(cls) if not field.init}
    made = cls(**{name: item for name, item in fields.items() if name not in late})
    for name in late & fields.keys():
        object.__setattr__(made, name, fields[name])
    return made


def _model(cls: Any, fields: dict[str, Any], unset: list[str], extra: dict[str, Any]) -> object:
    given: Any = {**extra, **fields}
    for name in unset:
        # A default is not validated when a model is made (`name: str = None`), so not here either.
        if is_default(cls, name, fields[name]):
            del given[name]
    if cls.__pydantic_root_model__:
        given = fields["root"]
    if cls.__pydantic_custom_init__:
        # A constructor of its own is not run: it is told aliases, where these are names.
        made = cls.__new__(cls)
        cls.__pydantic_validator__.validate_python(
            given, self_instance=made, by_alias=False, by_name=True
        )
    else:
        made = cls.model_validate(given, by_alias=False, by_name=True)
    made.model_fields_set.difference_update(unset)
    return made


#: How an instance of an allowed class is made by the class itself, and of what.
CLASSES: dict[int, tuple[Callable[..., object], tuple[type, ...]]] = {
    tags.ENUM: (lambda cls, value: cls(value), (object,)),
    tags.DATACLASS: (_dataclass, (dict,)),
    tags.NAMEDTUPLE: (lambda cls, fields: cls(**fields), (dict,)),
    tags.MODEL: (_model, (dict, list, dict)),
}


def instance(code: int, cls: type, items: tuple[Any, ...], *, exact: bool) -> object:
    """An instance of an allowed class.

    Args:
        code: Of the tag that it is stored with.
        cls: The class.
        items: What is stored of it.
        exact: As it was saved, where its class has the same fields and types; else the class makes
            it, and validates.
    """
    made = as_saved(code, cls, items) if exact else None
    if made is not None:
        return made
    build, _ = CLASSES[code]
    return build(cls, *items)
