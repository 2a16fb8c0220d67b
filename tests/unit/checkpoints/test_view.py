"""A state as a plain tree."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from math import inf, isnan, nan
from pathlib import PurePosixPath
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, SecretStr

from haive.core.persistence.checkpointer._text import json_text, printable, size_text
from haive.core.persistence.checkpointer._view import view
from haive.core.persistence.errors import StateError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Stage(StrEnum):
    DRAFT = "draft"


class Level(IntEnum):
    LOW = 1


class Box(Enum):
    FULL = (1, 2)


@dataclass
class Step:
    name: str
    done: set[str] = field(default_factory=set)
    unset: int = field(init=False)


class Plan(BaseModel):
    model_config = ConfigDict(extra="allow")

    stage: Stage
    step: Step


Point = namedtuple("Point", "x y")


@given(trees)
def test_a_plain_tree_is_its_own_view_and_nothing_of_it_is_shared(tree: object) -> None:
    viewed = view(tree)
    assert viewed == tree
    assert view(viewed) == viewed
    if isinstance(tree, list | dict):
        assert viewed is not tree


@pytest.mark.parametrize(
    ("value", "viewed"),
    [
        (Stage.DRAFT, "draft"),
        (Level.LOW, 1),
        (Box.FULL, [1, 2]),
        ((1, (2,)), [1, [2]]),
        (Point(1, (2,)), {"x": 1, "y": [2]}),
        (deque([1]), [1]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        ({3, 1, 2.5}, [1, 2.5, 3]),
        (frozenset({"b", 2, None, "a", (1,), True}), [2, "a", "b", [1], None, True]),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
        (datetime(2026, 1, 2), "2026-01-02T00:00:00"),  # noqa: DTZ001 - stays naive
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1, microseconds=5), 60.000005),
        (Decimal("1.10"), "1.10"),
        (Fraction(1, 3), "1/3"),
        (1 + 2j, "(1+2j)"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/a/b"), "/a/b"),
        (b"\x00\xff", "base64:AP8="),
        (bytearray(b"a"), "base64:YQ=="),
        (10**400, 10**400),
        (inf, inf),
    ],
)
def test_a_value_is_seen_as_what_people_write_for_it(value: object, viewed: object) -> None:
    assert view(value) == viewed
    assert view({"in": [value]}) == {"in": [viewed]}
    assert type(view(value)) is type(viewed)


def test_nan_stays_a_float() -> None:
    assert isnan(view([nan])[0])


@pytest.mark.parametrize(
    ("key", "text"),
    [(1, "1"), (None, "null"), (True, "true"), ((1, "a"), '[1, "a"]'), (Stage.DRAFT, "draft")],
)  # fmt: skip
def test_a_key_that_is_no_text_is_named_by_its_json(key: object, text: str) -> None:
    assert view({key: "x"}) == {text: "x"}


def test_keys_that_have_the_same_text_are_both_kept() -> None:
    both = {"1": "b", "1 (int)": "c", "1 (int) (int)": "a"}
    assert view({1: "a", "1": "b", "1 (int)": "c"}) == both
    assert view({"1 (int)": "c", "1": "b", 1: "a"}) == both


def test_a_dataclass_and_a_model_are_their_fields_and_extras() -> None:
    plan = Plan(stage=Stage.DRAFT, step=Step("write", {"b", "a"}), note=(1, 2))
    assert view(plan) == {
        "stage": "draft",
        "step": {"name": "write", "done": ["a", "b"]},
        "note": [1, 2],
    }
    assert view(Plan.model_construct(stage="draft")) == {"stage": "draft"}


def test_nothing_of_a_message_is_dropped() -> None:
    call = {"name": "search", "args": {"q": "x"}, "id": "c1", "type": "tool_call"}
    messages = [
        HumanMessage("hi", id="m1", additional_kwargs={"extra": True}),
        AIMessage([{"type": "text", "text": "hello"}], tool_calls=[call]),
        ToolMessage("found", tool_call_id="c1"),
    ]
    viewed = view(messages)
    assert [one["type"] for one in viewed] == ["human", "ai", "tool"]
    assert viewed == [one.model_dump() for one in messages]


def test_a_small_array_is_its_numbers_and_a_large_one_its_shape_and_hash() -> None:
    assert view(np.arange(4, dtype="int16").reshape(2, 2)) == [[0, 1], [2, 3]]
    assert view(np.array(3.5)) == 3.5
    assert view([np.float64(0.5), np.int8(2), np.bool_(True)]) == [0.5, 2, True]
    assert type(view(np.float64(0.5))) is float
    assert view(np.longdouble("0.5")) == "0.5"
    large = np.arange(65, dtype="float32")
    viewed = view(large)
    assert (viewed["dtype"], viewed["shape"], len(viewed["sha256"])) == ("float32", [65], 64)
    assert view(large[::-1][::-1]) == viewed
    large[0] = 1
    assert view(large) != viewed


def test_a_large_array_of_objects_is_seen_by_its_content() -> None:
    assert view(np.array([Decimal(1)] * 65)) == ["1"] * 65


def test_anything_else_is_the_name_of_its_class_and_shows_nothing() -> None:
    assert view(SecretStr("s3cret")) == "<pydantic.types.SecretStr>"
    assert view([object(), range(10**12), int]) == [
        "<builtins.object>", "<builtins.range>", "<builtins.type>",
    ]  # fmt: skip


def test_a_state_that_contains_itself_is_refused_with_the_place() -> None:
    inner: dict[str, object] = {}
    inner["a key"] = [0, inner]
    with pytest.raises(StateError, match="contains itself") as caught:
        view({"plan": inner})
    assert caught.value.path == '$.plan["a key"][1]'


def test_a_part_that_stands_twice_is_no_cycle() -> None:
    part = [1]
    assert view([part, {"x": part}]) == [[1], {"x": [1]}]


def test_depth_has_no_limit() -> None:
    deep: object = "end"
    for _ in range(5_000):
        deep = {"a": [deep]}
    viewed = view(deep)
    assert json_text(viewed).endswith('"end"' + "]}" * 5_000)
    while isinstance(viewed, dict):
        viewed = viewed["a"][0]
    assert viewed == "end"


def test_viewing_imports_neither_numpy_nor_rich() -> None:
    code = (
        "import sys\n"
        "from haive.core.persistence.checkpointer import _view, _diff, _tree, _matching\n"
        "_view.view([object(), 1.5]); _diff.compare_trees([1], [2])\n"
        "print(*sorted({'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@given(trees)
def test_json_text_is_printable_and_says_the_tree(tree: object) -> None:
    import json  # noqa: PLC0415

    text = json_text(tree)
    assert json.loads(text) == tree
    assert printable(text) == text
    assert len(json_text(tree, limit=10)) <= 10 + max(len(text) - 10, 0)


def test_json_text_stops_at_its_limit() -> None:
    assert len(json_text(["x" * 10**6] * 100, limit=50)) < 200


def test_json_text_writes_what_json_has_not() -> None:
    assert json_text([nan, inf, -inf]) == "[NaN, Infinity, -Infinity]"
    assert json_text(-(10**5000)).startswith("-0x")
    assert json_text({"b": 1, "a": 2}, sort_keys=True) == '{"a": 2, "b": 1}'


def test_what_commands_a_terminal_is_escaped_and_an_emoji_stays_whole() -> None:
    assert printable("a\x1b[31m\u202e\x9b\ud800b") == "a\\x1b[31m\\u202e\\x9b\\ud800b"
    assert printable("größe 👩\u200d🚀 日本") == "größe 👩\u200d🚀 日本"
    assert json_text("\x1b\u202e\x9b") == '"\\u001b\\u202e\\u009b"'


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (4_120, "4.1 KB"), (41_200, "41 KB"),
     (999_600, "1.0 MB"), (64 * 2**20, "67 MB"), (5 * 10**12, "5000 GB")],
)  # fmt: skip
def test_sizes_are_short(size: int, text: str) -> None:
    assert size_text(size) == text
