"""How texts are cut, what their telling words are, and how much they matter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.vector._chunks import (
    check_sizes,
    chunks,
    ending,
    estimate_tokens,
)
from haive.core.persistence.vector._importance import decay, importance_of
from haive.core.persistence.vector._keywords import has_keyword, keywords

NOW = datetime(2026, 1, 2, tzinfo=UTC)
written = st.text("ab .!?\n漢字。é", max_size=400)


def letters(text: str) -> str:
    return "".join(text.split())


@given(written, st.integers(8, 40))
def test_pieces_without_overlap_are_the_text_and_fit(text: str, size: int) -> None:
    pieces = chunks(text, chunk_size=size, chunk_overlap=0)
    assert letters("".join(pieces)) == letters(text)
    assert all(0 < estimate_tokens(piece) <= size for piece in pieces)


@given(written, st.integers(8, 40), st.integers(1, 20))
def test_pieces_with_overlap_fit_and_miss_nothing(text: str, size: int, overlap: int) -> None:
    pieces = chunks(text, chunk_size=size, chunk_overlap=overlap)
    assert all(0 < estimate_tokens(piece) <= size for piece in pieces)
    # Each piece is a part of the text, and begins no later than where the last one ended.
    plain, reached = letters(text), 0
    for piece in map(letters, pieces):
        starts = [at for at in range(reached + 1) if plain.startswith(piece, at)]
        assert starts
        reached = max(at + len(piece) for at in starts)
    assert reached == len(plain)


def test_a_text_that_fits_is_one_piece_word_for_word() -> None:
    assert chunks("  One.  Two.\n", chunk_size=8, chunk_overlap=0) == ["  One.  Two.\n"]
    assert chunks(" \n", chunk_size=8, chunk_overlap=0) == []


def test_a_long_text_is_cut_where_sentences_end_and_pieces_share_some() -> None:
    sentences = [f"Sentence number {n} is here." for n in range(20)]  # 8 tokens each
    pieces = chunks(" ".join(sentences), chunk_size=26, chunk_overlap=9)
    assert all(piece.startswith("Sentence") and piece.endswith("here.") for piece in pieces)
    for before, after in pairwise(pieces):
        assert after.startswith(before[before.rindex("Sentence") :])


def test_a_word_without_end_is_cut_within() -> None:
    pieces = chunks("x" * 1000 + "漢" * 100, chunk_size=10, chunk_overlap=0)
    assert "".join(pieces) == "x" * 1000 + "漢" * 100


def test_the_end_of_a_text_is_whole_sentences() -> None:
    assert ending("First one here. Second one here. Third.", 7) == "Second one here. Third."
    assert ending("short", 6) == "short"


@pytest.mark.parametrize(("size", "overlap"), [(7, 0), (100, -1), (True, 0), ("9", 0), (9, 1.5)])
def test_sizes_that_make_no_sense_are_refused(size, overlap) -> None:
    with pytest.raises(InvalidInputError, match=r"chunk_"):
        check_sizes(size, overlap)


TURNS = [
    ("Anna", "Anna here, we must move the Postgres database to Berlin, okay?"),
    ("Bo", "Postgres, basically, needs a replica there first."),
    ("Anna", "Then the replica comes first, and Postgres follows."),
    ("Bo", "Basically yes. The replica takes two days, basically."),
    ("Anna", "Fine, thanks."),
    ("Bo", "Basically done."),
    ("Bo", "Basically, we wait."),
]


def test_keywords_are_what_is_spoken_of_and_not_who_speaks_or_how() -> None:
    found = keywords(TURNS, most=4)
    assert set(found[:2]) == {"Postgres", "replica"}
    assert not {"Anna", "Bo", "the", "basically", "Basically"} & set(found)


def test_keywords_do_not_depend_on_chance_and_may_be_none() -> None:
    assert keywords(TURNS) == keywords(list(TURNS))
    assert keywords([("a", "yes"), ("b", "no, 42!")]) == []
    assert has_keyword("The Postgres one", "postgres")
    assert not has_keyword("Postgresql", "postgres")


def test_what_says_much_of_oneself_matters_more_than_what_says_little() -> None:
    order = [
        "ok, thanks!",
        "And what about lunch?",
        "Lunch was good.",
        "My sister Clara moves to Lisbon on the 5th.",
        "Remember that I am allergic to peanuts, since 2019, as Doctor Weber found.",
    ]
    scores = [importance_of(text) for text in order]
    assert scores == sorted(scores)
    assert scores[0] < 0.3
    assert scores[-1] >= 0.7
    assert all(0.1 <= importance_of(text) <= 0.9 for text in ["", "x" * 10_000, "漢字" * 50])


def test_importance_fades_by_half_each_half_life() -> None:
    assert decay(NOW, NOW, 30) == 1
    assert decay(NOW - timedelta(days=30), NOW, 30) == pytest.approx(0.5)
    assert decay(NOW + timedelta(days=30), NOW, 30) == 1
    assert decay(None, NOW, 30) == 0
