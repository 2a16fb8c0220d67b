"""Long conversations with questions whose evidence is known: the files of LoCoMo."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Questions of this category have no answer in the conversation.
_WITHOUT_ANSWER = 5
_SESSION = re.compile(r"session_(\d+)")
# Some name two turns at once, or have a sign too many: "D8:6; D9:17", "D:11:26".
_TURN = re.compile(r"D:?(\d+):(\d+)")
_PAUSE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A turn."""

    id: str
    """``D1:3``: the third turn of the first session."""
    speaker: str
    text: str
    """With what is in the picture that was shared, if one was."""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question, and the turns that its answer follows from."""

    text: str
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTalk:
    """A conversation over many sessions."""

    id: str
    sessions: list[list[Said]]
    questions: list[Question]


def long_talks_of(file: str) -> list[LongTalk]:
    """The conversations of a file, packed by gzip or not.

    Raises:
        InvalidInputError: It is none of LoCoMo's.
    """
    try:
        content = Path(file).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        found = [_talk(sample) for sample in json.loads(content)]
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror or error}.") from None
    except (EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{file} is no file of LoCoMo ({type(error).__name__}).") from None
    if not any(talk.questions for talk in found):
        raise InvalidInputError(f"{file} has no question with evidence.")
    return found


def _talk(sample: dict[str, Any]) -> LongTalk:
    talk = sample["conversation"]
    numbers = sorted(int(match[1]) for name in talk if (match := _SESSION.fullmatch(name)))
    sessions = [
        list(_turns(talk[f"session_{number}"], talk[f"session_{number}_date_time"]))
        for number in numbers
    ]
    known = {said.id for session in sessions for said in session}
    return LongTalk(
        id=str(sample["sample_id"]),
        sessions=[session for session in sessions if session],
        questions=list(_questions(sample["qa"], known)),
    )


def _turns(turns: list[dict[str, Any]], began: str) -> Iterator[Said]:
    at = datetime.strptime(began, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
    for number, turn in enumerate(turns):
        picture = turn.get("blip_caption")
        text = f"{turn['text']} [{picture}]" if picture else turn["text"]
        yield Said(id=turn["dia_id"], speaker=turn["speaker"], text=text, at=at + number * _PAUSE)


def _questions(asked: list[dict[str, Any]], known: set[str]) -> Iterator[Question]:
    for question in asked:
        if question["category"] == _WITHOUT_ANSWER:
            continue
        named = " ".join(question.get("evidence") or ())
        evidence = {f"D{int(a)}:{int(b)}" for a, b in _TURN.findall(named)} & known
        if evidence:
            yield Question(text=question["question"], evidence=frozenset(evidence))
