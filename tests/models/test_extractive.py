"""The telling sentences of texts."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.language import Extract, extract
from haive.core.persistence.language.extractive import sentences

_TALK = [
    "Hi there!",
    "Our database runs out of connections every morning. I like coffee.",
    "How many connections does the pool of the database open?",
    "The pool opens forty connections to the database, and the database allows thirty.",
    "My cat is called Mia.",
    "Then lower the pool, or put a pooler in front of the database. Anything else?",
]


def drawn(texts: list[str], max_chars: int = 600) -> Extract:
    return asyncio.run(extract(texts, HashingEmbedder(), max_chars=max_chars))


def test_what_all_is_about_is_taken_and_the_rest_is_not() -> None:
    found = drawn(_TALK, 230)
    assert "forty connections" in found.text
    assert "Mia" not in found.text
    assert "coffee" not in found.text
    assert 3 in found.sources
    assert 4 not in found.sources


def test_sentences_are_found_in_many_scripts() -> None:
    assert sentences('He said: "Stop." Then 3.5 m fell! Why?\n- one\n- two') == [
        'He said: "Stop."', "Then 3.5 m fell!", "Why?", "- one", "- two",
    ]  # fmt: skip
    assert sentences("今天下雨。明天呢\uff1f不知道。") == ["今天下雨。", "明天呢\uff1f", "不知道。"]
    assert sentences("यह है। वह है।") == ["यह है।", "वह है।"]
    assert sentences("...\n\n?!") == []


def test_a_repeated_sentence_is_taken_once() -> None:
    found = drawn(["The server is down since noon."] * 3 + ["The disk of the server is full."])
    assert found.text.count("since noon") == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(alphabet="ab cdefg.!?\n😀。", max_size=60), max_size=12),
    st.integers(1, 120),
)
def test_it_says_nothing_that_does_not_stand_there_in_the_order_it_does(
    texts: list[str], most: int
) -> None:
    found = drawn(texts, most)
    assert len(found.text) <= most
    assert found == drawn(texts, most)
    assert list(found.sources) == sorted(set(found.sources))
    if not any(sentences(text) for text in texts):
        assert found == Extract(text="", sources=())
        return
    assert found.text
    said = [sentence for place in found.sources for sentence in sentences(texts[place])]
    left = iter(said)
    for line in found.text.split("\n"):
        assert any(sentence.startswith(line.removesuffix("…")) for sentence in left)


def test_nothing_to_say_or_no_room_is_no_summary() -> None:
    assert drawn([]) == drawn(["", "..."]) == drawn(_TALK, 0) == Extract(text="", sources=())
