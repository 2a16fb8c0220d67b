"""Objects of allowed classes come back as they were saved, and no code of theirs makes others."""

from __future__ import annotations

import dataclasses
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, Optional

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from haive.core.persistence.checkpointer._codec import Codec
from haive.core.persistence.errors import CorruptCheckpointError


def again(state: Any, *types: type) -> Any:
    codec = Codec(types or (type(state),))
    return codec.unpack(codec.pack(state))


class Phase(Enum):
    DONE = "done"


# -- dataclasses and named tuples ------------------------------------------------------------------


@dataclass
class Counted:
    xs: list[int]
    total: int = 0
    late: int = field(init=False)

    def __post_init__(self) -> None:
        self.total += len(self.xs)


@dataclass(frozen=True, slots=True)
class Sure:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("n")


@dataclass
class Begun:
    name: str
    seed: InitVar[int]

    def __post_init__(self, seed: int) -> None:
        self.name += str(seed)


class FailureError(Exception):
    pass


@dataclass
class ToldError(FailureError):
    why: str


@dataclass
class Given:
    """With a constructor of its own."""

    n: int

    def __init__(self, twice: int) -> None:
        self.n = twice // 2


def test_no_constructor_of_a_dataclass_is_run() -> None:
    counted = Counted([1, 2])
    found = again(counted)
    assert (found.xs, found.total) == ([1, 2], 2)
    assert not hasattr(found, "late")
    counted.late = 5
    assert again(counted).late == 5
    negative = Sure(1)
    object.__setattr__(negative, "n", -1)
    assert again([negative], Sure) == [negative]
    assert again(Begun("a", 5)) == dataclasses.replace(Begun("a", 5), name="a", seed=5)
    assert again(Given(4)).n == 2


def test_a_dataclass_that_is_more_than_its_fields_is_made_by_its_constructor() -> None:
    assert again(ToldError("no")).why == "no"


def test_a_dataclass_that_has_got_another_field_since_is_made_by_its_constructor() -> None:
    old = dataclasses.make_dataclass("Grown", [("n", int)], namespace={"__module__": __name__})
    old.__module__ = __name__
    new = dataclasses.make_dataclass(
        "Grown", [("n", int), ("m", int, field(default=3))],
        namespace={"__post_init__": lambda self: setattr(self, "m", self.m + self.n)},
    )  # fmt: skip
    new.__module__ = __name__
    found = Codec([new]).unpack(Codec([old]).pack(old(1)))
    assert (found.n, found.m) == (1, 4)


class Pair(NamedTuple):
    x: int
    y: int = 0


class Doubled(Pair):
    __slots__ = ()

    def __new__(cls, x: int, y: int = 0) -> Doubled:
        return super().__new__(cls, 2 * x, 2 * y)


def test_no_constructor_of_a_named_tuple_is_run() -> None:
    found = again(Doubled(1, 2))
    assert type(found) is Doubled
    assert found == (2, 4)


@pydantic_dataclass
class Checked:
    n: Annotated[int, Field(ge=0)]
    phase: Phase = Phase.DONE

    @field_validator("n")
    @classmethod
    def _one_more(cls, n: int) -> int:
        return n + 1


def test_no_validator_of_a_dataclass_of_pydantics_is_run() -> None:
    checked = Checked(1)
    assert again(checked, Checked, Phase).n == 2
    checked.n = -1
    assert again(checked, Checked, Phase).n == -1
    # Of a class that is not allowed there is the value: pydantic makes the member of it.
    assert again(checked.__class__(4), Checked).phase is Phase.DONE


# -- models ----------------------------------------------------------------------------------------


class Cry(BaseModel):
    x: str
    n: int = Field(default=0, ge=0)

    @field_validator("x")
    @classmethod
    def _louder(cls, x: str) -> str:
        return x + "!"

    @model_validator(mode="after")
    def _once_more(self) -> Cry:
        self.n += 1
        return self


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    n: int = Field(alias="the n")
    m: list[int] = []


class Hidden(BaseModel):
    n: int
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)
    _twice: int = PrivateAttr()

    def model_post_init(self, context: object) -> None:
        self._twice = 2 * self.n
        self.n += 1


class Texts(RootModel[list[str]]):
    @field_validator("root")
    @classmethod
    def _longer(cls, root: list[str]) -> list[str]:
        return [*root, "more"]


class Own(BaseModel):
    n: int

    def __init__(self, twice: int) -> None:
        super().__init__(n=twice // 2)


def test_no_validator_of_a_model_is_run() -> None:
    cry = Cry(x="a")
    found = again(cry)
    assert (found, found.x, found.n) == (cry, "a!", 1)
    assert found.model_fields_set == cry.model_fields_set
    cry.n = -1  # which is not validated, as the class is
    assert again({"deep": [cry]}, Cry) == {"deep": [cry]}
    assert again(Texts(["a"])).root == ["a", "more"]
    assert again(Own(4)).n == 2


def test_what_was_set_is_known_and_what_a_model_keeps_beside_its_fields() -> None:
    state = Open(**{"the n": 1, "more": (1, 2)})
    found = again(state)
    assert found == state
    assert found.model_fields_set == {"n", "more"}
    assert found.model_extra == {"more": (1, 2)}
    assert found.m is not state.m
    assert again(Cry(x="a")).model_extra is None


def test_private_attributes_are_made_anew_and_fields_stay_as_they_were() -> None:
    state = Hidden(n=1)
    state._cache["a"] = 1
    found = again(state)
    assert (found.n, found._cache, found._twice) == (2, {}, 4)
    assert found.model_copy(update={"n": 3}).n == 3


class Text(str):
    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema  # noqa: PLC0415

        return core_schema.no_info_plain_validator_function(cls)


class Step(BaseModel):
    name: str


class Turn(TypedDict):
    step: Step
    why: NotRequired[str]


Name = NewType("Name", str)

KEPT: list[tuple[Any, Any]] = [
    (tuple[int, ...], (1, 2)),
    (tuple[int, str], (1, "a")),
    (Sequence[int], (1, 2)),
    (set[Phase], {Phase.DONE}),
    (frozenset[int], frozenset({1})),
    (deque[int], deque([1])),
    (Mapping[str, list[Step]], {"a": [Step(name="b")]}),
    (Optional[Phase], Phase.DONE),  # noqa: UP045 - another class than that of `|`
    (int | list[Step] | None, [Step(name="b")]),
    (int | None, None),
    (Literal["a", 1], 1),
    (datetime, datetime(2026, 1, 1, tzinfo=UTC)),
    (Decimal, Decimal("1.50")),
    (bytes, b"a"),
    (Step, Step(name="b")),
    (list[Turn], [{"step": Step(name="b")}]),
    (Name, Name("ada")),
    (Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=5)], [-1]),
    (float, 1),
    (list[float], [1, 2.5]),
    (dict, {"a": 1}),
    (Any, Step(name="b")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), KEPT, ids=[str(kind)[:40] for kind, _ in KEPT])
def test_values_of_the_types_that_a_model_declares_are_not_validated(kind: Any, value: Any) -> None:
    def never(cls: type, value: Any) -> Any:
        raise RuntimeError("was validated")

    model = create_model(
        "Model", one=(kind, ...), __validators__={"never": field_validator("one")(never)}
    )
    found = again(model.model_construct(one=value), model, Step, Phase)
    assert found.one == value
    assert type(found.one) is type(value)


class Made(NamedTuple):
    kind: Any
    stored: Any
    value: Any


MADE = [
    Made(defaultdict[str, list[int]], defaultdict(list, a=[1]), defaultdict(list, a=[1])),
    Made(Text, Text("a"), Text("a")),
    Made(float, "1.5", 1.5),  # of text, when the class was another
    Made(Step, {"name": "b"}, Step(name="b")),
    Made(list[Turn], [{"step": {"name": "b"}}], [{"step": Step(name="b")}]),
]


@pytest.mark.parametrize("case", MADE, ids=[str(case.kind)[:40] for case in MADE])
def test_values_of_other_types_are_made_by_pydantic_of_what_is_stored(case: Made) -> None:
    model = create_model("Model", one=(case.kind, ...))
    found = again(model.model_construct(one=case.stored), model, Step)
    assert found.one == case.value
    assert type(found.one) is type(case.value)


def test_objects_of_classes_that_are_not_allowed_become_objects_where_a_model_has_them() -> None:
    class Plan(BaseModel):
        steps: list[Step]
        phase: Phase

    plan = Plan(steps=[Step(name="a")], phase=Phase.DONE)
    assert again(plan, Plan) == plan
    assert again(plan, Plan, Step, Phase) == plan


def test_a_model_that_has_changed_since_is_validated() -> None:
    old = create_model("Changed", __module__=__name__, name=(str, ...), age=(str, "x"))
    packed = Codec([old]).pack(old(name="a"))
    for fields in (
        {"name": (str, ...), "age": (int, 0)},  # of another type
        {"title": (str, ...), "age": (str, "")},
        {"name": (str, ...), "age": (str, ""), "more": (int, ...)},
    ):
        new = create_model("Changed", __module__=__name__, **fields)
        with pytest.raises(CorruptCheckpointError):
            Codec([new]).unpack(packed)
    fewer = create_model("Changed", __module__=__name__, name=(str, ...))
    assert Codec([fewer]).unpack(packed) == fewer(name="a")


def test_a_default_of_another_type_is_as_it_was() -> None:
    class Lazy(BaseModel):
        owner: str = None  # type: ignore[assignment]
        x: str

        @field_validator("x")
        @classmethod
        def _louder(cls, x: str) -> str:
            return x + "!"

    found = again(Lazy(x="a"))
    assert (found.owner, found.x) == (None, "a!")


class Loose(BaseModel):
    status: str = "new"
    extra: Any | None = None
    extras: list[Any | None] = []

    @field_validator("status")
    @classmethod
    def refuse(cls, status: str) -> str:
        if status == "done":
            raise ValueError
        return status


def test_a_field_of_anything_or_none_hinders_no_other() -> None:
    state = Loose(extra={"a": 1}, extras=[None, "b"])
    state.status = "done"
    assert again(state) == state
