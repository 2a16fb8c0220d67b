"""What filters mean, and what they refuse."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from filtering import filters, metadata, passes
from hypothesis import given, settings

from haive.core.persistence.errors import InvalidFilterError, InvalidInputError
from haive.core.persistence.vector.filters import (
    All,
    AnyOf,
    Comparison,
    Filter,
    Not,
    Operator,
    matches,
    parse,
    to_document,
    to_json_value,
)


def rebuilt(document: dict[str, Any]) -> Filter:
    if "parts" not in document:
        return Comparison(tuple(document["path"]), Operator(document["op"]), document["value"])
    parts = tuple(rebuilt(part) for part in document["parts"])
    return {"and": All, "or": AnyOf, "not": lambda inner: Not(inner[0])}[document["op"]](parts)


@settings(max_examples=500, deadline=None)
@given(filters(), metadata())
def test_two_readings_of_a_filter_agree(given_filters: dict[str, Any], record: Any) -> None:
    where = parse(given_filters)
    assert matches(where, record) is (where is None or passes(to_document(where), record))


@settings(max_examples=150, deadline=None)
@given(filters())
def test_a_filter_survives_its_json(given_filters: dict[str, Any]) -> None:
    where = parse(given_filters)
    if where is not None:
        assert rebuilt(json.loads(json.dumps(to_document(where)))) == where


@settings(max_examples=150, deadline=None)
@given(filters(), filters(), metadata())
def test_not_of_both_is_either_not(one: dict[str, Any], two: dict[str, Any], record: Any) -> None:
    if not one or not two:
        return
    both = parse({"$not": {"$and": [one, two]}})
    either = parse({"$or": [{"$not": one}, {"$not": two}]})
    assert matches(both, record) is matches(either, record)


@pytest.mark.parametrize(
    ("where", "record", "expected"),
    [
        ({}, {}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {}, False),
        ({"a": {"$ne": 1}}, {}, True),
        ({"a": {"$not": {"$gt": 1}}}, {}, True),
        ({"a": {"$gt": 1}}, {"a": "2"}, False),
        ({"a": {"$gt": "a"}}, {"a": "b"}, True),
        ({"a": {"$gte": 1, "$lt": 3}}, {"a": 3}, False),
        ({"a": "x"}, {"a": ["x", "y"]}, True),
        ({"a": ["x", "y"]}, {"a": ["x", "y"]}, True),
        ({"a": {"$ne": "x"}}, {"a": ["x", "y"]}, False),
        ({"a": {"$gt": 1}}, {"a": [2]}, False),
        ({"a": {"$in": []}}, {"a": 1}, False),
        ({"a": {"$nin": []}}, {"a": 1}, True),
        ({"a": {"$contains": "pen"}}, {"a": "carpenter"}, True),
        ({"a": {"$contains": "pen"}}, {"a": ["carpenter"]}, False),
        ({"a": {"$contains": 1}}, {"a": [1.0]}, True),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, True),
        ({"a": {"$eq": {"b": 1}}}, {"a": {"b": 1, "c": 2}}, False),
        ({"a.b": 1}, {"a": [{"b": 1}]}, False),
        ({"a.b": {"$exists": False}}, {"a": 1}, True),
        ({"$or": [{"a": 1}, {"b": 1}], "c": 1}, {"b": 1, "c": 1}, True),
        ({"t": {"$gt": date(2026, 1, 1)}}, {"t": "2026-01-01T00:00:00.000001Z"}, True),
        ({"a": {"$eq": 10**23}}, {"a": 1e23}, True),
        ({"a": {"$gt": 2**53}}, {"a": 2**53 + 1}, True),
    ],
)
def test_what_passes(where: dict[str, Any], record: dict[str, Any], expected: bool) -> None:
    assert matches(parse(where), record) is expected


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ([], "the filter is a list"),
        ({"a": {"$near": 1}}, r"\$near at a is no operator"),
        ({"$near": 1}, r"\$near is no operator that stands alone"),
        ({"$gt": 1}, r"Write it as"),
        ({"a": {"b": {"$like": 1}}}, r"\$like at a\.b"),
        ({"a": {}}, "a has nothing"),
        ({"a": {"$gt": 1, "b": 1}}, "operators beside keys"),
        ({"a": {"$in": 1}}, "list of values"),
        ({"a": {"$in": list(range(1001))}}, "1,000 values"),
        ({"a": {"$exists": 1}}, "True or False"),
        ({"a": {"$gt": None}}, "compares numbers, texts and times"),
        ({"a": {"$gt": True}}, "compares numbers, texts and times"),
        ({"a": {"$not": 1}}, "takes operators"),
        ({"a": float("nan")}, "NaN"),
        ({"a": 10**5000}, "300 digits"),
        ({"a": object()}, "no JSON"),
        ({"a": "\x00"}, "NUL"),
        ({"a": "\ud800"}, "surrogate"),
        ({"\ud800": 1}, "no valid Unicode"),
        ({"a": "x" * 10_001}, "10,000 characters"),
        ({"a..b": 1}, "no path"),
        ({"": 1}, "no path"),
        ({1: 1}, "no text"),
        ({"$or": []}, "one at least"),
        ({"$or": [{}]}, "nothing"),
        ({"$and": {"a": 1}}, "list of filters"),
        ({"$or": [{"a": n} for n in range(201)]}, "200 comparisons"),
    ],
)
def test_what_is_refused_is_named(where: Any, said: str) -> None:
    with pytest.raises(InvalidFilterError, match=said):
        parse(where)


def test_depth_is_bounded_before_the_stack_is() -> None:
    deep: dict[str, Any] = {"a": 1}
    for _ in range(5000):
        deep = {"$not": deep}
    with pytest.raises(InvalidFilterError, match="10 deep"):
        parse(deep)
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(InvalidFilterError, match="10 deep"):
        parse({"a": value})


class Kind(Enum):
    TURN = "turn"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.fromisoformat("2026-01-02T03:04:05.000006"), "2026-01-02T03:04:05.000006Z"),
        (
            datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-02T01:00:00.000000Z",
        ),
        (datetime(33, 4, 3, tzinfo=UTC), "0033-04-03T00:00:00.000000Z"),
        (date(2026, 1, 2), "2026-01-02T00:00:00.000000Z"),
        (Kind.TURN, "turn"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("0.5"), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        ({"b", "a"}, ["a", "b"]),
        ((1, {"a": date(2026, 1, 2)}), [1, {"a": "2026-01-02T00:00:00.000000Z"}]),
    ],
)
def test_values_have_one_form(value: Any, expected: Any) -> None:
    found = to_json_value(value)
    assert found == expected
    assert type(found) is type(expected)


def test_a_time_outside_of_the_calendar_is_refused() -> None:
    before = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    with pytest.raises(InvalidInputError, match="years 1 to 9999"):
        to_json_value(before)
