"""What a service can tell of a filter: a set that has all rows which pass, or exactly them.

Services compare differently, and differently from `matches`: 1 and 1.0, null and missing, text and
time. So beside a record's metadata stand `terms`, digests of its paths and values, and `numbers`,
its numbers and times as floats. Looking a term up and comparing two floats means the same
everywhere, and a filter becomes those two. Where that is wider than the filter, what is found is
checked with `matches`; `Narrowed.doubts` are the terms of the rows that this concerns.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from haive.core.persistence.vector._values import is_number, seconds_of
from haive.core.persistence.vector.filters import All, AnyOf, Comparison, Filter, Not, Operator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Has no record: what nothing passes.
NOWHERE = "-"
# Names of ours that a record says of to be missing, for services that cannot negate.
_OWN = ("archived", "conversation_id", "expires_at", "superseded_by", "user_id", "valid_from",
        "valid_to")  # fmt: skip
_EXACT = 2**53
# Up to here, the year 2242, floats of seconds are less than a microsecond apart.
_SECONDS = 2.0**33
_DIGITS = Context(prec=1000)
_LOOKED_UP = {Operator.EQ, Operator.IN, Operator.EXISTS}
_ORDER = {Operator.GT, Operator.GTE, Operator.LT, Operator.LTE}


@dataclass(frozen=True, slots=True)
class Has:
    """One of the terms, or more."""

    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """A number, compared with ``gt``, ``gte``, ``lt`` or ``lte``."""

    key: str
    operator: Operator
    bound: float


@dataclass(frozen=True, slots=True)
class Both:
    """All of several."""

    parts: tuple[Narrow, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of several, or more."""

    parts: tuple[Narrow, ...]


@dataclass(frozen=True, slots=True)
class Neither:
    """Not this term or comparison; nothing else is negated."""

    part: Has | Between


Narrow: TypeAlias = Has | Between | Both | Either | Neither


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """``where`` is passed by all rows that pass the filter; None by every row.

    Rows that pass ``where`` and none of ``doubts`` pass the filter; None if any may not.
    """

    where: Narrow | None
    doubts: frozenset[str] | None = field(default_factory=frozenset)


def terms(metadata: Mapping[str, Any]) -> list[str]:
    """What is looked up of a record, sorted."""
    found = {_term("absent", (name,)) for name in _OWN if name not in metadata}
    for path, value in _paths(metadata, ()):
        found |= {_term("exists", path), _term("is", path, value)}
        for inner in value if isinstance(value, list) else ():
            found |= {_term("is", path, inner), _contained(path, inner)}
        if isinstance(value, str):
            found.add(_term("text", path))
            if _time(value) is None:
                found.add(_term("untimely", path))
        elif is_number(value) and _number(value) is None:
            found.add(_term("inexact", path))
    return sorted(found)


def numbers(metadata: Mapping[str, Any]) -> dict[str, float]:
    """What is compared of a record: numbers, and times as seconds since 1970."""
    found: dict[str, float] = {}
    for path, value in _paths(metadata, ()):
        if is_number(value) and (number := _number(value)) is not None:
            found[_term("number", path)] = number
        elif isinstance(value, str) and (seconds := _time(value)) is not None:
            found[_term("time", path)] = seconds
    return found


def number_key(name: str) -> str:
    """Under which `numbers` has the numbers of a name."""
    return _term("number", (name,))


def time_key(name: str) -> str:
    """Under which `numbers` has the times of a name."""
    return _term("time", (name,))


def narrow(
    where: Filter | None, *, negations: bool = True, comparable: frozenset[str] | None = None
) -> Narrowed:
    """What a service can tell of a filter.

    Args:
        where: The filter.
        negations: Whether the service can be asked for rows without a term.
        comparable: Keys of numbers that the service compares; all if not given.
    """
    if where is None:
        return Narrowed(where=None)
    return _narrow(where, _Service(negations, comparable), turned=False)


def both(*parts: Narrow | None) -> Narrow | None:
    """All of several, of which None is every row."""
    given = tuple(part for part in parts if part is not None)
    return Both(given) if len(given) > 1 else (given[0] if given else None)


@dataclass(frozen=True, slots=True)
class _Service:
    negations: bool
    comparable: frozenset[str] | None


def _narrow(where: Filter, service: _Service, *, turned: bool) -> Narrowed:
    match where:
        case Not(part):
            return _narrow(part, service, turned=not turned)
        case All(parts) | AnyOf(parts):
            every = isinstance(where, All) is not turned
            found = [_narrow(part, service, turned=turned) for part in parts]
            return _all(found) if every else _any(found)
        case Comparison(path, Operator.NE, value):
            where, turned = Comparison(path, Operator.EQ, value), not turned
        case Comparison(path, Operator.NIN, value):
            where, turned = Comparison(path, Operator.IN, value), not turned
        case Comparison(path, Operator.EXISTS, value) if not value:
            where, turned = Comparison(path, Operator.EXISTS, value=True), not turned
    if not turned:
        return _positive(where, service)
    if where.operator is Operator.EXISTS and where.path[1:] == () and where.path[0] in _OWN:
        return Narrowed(where=Has((_term("absent", where.path),)))
    return _negative(where, service) if service.negations else Narrowed(where=None, doubts=None)


def _positive(where: Comparison, service: _Service) -> Narrowed:
    path, operator, value = where.path, where.operator, where.value
    if operator in _LOOKED_UP:
        return Narrowed(where=Has(_looked_up(where)))
    if operator is Operator.CONTAINS:
        has = _contained(path, value)
        if not isinstance(value, str):
            return Narrowed(where=Has((has,)))
        text = _term("text", path)
        return Narrowed(where=Has((has, text)), doubts=frozenset({text}))
    between, other = _comparable(where, service)
    if between is None:
        return Narrowed(where=Has((other,)), doubts=frozenset({other}))
    return Narrowed(where=Either((between, Has((other,)))), doubts=frozenset({other}))


def _negative(where: Comparison, service: _Service) -> Narrowed:
    if where.operator is Operator.CONTAINS:
        has = _contained(where.path, where.value)
        text = {_term("text", where.path)} if isinstance(where.value, str) else set()
        return Narrowed(where=Neither(Has((has,))), doubts=frozenset(text))
    if where.operator in _ORDER:
        between, other = _comparable(where, service)
        narrowed = Neither(between) if between is not None else None
        return Narrowed(where=narrowed, doubts=frozenset({other}))
    return Narrowed(where=Neither(Has(_looked_up(where))))


def _looked_up(where: Comparison) -> tuple[str, ...]:
    """The terms of which a record has one, if and only if it passes."""
    if where.operator is Operator.EXISTS:
        return (_term("exists", where.path),)
    values = where.value if where.operator is Operator.IN else [where.value]
    return tuple(sorted({_term("is", where.path, each) for each in values})) or (NOWHERE,)


def _contained(path: tuple[str, ...], value: Any) -> str:
    """The term of lists with a value; a text contains itself, so of texts one term says both."""
    return _term("is" if isinstance(value, str) else "has", path, value)


def _comparable(where: Comparison, service: _Service) -> tuple[Between | None, str]:
    """The comparison of floats, and the term of the rows that it does not decide."""
    value, path = where.value, where.path
    if isinstance(value, str):
        bound, key, other = _time(value), _term("time", path), _term("untimely", path)
    else:
        bound, key, other = _number(value), _term("number", path), _term("inexact", path)
    if bound is None or (service.comparable is not None and key not in service.comparable):
        # A text that is no time, a number beyond 2^53, or a key that the service has not.
        return None, _term("exists", path)
    return Between(key, where.operator, bound), other


def _all(parts: Sequence[Narrowed]) -> Narrowed:
    return Narrowed(where=both(*(part.where for part in parts)), doubts=_doubts(parts))


def _any(parts: Sequence[Narrowed]) -> Narrowed:
    given: list[Narrow] = []
    wanted: set[str] = set()
    for part in parts:
        if part.where is None:
            return Narrowed(where=None, doubts=_doubts(parts))
        # Terms of all alternatives are looked up at once.
        for one in part.where.parts if isinstance(part.where, Either) else (part.where,):
            if isinstance(one, Has):
                wanted.update(one.terms)
            else:
                given.append(one)
    if wanted:
        given.append(Has(tuple(sorted(wanted))))
    return Narrowed(
        where=given[0] if len(given) == 1 else Either(tuple(given)), doubts=_doubts(parts)
    )


def _doubts(parts: Sequence[Narrowed]) -> frozenset[str] | None:
    found: frozenset[str] = frozenset()
    for part in parts:
        if part.doubts is None:
            return None
        found |= part.doubts
    return found


def _paths(
    value: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, inner in value.items():
        yield (*path, key), inner
        if isinstance(inner, dict):
            yield from _paths(inner, (*path, key))


def _number(value: float) -> float | None:
    return float(value) if abs(value) <= _EXACT else None


def _time(value: str) -> float | None:
    seconds = seconds_of(value)
    return seconds if seconds is not None and abs(seconds) < _SECONDS else None


def _term(sort: str, path: tuple[str, ...], *values: Any) -> str:
    """A digest: as long for a whole text as for a word, and no service reads it as something."""
    text = json.dumps([sort, path, [_form(value) for value in values]], sort_keys=True)
    return "t" + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _form(value: Any) -> Any:
    """A value as JSON that is the same text for the same value, numbers by their digits."""
    if is_number(value):
        digits = _DIGITS.normalize(Decimal(repr(value)))
        return {"number": str(digits or 0)}
    if isinstance(value, dict):
        return {"object": {key: _form(inner) for key, inner in value.items()}}
    if isinstance(value, list):
        return [_form(inner) for inner in value]
    return value


#: Names of ours that are compared, by their keys: for services that have to know before what is.
COMPARED = {number_key(name): name for name in ("importance", "seq", "until_seq")} | {
    time_key(name): name
    for name in (
        "timestamp", "valid_from", "valid_to", "archived_from", "expires_at", "created_at",
        "renewed_at",
    )
}  # fmt: skip
