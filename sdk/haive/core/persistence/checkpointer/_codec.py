"""States as bytes and back: msgpack, in which types that it has not are tagged data.

A tagged value is either one extension (a date, a UUID) or a list that begins with one:
``[model "app:State", {fields}]``. Lists of a caller never begin with an extension, so nothing has
to be escaped. All nesting is msgpack's own: one call reads it, with its bound on depth, and no
extension holds another one.

What comes back is what went in, except that

- classes come back only if they are allowed; else a model, a dataclass and a named tuple come back
  as the dict of their fields, an enum's member as its value, and a set or a dict whose members or
  keys cannot be hashed any more as a list (of pairs);
- a numpy array comes back as a dict of dtype, shape and data where numpy is not imported;
- subclasses come back as what they extend: a ``defaultdict`` as dict, a text with methods as text;
- ``bytearray`` comes back as bytes: to tell them apart, each value would have to be looked at;
- time zones that are neither ``ZoneInfo`` nor an offset come back as the offset, without a name;
- an array of numpy comes back in C order.
"""

from __future__ import annotations

import dataclasses
import re
import struct
import sys
from collections import deque
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache, partial
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from json import dumps
from math import prod
from operator import itemgetter
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
from ormsgpack import Ext
from pydantic import BaseModel

from haive.core.persistence.checkpointer._held import Held, HeldItems, completed
from haive.core.persistence.errors import (
    ContentTooLargeError,
    CorruptCheckpointError,
    InvalidInputError,
    StateError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

#: The largest state, packed and not compressed.
MAX_STATE_BYTES = 64 * 1024 * 1024

# A fraction is reduced when it is made, in quadratic time: 0.1 ms at this length.
_MAX_FRACTION_BITS = 8192

#: ormsgpack packs 254 levels and unpacks 1,023.
_MAX_DEPTH = 250

_OPTIONS = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)

# What is stored: a number is never given to something else.
_INT, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _COMPLEX, _UUID, _PATH = range(1, 10)
_ZONE, _ADDRESS = range(10, 12)
_TUPLE, _SET, _FROZENSET, _DEQUE, _MAP, _FRACTION = range(20, 26)
_ENUM, _DATACLASS, _MODEL, _NAMEDTUPLE, _ARRAY, _SCALAR = range(40, 46)
_END = 127
#: How a dict begins in msgpack: small ones, and those with their length behind it.
_DICTS = frozenset(bytes((first,)) for first in (*range(0x80, 0x90), 0xDE, 0xDF))

#: The messages of LangChain, which are allowed where they are imported.
_MESSAGES = frozenset(
    f"{role}Message{part}"
    for role in ("AI", "Human", "System", "Tool", "Function", "Chat")
    for part in ("", "Chunk")
) | {"RemoveMessage"}

#: Classes of LangGraph that are data and neither a dataclass nor a model: their fields.
_RECORDS = {
    "langgraph.types:Send": ("node", "arg", "timeout"),
    "langgraph.store.base:Item": ("value", "key", "namespace", "created_at", "updated_at"),
}

_PATHS: dict[str, type[PurePath]] = {
    "p": PurePosixPath,
    "w": PureWindowsPath,
    "P": PosixPath,
    "W": WindowsPath,
}
_DTYPE = re.compile(r"[<>|=][biufcmMSUV][1-9]\d{0,8}(\[\d{0,9}[A-Za-z]{1,2}\])?")
_OFFSET = re.compile(r"-?\d{1,12}")
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+/-]{1,64}")
_MISSING = object()
_MICROSECOND = timedelta(microseconds=1)
# An interface is an address, too.
_ADDRESSES: tuple[tuple[str, type], ...] = (
    ("i", IPv4Interface),
    ("I", IPv6Interface),
    ("a", IPv4Address),
    ("A", IPv6Address),
    ("n", IPv4Network),
    ("N", IPv6Network),
)


def type_name(cls: type) -> str:
    """How a class is called in what is stored: ``module:qualname``."""
    return f"{cls.__module__}:{cls.__qualname__}"


class Codec:
    """Packs states, and unpacks them without running anything that they name.

    Args:
        types: The classes that may be rebuilt: enums, dataclasses, pydantic models, named tuples.

    Raises:
        InvalidInputError: One is none of these, or two have the same name.
    """

    def __init__(self, types: Iterable[type] = ()) -> None:
        self._types: dict[str, type] = {}
        for cls in types:
            if _kind(cls) is None:
                raise InvalidInputError(
                    f"{type_name(cls)} is no enum, dataclass, pydantic model or named tuple."
                )
            if self._types.setdefault(type_name(cls), cls) is not cls:
                raise InvalidInputError(f"Two classes are called {type_name(cls)}.")

    def pack(self, value: object) -> bytes:
        """A state as bytes; equal ones of equal order are the same bytes.

        Raises:
            StateError: Something in it cannot be stored; ``path`` says where.
            ContentTooLargeError: It has more than `MAX_STATE_BYTES`.
        """
        try:
            packed = ormsgpack.packb(value, default=_form, option=_OPTIONS)
        except (ormsgpack.MsgpackEncodeError, RecursionError):
            # A key that is no text, or something that cannot be stored: the slow way finds out.
            packed = _packed_slowly(value)
        if len(packed) > MAX_STATE_BYTES:
            raise ContentTooLargeError(
                f"The state has {len(packed):,} bytes; at most {MAX_STATE_BYTES:,} are stored.",
                hint="Store the bulk elsewhere and its address here.",
            )
        return packed

    def unpack(self, data: bytes, *, holding: AbstractSet[type] = frozenset()) -> object:
        """The state that was packed; memory and time are within a constant of what msgpack takes.

        Args:
            data: What `pack` made.
            holding: Allowed classes whose objects come as `Held`, to be made later.

        Raises:
            CorruptCheckpointError: The bytes are not what `pack` makes, or do not fit an allowed
                class any more.
        """
        value, tagged = _read(data)
        return self._rebuilt(value, holding) if tagged else value

    def first_class(self, data: bytes) -> type | None:
        """The allowed class that the first item of a packed list is of; None if it is of none."""
        if data[1:2] in _DICTS:  # as most states are: nothing is read for this alone
            return None
        value, _ = _read(data)
        first = value[0] if isinstance(value, list) and value else None
        tag = first[0] if isinstance(first, list) and first else None
        return self._allowed(tag.name) if isinstance(tag, _Tag) else None

    def _rebuilt(self, value: object, holding: AbstractSet[type]) -> object:
        """The value with its tagged lists as what they stand for, without recursion."""
        root = [value]
        containers: list[Any] = [root]
        tagged: list[tuple[Any, Any, list[Any]]] = []
        for container in containers:  # grows: each comes before what is in it
            listed = type(container) is list
            for place, item in enumerate(container) if listed else container.items():
                kind = type(item)
                if kind is list:
                    containers.append(item)
                    if item and type(item[0]) is _Tag:
                        tagged.append((container, place, item))
                elif kind is dict:
                    containers.append(item)
                elif kind is _Tag and (place != 0 or not listed or container is root):
                    raise CorruptCheckpointError("A tag stands alone.")
        for container, place, node in reversed(tagged):
            container[place] = self._built(holding, *node)
        return root[0]

    def _built(self, holding: AbstractSet[type], tag: _Tag, *items: Any) -> object:
        if tag.code in _BUILDERS:
            try:
                built = _BUILDERS[tag.code](tag.name, *items)
            except (ValueError, TypeError, ArithmeticError):
                raise CorruptCheckpointError("A tag has other data than it should.") from None
            if holding and tag.code in _HASHED and type(built) is list:
                return HeldItems(built, _HASHED[tag.code])
            return built
        build, shape = _CLASSES[tag.code]
        if len(items) != len(shape) or not all(map(isinstance, items, shape)):
            raise CorruptCheckpointError("A tag has other data than it should.")
        cls = self._allowed(tag.name)
        if cls is None or _kind(cls) != tag.code:
            return {**items[0], **items[2]} if tag.code == _MODEL else items[0]
        if cls in holding:
            return _held(cls, tag.code, items)
        try:
            # What is held cannot be in an object that is not.
            return build(cls, *(completed(item) for item in items) if holding else items)
        except Exception:  # noqa: BLE001 - validators and constructors are anybody's code
            raise CorruptCheckpointError(
                f"A {tag.name} was stored that is none as the class is now."
            ) from None

    def _allowed(self, name: str) -> type | None:
        cls = self._types.get(name)
        if cls is None and name.startswith("langchain_core.messages."):
            # The package may load a part of itself for the name, as it does for anybody.
            messages = sys.modules.get("langchain_core.messages")
            simple = name.partition(":")[2]
            if messages is not None and simple in _MESSAGES:
                cls = getattr(messages, simple, None)
        return cls


def _held(cls: Any, code: int, items: tuple[Any, ...]) -> object:
    """An object of an allowed class that is not made yet; of an enum, what there is of it."""
    if code == _ENUM:
        try:
            return cls(items[0])
        except Exception:  # noqa: BLE001 - it may not be a member any more
            return items[0]
    build, _ = _CLASSES[code]
    if code != _MODEL:
        return Held(items[0], partial(build, cls))
    fields, unset, extra = items

    def make(given: dict[str, Any]) -> object:
        return build(cls, given, [name for name in unset if name in given], {})

    return Held({**fields, **extra}, make)


class _Tag(NamedTuple):
    code: int
    name: str


class _Reader:
    """What reads the extensions of one state."""

    __slots__ = ("_end", "problem", "tagged")

    def __init__(self, end: bytes) -> None:
        self._end = end
        self.tagged = False
        self.problem = "It is no state, or a part of one."

    def extension(self, code: int, data: bytes) -> object:
        # ormsgpack makes one error of all; what there is to say is kept here.
        leaf = _LEAVES.get(code)
        if leaf is not None:
            try:
                return leaf(data)
            except _UnknownZone as error:
                self.problem = str(error)
                raise
        if code in _BUILDERS or code in _CLASSES:
            self.tagged = True
            return _Tag(code, str(data, "utf-8"))
        if code == _END and data == self._end:
            return self
        self.problem = "It has a tag that this version does not know."
        raise ValueError


# ── to msgpack ───────────────────────────────────────────────────────────────────────────────


def _read(data: bytes) -> tuple[Any, bool]:
    """The value in the data with its tags as they are, and whether it has any."""
    # Which part of the data the value takes is not told, so it is read as a pair with something
    # nobody can know: if that comes second, then the value ends where the data ends.
    end = token_bytes(16)
    reader = _Reader(end)
    framed = b"".join((b"\x92", data, b"\xd8", bytes((_END,)), end))
    try:
        value, last = ormsgpack.unpackb(framed, ext_hook=reader.extension)
    except ValueError:
        raise CorruptCheckpointError(reader.problem) from None
    if last is not reader:
        raise CorruptCheckpointError("Something follows the state.")
    return value, reader.tagged


class _Refused(ValueError):  # noqa: N818 - becomes a StateError, where the path is known
    pass


def _form(value: object) -> object:
    """What msgpack has for a value: an extension, a list that begins with one, or plain data."""
    cls: type = type(value)
    return _former(cls)(value)


@lru_cache(maxsize=1024)
def _former(cls: type) -> Callable[[Any], object]:
    """How values of a class are written."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(cls, (numpy.ndarray, numpy.generic)):
        return _from_numpy  # before float, which numpy's float64 extends
    kind = _kind(cls)
    if kind is not None:
        return _FORMERS[kind](cls)
    if str(cls.__module__).partition(".")[0] != "pandas":  # its Timestamp is more than a datetime
        for base, form in _FORMS:
            if issubclass(cls, base):
                return form
    return _refuse


def is_stored_by_name(cls: type) -> bool:
    """Whether objects of a class are stored by its name, so that it can be allowed."""
    return _kind(cls) is not None


def _kind(cls: type) -> int | None:
    """The code of a class that is stored by its name."""
    if issubclass(cls, Enum):
        return _ENUM
    if issubclass(cls, BaseModel):
        return _MODEL
    if dataclasses.is_dataclass(cls) or type_name(cls) in _RECORDS:
        return _DATACLASS
    return _NAMEDTUPLE if issubclass(cls, tuple) and hasattr(cls, "_fields") else None


def _refuse(value: object) -> object:
    raise _Refused(f"{type(value).__qualname__} cannot be stored")


def _tag(code: int, cls: type) -> Ext:
    return Ext(code, type_name(cls).encode())


def _enum_former(cls: type) -> Callable[[Any], object]:
    tag = _tag(_ENUM, cls)
    return lambda member: [tag, member.value]


def _dataclass_former(cls: type) -> Callable[[Any], object]:
    tag = _tag(_DATACLASS, cls)
    names = _RECORDS.get(type_name(cls)) or tuple(field.name for field in dataclasses.fields(cls))

    def form(value: object) -> object:
        found = ((name, getattr(value, name, _MISSING)) for name in names)
        return [tag, {name: item for name, item in found if item is not _MISSING}]

    return form


def _model_former(cls: type[BaseModel]) -> Callable[[Any], object]:
    tag = _tag(_MODEL, cls)
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
    tag = _tag(_NAMEDTUPLE, cls)
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
    if not _DTYPE.fullmatch(text) or numpy.dtype(text) != dtype:
        raise _Refused(f"numpy's {dtype} cannot be stored")
    if scalar:
        return [Ext(_SCALAR, text.encode()), value.tobytes()]
    return [Ext(_ARRAY, text.encode()), list(value.shape), value.tobytes()]


def _from_int(value: int) -> object:
    if -(1 << 63) <= value < 1 << 64:
        return int(value)  # of a subclass
    return Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _from_fraction(value: Fraction) -> object:
    if not _is_short(value.numerator, value.denominator):
        raise _Refused(f"a Fraction of more than {_MAX_FRACTION_BITS:,} bits cannot be stored")
    return [Ext(_FRACTION, b""), value.numerator, value.denominator]


def _is_short(*numbers: int) -> bool:
    return all(number.bit_length() <= _MAX_FRACTION_BITS for number in numbers)


def _from_set(value: set[object] | frozenset[object]) -> object:
    """In the order of their bytes: Python's own order is another one in each process."""
    return _set_of(value, value, _form_in_set)


def _set_of(
    value: set[Any] | frozenset[Any], items: Iterable[Any], form: Callable[[Any], object]
) -> object:
    code = _SET if isinstance(value, set) else _FROZENSET
    packed = partial(ormsgpack.packb, default=form, option=_OPTIONS)
    return [Ext(code, b""), *sorted(items, key=packed)]


def _form_in_set(value: object) -> object:
    """Sets in sets go the slow way: each is packed by a call of its own, and levels are counted."""
    return _refuse(value) if isinstance(value, set | frozenset) else _form(value)


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
            raise _Refused("a time whose zone has no offset cannot be stored")
        text += f"[{offset // timedelta(microseconds=1)}]"
    return (f"{text}~" if value.fold else text).encode()


def _from_path(value: PurePath) -> Ext:
    windows = isinstance(value, PureWindowsPath)
    letter = "w" if windows else "p"
    text = (letter.upper() if isinstance(value, Path) else letter) + str(value)
    return Ext(_PATH, text.encode("utf-8", "surrogatepass"))


def _from_address(letter: str, value: object) -> Ext:
    return Ext(_ADDRESS, f"{letter}{value}".encode())


def _from_zone(value: ZoneInfo | timezone) -> Ext:
    if isinstance(value, timezone):
        return Ext(_ZONE, f"={value.utcoffset(None) // _MICROSECOND}".encode())
    if value.key is None:
        raise _Refused("a time zone without a name cannot be stored")
    return Ext(_ZONE, value.key.encode())


#: The first that fits is taken: a datetime is a date, too.
_FORMS: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (int, _from_int),
    (str, str.__str__),
    (float, float.__float__),
    (tuple, lambda value: [Ext(_TUPLE, b""), *value]),
    (dict, dict),
    (list, list),
    (set, _from_set),
    (frozenset, _from_set),
    (datetime, lambda value: Ext(_DATETIME, _iso(value))),
    (date, lambda value: Ext(_DATE, date.isoformat(value).encode())),
    (time, lambda value: Ext(_TIME, _iso(value))),
    (
        timedelta,
        lambda value: Ext(
            _TIMEDELTA, struct.pack(">iii", value.days, value.seconds, value.microseconds)
        ),
    ),
    (UUID, lambda value: Ext(_UUID, value.bytes)),
    (Decimal, lambda value: Ext(_DECIMAL, str(value).encode())),
    (bytes, bytes),
    (bytearray, bytes),
    (deque, lambda value: [Ext(_DEQUE, b""), value.maxlen, *value]),
    (Fraction, _from_fraction),
    (complex, lambda value: Ext(_COMPLEX, struct.pack(">dd", value.real, value.imag))),
    (PurePath, _from_path),
    (ZoneInfo, _from_zone),
    (timezone, _from_zone),
    *((cls, partial(_from_address, letter)) for letter, cls in _ADDRESSES),
)

_FORMERS: dict[int, Callable[[Any], Callable[[Any], object]]] = {
    _ENUM: _enum_former,
    _MODEL: _model_former,
    _DATACLASS: _dataclass_former,
    _NAMEDTUPLE: _namedtuple_former,
}


def _packed_slowly(value: object) -> bytes:
    """Pack a state value by value: keys of all types, and an error knows where it is."""
    try:
        plain = _Walk().plain(value, "$")
        return ormsgpack.packb(plain, default=_form, option=_OPTIONS)
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
        return lambda made: _set_of(value, made, _form), [(f"{path}[*]", item) for item in value]
    try:
        form: Any = _form(value)
    except _Refused as refused:
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
    named = _kind(kind) is not None
    return lambda made: [tag, *made], [
        (path if named else f"{path}[{place}]", item) for place, item in enumerate(items)
    ]


def _mapping(parts: list[Any]) -> object:
    """A dict, or if a key is no text a list of keys and values."""
    if all(type(key) is str for key in parts[::2]):
        return dict(zip(parts[::2], parts[1::2], strict=True))
    return [Ext(_MAP, b""), *parts]


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


# ── from msgpack ─────────────────────────────────────────────────────────────────────────────


class _UnknownZone(ValueError):  # noqa: N818 - becomes the message of a CorruptCheckpointError
    pass


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
        raise _UnknownZone(
            "A time is of a zone that this machine does not know; install tzdata."
        ) from None


def _zone(data: bytes) -> ZoneInfo | timezone:
    text = str(data, "ascii")
    if text.startswith("="):
        return timezone(int(text[1:]) * _MICROSECOND)
    return _zone_named(text)


def _address(data: bytes) -> object:
    text = str(data, "ascii")
    for letter, cls in _ADDRESSES:
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
_LEAVES: dict[int, Callable[[bytes], object]] = {
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _DATETIME: _datetime,
    _DATE: lambda data: date.fromisoformat(str(data, "ascii")),
    _TIME: _time,
    _TIMEDELTA: lambda data: timedelta(*struct.unpack(">iii", data)),
    _DECIMAL: lambda data: Decimal(str(data, "ascii")),
    _COMPLEX: lambda data: complex(*struct.unpack(">dd", data)),
    _UUID: lambda data: UUID(bytes=data),
    _PATH: _path,
    _ZONE: _zone,
    _ADDRESS: _address,
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
    if not _is_short(numerator, denominator):
        raise ValueError
    return Fraction(numerator, denominator)


def _array(dtype: str, shape: list[int], data: bytes) -> object:
    # Text such as "O" would have numpy read the bytes as addresses.
    if type(shape) is not list or type(data) is not bytes or not _DTYPE.fullmatch(dtype):
        raise TypeError
    if len(shape) > 64 or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return {"dtype": dtype, "shape": shape, "data": data}
    if prod(shape) * numpy.dtype(dtype).itemsize != len(data):
        raise ValueError
    return numpy.ndarray(shape, dtype, data).copy()


def _scalar(dtype: str, data: bytes) -> object:
    found: Any = _array(dtype, [], data)
    return found if type(found) is dict else found[()]


#: What a list that begins with a tag stands for, from the tag's text and the rest of the list.
_BUILDERS: dict[int, Callable[..., object]] = {
    _TUPLE: lambda _, *items: items,
    _SET: lambda _, *items: _hashed(set, items),
    _FROZENSET: lambda _, *items: _hashed(frozenset, items),
    _DEQUE: _deque,
    _MAP: _map,
    _FRACTION: _fraction,
    _ARRAY: _array,
    _SCALAR: _scalar,
}


#: What lists of members and pairs become again once these can be hashed.
_HASHED: dict[int, Callable[[list[Any]], object]] = {_SET: set, _FROZENSET: frozenset, _MAP: dict}


def _dataclass(cls: Any, fields: dict[str, Any]) -> object:
    if type_name(cls) in _RECORDS:
        return cls(**fields)
    late = {field.name for field in dataclasses.fields(cls) if not field.init}
    made = cls(**{name: item for name, item in fields.items() if name not in late})
    for name in late & fields.keys():
        object.__setattr__(made, name, fields[name])
    return made


def _model(cls: Any, fields: dict[str, Any], unset: list[str], extra: dict[str, Any]) -> object:
    known = cls.model_fields
    given: Any = {**extra, **fields}
    for name in unset:
        # A default is not validated when a model is made (`name: str = None`), so not here either.
        default = known[name].default if name in known else _MISSING
        if type(default) is type(fields[name]) and default == fields[name]:
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


#: How an instance of an allowed class is made, and of what.
_CLASSES: dict[int, tuple[Callable[..., object], tuple[type, ...]]] = {
    _ENUM: (lambda cls, value: cls(value), (object,)),
    _DATACLASS: (_dataclass, (dict,)),
    _NAMEDTUPLE: (lambda cls, fields: cls(**fields), (dict,)),
    _MODEL: (_model, (dict, list, dict)),
}
