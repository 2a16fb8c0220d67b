"""States as bytes and back."""

from __future__ import annotations

import contextlib
import math
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import langchain_core.messages as lc
import numpy as np
import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, field_validator

from haive.core.persistence.checkpointer import _codec
from haive.core.persistence.checkpointer._codec import Codec
from haive.core.persistence.checkpointer._tags import type_name
from haive.core.persistence.errors import (
    ContentTooLargeError,
    CorruptCheckpointError,
    InvalidInputError,
    StateError,
)


class Colour(Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(IntEnum):
    LOW = 1


class Role(StrEnum):
    USER = "user"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: Any
    y: Any = 0


@dataclass
class Step:
    name: Any
    tags: Any = field(default_factory=set)
    seen: int = field(default=0, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    value: Any


class Item(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = None  # type: ignore[assignment]
    many: list[Any] = Field(default_factory=list)
    anything: Any = None
    other: Any = Field(default=None, alias="Other")


class Locked(BaseModel):
    model_config = ConfigDict(frozen=True)

    value: Any
    _secret: str = PrivateAttr("made anew")


class Names(RootModel[list[Any]]):
    pass


class Own(BaseModel):
    value: Any = Field(alias="Value")

    def __init__(self, value: Any = None, **more: Any) -> None:
        super().__init__(Value=value, **more)


TYPES = (Colour, Level, Role, Rights, Point, Step, Frozen, Item, Locked, Names, Own)
CODEC = Codec(TYPES)


def told(value: Any) -> str:  # noqa: PLR0911 - a table of types
    """All of a value, its types included, as text."""
    name = type(value).__qualname__
    match value:
        case Enum():
            return f"{name}.{value.name}"
        case np.ndarray() | np.generic():
            return f"{name}{value.dtype.str}{value.shape}{value.tobytes().hex()}"
        case float():
            return f"{name}{'nan' if math.isnan(value) else struct.pack('>d', value).hex()}"
        case complex():
            return f"{name}{told(value.real)}{told(value.imag)}"
        case BaseModel():
            extra = value.__pydantic_extra__
            return f"{name}{told(value.__dict__)}{told(extra)}{sorted(value.model_fields_set)}"
        case Step() | Frozen():
            names = type(value).__dataclass_fields__
            return f"{name}{[told(getattr(value, each)) for each in names]}"
        case dict():
            return f"{name}{[(told(key), told(item)) for key, item in value.items()]}"
        case deque():
            return f"{name}{value.maxlen}{[told(item) for item in value]}"
        case list() | tuple():
            return f"{name}{[told(item) for item in value]}"
        case set() | frozenset():
            return f"{name}{sorted(told(item) for item in value)}"
        case datetime() | time():
            zone = value.tzinfo
            kind = zone.key if isinstance(zone, ZoneInfo) else type(zone).__name__
            return f"{name}{value.isoformat()}{value.fold}{kind}"
    return f"{name}{value!r}"


def again(value: Any) -> Any:
    return CODEC.unpack(CODEC.pack(value))


# ── what comes back ──────────────────────────────────────────────────────────────────────────

zones = st.one_of(
    st.none(),
    st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), UTC]),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(1 << 200), 1 << 200),
    st.floats(),
    st.text(),
    st.binary(max_size=40),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.uuids(),
    st.sampled_from([*Colour, *Level, *Role, Rights.READ, Rights.READ | Rights.WRITE]),
    st.sampled_from([PurePosixPath("/a/b"), PureWindowsPath("c:\\a"), Path("a"), Path("/\udc80")]),
)
arrays = st_numpy.arrays(
    st.one_of(
        st_numpy.scalar_dtypes(),
        st.sampled_from(["S3", "U5", ">i4", "M8[ns]", "m8[D]", "M8[25s]"]).map(np.dtype),
    ),
    st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
hashable = st.recursive(
    # Not NaN, which is in a set as often as it was put there.
    scalars.filter(lambda value: "nan" not in told(value).lower()),
    lambda inner: st.one_of(
        st.tuples(inner, inner), st.frozensets(inner, max_size=3), st.builds(Point, inner, inner)
    ),
    max_leaves=4,
)
states = st.recursive(
    st.one_of(scalars, arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
        st.dictionaries(hashable, inner, max_size=3),
        st.tuples(inner, inner),
        st.sets(hashable, max_size=4),
        st.frozensets(hashable, max_size=4),
        st.builds(deque, st.lists(inner, max_size=3), st.sampled_from([None, 3, 5])),
        st.builds(Point, inner, inner),
        st.builds(Step, inner, inner),
        st.builds(Frozen, value=inner),
        st.builds(Item, name=st.text(), many=st.lists(inner, max_size=2), more=inner, Other=inner),
        st.builds(Locked, value=inner),
        st.builds(Names, st.lists(inner, max_size=2)),
        st.builds(Own, inner),
        st.builds(
            lc.HumanMessage, st.text(), additional_kwargs=st.fixed_dictionaries({"a": inner})
        ),
    ),
    max_leaves=12,
)


@given(states)
def test_a_state_comes_back_with_its_values_and_its_types(state: Any) -> None:
    assert told(again(state)) == told(state)


@given(states)
def test_a_state_packs_to_the_same_bytes_each_time(state: Any) -> None:
    packed = CODEC.pack(state)
    assert CODEC.pack(state) == packed
    assert CODEC.pack(CODEC.unpack(packed)) == packed


def test_sets_are_the_same_bytes_in_each_process() -> None:
    code = (
        "from haive.core.persistence.checkpointer._codec import Codec;"
        "state = [set(map(str, range(50))), {('a', 1), frozenset({'x', 'y', 'z'})}];"
        "print(Codec().pack(state).hex())"
    )
    packed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(packed) == 1


@pytest.mark.parametrize("value", [
    "NaN", "sNaN123", "-Infinity", "-0", "1.10", "1E+5", "1E-999999",
])  # fmt: skip
def test_a_decimal_keeps_its_exponent_and_its_kind(value: str) -> None:
    assert str(again(Decimal(value))) == value


def test_the_hour_that_comes_twice_stays_the_second_one() -> None:
    second = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    assert again(second).utcoffset() == timedelta(hours=1)


def test_an_offset_of_a_microsecond_is_kept() -> None:
    offset = timezone(timedelta(microseconds=1))
    for value in (time(0, tzinfo=offset), datetime(2026, 1, 1, tzinfo=offset)):
        assert again(value).utcoffset() == timedelta(microseconds=1)
    assert again(datetime(2026, 1, 1, tzinfo=UTC)).tzinfo is UTC


def test_a_zone_of_another_kind_comes_back_as_its_offset() -> None:
    class Zone(tzinfo):
        def utcoffset(self, _: datetime | None) -> timedelta:
            return timedelta(hours=3)

    found = again(datetime(2026, 1, 1, tzinfo=Zone()))
    assert found.tzinfo == timezone(timedelta(hours=3))


def test_subclasses_come_back_as_what_they_extend() -> None:
    class Text(str):
        __slots__ = ()

    class Number(int):
        pass

    class Many(list[int]):
        pass

    value = [defaultdict(list, a=[1]), OrderedDict(b=2), Text("t"), Number(3), Many([4])]
    assert told(again(value)) == told([{"a": [1]}, {"b": 2}, "t", 3, [4]])
    assert told(again({Text("t"): 1, Role.USER: 2})) == told({"t": 1, Role.USER: 2})
    assert again(bytearray(b"x")) == b"x"


def test_a_model_keeps_what_was_given_apart_from_what_was_not() -> None:
    item = Item(Other=1)
    item.many.append((1, 2))
    found = again(item)
    assert found == item
    assert found.model_fields_set == {"other"}
    assert found.name is None


def test_private_attributes_of_a_model_are_not_stored() -> None:
    locked = Locked(value=1)
    locked._secret = "hidden"
    assert b"hidden" not in CODEC.pack(locked)
    assert again(locked)._secret == "made anew"


def test_fields_of_a_dataclass_that_its_constructor_does_not_take_come_back() -> None:
    step = Step("a")
    step.seen = 7
    assert again(step).seen == 7
    with pytest.raises(FrozenInstanceError):
        again(Frozen(value=1)).value = 2


def test_a_scalar_of_numpy_is_no_python_number() -> None:
    assert told(again([np.float64(1.5), 1.5])) == told([np.float64(1.5), 1.5])


@pytest.mark.parametrize("value", [np.array(["a", ""])[1], np.bytes_(b""), np.str_("")])
def test_an_empty_text_of_numpy_comes_back(value: Any) -> None:
    found = again([value])[0]
    assert (type(found), found, found.dtype) == (type(value), value, value.dtype)
    assert told(again(np.array(["a", ""]))) == told(np.array(["a", ""]))


def test_an_array_may_be_written_to() -> None:
    found = again(np.zeros((2, 2), order="F"))
    found[0, 0] = 1
    assert found.tolist() == [[1, 0], [0, 0]]


MESSAGES = [
    lc.AIMessage(
        "hi",
        tool_calls=[{"name": "f", "args": {"x": (1, 2)}, "id": "1", "type": "tool_call"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    ),
    lc.AIMessageChunk(
        "a", tool_call_chunks=[lc.ToolCallChunk(name="f", args="{", id="1", index=0)]
    ),
    lc.HumanMessage([{"type": "text", "text": "a"}], id="7", name="me"),
    lc.SystemMessage("s"),
    lc.ToolMessage("r", tool_call_id="1", artifact={1: {2, 3}}),
    lc.ChatMessage("c", role="critic"),
    lc.FunctionMessage("f", name="n"),
    lc.RemoveMessage(id="7"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_of_langchain_need_no_allowing(message: lc.BaseMessage) -> None:
    assert told(Codec().unpack(Codec().pack([message]))) == told([message])


def test_a_subclass_of_a_message_needs_allowing() -> None:
    class Mine(lc.HumanMessage):
        pass

    packed = Codec().pack(Mine("x"))
    assert isinstance(Codec().unpack(packed), dict)
    assert isinstance(Codec([Mine]).unpack(packed), Mine)


def test_a_class_of_langchain_that_is_no_message_comes_back_as_a_dict() -> None:
    for name in (
        "langchain_core.messages.ai:subprocess",
        "langchain_core.messages:convert_to_messages",
    ):
        data = ormsgpack.packb([ormsgpack.Ext(42, name.encode()), {"a": 1}, [], {}])
        assert Codec().unpack(data) == {"a": 1}


def test_what_is_not_allowed_comes_back_as_plain_data() -> None:
    plain = Codec()
    value = [
        Colour.PAIR, Point(1, 2), Step("a"), Item(Other=1, more=2), {Frozen(value=1)},
        {Frozen(value=1): 2}, Names([1]),
    ]  # fmt: skip
    assert plain.unpack(CODEC.pack(value)) == [
        (1, 2),
        {"x": 1, "y": 2},
        {"name": "a", "tags": set(), "seen": 0},
        {"name": None, "many": [], "anything": None, "other": 1, "more": 2},
        [{"value": 1}],
        [({"value": 1}, 2)],
        {"root": [1]},
    ]


def test_unpacking_imports_nothing() -> None:
    packed = CODEC.pack([lc.AIMessage("hi"), np.arange(2), np.int8(1), Colour.RED])
    code = (
        "import sys; from haive.core.persistence.checkpointer._codec import Codec;"
        "before = set(sys.modules);"
        f"found = Codec().unpack(bytes.fromhex('{packed.hex()}'));"
        "print(set(sys.modules) - before, 'numpy' in before, found[0]['content'], found[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    array = {"dtype": "<i8", "shape": [2], "data": np.arange(2).tobytes()}
    scalar = {"dtype": "|i1", "shape": [], "data": b"\x01"}
    assert done.stdout.strip() == f"set() False hi {[array, scalar, 'red']}"


# ── what is refused ──────────────────────────────────────────────────────────────────────────


class Holder:
    pass


class Timestamp(datetime):
    __module__ = "pandas._libs.tslibs.timestamps"


@pytest.mark.parametrize(("state", "path", "message"), [
    ({"messages": [0, {"content": Holder()}]}, "$.messages[1].content", "Holder"),
    ({"a b": {1: (0, {"x": Holder()})}}, '$["a b"][1][1].x', "Holder"),
    ({(1, 2): Holder}, "$[tuple]", "type"),
    (Item(name="a", more=Step(Holder())), "$.more.name", "Holder"),
    ({"s": {Holder()}}, "$.s[*]", "Holder"),
    ({"t": "\ud800"}, "$.t", "surrogate"),
    ({"t": {"\ud800": 1}}, "$.t", "surrogate"),
    ([np.array([object()])], "$[0]", "object"),
    ([np.zeros(2, dtype=[("a", "i4")])], "$[0]", "i4"),
    ([np.ma.masked_array([1], [True])], "$[0]", "MaskedArray"),
    ([Fraction(1, 3**9000)], "$[0]", "8,192 bits"),
    ([Timestamp(2026, 1, 1)], "$[0]", "Timestamp"),
    ([test_unpacking_imports_nothing], "$[0]", "function"),
], ids=lambda value: value if isinstance(value, str) else None)  # fmt: skip
def test_what_cannot_be_stored_is_named_with_its_path(state: Any, path: str, message: str) -> None:
    with pytest.raises(StateError, match=message) as caught:
        CODEC.pack(state)
    assert caught.value.path == path
    assert path in str(caught.value)


def cycles() -> Iterator[tuple[Any, str]]:
    listed: list[Any] = []
    listed.append({"a": listed})
    yield listed, "$[0].a"
    step = Step("a")
    step.tags = (step,)
    yield step, "$.tags[0]"
    mapping: dict[Any, Any] = {}
    mapping[1] = mapping
    yield mapping, "$[1]"


@pytest.mark.parametrize(("state", "path"), list(cycles()), ids=("list", "dataclass", "dict"))
def test_a_state_that_contains_itself_is_refused(state: Any, path: str) -> None:
    with pytest.raises(StateError, match="contains itself") as caught:
        CODEC.pack(state)
    assert caught.value.path == path


def nested(depth: int, wrap: Any) -> Any:
    value: Any = wrap(0)
    for _ in range(depth - 1):
        value = wrap(value)
    return value


WRAPPERS = {
    "list": lambda value: [value],
    "tuple": lambda value: (value,),
    "frozenset": lambda value: frozenset({value}),
    "key": lambda value: {(value if isinstance(value, int) else 1): value},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_state_is_nested_250_levels_deep_and_no_deeper(wrap: Any) -> None:
    deepest = nested(250, wrap)
    assert again(deepest) == deepest
    with pytest.raises(StateError, match="nested") as caught:
        CODEC.pack(nested(5000, wrap))
    assert caught.value.path.startswith("$")


def test_a_state_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_codec, "MAX_STATE_BYTES", 100)
    CODEC.pack(b"x" * 98)
    with pytest.raises(ContentTooLargeError, match="101 bytes"):
        CODEC.pack(b"x" * 99)


def test_only_classes_that_are_stored_by_name_can_be_allowed() -> None:
    with pytest.raises(InvalidInputError, match="pathlib:PurePath"):
        Codec([PurePath])

    class Twin(NamedTuple):
        value: int

    Twin.__qualname__ = Colour.__qualname__
    with pytest.raises(InvalidInputError, match="Two classes"):
        Codec([Colour, Twin])
    Codec([Colour, Colour])


# ── what is hostile ──────────────────────────────────────────────────────────────────────────


def ext(code: int, data: bytes = b"") -> ormsgpack.Ext:
    return ormsgpack.Ext(code, data)


POINT = type_name(Point).encode()
CORRUPT = {
    "nothing": b"",
    "a pickle": pickle.dumps({"a": 1}),
    "a reserved byte": b"\xc1",
    "text that is no UTF-8": b"\xa1\xff",
    "an array longer than the data": b"\xdd\xff\xff\xff\xff",
    "a map with a key that is no text": b"\x81\x01\x02",
    "a bomb of lists": b"\x91" * 1_000_000 + b"\x90",
    "an unknown tag": ormsgpack.packb(ext(99)),
    "the end's tag": ormsgpack.packb(ext(127, b"x" * 16)),
    "two values": b"\x01\x02",
    "two values and an end": b"\x01" + ormsgpack.packb(ext(127, b"x" * 16)),
    "a tag alone": ormsgpack.packb(ext(20)),
    "a tag amid a list": ormsgpack.packb([1, ext(20)]),
    "a tag in a dict": ormsgpack.packb({"a": ext(20)}),
    "a date that is none": ormsgpack.packb(ext(3, b"2026-13-01")),
    "a zone that is a file": ormsgpack.packb(ext(2, b"2026-01-01T00:00:00[../../etc/passwd]")),
    "a zone that is a folder": ormsgpack.packb(ext(2, b"2026-01-01T00:00:00[Europe]")),
    "a decimal that is none": ormsgpack.packb(ext(6, b"1/0")),
    "a path of no kind": ormsgpack.packb(ext(9, b"x/a")),
    "a UUID that is short": ormsgpack.packb(ext(8, b"short")),
    "a timedelta that is too long": ormsgpack.packb(ext(5, struct.pack(">iii", 2**31 - 1, 0, 0))),
    "a fraction over nothing": ormsgpack.packb([ext(25), 1, 0]),
    "a fraction that takes hours": ormsgpack.packb(
        [ext(25), ext(1, b"\x7f" * 1_000_000), ext(1, b"\x7d" * 1_000_000)]
    ),
    "a fraction of texts": ormsgpack.packb([ext(25), "1", 2]),
    "a map of an odd length": ormsgpack.packb([ext(24), 1]),
    "a deque over its length": ormsgpack.packb([ext(23), 1, 1, 2]),
    "a deque of no length": ormsgpack.packb([ext(23)]),
    "a deque of a huge length": ormsgpack.packb([ext(23), 2**64 - 1]),
    "a class without data": ormsgpack.packb([ext(43, POINT)]),
    "a class with a list": ormsgpack.packb([ext(43, POINT), [1, 2]]),
    "a class whose name is no text": ormsgpack.packb([ext(43, b"\xff"), {}]),
    "objects of numpy": ormsgpack.packb([ext(44, b"|O"), [1], b"12345678"]),
    "a record of numpy": ormsgpack.packb([ext(44, b"i4,O"), [1], b"123456789012"]),
    "an array larger than its data": ormsgpack.packb([ext(44, b"<f8"), [2**40], b"12345678"]),
    "an array of a negative size": ormsgpack.packb([ext(44, b"<f8"), [-1, -1], b"12345678"]),
    "an array of a thousand dimensions": ormsgpack.packb([ext(44, b"|i1"), [1] * 1000, b"1"]),
    "an empty array of a huge size": ormsgpack.packb([ext(44, b"|i1"), [0, 2**62, 2**62], b""]),
    "items of no bytes": ormsgpack.packb([ext(44, b"<U0"), [1 << 40], b""]),
    "an array of text": ormsgpack.packb([ext(44, b"|i1"), [1], "1"]),
    "a scalar of two": ormsgpack.packb([ext(45, b"|i1"), b"12"]),
}  # fmt: skip


@pytest.mark.parametrize("data", CORRUPT.values(), ids=CORRUPT)
def test_what_pack_does_not_make_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptCheckpointError):
        CODEC.unpack(data)


STATE = {
    "messages": MESSAGES[:2], "at": datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo")),
    "tags": {"a", "b"}, 1: [Decimal("1.5"), uuid4(), Item(more=np.arange(3))], "last": (1, 2.5),
}  # fmt: skip


def test_a_truncated_state_is_refused_at_each_length() -> None:
    packed = CODEC.pack(STATE)
    for size in range(len(packed)):
        with pytest.raises(CorruptCheckpointError):
            CODEC.unpack(packed[:size])
    for more in (b"\x00", b"\xc0", packed):
        with pytest.raises(CorruptCheckpointError, match="follows"):
            CODEC.unpack(packed + more)


def test_a_flipped_bit_gives_another_state_or_is_refused_and_nothing_else() -> None:
    packed = CODEC.pack(STATE)
    for place in range(len(packed)):
        for bit in range(8):
            flipped = bytearray(packed)
            flipped[place] ^= 1 << bit
            with contextlib.suppress(CorruptCheckpointError):
                CODEC.unpack(bytes(flipped))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_state_or_refused(data: bytes) -> None:
    with contextlib.suppress(CorruptCheckpointError):
        CODEC.unpack(data)


def test_data_that_does_not_fit_its_class_names_the_class_and_no_value() -> None:
    class Strict(BaseModel):
        value: int

        @field_validator("value")
        @classmethod
        def _check(cls, value: int) -> int:
            if value > 100:
                raise RuntimeError(f"secret {value}")
            return value

    codec = Codec([Strict, Colour, Step])
    for state in (Strict.model_construct(value="secret"), Strict.model_construct(value=101)):
        with pytest.raises(CorruptCheckpointError) as caught:
            codec.unpack(codec.pack(state), exact=False)
        assert type_name(Strict) in str(caught.value)
        assert "secret" not in str(caught.value)
        assert caught.value.__suppress_context__
    for data in (
        [ext(40, type_name(Colour).encode()), "secret"],
        [ext(41, type_name(Step).encode()), {"secret": 1}],
    ):
        with pytest.raises(CorruptCheckpointError) as caught:
            codec.unpack(ormsgpack.packb(data))
        assert "secret" not in str(caught.value)


def test_a_name_of_something_else_gives_plain_data() -> None:
    for name in ("os:system", "subprocess:Popen", "builtins:eval", "", ":", type_name(Point)):
        data = ormsgpack.packb([ext(41, name.encode()), {"x": 1}])
        assert CODEC.unpack(data) == {"x": 1}


def test_a_zone_that_is_not_known_here_is_named_as_the_cause() -> None:
    with pytest.raises(CorruptCheckpointError, match="tzdata"):
        CODEC.unpack(ormsgpack.packb(ext(2, b"2026-01-01T00:00:00[Mars/Olympus]")))


def test_ids_and_dates_take_few_bytes() -> None:
    assert len(CODEC.pack(UUID(int=1))) == 18
    assert len(CODEC.pack(date(2026, 1, 1))) == 13
    assert len(CODEC.pack(Fraction(1, 3))) == 6
