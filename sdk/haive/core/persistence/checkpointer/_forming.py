"""What msgpack has for values that it does not know: extensions, and lists that begin with one."""

from __future__ import annotations

import dataclasses
import struct
import sys
from collections import deque
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
from ormsgpack import Ext

from haive.core.persistence.checkpointer import _tags as tags
from haive.core.persistence.checkpointer._tags import (
    ADDRESSES,
    DTYPE,
    MAX_FRACTION_BITS,
    RECORDS,
    is_short,
    kind_of,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import BaseModel

OPTIONS = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)

_MISSING = object()
_MICROSECOND = timedelta(microseconds=1)


class Refused(ValueError):  # noqa: N818 - no error of ours
    """Becomes a `StateError` where the path is known."""


def form_of(value: object) -> object:
    """What msgpack has for a value: an extension, a list that begins with one, or plain data."""
    cls: type = type(value)
    return _former(cls)(value)


@lru_cache(maxsize=1024)
def _former(cls: type) -> Callable[[Any], object]:
    """How values of a class are written."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(cls, (numpy.ndarray, numpy.generic)):
        return _from_numpy  # before float, which numpy's float64 extends
    kind = kind_of(cls)
    if kind is not None:
        return _FORMERS[kind](cls)
    if str(cls.__module__).partition(".")[0] != "pandas":  # its Timestamp is more than a datetime
        for base, form in _FORMS:
            if issubclass(cls, base):
                return form
    return _refuse


def _refuse(value: object) -> object:
    raise Refused(f"{type(value).__qualname__} cannot be stored")


def _tag(code: int, cls: type) -> Ext:
    return Ext(code, type_name(cls).encode())


def _enum_former(cls: type) -> Callable[[Any], object]:
    tag = _tag(tags.ENUM, cls)
    return lambda member: [tag, member.value]


def _dataclass_former(cls: type) -> Callable[[Any], object]:
    tag = _tag(tags.DATACLASS, cls)
    names = RECORDS.get(type_name(cls)) or tuple(field.name for field in dataclasses.fields(cls))

    def form(value: object) -> object:
        found = ((name, getattr(value, name, _MISSING)) for name in names)
        return [tag, {name: item for name, item in found if item is not _MISSING}]

    return form


def _model_former(cls: type[BaseModel]) -> Callable[[Any], object]:
    tag = _tag(tags.MODEL, cls)
    names = tuple(cls.model_fields)

    def form(model: BaseModel) -> object:
        held = model.__dict__  # has what is cached, too
        given = model.model_fields_set
        return [
            tag,
            {name: held[name] for name in names if name in held},
            [name for name in names if name not in given],
            model.__pydantic_extra__ or {},
        ]

    return form


def _namedtuple_former(cls: Any) -> Callable[[Any], object]:
    tag = _tag(tags.NAMEDTUPLE, cls)
    names = cls._fields
    return lambda value: [tag, dict(zip(names, value, strict=True))]


def _from_numpy(value: Any) -> object:
    """An array or a scalar of numpy; its dtype has to be one that its text describes wholly."""
    dtype = value.dtype
    text = dtype.str
    numpy = sys.modules["numpy"]
    scalar = isinstance(value, numpy.generic)
    if not scalar and type(value) is not numpy.ndarray:
        return _refuse(value)
    if not DTYPE.fullmatch(text) or numpy.dtype(text) != dtype or not (scalar or dtype.itemsize):
        raise Refused(f"numpy's {dtype} cannot be stored")
    if scalar:
        # Of an empty text numpy has four bytes, where its dtype has none.
        return [Ext(tags.SCALAR, text.encode()), value.tobytes() if dtype.itemsize else b""]
    return [Ext(tags.ARRAY, text.encode()), list(value.shape), value.tobytes()]


def _from_int(value: int) -> object:
    if -(1 << 63) <= value < 1 << 64:
        return int(value)  # of a subclass
    return Ext(tags.INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _from_fraction(value: Fraction) -> object:
    if not is_short(value.numerator, value.denominator):
        raise Refused(f"a Fraction of more than {MAX_FRACTION_BITS:,} bits cannot be stored")
    return [Ext(tags.FRACTION, b""), value.numerator, value.denominator]


def _from_set(value: set[object] | frozenset[object]) -> object:
    """In the order of their bytes: Python's own order is another one in each process."""
    return set_of(value, value, _form_in_set)


def set_of(
    value: set[Any] | frozenset[Any], items: Iterable[Any], form: Callable[[Any], object]
) -> object:
    code = tags.SET if isinstance(value, set) else tags.FROZENSET
    packed = partial(ormsgpack.packb, default=form, option=OPTIONS)
    return [Ext(code, b""), *sorted(items, key=packed)]


def _form_in_set(value: object) -> object:
    """Sets in sets go the slow way: each is packed by a call of its own, and levels are counted."""
    return _refuse(value) if isinstance(value, set | frozenset) else form_of(value)


def _iso(value: datetime | time) -> bytes:
    """ISO 8601, the zone or its offset in brackets, and a tilde where the clock was put back.

    The offset is in microseconds: Python 3.11 reads the ``+00:00:00.000001`` that it writes as UTC.
    """
    write: Callable[[Any], str] = (
        datetime.isoformat if isinstance(value, datetime) else time.isoformat
    )
    text = write(value.replace(tzinfo=None))
    if isinstance(value.tzinfo, ZoneInfo) and value.tzinfo.key:
        text += f"[{value.tzinfo.key}]"
    elif value.tzinfo is not None:
        offset = value.utcoffset()
        if offset is None:
            raise Refused("a time whose zone has no offset cannot be stored")
        text += f"[{offset // timedelta(microseconds=1)}]"
    return (f"{text}~" if value.fold else text).encode()


def _from_path(value: PurePath) -> Ext:
    windows = isinstance(value, PureWindowsPath)
    letter = "w" if windows else "p"
    text = (letter.upper() if isinstance(value, Path) else letter) + str(value)
    return Ext(tags.PATH, text.encode("utf-8", "surrogatepass"))


def _from_address(letter: str, value: object) -> Ext:
    return Ext(tags.ADDRESS, f"{letter}{value}".encode())


def _from_zone(value: ZoneInfo | timezone) -> Ext:
    if isinstance(value, timezone):
        return Ext(tags.ZONE, f"={value.utcoffset(None) // _MICROSECOND}".encode())
    if value.key is None:
        raise Refused("a time zone without a name cannot be stored")
    return Ext(tags.ZONE, value.key.encode())


#: The first that fits is taken: a datetime is a date, too.
_FORMS: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (int, _from_int),
    (str, str.__str__),
    (float, float.__float__),
    (tuple, lambda value: [Ext(tags.TUPLE, b""), *value]),
    (dict, dict),
    (list, list),
    (set, _from_set),
    (frozenset, _from_set),
    (datetime, lambda value: Ext(tags.DATETIME, _iso(value))),
    (date, lambda value: Ext(tags.DATE, date.isoformat(value).encode())),
    (time, lambda value: Ext(tags.TIME, _iso(value))),
    (
        timedelta,
        lambda value: Ext(
            tags.TIMEDELTA, struct.pack(">iii", value.days, value.seconds, value.microseconds)
        ),
    ),
    (UUID, lambda value: Ext(tags.UUID, value.bytes)),
    (Decimal, lambda value: Ext(tags.DECIMAL, str(value).encode())),
    (bytes, bytes),
    (bytearray, bytes),
    (deque, lambda value: [Ext(tags.DEQUE, b""), value.maxlen, *value]),
    (Fraction, _from_fraction),
    (complex, lambda value: Ext(tags.COMPLEX, struct.pack(">dd", value.real, value.imag))),
    (PurePath, _from_path),
    (ZoneInfo, _from_zone),
    (timezone, _from_zone),
    *((cls, partial(_from_address, letter)) for letter, cls in ADDRESSES),
)

_FORMERS: dict[int, Callable[[Any], Callable[[Any], object]]] = {
    tags.ENUM: _enum_former,
    tags.MODEL: _model_former,
    tags.DATACLASS: _dataclass_former,
    tags.NAMEDTUPLE: _namedtuple_former,
}
