"""What is asked of a service has all rows that pass, and is them where it says so."""

from __future__ import annotations

import operator
from dataclasses import fields
from itertools import product
from typing import Any

from filtering import EACH, comparisons, filters, metadata
from hypothesis import given, settings

from haive.core.persistence.vector.backends._narrowing import (
    COMPARED,
    Between,
    Both,
    Either,
    Has,
    Narrow,
    narrow,
    number_key,
    numbers,
    terms,
    time_key,
)
from haive.core.persistence.vector.filters import matches, parse
from haive.core.persistence.vector.models import Memory


def found(where: Narrow | None, record: dict[str, Any]) -> bool:
    match where:
        case None:
            return True
        case Has(wanted):
            return not set(wanted).isdisjoint(terms(record))
        case Between(key, compared, bound):
            has = numbers(record)
            return key in has and bool(getattr(operator, _names(compared))(has[key], bound))
        case Both(parts):
            return all(found(part, record) for part in parts)
        case Either(parts):
            return any(found(part, record) for part in parts)
        case _:
            return not found(where.part, record)


def _names(compared: str) -> str:
    return {"gte": "ge", "lte": "le"}.get(compared, compared)


def lose_nothing(where: dict[str, Any], record: dict[str, Any]) -> None:
    parsed = parse(where)
    passes = matches(parsed, record)
    some = frozenset({number_key("seq"), time_key("timestamp")})
    for negations, comparable in product((True, False), (None, some)):
        narrowed = narrow(parsed, negations=negations, comparable=comparable)
        asked = found(narrowed.where, record)
        assert asked or not passes, (where, record)
        if narrowed.doubts is not None and narrowed.doubts.isdisjoint(terms(record)):
            assert asked is passes, (where, record)


@settings(max_examples=300, deadline=None)
@given(filters(), metadata())
def test_no_row_is_lost_and_doubts_are_named(where: dict[str, Any], record: Any) -> None:
    lose_nothing(where, record)


def test_no_comparison_loses_a_row() -> None:
    for where in comparisons():
        for record in ({}, *({"a": value} for value in EACH)):
            lose_nothing(where, record)


def test_what_is_looked_up_is_exact_without_reading() -> None:
    for where in (
        {"user_id": "u"}, {"kind": {"$in": ["turn", "note"]}}, {"n": {"$ne": 1}},
        {"topic": {"$exists": False}}, {"tags": {"$contains": 3}},
    ):  # fmt: skip
        assert narrow(parse(where)).doubts == frozenset()
    without = narrow(parse({"valid_to": {"$exists": False}}), negations=False)
    assert without.doubts == frozenset()
    assert narrow(parse({"topic": {"$exists": False}}), negations=False).doubts is None


def test_alternatives_are_looked_up_at_once() -> None:
    where = parse({"$or": [{"a": 1}, {"$or": [{"b": 2}, {"c": {"$in": [3, 4]}}]}, {"n": 5}]})
    narrowed = narrow(where)
    assert isinstance(narrowed.where, Has)
    assert len(narrowed.where.terms) == 5
    assert narrowed.doubts == frozenset()


def test_all_numbers_and_times_of_ours_are_compared() -> None:
    compared = ("int", "float", "datetime")
    ours = {each.name for each in fields(Memory) if str(each.type).startswith(compared)}
    assert set(COMPARED.values()) == ours
