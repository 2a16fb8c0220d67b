"""The short way from metadata to JSON gives what the long one does, or leaves it to that one."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.vector._values import to_json_value
from haive.core.persistence.vector.backends.pgvector import _metadata, _plain_json
from haive.core.persistence.vector.records import Record


class _Name(StrEnum):
    ANN = "ann"


class _When(Enum):
    NOW = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class _Point:
    x: int


def _nested(depth: int) -> Any:
    return {} if depth == 0 else {"a": _nested(depth - 1)}


_NAN = float("nan")
_VALUES: list[Any] = [
    {}, {"a": "b", "n": None, "t": True, "f": 1.5, "i": 7, "l": [1, "two", None]},
    {"a": "null"}, {"a": None}, {"a": [None]}, {"a": _NAN}, {"a": None, "b": [_NAN]},
    {"a": float("inf")}, {"a": "\x00"}, {"a": "\\u0000"}, {"a\x00": 1}, {"a": "\ud800"},
    {"\ud800": 1}, {1: 2}, {"a": datetime(2026, 1, 2, 3, tzinfo=UTC)}, {"a": date(2026, 1, 2)},
    {"a": UUID(int=5)}, {"a": _Name.ANN}, {_Name.ANN: 1}, {"a": _When.NOW}, {"a": _Point(1)},
    {"a": {3, 1}}, {"a": (1, 2)}, {"a": Decimal("1.5")}, {"a": 10**30}, {"a": 10**301},
    {"a": 2**64 - 1}, {"a": np.float64(1.5)}, {"a": np.int64(3)}, {"a": np.ones(2)},
    {"a": b"x"}, {"a": PurePosixPath("/a")}, OrderedDict(b=1, a=2), MappingProxyType({"a": 1}),
    {"a": "ü€😀"}, {"a": "{[{[{[{[{[{["}, _nested(9), _nested(10), _nested(300), {"a": -0.0},
    {"a": 1e308, "b": 5e-324}, {"a": ""}, {"a": "x" * 1_100_000},
]  # fmt: skip


@pytest.mark.parametrize("value", _VALUES, ids=range(len(_VALUES)))
def test_it_is_what_the_long_way_gives_or_nothing(value: Any) -> None:
    plain = _plain_json(value)
    try:
        wanted = to_json_value(value, "metadata")
    except InvalidInputError:
        assert plain is None
        with pytest.raises(InvalidInputError):
            _metadata(Record(id="a", metadata=value))
    else:
        assert plain is None or json.loads(plain) == wanted
        assert plain is None or list(json.loads(plain)) == list(wanted)


def test_what_is_usual_goes_the_short_way() -> None:
    usual = {"text": "a", "user_id": None, "importance": 0.5, "keywords": ["b"], "archived": False}
    assert json.loads(_plain_json(usual) or b"") == usual
