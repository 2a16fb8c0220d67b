"""Episodes are stretches of conversations, by topic and time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.vector import VectorMemory
from haive.core.persistence.vector._episodes import boundaries
from haive.core.persistence.vector.models import Memory

BOATS = [
    "The harbour has a red boat.", "Is the red boat in the harbour old?",
    "The boat in the harbour is from 1960.", "A boat that old needs a new sail.",
    "The sail of the boat is being sewn at the harbour.", "Then the boat leaves the harbour soon.",
]  # fmt: skip
TEA = [
    "Which tea do you drink in the morning?", "Green tea from the kettle, with lemon.",
    "Is the green tea strong in the morning?", "With lemon the tea is mild.",
    "Then buy more green tea and lemon.", "The kettle for the tea is broken.",
]  # fmt: skip


async def talk(memory: VectorMemory, name: str, said: list[str], begin: datetime) -> None:
    turns = [
        {"role": "user", "content": text, "timestamp": begin + timedelta(minutes=place)}
        for place, text in enumerate(said)
    ]
    await memory.store_conversation(turns, {"conversation_id": name, "user_id": "anna"})


async def test_an_episode_is_the_stretch_about_the_query_with_its_turns(memory, clock) -> None:
    begin = clock.now - timedelta(days=1)
    await talk(memory, "mixed", [*BOATS, *TEA], begin)
    [first, *_] = await memory.get_episodic_memories("anna", "the red boat in the harbour")
    assert [turn.text for turn in first.turns] == BOATS
    assert first.began == begin
    assert first.ended == begin + timedelta(minutes=5)
    assert set(first.hits) <= {turn.id for turn in first.turns}
    [tea, *_] = await memory.get_episodic_memories("anna", "green tea with lemon")
    assert [turn.text for turn in tea.turns] == TEA
    assert first.text.splitlines()[0] == "user: The harbour has a red boat."


async def test_silence_ends_an_episode(memory: VectorMemory, clock) -> None:
    begin = clock.now - timedelta(days=2)
    turns = [
        {"role": "user", "content": text, "timestamp": begin + timedelta(hours=8 * (place // 3))}
        for place, text in enumerate(BOATS)
    ]
    await memory.store_conversation(turns, {"user_id": "anna"})
    found = await memory.get_episodic_memories("anna", "boat")
    assert sorted(len(each.turns) for each in found) == [3, 3]


async def test_the_weight_decides_between_what_fits_and_what_is_recent(memory, clock) -> None:
    await talk(memory, "old", BOATS, clock.now - timedelta(days=90))
    await talk(memory, "new", ["We saw a boat.", "And had some cake."], clock.now)
    query = "the sail of the red boat in the harbour"
    for weight, first in ((0.0, "old"), (1.0, "new")):
        found = await memory.get_episodic_memories("anna", query, temporal_weight=weight)
        assert found[0].conversation_id == first
        for each in found:
            wanted = (1 - weight) * each.relevance + weight * each.recency
            assert each.score == pytest.approx(wanted)
    recency = {each.conversation_id: each.recency for each in found}
    assert recency["old"] == pytest.approx(0.125, rel=0.01)
    assert recency["new"] == pytest.approx(1.0, rel=0.01)


async def test_nobody_elses_conversations_come_up_and_no_more_than_asked_for(memory, clock) -> None:
    for number in range(4):
        await talk(memory, f"talk-{number}", BOATS, clock.now - timedelta(days=number))
    assert len(await memory.get_episodic_memories("anna", "boat", max_episodes=2)) == 2
    assert await memory.get_episodic_memories("bo", "boat") == []
    assert len(await memory.get_episodic_memories(None, "boat")) == 4


async def test_a_conversation_of_one_name_is_each_users_own(memory, clock) -> None:
    for user, said in (("anna", BOATS), ("bo", TEA)):
        await memory.store_conversation(
            [{"role": "user", "content": text, "timestamp": clock.now} for text in said],
            {"conversation_id": "main", "user_id": user},
        )
    for query, said in (("the red boat", BOATS), ("green tea", TEA)):
        found = await memory.get_episodic_memories(None, query)
        assert [turn.text for turn in found[0].turns] == said
        for each in found:
            assert len({turn.user_id for turn in each.turns}) == 1


async def test_turns_that_searches_pass_over_are_in_no_episode(memory, clock) -> None:
    await talk(memory, "mixed", BOATS, clock.now - timedelta(hours=1))
    [whole] = await memory.get_episodic_memories("anna", "boat")
    await memory.update(whole.turns[0].id, archived=True)
    await memory.update(whole.turns[1].id, valid_to=clock.now)
    over = replace(await memory.get(whole.turns[2].id), expires_at=clock.now)
    await memory._shelf.rewrite([over])
    clock.forward(seconds=1)
    [episode] = await memory.get_episodic_memories("anna", "boat")
    assert [turn.text for turn in episode.turns] == BOATS[3:]


@pytest.mark.parametrize("wrong", [{"temporal_weight": 1.5}, {"max_episodes": 0}])
async def test_numbers_out_of_bounds_are_refused(memory: VectorMemory, wrong) -> None:
    with pytest.raises(InvalidInputError, match=r"temporal_weight|max_episodes"):
        await memory.get_episodic_memories("anna", "boat", **wrong)


def test_a_conversation_about_one_thing_is_not_cut() -> None:
    turns = [Memory(id=str(n), text="a") for n in range(20)]
    assert boundaries(turns, np.tile(np.eye(1, 4, dtype=np.float32), (20, 1))) == []
    two = np.repeat(np.eye(2, 4, dtype=np.float32), 10, axis=0)
    assert boundaries(turns, two) == [10]
