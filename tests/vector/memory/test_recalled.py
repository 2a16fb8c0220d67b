"""What was just recalled is not stored again, and news of it is."""

from __future__ import annotations

import pytest

from haive.core.persistence.vector import VectorMemory
from haive.core.persistence.vector._recalled import Recalled
from haive.core.persistence.vector.models import Memory

FACT = "Anna lives in Berlin with her two cats and her dog."
NEWS = [
    "Anna lives in Berlin with her two cats and her dog no longer.",
    "False: Anna lives in Berlin with her two cats and her dog.",
    "Not Anna lives in Berlin with her two cats and her dog.",
    "It isn't so: Anna lives in Berlin with her two cats and her dog.",
    "Anna lives in Berlin with her two cats and her dog, 30.",
    "Anna lives in Berlin with her two cats and her dog Rex.",
]


def recalled(*texts: str) -> Recalled:
    found = Recalled()
    found.remember(Memory(id=f"m{n}", text=text, user_id="u") for n, text in enumerate(texts))
    return found


@pytest.mark.parametrize("news", NEWS)
async def test_what_denies_or_adds_to_what_was_recalled_is_added(make, news: str) -> None:
    memory: VectorMemory = make(embedding_strategy="none")
    first = await memory.add(FACT, user_id="u")
    await memory.search("Where does Anna live?")
    second = await memory.add(news, user_id="u")
    assert second != first
    assert (await memory.get(second)).text == news


@pytest.mark.parametrize("news", NEWS)
def test_what_an_agent_denies_or_adds_is_no_recital(news: str) -> None:
    assert recalled(FACT).recited(news, user_id="u") == []


@pytest.mark.parametrize("beside", ["You said: {}", "{} Indeed.", "I recall: {}"])
def test_what_an_agent_says_beside_is_a_recital_and_no_note_of_the_same(beside: str) -> None:
    said = beside.format(FACT)
    assert recalled(FACT).recited(said, user_id="u") == ["m0"]
    assert recalled(FACT).recited(said, user_id="u", wholly=True) == []


def test_a_recital_of_several_is_one() -> None:
    found = recalled(FACT, "Bo drives a red car.")
    assert found.recited(f"Bo drives a red car. {FACT}", user_id="u", wholly=True) == ["m1", "m0"]


def test_a_sign_may_deny_where_words_have_no_spaces_between() -> None:
    said = "安娜和她的两只猫住在柏林的一栋旧房子里"
    assert recalled(said).recited(said, user_id="u") == ["m0"]
    assert recalled(said).recited(f"不 {said}", user_id="u") == []


def test_long_memories_are_kept_in_mind_up_to_a_size() -> None:
    long = " ".join(f"word{n}" for n in range(20_000))
    found = recalled(*(f"{long} of number {n}" for n in range(40)))
    assert sum(len(said.words) for said in found._said.values()) < 2 * 1024 * 1024
    assert found.recited(f"{long} of number 39", user_id="u") == ["m39"]
    assert found.recited(f"{long} of number 0", user_id="u") == []
    found.forget([f"m{n}" for n in range(40)])
    assert found._size == 0


@pytest.mark.parametrize(
    "recital",
    [
        f"{FACT} \U0001f60a",
        f"> {FACT}",
        f"\u2705 {FACT}",
        f"\u25cf {FACT}",
        f"So, {FACT} \U0001f436",
    ],
)
def test_a_decorated_recital_is_one(recital: str) -> None:
    assert recalled(FACT).recited(recital, user_id="u") == ["m0"]
    assert recalled(f"{FACT} \U0001f60a").recited(FACT, user_id="u") == ["m0"]


def test_another_sign_is_news() -> None:
    said = recalled("It is -5 degrees in the freezer now.", "My grade in all maths is A+.")
    assert said.recited("It is 5 degrees in the freezer now.", user_id="u") == []
    assert said.recited("My grade in all maths is A-.", user_id="u") == []


async def test_what_holds_no_more_is_no_recital(make, clock) -> None:
    memory: VectorMemory = make(embedding_strategy="none")
    first = await memory.add(FACT, user_id="u")
    await memory.search("Where does Anna live?")
    clock.forward(minutes=1)
    await memory.supersede(first, "Anna lives in Hamburg with her two cats.")
    clock.forward(minutes=1)
    whole = await memory.store_conversation(
        [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": FACT}],
        {"user_id": "u"},
    )
    assert {turn.role for turn in await memory.provenance(whole)} == {"user", "assistant"}
