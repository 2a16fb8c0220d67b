"""When `on_node` saves, and what is counted and remembered for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum, IntEnum

import pytest
from pydantic import BaseModel

from haive.core.persistence.checkpointer import (
    CheckpointConfig,
    Checkpointer,
    CheckpointStrategy,
)
from haive.core.persistence.checkpointer import _nodes as nodes
from haive.core.persistence.checkpointer._nodes import NodeWatch, shape
from haive.core.persistence.errors import ConfigurationError, InvalidInputError, PersistenceError

WHERE = ("t", "", "main")


def run(strategy: CheckpointStrategy, interval: int, states: list[object]) -> list[bool]:
    """Which of the nodes of one workflow are saved."""
    watch = NodeWatch(strategy, interval)
    answers = []
    for state in states:
        wanted = watch.wants(WHERE, state)
        if wanted:
            watch.saved(WHERE, state)
        answers.append(wanted)
    return answers


def places(answers: list[bool]) -> list[int]:
    return [place for place, saved in enumerate(answers, 1) if saved]


COUNTED = [{"status": "running", "n": n} for n in range(12)]


def test_every_node_and_on_change_want_each_node() -> None:
    assert places(run(CheckpointStrategy.EVERY_NODE, 5, COUNTED)) == list(range(1, 13))
    assert places(run(CheckpointStrategy.ON_CHANGE, 5, COUNTED)) == list(range(1, 13))


@pytest.mark.parametrize("interval", [1, 2, 5, 12, 13])
def test_interval_wants_each_so_manyth(interval: int) -> None:
    found = places(run(CheckpointStrategy.INTERVAL, interval, COUNTED))
    assert found == list(range(interval, 13, interval))


def test_adaptive_saves_the_first_and_then_each_interval_while_only_numbers_change() -> None:
    assert places(run(CheckpointStrategy.ADAPTIVE, 5, COUNTED)) == [1, 6, 11]


def test_adaptive_saves_at_once_when_the_phase_or_the_keys_change() -> None:
    states = [
        {"status": "draft", "n": 1, "items": []},
        {"status": "draft", "n": 2, "items": [1]},
        {"status": "review", "n": 3, "items": [1]},
        {"status": "review", "n": 4, "items": [1, 2]},
        {"status": "review", "n": 5, "items": [1], "result": []},
        {"status": "review", "n": 6, "items": [1], "result": [1]},
        {"status": "review", "n": 6, "items": [1]},
        {"status": "review", "n": 6, "items": [1], "done": False},
        {"status": "review", "n": 6, "items": [1], "done": True},
        {"status": "review", "n": 6, "items": [1], "done": None},
    ]
    saved = places(run(CheckpointStrategy.ADAPTIVE, 100, states))
    assert saved == [1, 3, 5, 7, 8, 9, 10]


def test_a_save_begins_the_count_anew() -> None:
    states = [{"status": status} for status in "aaabaaaaaaaa"]
    assert places(run(CheckpointStrategy.ADAPTIVE, 5, states)) == [1, 4, 5, 10]


def test_workflows_branches_and_namespaces_are_counted_apart() -> None:
    watch = NodeWatch(CheckpointStrategy.INTERVAL, 2)
    wheres = [("t", "", "main"), ("t", "sub", "main"), ("t", "", "b"), ("u", "", "main")]
    assert [watch.wants(where, {}) for where in wheres] == [False] * 4
    assert [watch.wants(where, {}) for where in wheres] == [True] * 4


def test_a_node_that_was_wanted_and_not_saved_is_wanted_again() -> None:
    watch = NodeWatch(CheckpointStrategy.INTERVAL, 2)
    assert [watch.wants(WHERE, {}) for _ in range(4)] == [False, True, True, True]
    watch.saved(WHERE, {})
    assert not watch.wants(WHERE, {})


def test_what_is_watched_is_bounded_and_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "_WATCHED", 3)
    watch = NodeWatch(CheckpointStrategy.INTERVAL, 2)
    for number in range(10):
        watch.wants((str(number), "", "main"), {})
    assert len(watch._watches) == 3
    assert watch.wants(("9", "", "main"), {})
    assert not watch.wants(("0", "", "main"), {})
    watch.saved(("forgotten", "", "main"), {})


class Model(BaseModel):
    status: str = "new"
    n: int = 1
    items: list[int] = []


@dataclass
class Data:
    status: str = "new"
    n: int = 1


def test_the_shape_of_a_state_has_its_words_and_switches_and_no_more() -> None:
    assert shape({"a": "x", "b": True, "c": None, "d": 5, "e": [1], 6: 1.5}) == {
        "a": "x", "b": True, "c": None, "d": ..., "e": ..., "6": ...,
    }  # fmt: skip
    assert shape(Model()) == {"status": "new", "n": ..., "items": ...}
    assert shape(Data()) == {"status": "new", "n": ...}
    assert shape([1, 2]) == shape("text") == shape(None) == {}


class Phase(Enum):
    DRAFT = "draft"
    DONE = "done"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


def test_adaptive_saves_at_once_when_the_member_of_an_enum_changes() -> None:
    states = [{"phase": phase, "level": Level.LOW} for phase in (*Phase, Phase.DONE)]
    states.append({"phase": Phase.DONE, "level": Level.HIGH})
    assert places(run(CheckpointStrategy.ADAPTIVE, 100, states)) == [1, 2, 4]


def test_of_a_long_text_the_shape_has_a_hash_that_tells_when_it_changes() -> None:
    text = "x" * 1_000_000
    (mark,) = shape({"a": text}).values()
    assert len(mark) == 16
    assert shape({"a": text}) == shape({"a": "x" * 1_000_000})
    assert shape({"a": text}) != shape({"a": text + "\ud800"})


# -- on_node ---------------------------------------------------------------------------------------


class Recorder(Checkpointer):
    """Saves nothing and remembers what it would have."""

    def __init__(self, config: CheckpointConfig, strategy: CheckpointStrategy) -> None:
        super().__init__(None, config, strategy)  # type: ignore[arg-type] - nothing is called
        self._saver = Saver()  # type: ignore[assignment]

    @property
    def saves(self) -> list[tuple[str, object, dict[str, object]]]:
        return self._saver.saves  # type: ignore[attr-defined]


class Saver:
    """Where `on_node` hands a state over."""

    def __init__(self) -> None:
        self.saves: list[tuple[str, object, dict[str, object]]] = []
        self.fails = False

    async def save(self, thread_id, state, metadata, tags, *, skip_same, **where):
        if self.fails:
            raise PersistenceError("not now")
        self.saves.append((thread_id, state, {**where, "metadata": metadata}))
        return len(self.saves), True


def recorder(strategy: CheckpointStrategy, **settings: object) -> Recorder:
    return Recorder(CheckpointConfig(**settings), strategy)


@pytest.mark.parametrize("strategy", list(CheckpointStrategy))
async def test_without_auto_checkpoint_and_with_manual_nothing_is_saved(
    strategy: CheckpointStrategy,
) -> None:
    off = recorder(strategy, auto_checkpoint=False)
    manual = recorder(CheckpointStrategy.MANUAL)
    for number in range(10):
        assert await off.on_node("t", "node", {"n": number}) is None
        assert await manual.on_node("t", "node", {"n": number}) is None
    assert off.saves == manual.saves == []


async def test_the_node_is_told_in_the_metadata_and_the_callers_mapping_stays_as_it_was() -> None:
    checkpointer = recorder(CheckpointStrategy.EVERY_NODE)
    given = {"why": "x", "node": "other"}
    assert await checkpointer.on_node(
        "t", "plan", {"n": 1}, metadata=given, branch="b", namespace="sub"
    )
    ((thread, state, where),) = checkpointer.saves
    assert (thread, state) == ("t", {"n": 1})
    assert where.pop("user_id") is None
    assert where == {"branch": "b", "namespace": "sub", "metadata": {"why": "x", "node": "plan"}}
    assert given == {"why": "x", "node": "other"}


async def test_the_interval_of_the_configuration_is_the_one() -> None:
    checkpointer = recorder(CheckpointStrategy.INTERVAL, checkpoint_interval=3)
    answers = [await checkpointer.on_node("t", "n", {"n": n}) for n in range(9)]
    assert [answer is not None for answer in answers] == [False, False, True] * 3


async def test_a_save_that_fails_is_tried_again_at_the_next_node() -> None:
    checkpointer = recorder(CheckpointStrategy.INTERVAL, checkpoint_interval=2)
    await checkpointer.on_node("t", "n", {"n": 1})
    checkpointer._saver.fails = True
    with pytest.raises(PersistenceError):
        await checkpointer.on_node("t", "n", {"n": 2})
    checkpointer._saver.fails = False
    assert await checkpointer.on_node("t", "n", {"n": 3}) == 1
    assert await checkpointer.on_node("t", "n", {"n": 4}) is None


async def test_many_workflows_at_once_are_counted_each() -> None:
    checkpointer = recorder(CheckpointStrategy.INTERVAL, checkpoint_interval=4)

    async def workflow(name: str) -> int:
        answers = [await checkpointer.on_node(name, "n", {"n": n}) for n in range(9)]
        return sum(answer is not None for answer in answers)

    assert await asyncio.gather(*(workflow(f"t{n}") for n in range(20))) == [2] * 20


async def test_the_strategy_may_be_given_by_its_name() -> None:
    assert recorder("every_node").strategy is CheckpointStrategy.EVERY_NODE  # type: ignore[arg-type]
    with pytest.raises((ValueError, InvalidInputError)):
        recorder("sometimes")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["often", None, 5, []])
def test_a_strategy_that_is_none_names_those_there_are(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="adaptive, every_node, interval"):
        recorder(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [CheckpointStrategy.MANUAL, {"checkpoint_interval": 2}])
def test_a_configuration_that_is_none_is_told(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match=r"config is no CheckpointConfig"):
        Recorder(wrong, CheckpointStrategy.MANUAL)  # type: ignore[arg-type]
