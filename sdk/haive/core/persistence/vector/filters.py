"""Filters over the metadata of memories, the same in every backend.

    {"user_id": "user-123", "importance": {"$gte": 0.5}, "$or": [{"kind": "turn"}, {"tag": "a"}]}

``"a.b"`` and ``{"a": {"b": …}}`` name a key in an object; a path does not enter lists. What is not
there passes ``$ne``, ``$nin``, ``{"$exists": False}`` and what ``$not`` turns round, and nothing
else. `matches` is what a filter means; backends that evaluate filters themselves agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from haive.core.persistence.errors import InvalidFilterError, InvalidInputError
from haive.core.persistence.vector._values import compare, equal, is_number, to_json_value

__all__ = [
    "All", "AnyOf", "Comparison", "Filter", "Not", "Operator",
    "matches", "parse", "to_document", "to_json_value",
]  # fmt: skip

MAX_DEPTH = 10
MAX_COMPARISONS = 200
MAX_VALUES = 1000
MAX_TEXT = 10_000
_NOTHING = object()


class Operator(StrEnum):
    """How a value of the metadata is compared; in filters with a ``$`` before it."""

    EQ = "eq"
    """The same value, or a list that has it."""
    NE = "ne"
    GT = "gt"
    """More: numbers by size, texts by their characters' numbers; nothing else has an order."""
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"
    """One of several values, or a list that has one of them."""
    NIN = "nin"
    CONTAINS = "contains"
    """A list has the value, or a text has it as a part."""
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A value of the metadata, compared."""

    path: tuple[str, ...]
    operator: Operator
    value: Any


@dataclass(frozen=True, slots=True)
class All:
    """All parts hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of the parts holds, or more."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter: TypeAlias = Comparison | All | AnyOf | Not

_ORDER = {
    Operator.GT: (1,),
    Operator.GTE: (0, 1),
    Operator.LT: (-1,),
    Operator.LTE: (-1, 0),
}


def parse(filters: Mapping[str, Any] | None) -> Filter | None:
    """The filter that a mapping describes; None where it lets everything pass.

    Raises:
        InvalidFilterError: An operator is unknown, a value does not fit its operator, or there is
            too much of it: 10 levels, 200 comparisons, 1,000 values in a list and 10,000 characters
            in a text at most.
    """
    if filters is None:
        return None
    return _Parser().document(filters, (), 0)


def matches(where: Filter | None, metadata: Mapping[str, Any]) -> bool:
    """Whether metadata passes a filter."""
    match where:
        case None:
            return True
        case All(parts):
            return all(matches(part, metadata) for part in parts)
        case AnyOf(parts):
            return any(matches(part, metadata) for part in parts)
        case Not(part):
            return not matches(part, metadata)
        case Comparison(path, operator, value):
            return _holds(operator, value_at(metadata, path), value)


def to_document(where: Filter) -> dict[str, Any]:
    """The filter as JSON: ``op``, and ``parts`` or ``path`` and ``value``."""
    match where:
        case All(parts):
            return {"op": "and", "parts": [to_document(part) for part in parts]}
        case AnyOf(parts):
            return {"op": "or", "parts": [to_document(part) for part in parts]}
        case Not(part):
            return {"op": "not", "parts": [to_document(part)]}
        case Comparison(path, operator, value):
            return {"op": operator.value, "path": list(path), "value": value}


def value_at(metadata: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """What metadata has at a path; an object of no type of JSON where it has nothing."""
    found: Any = metadata
    for step in path:
        if not isinstance(found, Mapping) or step not in found:
            return _NOTHING
        found = found[step]
    return found


def _holds(operator: Operator, found: Any, value: Any) -> bool:  # noqa: PLR0911 - a table
    match operator:
        case Operator.EXISTS:
            return (found is not _NOTHING) is value
        case Operator.EQ:
            return _is(found, value)
        case Operator.NE:
            return not _is(found, value)
        case Operator.IN:
            return any(_is(found, wanted) for wanted in value)
        case Operator.NIN:
            return not any(_is(found, wanted) for wanted in value)
        case Operator.CONTAINS:
            if isinstance(found, str):
                return isinstance(value, str) and value in found
            return isinstance(found, list) and any(equal(inner, value) for inner in found)
        case _:
            return compare(found, value) in _ORDER[operator]


def _is(found: Any, value: Any) -> bool:
    if isinstance(found, list) and any(equal(inner, value) for inner in found):
        return True
    return equal(found, value)


class _Parser:
    """Counts what it reads, so that no filter costs more than it may."""

    def __init__(self) -> None:
        self._comparisons = 0

    def document(self, filters: object, path: tuple[str, ...], depth: int) -> Filter | None:
        where = ".".join(path) or "the filter"
        if not isinstance(filters, Mapping):
            raise InvalidFilterError(f"{where} is a {type(filters).__name__}, not a mapping.")
        if depth > MAX_DEPTH or len(path) > MAX_DEPTH:
            raise InvalidFilterError(f"The filter is nested more than {MAX_DEPTH} deep.")
        parts: list[Filter] = []
        for key, value in filters.items():
            if not isinstance(key, str):
                raise InvalidFilterError(f"{where} has a key that is no text.")
            if not key.startswith("$"):
                parts.append(self._field(path + self._steps(key, where), value, depth + 1))
            elif path:
                parts.append(self._operator(path, key, value, depth + 1))
            else:
                parts.append(self._group(key, value, depth + 1))
        return _all(parts)

    def _group(self, key: str, value: object, depth: int) -> Filter:
        if key == "$not":
            return Not(self._given(self.document(value, (), depth), "$not"))
        if key not in {"$and", "$or"}:
            raise InvalidFilterError(
                f"{key} is no operator that stands alone: those are $and, $or and $not.",
                hint="Write it as {'key': {'" + key[:40] + "': value}}." if _known(key) else None,
            )
        if not isinstance(value, list | tuple) or not value:
            raise InvalidFilterError(f"{key} takes a list of filters, with one at least.")
        parts = [self._given(self.document(part, (), depth), key) for part in value]
        if len(parts) == 1:
            return parts[0]
        return AnyOf(tuple(parts)) if key == "$or" else All(tuple(parts))

    def _field(self, path: tuple[str, ...], value: object, depth: int) -> Filter:
        if not isinstance(value, Mapping):
            return self._comparison(path, Operator.EQ, value)
        name = ".".join(path)
        if len({str(key).startswith("$") for key in value}) > 1:
            raise InvalidFilterError(f"{name} has operators beside keys; write it as two entries.")
        return self._given(self.document(value, path, depth), name)

    def _operator(self, path: tuple[str, ...], key: str, value: object, depth: int) -> Filter:
        if key == "$not":
            if not isinstance(value, Mapping) or not all(str(inner)[:1] == "$" for inner in value):
                raise InvalidFilterError(f"$not at {'.'.join(path)} takes operators.")
            return Not(self._given(self.document(value, path, depth), "$not"))
        if not _known(key):
            known = ", ".join(f"${operator}" for operator in Operator)
            raise InvalidFilterError(
                f"{key[:40]} at {'.'.join(path)} is no operator.", hint=f"There are {known}, $not."
            )
        return self._comparison(path, Operator(key[1:]), value)

    def _comparison(self, path: tuple[str, ...], operator: Operator, value: object) -> Filter:
        name = f"${operator} at {'.'.join(path)}"
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise InvalidFilterError(f"The filter has more than {MAX_COMPARISONS} comparisons.")
        try:
            plain = to_json_value(value, name)
        except InvalidInputError as error:
            raise InvalidFilterError(error.message) from None
        if operator in {Operator.IN, Operator.NIN} and not isinstance(plain, list):
            raise InvalidFilterError(f"{name} takes a list of values.")
        if operator is Operator.EXISTS and not isinstance(plain, bool):
            raise InvalidFilterError(f"{name} takes True or False.")
        if operator in _ORDER and not (is_number(plain) or isinstance(plain, str)):
            raise InvalidFilterError(f"{name} compares numbers, texts and times.")
        _bound(plain, name)
        return Comparison(path, operator, plain)

    def _steps(self, key: str, where: str) -> tuple[str, ...]:
        steps = tuple(key.split("."))
        if not all(steps) or any(step.startswith("$") for step in steps) or "\x00" in key:
            raise InvalidFilterError(f"{where} has a key that is no path: {key[:40]!r}.")
        try:
            key.encode()
        except UnicodeEncodeError:
            raise InvalidFilterError(f"{where} has a key that is no valid Unicode.") from None
        if len(key) > MAX_TEXT:
            raise InvalidFilterError(f"{where} has a key of more than {MAX_TEXT:,} characters.")
        return steps

    def _given(self, part: Filter | None, where: str) -> Filter:
        if part is None:
            raise InvalidFilterError(f"{where} has nothing to compare with.")
        return part


def _all(parts: list[Filter]) -> Filter | None:
    if len(parts) > 1:
        return All(tuple(parts))
    return parts[0] if parts else None


def _known(key: str) -> bool:
    return key[1:] in Operator.__members__.values()


def _bound(value: Any, name: str) -> None:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise InvalidFilterError(f"{name} has a text of more than {MAX_TEXT:,} characters.")
    if isinstance(value, list | dict):
        if len(value) > MAX_VALUES:
            raise InvalidFilterError(f"{name} has more than {MAX_VALUES:,} values.")
        for inner in value if isinstance(value, list) else value.values():
            _bound(inner, name)
