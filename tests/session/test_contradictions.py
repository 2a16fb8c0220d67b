"""Whether two answers to one question contradict each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.session._contradictions import contradiction


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("The table is booked for 7 pm.", "The table is booked for 8 pm.", "numbers: 7 / 8"),
        ("It costs $1,200 in all.", "It costs $1,250 in all.", "numbers: 1200 / 1250"),
        ("You may take it with you.", "You may not take it with you.", "negation"),
        ("The server doesn't support TLS.", "The server does support TLS.", "negation"),
        ("Das Paket ist angekommen.", "Das Paket ist nicht angekommen.", "negation"),
        ("Yes, that works.", "No, it can't be done that way.", "yes / no"),
        ("Sí, claro.", "No.", "yes / no"),
        ("The capital is Rome.", "The capital is Paris.", "names: Rome / Paris"),
        ("Nice day! We meet on Monday.", "We meet on Friday. Bye!", "names: Monday / Friday"),
    ],
)
def test_what_contradicts(one: str, other: str, found: str) -> None:
    assert contradiction(one, other) == found
    assert contradiction(other, one) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The table is booked for 7 pm.", "The table is booked for 7 pm at the Krone."),
        ("It costs 1,200 francs.", "It costs 1200 francs."),
        ("It costs 7.50 francs.", "It costs 7.5 francs."),
        ("There are 3 rooms.", "The weather was fine on 4 days of the trip."),
        ("Use a pooler.", "Lower the size of the pool."),
        ("No problem, I don't mind.", "No problem, I do not mind."),
        ("", "The capital is Rome."),
        ("👍", "👎"),
    ],
)
def test_what_does_not(one: str, other: str) -> None:
    assert contradiction(one, other) is None
    assert contradiction(other, one) is None


@given(st.text(max_size=80))
def test_a_text_does_not_contradict_itself(text: str) -> None:
    assert contradiction(text, text) is None
