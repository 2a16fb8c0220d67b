"""Paths into states, and what states are searched by."""

from __future__ import annotations

from enum import Enum
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.checkpointer._matching import (
    flatten_scalars,
    matching_terms,
)
from haive.core.persistence.checkpointer._paths import child, join, lookup, parse
from haive.core.persistence.errors import InvalidInputError

STATE = {
    "status": "done",
    "count": 3,
    "ok": True,
    "nothing": None,
    "plan": {"stage": "draft", "steps": [{"name": "a"}, {"name": "b"}], "a key": 1},
    "tags": ["x", "y"],
    "prose": "x" * 257,
}


class Stage(Enum):
    DRAFT = "draft"


@given(st.lists(st.text() | st.integers(min_value=0, max_value=10**6)))
def test_a_path_says_its_steps(steps: list[str | int]) -> None:
    path = "$"
    for step in steps:
        path = child(path, step)
    assert parse(path) == tuple(steps)
    assert join("$", path) == path
    assert path.isprintable() or "\u200c" in path or "\u200d" in path


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("status", "$.status"),
        ("plan.stage", "$.plan.stage"),
        ("$.plan.steps[0].name", "$.plan.steps[0].name"),
        ("plan.a key", '$.plan["a key"]'),
        ("plan['it\\'s \"x\"']", '$.plan["it\'s \\"x\\""]'),
        ('["a.b"].c', '$["a.b"].c'),
        ("[3]", "$[3]"),
        ("$", "$"),
        ("$x", '$["$x"]'),
        ("größe", "$.größe"),
    ],
)
def test_people_write_paths_as_they_like(path: str, stored: str) -> None:
    assert join("$", path) == stored


@pytest.mark.parametrize(
    "path",
    ["", "a..b", ".a", "a.", "a[", "a[-1]", "a[x]", "$.", "$a[", 'a["b]', "a[0]b", 'a["\\x"]'],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidInputError, match="is no path"):
        parse(path)


def test_lookup_finds_what_is_there_and_else_the_default() -> None:
    assert lookup(STATE, "plan.steps[1].name") == "b"
    assert lookup(STATE, "$") is STATE
    assert lookup(STATE, "nothing", "default") is None
    for path in ("plan.steps[2]", "plan.steps.0", "plan[0]", "status.x", "missing"):
        assert lookup(STATE, path, "default") == "default"


def test_the_top_level_is_searched_unless_paths_are_named() -> None:
    assert flatten_scalars(STATE, None) == {
        "$.status": "done", "$.count": 3, "$.ok": True, "$.nothing": None,
    }  # fmt: skip
    named = ("status", "plan.steps[0].name", "$.plan.stage", "plan", "tags", "missing", "prose")
    assert flatten_scalars(STATE, named) == {
        "$.status": "done", "$.plan.steps[0].name": "a", "$.plan.stage": "draft",
    }  # fmt: skip
    assert flatten_scalars(["x"], None) == {}


@pytest.mark.parametrize("value", [nan, inf, 10**400, "a\0b", "\ud800", "x" * 257])
def test_what_cannot_be_searched_for_is_left_out_and_refused_in_a_pattern(value: object) -> None:
    assert flatten_scalars({"a": value}, None) == {}
    assert flatten_scalars({"a": value}, ["a"]) == {}
    with pytest.raises(InvalidInputError, match=r"\$\.a: this value is never found"):
        matching_terms({"a": value})


def test_nested_and_dotted_patterns_are_the_same_terms() -> None:
    assert matching_terms({"status": "done", "plan": {"stage": Stage.DRAFT}, "plan.n": None}) == [
        ("$.status", "done"), ("$.plan.stage", "draft"), ("$.plan.n", None),
    ]  # fmt: skip
    assert matching_terms({"plan": {"steps[0].name": "a"}}) == [("$.plan.steps[0].name", "a")]
    assert matching_terms({}) == []


@pytest.mark.parametrize("value", [["x"], (1,), {1}, {}])
def test_a_pattern_asks_for_exact_scalars_only(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"\$\.plan\.x: .* only exact scalars"):
        matching_terms({"plan": {"x": value}})


@given(
    st.dictionaries(
        st.text(min_size=1).map(lambda key: child("$", key)),
        st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["a", "b"]),
    )
)
def test_the_terms_of_a_pattern_are_those_of_its_state(
    pattern: dict[str, object],
) -> None:
    tree = {parse(path)[0]: value for path, value in pattern.items()}
    assert dict(matching_terms(pattern)) == flatten_scalars(tree, None)
