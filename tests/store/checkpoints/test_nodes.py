"""When `on_node` saves: what each strategy says."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from haive.core.persistence.checkpointer import CheckpointStrategy

SAME = {"status": "running", "n": 1}


async def _saved(checkpointer, states) -> list[bool]:
    return [await checkpointer.on_node("nodes", "node", state) is not None for state in states]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (CheckpointStrategy.ADAPTIVE, [True, False, False, False, False, False]),
        (CheckpointStrategy.ON_CHANGE, [True, False, False, False, False, False]),
        (CheckpointStrategy.EVERY_NODE, [True] * 6),
        (CheckpointStrategy.INTERVAL, [False, False, True, False, False, True]),
        (CheckpointStrategy.MANUAL, [False] * 6),
    ],
)
async def test_a_state_that_stays_is_saved_again_where_the_strategy_says_so(
    new_checkpointer, strategy, expected
):
    checkpointer = new_checkpointer(strategy, checkpoint_interval=3)
    assert await _saved(checkpointer, [SAME] * 6) == expected
    history = await checkpointer.get_history("nodes")
    assert len(history) == sum(expected)
    assert all(one.metadata == {"node": "node"} for one in history)


async def test_adaptive_saves_when_a_phase_begins_or_the_interval_is_over(new_checkpointer):
    checkpointer = new_checkpointer(checkpoint_interval=3)
    states = [
        {"status": "running", "n": 1},  # the first one
        {"status": "running", "n": 2},
        {"status": "running", "n": 3},
        {"status": "running", "n": 4},  # the third one since then
        {"status": "done", "n": 5},  # a word changed
        {"status": "done", "n": 6, "answer": 1},  # a key appeared
        {"status": "done", "n": 7, "answer": 2},
        {"status": "done", "n": 8},  # a key disappeared
    ]
    expected = [True, False, False, True, True, True, False, True]
    assert await _saved(checkpointer, states) == expected


async def test_nothing_is_saved_by_itself_if_auto_checkpoint_is_off(new_checkpointer):
    checkpointer = new_checkpointer(CheckpointStrategy.EVERY_NODE, auto_checkpoint=False)
    assert await _saved(checkpointer, [SAME]) == [False]


async def test_a_thread_that_was_deleted_begins_anew(new_checkpointer):
    checkpointer = new_checkpointer()
    assert await _saved(checkpointer, [SAME, SAME]) == [True, False]
    await checkpointer.delete_thread("nodes")
    assert await _saved(checkpointer, [SAME, SAME]) == [True, False]


@dataclass
class Unfinished:
    n: int
    answer: str = field(init=False)


async def test_a_dataclass_with_a_field_that_is_not_set_yet_is_saved(new_checkpointer):
    checkpointer = new_checkpointer()
    state = Unfinished(1)
    assert await _saved(checkpointer, [state, state]) == [True, False]
    state.answer = "yes"
    assert await _saved(checkpointer, [state]) == [True]
    await checkpointer.save("t", Unfinished(2))
    found = await checkpointer.find_checkpoint("nodes", with_state_matching={"answer": "yes"})
    assert await checkpointer.restore(found.id) == {"n": 1, "answer": "yes"}


async def test_a_thread_that_begins_with_a_node_may_be_a_users(new_checkpointer):
    checkpointer = new_checkpointer()
    assert await checkpointer.on_node("nodes", "node", SAME, user_id="ada")
    assert (await checkpointer.get_thread("nodes")).user_id == "ada"
