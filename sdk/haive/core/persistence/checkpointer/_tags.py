"""How values that msgpack does not have are called in what is stored."""

from __future__ import annotations

import dataclasses
import re
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from pydantic import BaseModel

# What is stored: a number is never given to something else.
INT, DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, COMPLEX, UUID, PATH = range(1, 10)
ZONE, ADDRESS = range(10, 12)
TUPLE, SET, FROZENSET, DEQUE, MAP, FRACTION = range(20, 26)
ENUM, DATACLASS, MODEL, NAMEDTUPLE, ARRAY, SCALAR = range(40, 46)

#: Classes of LangGraph that are data and neither a dataclass nor a model: their fields.
RECORDS = {
    "langgraph.types:Send": ("node", "arg", "timeout"),
    "langgraph.store.base:Item": ("value", "key", "namespace", "created_at", "updated_at"),
}

#: Text that describes a dtype of numpy wholly; that of an empty text or empty bytes is the last.
DTYPE = re.compile(r"[<>|=]([biufcmMSUV][1-9]\d{0,8}(\[\d{0,9}[A-Za-z]{1,2}\])?|[SU]0)")
# An interface is an address, too.
ADDRESSES: tuple[tuple[str, type], ...] = (
    ("i", IPv4Interface),
    ("I", IPv6Interface),
    ("a", IPv4Address),
    ("A", IPv6Address),
    ("n", IPv4Network),
    ("N", IPv6Network),
)

# A fraction is reduced when it is made, in quadratic time: 0.1 ms at this length.
MAX_FRACTION_BITS = 8192


def type_name(cls: type) -> str:
    """How a class is called in what is stored: ``module:qualname``."""
    return f"{cls.__module__}:{cls.__qualname__}"


def is_stored_by_name(cls: type) -> bool:
    """Whether objects of a class are stored by its name, so that it can be allowed."""
    return kind_of(cls) is not None


def kind_of(cls: type) -> int | None:
    """The code of a class that is stored by its name."""
    if issubclass(cls, Enum):
        return ENUM
    if issubclass(cls, BaseModel):
        return MODEL
    if dataclasses.is_dataclass(cls) or type_name(cls) in RECORDS:
        return DATACLASS
    return NAMEDTUPLE if issubclass(cls, tuple) and hasattr(cls, "_fields") else None


def is_short(*numbers: int) -> bool:
    """Whether a fraction may be made of these."""
    return all(number.bit_length() <= MAX_FRACTION_BITS for number in numbers)
