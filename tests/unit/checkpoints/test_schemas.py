"""Each object fits the schema of its model, and what another one would hold does not."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntFlag
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Json,
    PlainValidator,
    RootModel,
    Tag,
    computed_field,
    create_model,
    field_serializer,
    model_validator,
)
from typing_extensions import TypedDict

from haive.core.persistence.checkpointer._schemas import check, schema_of
from haive.core.persistence.checkpointer._view import view
from haive.core.persistence.errors import StateMismatchError


class Mode(Enum):
    WAIT = timedelta(seconds=2)
    RAW = b"raw"
    PAIR = (1, 2)


class Right(IntFlag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    deep: bool


@dataclass
class Step:
    name: str
    took: timedelta = timedelta(0)
    marks: list[bytes] = field(default_factory=list)


class Sized(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = Field(alias="the width")
    secret: int = Field(default=1, exclude=True)
    at: datetime = datetime(2026, 1, 2, tzinfo=UTC)

    @computed_field
    @property
    def area(self) -> int:
        return self.width**2

    @field_serializer("at")
    def seconds(self, value: datetime) -> float:
        return value.timestamp()

    @model_validator(mode="after")
    def is_wide(self) -> Sized:
        assert self.width > 0
        return self


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Numbers(RootModel[list[int]]):
    pass


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Handle:
    """Of a library that pydantic does not know."""


FIELDS: list[tuple[Any, Any, Any]] = [
    # the type of a field, what it is given, and what does not fit in a view of it
    (timedelta, timedelta(days=1, microseconds=1), "P1D"),
    (Annotated[Decimal, Field(max_digits=3)], Decimal("1E+2"), 1),
    (Decimal, Decimal("0.10"), None),
    (Annotated[bytes, Field(max_length=2)], b"\x00\xff", "text"),
    (set[int], {3, 1}, ["x"]),
    (frozenset[str], frozenset("ab"), {}),
    (tuple[int, str], (1, "a"), [1]),
    (tuple[int, ...], (1, 2), "x"),
    (deque[int], deque([1]), [None]),
    (dict[int, str], {1: "a"}, {"1": 2}),
    (Mode, Mode.WAIT, "wait"),
    (Mode, Mode.RAW, "raw"),
    (Mode, Mode.PAIR, [2, 1]),
    (Right, Right.READ | Right.WRITE, "read"),
    (Literal[b"x", 1], b"x", "x"),
    (Point, Point(1, 2), [1, 2]),
    (Options, {"deep": True}, {"deep": "yes"}),
    (Step, Step("a", timedelta(1), [b"x"]), {"name": 1}),
    (list[Step], [Step("a")], [{"took": 1}]),
    (Sized, Sized(**{"the width": 3}), {"the width": 3}),
    (Sized, Sized(**{"the width": 3}), {"width": 3, "area": 9}),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(), {"kind": "cow"}),
    (
        Annotated[
            Annotated[Cat, Tag("a")] | Annotated[Cat, Tag("b")],
            Discriminator(lambda value: "b"),
        ],
        Cat(),
        {"kind": "dog"},
    ),
    (Numbers, Numbers([1]), {"root": ["x"]}),
    (Open, Open(more=timedelta(1)), []),
    (int | None, None, "x"),
    (datetime, datetime(2026, 1, 2, tzinfo=UTC), 1),
    (date, date(2026, 1, 2), 1),
    (UUID, UUID(int=1), 1),
    (Path, Path("a"), ...),
    (Fraction, Fraction(1, 3), ...),
    (complex, 1 + 2j, 1),
    (IPv4Address, IPv4Address("10.0.0.1"), 1),
    (float, float("nan"), "nan"),
    (Json[list[int]], "[1]", "[1]"),
    (Annotated[str, Field(pattern=r"^\p{Lu}\z")], "É", 1),
    (Annotated[int, BeforeValidator(len, json_schema_input_type=str)], "abc", "abc"),
    (Annotated[str, AfterValidator(len)], "abc", ...),
    (Annotated[Any, PlainValidator(len)], "abc", ...),
    (Handle, Handle(), ...),
]


def name(value) -> str:
    # A set of texts has another order in each process.
    return "frozenset" if isinstance(value, frozenset) else str(value)[:40]


@pytest.mark.parametrize(("kind", "value", "wrong"), FIELDS, ids=name)
def test_an_object_fits_the_schema_of_its_model_and_another_tree_does_not(kind, value, wrong):
    config = ConfigDict(arbitrary_types_allowed=True)
    model = create_model("Model", __config__=config, one=(kind, Field(alias="the one")))
    schema = json.loads(schema_of(model))
    tree = json.loads(json.dumps(view(model(**{"the one": value}))))
    check(tree, schema)
    if wrong is not ...:
        with pytest.raises(StateMismatchError) as mismatch:
            check({"one": wrong}, schema)
        assert mismatch.value.paths[0].startswith("$.one")
    with pytest.raises(StateMismatchError):
        check({}, schema)


def test_defaults_of_all_kinds_fit_the_schema():
    class Defaults(BaseModel):
        owner: str = None  # type: ignore[assignment]
        step: Step = Step("a")
        wait: timedelta = timedelta(1)
        handle: Any = Field(default_factory=Handle)
        raw: bytes = b"\xff"

    check(view(Defaults()), json.loads(schema_of(Defaults)))
    check(view(Numbers([1])), json.loads(schema_of(Numbers)))


def test_a_forged_pattern_is_not_tried() -> None:
    begun = time.process_time()
    check("a" * 60 + "!", {"type": "string", "pattern": "^(a+)+$"})
    check({"a" * 60 + "!": 1}, {"patternProperties": {"^(a+)+$": {}}})
    assert time.process_time() - begun < 2
