"""Which session a message belongs to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haive.core.persistence.embedding import Calibration, HashingEmbedder
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.models import MessageRole
from haive.core.persistence.session._topics import (
    OpenSession,
    Placement,
    advance,
    asks,
    place,
    substance,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
EMBEDDER = HashingEmbedder()
CALIBRATION: Calibration = asyncio.run(EMBEDDER.calibration())

_TALK = (
    ("user", "Please book a table for two in a restaurant in Zurich."),
    ("assistant", "Which restaurant in Zurich would you like?"),
    ("user", "The Krone."),
    ("assistant", "The Krone in Zurich has a table at seven."),
    ("user", "Postgres says there are no more connections to the database, help!"),
    ("assistant", "How many connections does the pool open to the database?"),
    ("user", "Forty"),
    ("assistant", "The database allows thirty connections: lower the pool."),
    ("user", "Can the restaurant in Zurich serve us a vegetarian menu?"),
    ("assistant", "Yes, the restaurant has a vegetarian menu."),
    ("user", "ok thanks"),
)
_TOPICS = [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1]


def vector(text: str) -> np.ndarray:
    return asyncio.run(EMBEDDER.embed([text]))[0]


def session(number: int, text: str, *, at: float = 0, asked: bool = False) -> OpenSession:
    return OpenSession(
        id=UUID(int=number),
        centroid=vector(text),
        count=1,
        last_activity=BEGIN + timedelta(seconds=at),
        awaits_answer=asked,
    )


def put(
    text: str,
    sessions: list[OpenSession],
    *,
    threshold: float = 0.8,
    role: str = "user",
    at: float = 60,
) -> Placement:
    return place(
        text,
        vector(text),
        role=MessageRole(role),
        at=BEGIN + timedelta(seconds=at),
        sessions=sessions,
        threshold=threshold,
        calibration=CALIBRATION,
    )


def threads(talk, threshold: float) -> list[int]:
    """The session of each message of a talk, as a number."""
    sessions: dict[UUID, OpenSession] = {}
    found: list[int] = []
    for number, (role, text) in enumerate(talk):
        placed = put(text, list(sessions.values()), threshold=threshold, role=role, at=30 * number)
        key = placed.session_id or UUID(int=len(sessions) + 1)
        sessions[key] = OpenSession(
            id=key,
            centroid=placed.centroid,
            count=placed.count,
            last_activity=BEGIN + timedelta(seconds=30 * number),
            awaits_answer=asks(text),
        )
        found.append(key.int)
    return found


def test_two_topics_at_once_become_two_sessions() -> None:
    assert threads(_TALK, 0.8) == _TOPICS


def test_a_higher_threshold_makes_more_sessions_0_one_and_1_one_a_users_message() -> None:
    counts = [len(set(threads(_TALK, t))) for t in (0, 0.5, 0.8, 0.95, 1)]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-1] == sum(role == "user" for role, _ in _TALK)


def test_at_1_only_what_is_the_same_goes_together() -> None:
    open_ = [session(1, "Book a table in Zurich.")]
    assert put("Book a table in Zurich.", open_, threshold=1).session_id == UUID(int=1)
    assert put("Book a table in Bern.", open_, threshold=1).session_id is None
    assert put("yes", open_, threshold=1).session_id is None


def test_a_short_message_stays_with_the_latest_session_while_it_can_be_a_reply() -> None:
    open_ = [session(1, "a table in Zurich", at=0), session(2, "connections of the pool", at=30)]
    for text in ("yes", "thanks!", "ok", "👍", "ja", "好"):
        assert put(text, open_).session_id == UUID(int=2), text
        assert put(text, open_, at=6 * 3600).session_id is None, text


def test_what_a_session_asked_is_answered_there() -> None:
    text = "the fourth of may"
    asked = put(text, [session(1, "a table in Zurich", asked=True)])
    told = put(text, [session(1, "a table in Zurich")])
    assert asked.similarity > told.similarity


def test_assistants_tools_and_systems_speak_in_the_latest_session() -> None:
    open_ = [session(1, "a table in Zurich", at=30), session(2, "connections", at=0)]
    for role in ("assistant", "tool", "system"):
        assert put("connections of a pool", open_, role=role).session_id == UUID(int=1)
        assert put("connections of a pool", [], role=role).session_id is None


def test_a_session_without_a_vector_takes_a_message_only_as_the_latest() -> None:
    empty = OpenSession(
        id=UUID(int=9), centroid=None, count=0, last_activity=BEGIN + timedelta(seconds=50)
    )
    other = session(1, "a table in a restaurant in Zurich", at=10)
    found = put("Which restaurant in Zurich has a table?", [other, empty])
    assert (found.session_id, found.similarity, found.count) == (UUID(int=9), 1.0, 1)
    late = session(1, "a table in a restaurant in Zurich", at=55)
    assert put("Which restaurant in Zurich has a table?", [empty, late]).session_id == UUID(int=1)


def test_a_centroid_follows_a_topic_that_moves() -> None:
    centroid, count = vector("restaurant in Zurich"), 1
    for _ in range(20):
        centroid = advance(centroid, count, vector("connections of the database"))
        count += 1
    assert float(centroid @ vector("connections of the database")) > 0.95
    assert float(np.linalg.norm(centroid)) == pytest.approx(1, abs=1e-5)


def test_of_opposites_the_last_one_stays() -> None:
    one = vector("restaurant")
    np.testing.assert_array_equal(advance(one, 1, -one), -one)


def test_the_substance_of_a_message_grows_with_what_it_says_in_any_script() -> None:
    for little, much in [
        ("yes", "I would like to reserve a table at the Krone in Zurich"),
        ("merci", "Je voudrais réserver une table au restaurant de la gare"),
        ("好", "我想在巴塞尔的餐厅预订两个人的桌子"),
        ("", "connections of the database"),
    ]:
        assert 0 <= substance(little) < 0.1
        assert 0.3 < substance(much) <= 1


def test_questions_are_seen_in_many_scripts() -> None:
    for text in ('Which one?"', "哪一个\uff1f ", "ماذا تريد؟", "Which? 🙂"):
        assert asks(text), text
    for text in ("", "No.", "Why? Because.", "?x"):
        assert not asks(text), text


def test_what_cannot_be_is_refused() -> None:
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInputError):
            put("a", [], threshold=threshold)
    other = OpenSession(
        id=UUID(int=1), centroid=np.ones(3, np.float32), count=1, last_activity=BEGIN
    )
    with pytest.raises(InvalidInputError, match="another embedder"):
        put("a", [other])


_texts = st.lists(
    st.sampled_from(["yes", "a table in Zurich", "database connections", "rain tomorrow", ""]),
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(
    _texts,
    st.sampled_from(["restaurant tables", "connections?", "ok", ""]),
    st.floats(0, 1),
    st.randoms(),
)
def test_the_choice_is_an_open_session_at_the_threshold_whatever_their_order(
    texts: list[str], text: str, threshold: float, chance
) -> None:
    open_ = [session(number, said, at=number % 3) for number, said in enumerate(texts, 1)]
    found = put(text, open_, threshold=threshold)
    shuffled = list(open_)
    chance.shuffle(shuffled)
    again = put(text, shuffled, threshold=threshold)
    assert (again.session_id, again.similarity) == (found.session_id, found.similarity)
    assert 0 <= found.similarity <= 1
    assert float(np.linalg.norm(found.centroid)) == pytest.approx(1, abs=1e-4)
    if found.session_id is None:
        assert not open_ or found.similarity < threshold
        assert found.count == 1
    else:
        assert found.similarity >= threshold
        assert found.count == 2
    # What joins at a threshold joins at every lower one.
    if found.session_id is not None:
        assert put(text, open_, threshold=threshold / 2).session_id == found.session_id
