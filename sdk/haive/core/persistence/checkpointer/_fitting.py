"""Whether values are of the types that a class of pydantic's declares; none is validated."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NewType,
    NotRequired,
    Union,
    get_args,
    get_origin,
)

# Pydantic's own: it knows the typed dicts of either module.
from typing_extensions import get_type_hints, is_typeddict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Check = Callable[[Any], bool]

# What is an integer is a float and a complex number, too, as in annotations.
_NUMBERS: dict[Any, tuple[type, ...]] = {float: (float, int), complex: (complex, float, int)}
_OF_ITEMS = (list, set, frozenset, deque, Sequence, AbstractSet, Collection)
_OF_PAIRS = (dict, Mapping)


@lru_cache(maxsize=1024)
def checks_of(cls: Any) -> dict[str, Check]:
    """What tells whether a field's value is of its type, by the names of the fields.

    It says no where it cannot tell: pydantic can, which makes another value of some.
    """
    found = {name: _check(field.annotation) for name, field in cls.__pydantic_fields__.items()}
    return {name: check for name, check in found.items() if check is not _always}


def _check(kind: Any) -> Check:  # noqa: PLR0911 - a table of types
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return _always
    if kind is None:
        return lambda value: value is None
    if origin is Annotated:
        return _check(args[0])
    if isinstance(kind, NewType):
        return _check(kind.__supertype__)
    if origin is Union or origin is types.UnionType:
        return _check_of_union(args)
    if origin is Literal:
        return lambda value: any(type(value) is type(one) and value == one for one in args)
    if is_typeddict(kind):  # looked into when there is one: it may hold others of its kind
        return lambda value: type(value) is dict and _fits_typeddict(kind, value)
    if origin is tuple:
        return _check_of_tuple(args)
    if origin in _OF_ITEMS and args:
        items = _check_of_all(args[0])
        return lambda value: isinstance(value, origin) and items(value)
    if origin in _OF_PAIRS and args:
        keys, values = map(_check_of_all, args)
        return lambda value: isinstance(value, origin) and keys(value) and values(value.values())
    if _is_plain(kind):
        classes = _classes(kind)
        return lambda value: isinstance(value, classes)
    return _never


def _check_of_union(args: tuple[Any, ...]) -> Check:
    plain = tuple(each for one in args if _is_plain(one) for each in _classes(one))
    checks = [_check(one) for one in args if not _is_plain(one)]
    if _always in checks:
        return _always
    return lambda value: isinstance(value, plain) or any(fits(value) for fits in checks)


def _check_of_tuple(args: tuple[Any, ...]) -> Check:
    if len(args) == 2 and args[1] is ...:
        items = _check_of_all(args[0])
        return lambda value: type(value) is tuple and items(value)
    each = [_check(one) for one in args]
    return lambda value: (
        type(value) is tuple
        and len(value) == len(each)
        and all(fits(item) for fits, item in zip(each, value, strict=True))
    )


def _fits_typeddict(kind: Any, value: dict[str, Any]) -> bool:
    needed, checks = _checks_of_typeddict(kind)
    return needed <= value.keys() <= checks.keys() and all(
        checks[name](item) for name, item in value.items()
    )


@lru_cache(maxsize=1024)
def _checks_of_typeddict(kind: Any) -> tuple[frozenset[str], dict[str, Check]]:
    checks = {name: _check(one) for name, one in get_type_hints(kind).items()}
    # Where annotations are text, the class itself takes all its keys for needed.
    told: dict[str, Any] = get_type_hints(kind, include_extras=True)
    optional: Any = NotRequired
    needed = (name for name in kind.__required_keys__ if get_origin(told[name]) is not optional)
    return frozenset(needed), checks


def _check_of_all(kind: Any) -> Callable[[Iterable[Any]], bool]:
    """What tells of all items; of a plain class by their few types: a million numbers in 15 ms."""
    check = _check(kind)
    if check is _always:
        return _always
    if _is_plain(kind):
        classes = _classes(kind)
        return lambda items: all(issubclass(each, classes) for each in set(map(type, items)))
    return lambda items: all(map(check, items))


def _is_plain(kind: Any) -> bool:
    """Whether an instance of the class is all that a value has to be."""
    protocol = getattr(kind, "_is_protocol", False)
    plain = isinstance(kind, type) and get_origin(kind) is None
    anything = kind is object or kind is Any  # which is a class as well
    return plain and not anything and not protocol and not is_typeddict(kind)


def _classes(kind: type) -> tuple[type, ...]:
    return _NUMBERS.get(kind, (kind,))


def _always(_: object) -> bool:
    return True


def _never(_: object) -> bool:
    return False
