"""Which session a message belongs to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.embedding._words import letters_of, words_of
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.language.extractive import asks
from haive.core.persistence.models import MessageRole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from numpy.typing import NDArray

    from haive.core.persistence.embedding import Calibration

# A centroid forgets: of what it was, this share is gone with each message, once there are ten.
_FORGET = 0.25
# Letters beyond the third of each word, from which on a message rather stands for itself than is a
# reply. "Yes, thanks" has 3, "book a table for two in San Jose" 4, most requests 15 to 40.
_LETTERS = 12.5
# What a question leaves of the evidence against its being answered next.
_ANSWERING = 0.7
# After so many seconds of silence a message is half as likely to be a reply.
_HALF_LIFE = 1800.0

__all__ = ["OpenSession", "Placement", "advance", "asks", "place", "substance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """A session that may take the next message."""

    id: UUID
    centroid: NDArray[np.float32] | None
    """What it is about: a decaying mean of its messages' vectors, of length 1; None before any."""
    count: int
    """Messages in the centroid."""
    last_activity: datetime
    awaits_answer: bool = False
    """Its last message asks something: `asks` of its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a message goes."""

    session_id: UUID | None
    """None: into a new session."""
    similarity: float
    """To that session; of a new one, to the nearest open session, which was not near enough. 0 to
    1, 0 where there is none."""
    centroid: NDArray[np.float32]
    """Of the session with this message."""
    count: int
    """Messages in the centroid, this one included."""


def place(
    text: str,
    vector: NDArray[np.float32],
    *,
    role: MessageRole,
    at: datetime,
    sessions: Sequence[OpenSession],
    threshold: float,
    calibration: Calibration,
) -> Placement:
    """Choose the open session that a message belongs to, or none.

    A user's message goes to the session that it is most alike, if that is ``threshold`` or more.
    Similarity is that of the embedder's `Calibration`: at 0.8, of messages that belong elsewhere
    80 % would be less alike. The latest session gets more, as far as the message is short, as the
    session asked something, and as little time has passed: "yes" is an answer, and no new topic.
    What an assistant or a tool says, and what a system says, goes to the latest session.

    A higher threshold makes more sessions, 0 never more than one, 1 one for each message that is
    not the same as what a session is about.

    Args:
        text: What it says.
        vector: Its vector, of length 1.
        role: Who says it.
        at: When.
        sessions: Those that are open, in any order.
        threshold: 0 to 1.
        calibration: Of the embedder that made the vectors.

    Raises:
        InvalidInputError: The threshold is not from 0 to 1, or a centroid has other dimensions.
    """
    if not 0 <= threshold <= 1:
        raise InvalidInputError("A threshold of similarity is from 0 to 1.")
    if any(s.centroid is not None and s.centroid.shape != vector.shape for s in sessions):
        raise InvalidInputError(
            "A session's centroid was made by another embedder.",
            hint="Embed its messages again, or leave it out.",
        )
    # Of two that are equally alike, or equally late, always the same one, whatever their order.
    latest_first = sorted(sessions, key=lambda s: (s.last_activity, s.id.bytes), reverse=True)
    if not latest_first:
        return Placement(session_id=None, similarity=0.0, centroid=vector, count=1)
    latest = latest_first[0]
    if role is not MessageRole.USER:
        return _into(latest, _alike(latest, vector, calibration), vector)
    scores = [_alike(session, vector, calibration) for session in latest_first]
    if latest.centroid is None:
        scores[0] = 1.0  # opened for what comes now
    scores[0] = 1 - (1 - scores[0]) * (1 - _reply(text, latest, at - latest.last_activity))
    best = max(range(len(scores)), key=scores.__getitem__)
    if scores[best] < threshold:
        return Placement(session_id=None, similarity=scores[best], centroid=vector, count=1)
    return _into(latest_first[best], scores[best], vector)


def advance(
    centroid: NDArray[np.float32] | None, count: int, vector: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The centroid with one more message: a mean of ten, then one that forgets the oldest."""
    if centroid is None or count < 1:
        return vector
    share = max(1 / (count + 1), _FORGET)
    moved = (1 - share) * centroid + share * vector
    length = float(np.linalg.norm(moved))
    if length < 1e-6:
        return vector  # of two opposites
    unit: NDArray[np.float32] = (moved / length).astype(np.float32)
    return unit


def substance(text: str) -> float:
    """How far a message stands for itself, over 0 to 1: "yes" hardly, a request mostly.

    By the letters of its words beyond their third, in any language: the words that are in every
    text are short ones.
    """
    letters = 0.5 + sum(max(letters_of(word) - 3, 0) for word in set(words_of(text)))
    return letters**3 / (letters**3 + _LETTERS**3)


def _reply(text: str, latest: OpenSession, silence: timedelta) -> float:
    """How far a message can be taken for a reply to the latest session, 0 to under 1."""
    own = substance(text) * (_ANSWERING if latest.awaits_answer else 1.0)
    seconds = max(silence.total_seconds(), 0.0)
    return (1 - own) * math.exp2(-seconds / _HALF_LIFE)


def _alike(session: OpenSession, vector: NDArray[np.float32], calibration: Calibration) -> float:
    if session.centroid is None:
        return 0.0
    return calibration.similarity(float(vector @ session.centroid))


def _into(session: OpenSession, similarity: float, vector: NDArray[np.float32]) -> Placement:
    return Placement(
        session_id=session.id,
        similarity=similarity,
        centroid=advance(session.centroid, session.count, vector),
        count=session.count + 1 if session.centroid is not None else 1,
    )
