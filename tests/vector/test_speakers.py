"""Whom a query names, and how two scores become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.vector.reranking import blend
from haive.core.persistence.vector.speakers import named_speakers

_SPEAKERS = ["Anna Meier", "Ben", "Éva", "user", "Assistant", "Jo", "李雷", ""]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("What did Anna say?", {"Anna Meier"}),
        ("anna meier's cat", {"Anna Meier"}),
        ("Where is Annabel?", set()),
        ("When did Ben and Éva meet?", {"Ben", "Éva"}),
        ("Who is meier?", set()),
        ("What did the user want of the assistant?", set()),
        ("Did Jo call?", {"Jo"}),
        ("jogging", set()),
        ("李雷 说了什么", {"李雷"}),
        ("", set()),
        ("...", set()),
    ],
)
def test_a_speaker_is_named_by_the_name_or_its_first_word(query: str, named: set[str]) -> None:
    assert named_speakers(query, _SPEAKERS) == named


@given(st.text(), st.lists(st.text(max_size=20), max_size=5))
def test_who_is_named_is_one_of_the_speakers(query: str, speakers: list[str]) -> None:
    assert named_speakers(query, speakers) <= set(speakers)


def test_blending_orders_by_both_and_by_the_search_where_ranks_are_equal() -> None:
    assert blend([], []) == []
    assert blend([3.0], [0.2]) == [0.0]
    assert blend([2, 1, 0], [5, 5, 5]) == [1, 0.5, 0]
    assert blend([1, 1, 1], [0, 5, 10]) == pytest.approx([0, 0.35, 0.7])
    assert blend([2, 1, 0], [0, 1, 0]) == pytest.approx([1, 1.2, 0])
    with pytest.raises(ValueError, match="shorter"):
        blend([1, 2], [1])


_numbers = st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1)


@given(_numbers, st.floats(0.5, 100), st.floats(-1000, 1000))
def test_the_units_of_either_do_not_matter(
    pairs: list[tuple[float, float]], factor: float, shift: float
) -> None:
    scores, ranks = [round(a, 2) for a, _ in pairs], [round(b, 2) for _, b in pairs]
    moved = [rank * factor + shift for rank in ranks]
    assert blend(scores, moved) == pytest.approx(blend(scores, ranks), abs=1e-4)
