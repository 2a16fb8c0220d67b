"""The plan of a merge, for each strategy."""

from __future__ import annotations

import asyncio

import pytest

from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.models import (
    ImagePart,
    Message,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from haive.core.persistence.session import MergePlan, MessageRef
from haive.core.persistence.session._merging import plan_merge

EMBEDDER = HashingEmbedder()


def merged(primary: list[Message], secondary: list[Message], strategy: str, **more) -> MergePlan:
    more = {"embedder": EMBEDDER, "strategy": strategy, **more}
    return asyncio.run(plan_merge(primary, secondary, **more))


def kept(plan: MergePlan) -> list[str]:
    return [f"{entry.side[0]}{entry.message.seq}" for entry in plan.entries]


def gone(plan: MergePlan) -> list[tuple[str, str, str]]:
    return [
        (f"{drop.side[0]}{drop.message.seq}", drop.reason, str(drop.because_of.seq))
        for drop in plan.dropped
    ]


@pytest.fixture
def sides(talk) -> tuple[list[Message], list[Message]]:
    """Both ask for a table; then one asks for the weather and the other one for a train."""
    primary = talk.tail(
        talk.primary,
        ("user", "Book a table for two at the Krone"),
        ("assistant", "The table is booked for 7 pm."),
        ("user", "How is the weather tomorrow?"),
        ("assistant", "It will rain in the morning."),
    )
    secondary = talk.tail(
        talk.secondary,
        ("user", "Find me a train to Geneva"),
        ("assistant", "One leaves at 9:15 from platform 4."),
        ("user", "Please book a table for two at the Krone"),
        ("assistant", "The table is booked for 8 pm."),
        ("user", "Write me a poem about cheese"),
        ("assistant", "Emmental, oh holy thing."),
        at=0.5,
    )
    return primary, secondary


def test_append_puts_one_after_the_other(sides) -> None:
    plan = merged(*sides, "append")
    assert kept(plan) == ["p1", "p2", "p3", "p4", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert not plan.dropped
    assert not plan.conflicts
    assert plan.summary is None


def test_chronological_goes_by_time(sides) -> None:
    assert kept(merged(*sides, "chronological")) == [
        "p1", "s1", "p2", "s2", "p3", "s3", "p4", "s4", "s5", "s6",
    ]  # fmt: skip


def test_chronological_never_reorders_a_side_and_takes_the_primary_first_at_one_time(talk) -> None:
    primary = [
        talk.message(talk.primary, 1, "user", "a", at=5),
        talk.message(talk.primary, 2, "assistant", "b", at=1),  # a clock that went back
        talk.message(talk.primary, 3, "user", "c", at=7),
    ]
    secondary = [
        talk.message(talk.secondary, 1, "user", "d", at=2),
        talk.message(talk.secondary, 2, "assistant", "e", at=5),
        talk.message(talk.secondary, 3, "user", "f", at=6),
    ]
    assert kept(merged(primary, secondary, "chronological")) == [
        "s1", "p1", "p2", "s2", "s3", "p3",
    ]  # fmt: skip


def test_primary_wins_keeps_its_answer_and_adds_what_is_new_at_the_end(sides) -> None:
    plan = merged(*sides, "primary_wins")
    assert kept(plan) == ["p1", "p2", "p3", "p4", "s1", "s2", "s5", "s6"]
    assert gone(plan) == [("s3", "near_duplicate", "1"), ("s4", "conflict", "2")]
    (conflict,) = plan.conflicts
    assert (conflict.kept, conflict.reason, conflict.by) == (
        "primary", "numbers: 7 / 8", "heuristic",
    )  # fmt: skip


def test_secondary_wins_puts_its_answer_in_place(sides) -> None:
    plan = merged(*sides, "secondary_wins")
    assert kept(plan) == ["s1", "s2", "p1", "s4", "p3", "p4", "s5", "s6"]
    assert gone(plan) == [("s3", "near_duplicate", "1"), ("p2", "conflict", "4")]
    assert plan.conflicts[0].kept == "secondary"


def test_wins_keeps_one_answer_even_where_nothing_contradicts(talk) -> None:
    question = ("user", "How do I make the pool smaller?")
    one = talk.tail(talk.primary, question, ("assistant", "Set pool_size in the configuration."))
    other = talk.tail(talk.secondary, question, ("assistant", "Put PgBouncer before the server."))
    assert kept(merged(one, other, "primary_wins")) == ["p1", "p2"]
    plan = merged(one, other, "secondary_wins")
    assert kept(plan) == ["p1", "s2"]
    assert plan.conflicts[0].reason == "different answers"
    assert kept(merged(one, other, "intelligent")) == ["p1", "p2", "s2"]


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        ("primary_wins", ["s1", "s2", "p1", "p2", "p3", "p4", "s5", "s6"]),
        ("secondary_wins", ["s1", "s2", "p1", "s4", "p3", "p4", "s5", "s6"]),
        ("latest", ["s1", "s2", "p1", "s4", "p3", "p4", "s5", "s6"]),
        ("keep_both", ["s1", "s2", "p1", "p2", "s4", "p3", "p4", "s5", "s6"]),
    ],
)
def test_intelligent_resolves_a_contradiction_as_told(
    sides, resolution: str, expected: list[str]
) -> None:
    plan = merged(*sides, "intelligent", conflict_resolution=resolution)
    assert kept(plan) == expected
    (conflict,) = plan.conflicts
    assert conflict.reason == "numbers: 7 / 8"
    assert plan.summary is not None
    assert plan.summary.by == "extractive"
    entries = [entry.message for entry in plan.entries]
    assert [ref for ref in entries if ref in plan.summary.sources] == list(plan.summary.sources)


def test_intelligent_drops_what_is_said_twice_in_place_or_elsewhere(talk) -> None:
    primary = talk.tail(
        talk.primary,
        ("user", "What is the capital of France?"),
        ("assistant", "The capital of France is Paris."),
        ("user", "How do I reverse a list in Python?"),
        ("assistant", "Call reversed() on the list, or slice it with a step of minus one."),
    )
    secondary = talk.tail(
        talk.secondary,
        ("user", "How do I reverse a list in Python?"),
        ("assistant", "Call reversed() on the list, or slice it with a step of minus one."),
        ("user", "What is the capital of France, please?"),
        ("assistant", "The capital of France is Paris!"),
    )
    plan = merged(primary, secondary, "intelligent")
    assert kept(plan) == ["p1", "p2", "p3", "p4"]
    assert {drop.reason for drop in plan.dropped} == {"near_duplicate"}
    assert all(drop.similarity is not None and drop.similarity > 0.9 for drop in plan.dropped)
    assert plan.summary is None  # nothing is new
    assert not plan.conflicts


def test_what_is_said_elsewhere_too_stays_where_the_other_one_was_resolved_away(talk) -> None:
    question = ("user", "Please book us a table for two persons at the restaurant Krone")
    one = talk.tail(talk.primary, question, ("assistant", "The table is booked for 7 pm."))
    other = talk.tail(
        talk.secondary,
        question,
        ("assistant", "The table is booked for 8 pm."),
        question,
        ("assistant", "The table is booked for 7 pm."),
    )
    plan = merged(one, other, "intelligent", conflict_resolution="secondary_wins")
    assert kept(plan) == ["p1", "s2", "s3", "s4"]
    assert kept(merged(one, other, "intelligent")) == ["p1", "p2"]


def test_a_longer_answer_is_no_repetition(talk) -> None:
    question = ("user", "What is the capital of France?")
    short = "The capital of France is Paris."
    long = f"{short} It has two million inhabitants, lies on the Seine and hosts the Louvre."
    one = talk.tail(talk.primary, question, ("assistant", short))
    other = talk.tail(talk.secondary, question, ("assistant", long))
    assert kept(merged(one, other, "intelligent")) == ["p1", "p2", "s2"]


def test_prompts_that_ask_for_different_things_are_not_paired(talk) -> None:
    one = talk.tail(talk.primary, ("user", "Book a table for 2"), ("assistant", "Done."))
    other = talk.tail(talk.secondary, ("user", "Book a table for 3"), ("assistant", "Full."))
    plan = merged(one, other, "intelligent")
    assert kept(plan) == ["p1", "p2", "s1", "s2"]
    assert not plan.conflicts


@pytest.mark.parametrize(
    ("asked", "asked_too"),
    [
        ("what is the weather in paris tomorrow?", "what is the weather in london tomorrow?"),
        ("buy 100 shares of apple stock now", "sell 100 shares of apple stock now"),
        (
            "translate this letter to the bank to french",
            "translate this letter to the bank to german",
        ),
        ("translate this from french to german", "translate this from german to french"),
        ("book a table for two at the krone", "book a table for three at the krone"),
        ("turn the light on", "turn the light off"),
        ("how do i read a file line by line in C++", "how do i read a file line by line in C#"),
    ],
)
def test_nor_are_those_of_which_each_has_a_word_of_its_own_or_another_order(
    talk, asked: str, asked_too: str
) -> None:
    one = talk.tail(
        talk.primary,
        ("user", asked),
        ("assistant", "Tomorrow it will be sunny with 21 degrees."),
    )
    other = talk.tail(
        talk.secondary,
        ("user", asked_too),
        ("assistant", "Tomorrow it will be cloudy with 14 degrees."),
    )
    for strategy in ("primary_wins", "intelligent"):
        plan = merged(one, other, strategy, summary_chars=0)
        assert kept(plan) == ["p1", "p2", "s1", "s2"]
        assert not plan.dropped
        assert not plan.conflicts


def test_nor_is_what_says_the_same_of_them_elsewhere_dropped(talk) -> None:
    asked = "please order one hundred shares of the company at the best price and {} them today"
    one = talk.tail(
        talk.primary,
        ("user", "How do I reverse a list in Python?"),
        ("assistant", "Call reversed() on the list."),
        ("user", asked.format("hold")),
        ("assistant", "The order for the shares of the company was placed."),
    )
    other = talk.tail(
        talk.secondary,
        ("user", asked.format("sell")),
        ("assistant", "The order for the shares of the company was placed."),
        ("user", "How do I reverse a list in Python?"),
        ("assistant", "Call reversed() on the list."),
    )
    plan = merged(one, other, "intelligent", summary_chars=0)
    assert kept(plan) == ["s1", "s2", "p1", "p2", "p3", "p4"]


@pytest.mark.parametrize(
    ("asked", "asked_too"),
    [
        ("How is the weather tomorrow?", "What is the weather tomorrow?"),
        ("can you book a table at the krone?", "could you book me a table at the krone?"),
        ("book a table at the restaurant krone", "book a table at the restaurant krone, outside"),
    ],
)
def test_prompts_are_paired_that_say_more_or_other_common_words(
    talk, asked: str, asked_too: str
) -> None:
    one = talk.tail(talk.primary, ("user", asked), ("assistant", "Done."))
    other = talk.tail(talk.secondary, ("user", asked_too), ("assistant", "Done."))
    assert kept(merged(one, other, "primary_wins")) == ["p1", "p2"]


@pytest.mark.parametrize(
    ("shown", "shown_too", "expected"),
    [
        ({"url": "https://a.ch/chair.jpg"}, {"url": "https://a.ch/chair.jpg"}, ["p1", "p2"]),
        (
            {"url": "https://a.ch/red-chair.jpg"},
            {"url": "https://a.ch/oak-table.jpg"},
            ["p1", "p2", "s1", "s2"],
        ),
        (
            {"data": "AAAA", "media_type": "image/png"},
            {"data": "BBBB", "media_type": "image/png"},
            ["p1", "p2", "s1", "s2"],
        ),
        ({"url": "https://a.ch/chair.jpg"}, None, ["p1", "p2", "s1", "s2"]),
    ],
)
def test_prompts_about_different_images_are_not_paired(talk, shown, shown_too, expected) -> None:
    def asked(image) -> list:
        text = TextPart(text="How much does this one in the picture here cost, all in all?")
        return [text] if image is None else [text, ImagePart(**image)]

    one = talk.tail(talk.primary, ("user", asked(shown)), ("assistant", "It is 40 francs."))
    other = talk.tail(talk.secondary, ("user", asked(shown_too)), ("assistant", "It is 90 francs."))
    assert kept(merged(one, other, "intelligent", summary_chars=0)) == expected


def test_yes_is_read_with_what_it_answers(talk) -> None:
    one = talk.tail(
        talk.primary,
        ("user", "Is there a hotel by the lake?"),
        ("assistant", "Shall I book the hotel Seehof?"),
        ("user", "yes"),
        ("assistant", "The hotel is booked for 4 nights."),
    )
    other = talk.tail(
        talk.secondary,
        ("user", "I need a taxi"),
        ("assistant", "Shall I call a taxi to the station?"),
        ("user", "yes"),
        ("assistant", "The taxi is booked for 9 pm."),
    )
    plan = merged(one, other, "intelligent")
    assert kept(plan) == ["p1", "p2", "p3", "p4", "s1", "s2", "s3", "s4"]


def test_a_branch_right_after_a_prompt_answers_the_same_prompt(talk) -> None:
    one = talk.tail(talk.primary, ("assistant", "The table is booked for 7 pm."))
    other = talk.tail(talk.secondary, ("assistant", "The table is booked for 8 pm."), at=1)
    plan = merged(one, other, "intelligent", conflict_resolution="latest")
    assert kept(plan) == ["s1"]
    assert gone(plan) == [("p1", "conflict", "1")]


def test_an_empty_prompt_is_not_the_end_of_the_root(talk) -> None:
    one = talk.tail(talk.primary, ("assistant", "The table is booked for 7 pm."))
    other = talk.tail(talk.secondary, ("user", "hello"), ("assistant", "Hi."), ("user", ""))
    plan = merged(one, other, "primary_wins")
    assert kept(plan) == ["p1", "s1", "s2", "s3"]


def test_what_one_side_has_not_answered_the_other_one_answers(talk) -> None:
    one = talk.tail(talk.primary, ("user", "What is the capital of France?"))
    other = talk.tail(
        talk.secondary, ("user", "What is the capital of France?"), ("assistant", "Paris.")
    )
    assert kept(merged(one, other, "intelligent")) == ["p1", "s2"]
    assert kept(merged(other, one, "intelligent")) == ["p1", "p2"]
    assert kept(merged(one, other, "secondary_wins")) == ["p1", "s2"]
    assert kept(merged(one, other, "primary_wins")) == ["p1", "s1", "s2"]


@pytest.mark.parametrize(
    "strategy", ["append", "chronological", "primary_wins", "secondary_wins", "intelligent"]
)
def test_a_message_that_both_have_is_kept_once(talk, strategy: str) -> None:
    shared = talk.tail(talk.root, ("user", "Book a table"), ("assistant", "When?"), start=5)
    one = talk.tail(talk.primary, ("user", "at 7"), ("assistant", "Booked."), at=2)
    other = talk.tail(talk.secondary, ("user", "rather not"), ("assistant", "Fine."), at=2)
    one, other = shared + one, shared + other
    plan = merged(one, other, strategy)
    assert kept(plan)[:2] == ["p5", "p6"]
    both = [drop for drop in plan.dropped if drop.reason == "same_message"]
    assert [(drop.side, drop.message.seq, drop.similarity) for drop in both] == [
        ("secondary", 5, 1.0),
        ("secondary", 6, 1.0),
    ]
    assert all(drop.message == drop.because_of for drop in both)


def lookup(id_: str) -> list:
    return [ToolCallPart(id=id_, name="search", arguments={"q": id_})]


def found(id_: str, content: str) -> list:
    return [ToolResultPart(tool_call_id=id_, content=content)]


@pytest.mark.parametrize("strategy", ["append", "chronological", "primary_wins", "intelligent"])
def test_of_two_results_of_one_call_one_is_kept(talk, strategy: str) -> None:
    one = talk.tail(talk.primary, ("tool", found("c", "sunny")), ("assistant", "It is sunny."))
    other = talk.tail(talk.secondary, ("tool", found("c", "rain")), ("assistant", "It rains."))
    plan = merged(one, other, strategy)
    assert kept(plan)[0] == "p1"
    assert ("s1", "conflict", "1") in gone(plan)
    assert next(drop.similarity for drop in plan.dropped) is None


def test_the_side_that_wins_has_the_result(talk) -> None:
    one = talk.tail(talk.primary, ("tool", found("c", "sunny")), ("assistant", "It is sunny."))
    other = talk.tail(talk.secondary, ("tool", found("c", "rain")), ("assistant", "It rains."))
    assert kept(merged(one, other, "secondary_wins")) == ["s1", "s2"]
    plan = merged(one, other, "intelligent", conflict_resolution="secondary_wins")
    assert kept(plan)[0] == "s1"


def test_a_result_that_the_root_waits_for_comes_first(talk) -> None:
    one = talk.tail(talk.primary, ("user", "never mind"), ("assistant", "Fine."))
    other = talk.tail(talk.secondary, ("tool", found("c", "rain")), ("assistant", "It rains."))
    for strategy in ("append", "chronological", "primary_wins", "secondary_wins", "intelligent"):
        assert kept(merged(one, other, strategy))[0] == "s1", strategy


def test_a_result_that_the_root_waits_for_stays_though_its_side_loses(talk) -> None:
    one = talk.tail(
        talk.primary, ("tool", found("c", "7")), ("assistant", "The table is booked for 7 pm.")
    )
    other = talk.tail(talk.secondary, ("assistant", "The table is booked for 8 pm."))
    for strategy in ("secondary_wins", "intelligent"):
        plan = merged(one, other, strategy, conflict_resolution="secondary_wins")
        assert kept(plan) == ["p1", "s1"]
        assert gone(plan) == [("p2", "conflict", "1")]


def test_nothing_comes_between_a_call_and_its_result_by_time(talk) -> None:
    one = talk.tail(
        talk.primary,
        ("user", "look it up"),
        ("assistant", lookup("a")),
        ("tool", found("a", "rain")),
        ("assistant", "It rains."),
    )
    other = talk.tail(talk.secondary, ("user", "hello"), ("assistant", "Hi."), at=1.5)
    assert kept(merged(one, other, "chronological")) == ["p1", "p2", "p3", "s1", "s2", "p4"]


def test_a_call_is_dropped_with_its_result_or_not_at_all(talk) -> None:
    question = ("user", "How warm is it in Geneva today?")
    one = talk.tail(
        talk.primary,
        question,
        ("assistant", lookup("a")),
        ("tool", found("a", "21")),
        ("assistant", "It is 21 degrees in Geneva."),
    )
    other = talk.tail(
        talk.secondary,
        question,
        ("assistant", lookup("b")),
        ("tool", found("b", "23")),
        ("assistant", "It is 23 degrees in Geneva."),
    )
    assert kept(merged(one, other, "primary_wins")) == ["p1", "p2", "p3", "p4"]
    assert kept(merged(one, other, "secondary_wins")) == ["p1", "s2", "s3", "s4"]


def test_empty_sides_are_merged_too(sides) -> None:
    primary, secondary = sides
    for strategy in ("append", "chronological", "primary_wins", "secondary_wins", "intelligent"):
        assert kept(merged(primary, [], strategy)) == ["p1", "p2", "p3", "p4"]
        assert kept(merged([], secondary, strategy)) == ["s1", "s2", "s3", "s4", "s5", "s6"]
        assert merged([], [], strategy) == MergePlan(entries=())


def test_what_cannot_be_is_refused(sides) -> None:
    primary, secondary = sides
    with pytest.raises(InvalidInputError, match="twice"):
        merged([*primary, primary[0]], secondary, "append")
    with pytest.raises(InvalidInputError, match="near_duplicate"):
        merged(primary, secondary, "append", near_duplicate=0)
    with pytest.raises(InvalidInputError, match="summary_chars"):
        merged(primary, secondary, "intelligent", summary_chars=-1)
    with pytest.raises(ValueError, match="nonsense"):
        merged(primary, secondary, "nonsense")
    assert merged(primary, secondary, "intelligent", summary_chars=0).summary is None


def test_refs_are_places(sides) -> None:
    primary, _ = sides
    ref = MessageRef.of(primary[1])
    assert (ref.conversation_id, ref.seq) == (primary[1].conversation_id, 2)
