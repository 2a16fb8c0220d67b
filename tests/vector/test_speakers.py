"""Whom a query names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(deadline=None)
@given(st.text(), st.lists(st.text(max_size=20), max_size=5))
def test_who_is_named_is_one_of_the_speakers(query: str, speakers: list[str]) -> None:
    assert named_speakers(query, speakers) <= set(speakers)
