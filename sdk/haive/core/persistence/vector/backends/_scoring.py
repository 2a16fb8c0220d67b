"""Scores of candidates for a query, where the database has none of its own for words."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from haive.core.persistence.embedding._common import COMMON
from haive.core.persistence.embedding._words import words_of
from haive.core.persistence.vector.records import Hit
from haive.core.persistence.vector.speakers import named_speakers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haive.core.persistence.vector.records import Query, Record

# As in the SQL of this package.
_K1, _B = 0.9, 0.4
_DAY = 86_400
_OF_TEXT = ("words", "context", "vector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A record that may be what is looked for."""

    record: Record
    nearness: float | None
    """Larger is nearer, on any scale; None without a vector."""


def fuse(query: Query, candidates: Sequence[Candidate], language: str) -> list[Hit]:
    """The best candidates: each signal scaled to 0…1 over all of them, weighted and added up.

    Words count by BM25 with the candidates' own statistics. A signal that is the same for all
    candidates says nothing: it is 1 where there is something of it, and 0 where there is not.
    """
    if not candidates:
        return []
    weights = query.weights
    rows = [candidate.record.metadata for candidate in candidates]
    wanted = set(_stems(query.text, language))
    named = named_speakers(
        query.text, {who for row in rows if isinstance(who := row.get("speaker"), str)}
    )
    texts = [_stems(_text(row, "text"), language) for row in rows]
    context = [
        _stems(_text(row, "context"), language) + text
        for row, text in zip(rows, texts, strict=True)
    ]
    signals = {
        "words": (weights.words, _bm25(wanted, texts)),
        "context": (weights.context, _bm25(wanted, context)),
        "vector": (weights.vector, _near(candidates) if query.vector is not None else None),
        "speaker": (weights.speaker, [float(_text(row, "speaker") in named) for row in rows]),
        "recency": (
            weights.recency,
            [_recency(row, query.now, weights.recency_half_life) for row in rows],
        ),
        "importance": (weights.importance, [_float(row.get("importance")) for row in rows]),
    }
    parts: list[dict[str, float]] = [{} for _ in rows]
    for name, (weight, values) in signals.items():
        for part, value in zip(parts, _scaled(values) if values else (), strict=False):
            if weight:
                part[name] = weight * value
    if weights.neighbours:
        for part, value in zip(parts, _beside(rows, parts), strict=True):
            part["neighbours"] = weights.neighbours * value
    hits = [
        Hit(
            record=candidate.record,
            score=math.fsum(part.values()),
            parts=part if query.parts else {},
        )
        for candidate, part in zip(candidates, parts, strict=True)
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.record.id))[: query.limit]


def _scaled(values: Sequence[float]) -> list[float]:
    least, most = min(values), max(values)
    if least == most:
        return [float(most > 0)] * len(values)
    return [(value - least) / (most - least) for value in values]


def _near(candidates: Sequence[Candidate]) -> list[float]:
    """Nearness, where what has no vector is as far as the farthest that has one."""
    known = [each.nearness for each in candidates if each.nearness is not None]
    least = min(known, default=0.0)
    return [least if each.nearness is None else each.nearness for each in candidates]


def _bm25(wanted: set[str], texts: Sequence[Sequence[str]]) -> list[float]:
    counts = [Counter(word for word in text if word in wanted) for text in texts]
    mean = sum(map(len, texts)) / len(texts) or 1.0
    among = Counter(word for count in counts for word in count)
    rarity = {
        word: math.log(1 + (len(texts) - number + 0.5) / (number + 0.5))
        for word, number in among.items()
    }
    return [
        math.fsum(
            rarity[word] * times * (_K1 + 1) / (times + _K1 * (1 - _B + _B * len(text) / mean))
            for word, times in count.items()
        )
        for count, text in zip(counts, texts, strict=True)
    ]


def _beside(rows: Sequence[Any], parts: Sequence[dict[str, float]]) -> list[float]:
    """What the turns right before and after each one have of what a text is found by."""
    places = [
        # Two users may call a conversation alike.
        ((repr(row.get("user_id")), row["conversation_id"]), row["seq"])
        if row.get("kind") == "turn"
        and isinstance(row.get("seq"), int)
        and isinstance(row.get("conversation_id"), str)
        else None
        for row in rows
    ]
    own = [math.fsum(part.get(name, 0.0) for name in _OF_TEXT) for part in parts]
    at = {place: value for place, value in zip(places, own, strict=True) if place is not None}
    return [
        0.0
        if place is None
        else at.get((place[0], place[1] - 1), 0.0) + at.get((place[0], place[1] + 1), 0.0)
        for place in places
    ]


def _recency(row: Any, now: datetime, half_life: float) -> float:
    """1 now, 0.5 after a half-life; 0 of what has no time."""
    for name in ("timestamp", "created_at"):
        try:
            age = (now - datetime.fromisoformat(row.get(name, ""))).total_seconds() / _DAY
        except (TypeError, ValueError):
            continue
        return float(0.5 ** (max(age, 0.0) / half_life))
    return 0.0


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _text(row: Any, name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _stems(text: str, language: str) -> list[str]:
    stem = _stemmer(language)
    return [stem(word) for word in words_of(text) if word and word not in COMMON]


@lru_cache(maxsize=8)
def _stemmer(language: str) -> Callable[[str], str]:
    """The same algorithms as Postgres has under these names; none for ``simple`` and others."""
    import snowballstemmer  # noqa: PLC0415 - needed by some backends only

    if language not in snowballstemmer.algorithms():
        return str
    stemmer = snowballstemmer.stemmer(language)
    cached: Callable[[str], str] = lru_cache(maxsize=100_000)(stemmer.stemWord)
    return cached
