"""Messages in turns, and calls of tools with their results."""

from __future__ import annotations

from haive.core.persistence.models import ImagePart, TextPart, ToolCallPart, ToolResultPart
from haive.core.persistence.session._turns import said, tool_groups, turns_of


def call(id_: str) -> list:
    return [ToolCallPart(id=id_, name="search", arguments={"b": 1, "a": 2})]


def result(id_: str, content: object = "found") -> list:
    return [ToolResultPart(tool_call_id=id_, content=content)]


def seqs(groups) -> list[list[int]]:
    return [[message.seq for message in group] for group in groups]


def test_a_turn_is_a_prompt_and_what_follows_it(talk) -> None:
    found = turns_of(
        talk.tail(
            talk.primary,
            ("assistant", "hello"),
            ("user", "one"),
            ("user", "and two"),
            ("assistant", "three"),
            ("user", "four"),
        )
    )
    assert seqs(turn.prompt for turn in found) == [[], [2, 3], [5]]
    assert seqs(turn.answer for turn in found) == [[1], [4], []]


def test_results_in_messages_of_users_are_no_prompts(talk) -> None:
    found = turns_of(
        talk.tail(
            talk.primary,
            ("user", "look it up"),
            ("assistant", call("1")),
            ("user", result("1")),
            ("assistant", "there"),
        )
    )
    assert seqs(turn.messages for turn in found) == [[1, 2, 3, 4]]


def test_nothing_comes_between_a_call_and_its_last_result(talk) -> None:
    messages = talk.tail(
        talk.primary,
        ("user", "look"),
        ("assistant", call("1") + call("2")),
        ("tool", result("2")),
        ("user", "hurry"),
        ("tool", result("1")),
        ("assistant", "there"),
        ("assistant", call("3")),
    )
    assert seqs(tool_groups(messages)) == [[1], [2, 3, 4, 5], [6], [7]]
    assert len(turns_of(messages)) == 1


def test_what_messages_say_is_told_whatever_their_parts(talk) -> None:
    parts = [
        TextPart(text="look"),
        *call("1"),
        *result("1", {"n": 1}),
        ImagePart(url="https://example.org/a.png"),
        ImagePart(data="AAAA"),
    ]
    told = said(talk.tail(talk.primary, ("assistant", parts), ("user", "so")))
    first = 'look\nsearch {"a": 2, "b": 1}\n{"n": 1}\nhttps://example.org/a.png\n'
    assert told.startswith(first)
    assert told.endswith("\nso")
    assert "AAAA" not in told
