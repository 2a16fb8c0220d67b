"""`haive bench threading`: whether messages of two topics at once find the right session."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations, permutations
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import UUID

from haive.core.persistence.bench.corpus import tagged_dialogues_of
from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.server import hardware
from haive.core.persistence.embedding import Calibration, HashingEmbedder, MiniLMEmbedder
from haive.core.persistence.errors import ConfigurationError, InvalidInputError
from haive.core.persistence.models import MessageRole
from haive.core.persistence.session._topics import OpenSession, asks, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from haive.core.persistence.bench.corpus import Dialogue
    from haive.core.persistence.bench.timing import Progress
    from haive.core.persistence.embedding import Embedder

    Vectors = dict[str, NDArray[np.float32]]

_METHOD = (
    "{pairs} pairs of dialogues a round, of services that have no domain in common, as one stream:"
    " after each user's message with its answers the other dialogue goes on with a chance of"
    " {switch:g}. Each message is placed by what came before it; threshold {threshold:g}. The pairs"
    " are of every second dialogue of the file; the calibrations were measured on the others."
    " right_share: messages in the right session, sessions and dialogues matched one to one as well"
    " as can be. rand_index: adjusted Rand index, 0 for chance. one: all in one session; each: a"
    " session each."
)
# By the beginning of an embedder's name.
_BARS = {"hashing": Bar(at_least=0.15), "minilm": Bar(at_least=0.2)}
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_PAUSE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Said:
    """A message of a stream, and which of its two dialogues it is of."""

    dialogue: int
    role: MessageRole
    text: str


async def measure(
    *,
    dialogues: str,
    pairs: int,
    rounds: int,
    switch: float,
    threshold: float,
    calibrate: bool,
    progress: Progress,
) -> Report:
    """Run the bench."""
    progress("reading the dialogues")
    halves: tuple[list[_Dialogue], ...] = ([], [])
    for number, (tags, turns) in enumerate(tagged_dialogues_of(dialogues)):
        if tags and turns:
            halves[number % 2].append(_Dialogue(frozenset(map(_domain, tags)), turns))
    streams = [list(_streams(halves[1], pairs, switch, seed)) for seed in range(1, rounds + 1)]
    notes: list[str] = []
    rows = _rows("one", [[[0] * len(stream) for stream in some] for some in streams], streams)
    rows += _rows("each", [[list(range(len(s))) for s in some] for some in streams], streams)
    for embedder in _embedders(notes):
        progress(f"{embedder.name}: embedding")
        vectors, speed = await _embedded(embedder, [s for some in streams for s in some])
        progress(f"{embedder.name}: placing")
        calibration = await embedder.calibration()
        placed = [
            [_place(stream, vectors, calibration, threshold) for stream in some] for some in streams
        ]
        rows += _rows(embedder.name, placed, streams)
        rows.append(Row.of(embedder.name, "embedded_per_s", "texts/s", [speed]))
        if calibrate:
            progress(f"{embedder.name}: calibrating")
            measured = await _calibration(embedder, list(_streams(halves[0], pairs, switch, 0)))
            points = ", ".join(f"{cosine:.3f}" for cosine in measured.unrelated)
            notes.append(f"{embedder.name}, on the other dialogues: {points}")
    return Report(
        bench="threading",
        method=_METHOD.format(pairs=pairs, switch=switch, threshold=threshold),
        machine=hardware(),
        rows=rows,
        notes=notes,
    )


@dataclass(frozen=True, slots=True)
class _Dialogue:
    domains: frozenset[str]
    turns: Dialogue


def _domain(service: str) -> str:
    """``Hotels`` of ``Hotels_2``."""
    return service.rpartition("_")[0] or service


def _embedders(notes: list[str]) -> Iterator[Embedder]:
    yield HashingEmbedder()
    try:
        yield MiniLMEmbedder()
    except ConfigurationError as error:
        notes.append(f"minilm: left out. {error}")


def _streams(
    dialogues: Sequence[_Dialogue], pairs: int, switch: float, seed: int
) -> Iterator[list[_Said]]:
    chance = random.Random(seed)  # noqa: S311 - a sample # nosec B311
    if not any(not a.domains & b.domains for a, b in combinations(dialogues[:200], 2)):
        raise InvalidInputError("The file has no dialogues of services that differ.")
    while pairs:
        two = chance.sample(dialogues, 2)
        if two[0].domains & two[1].domains:
            continue
        pairs -= 1
        left = [_exchanges(number, dialogue.turns) for number, dialogue in enumerate(two)]
        stream: list[_Said] = []
        now = chance.randrange(2)
        while left[0] or left[1]:
            if not left[now]:
                now = 1 - now
            stream += left[now].pop(0)
            if chance.random() < switch:
                now = 1 - now
        yield stream


def _exchanges(number: int, turns: Dialogue) -> list[list[_Said]]:
    """A user's message with what is answered, each."""
    exchanges: list[list[_Said]] = []
    for turn in turns:
        said = _Said(number, MessageRole(turn["role"]), turn["content"])
        if said.role is MessageRole.USER or not exchanges:
            exchanges.append([])
        exchanges[-1].append(said)
    return exchanges


async def _embedded(
    embedder: Embedder, streams: Sequence[Sequence[_Said]]
) -> tuple[Vectors, float]:
    texts = list(dict.fromkeys(said.text for stream in streams for said in stream))
    await embedder.embed(texts[:1])  # what is loaded once does not count
    start = perf_counter()
    vectors = await embedder.embed(texts)
    return dict(zip(texts, vectors, strict=True)), len(texts) / (perf_counter() - start)


def _place(
    stream: Sequence[_Said], vectors: Vectors, calibration: Calibration, threshold: float
) -> list[int]:
    """The session of each message, as a number."""
    sessions: dict[UUID, OpenSession] = {}
    placed: list[int] = []
    for number, said in enumerate(stream):
        at = _BEGIN + number * _PAUSE
        found = place(
            said.text,
            vectors[said.text],
            role=said.role,
            at=at,
            sessions=list(sessions.values()),
            threshold=threshold,
            calibration=calibration,
        )
        key = found.session_id or UUID(int=len(sessions))
        sessions[key] = OpenSession(
            id=key,
            centroid=found.centroid,
            count=found.count,
            last_activity=at,
            awaits_answer=asks(said.text),
        )
        placed.append(key.int)
    return placed


async def _calibration(embedder: Embedder, streams: Sequence[Sequence[_Said]]) -> Calibration:
    """Users' messages against the other dialogue's session, as far as it has come by then."""
    vectors, _ = await _embedded(embedder, streams)
    cosines: list[float] = []
    every = Calibration(unrelated=(-1.0, 1.0))
    for stream in streams:
        sessions: dict[int, OpenSession] = {}
        for number, said in enumerate(stream):
            vector = vectors[said.text]
            other = sessions.get(1 - said.dialogue)
            if said.role is MessageRole.USER and other is not None and other.centroid is not None:
                cosines.append(float(vector @ other.centroid))
            mine = sessions.get(said.dialogue)
            found = place(
                said.text,
                vector,
                role=said.role,
                at=_BEGIN,
                sessions=[mine] if mine else [],
                threshold=0,
                calibration=every,
            )
            sessions[said.dialogue] = OpenSession(
                id=UUID(int=said.dialogue),
                centroid=found.centroid,
                count=found.count,
                last_activity=_BEGIN + number * _PAUSE,
            )
    return Calibration.of(cosines)


def _rows(
    name: str, placed: Sequence[Sequence[Sequence[int]]], streams: Sequence[Sequence[list[_Said]]]
) -> list[Row]:
    figures: dict[tuple[str, str], list[float]] = {}
    for some, of in zip(placed, streams, strict=True):
        truths = [[said.dialogue for said in stream] for stream in of]
        both = list(zip(truths, some, strict=True))
        for key, values in {
            ("right_share", "share"): [right_share(truth, found) for truth, found in both],
            ("rand_index", "share"): [rand_index(truth, found) for truth, found in both],
            ("sessions", "sessions"): [float(len(set(found))) for found in some],
        }.items():
            figures.setdefault(key, []).append(sum(values) / len(values))
    bar = _BARS.get(name.partition("-")[0])
    return [
        Row.of(name, metric, unit, values, bar if metric == "rand_index" else None)
        for (metric, unit), values in figures.items()
    ]


def right_share(truth: Sequence[int], found: Sequence[int]) -> float:
    """The share of messages that are right, when each topic is given the session that fits best."""
    counts = Counter(zip(truth, found, strict=True))
    topics = sorted(set(truth))
    # A topic may go without a session, where there are fewer.
    sessions = [*sorted(set(found)), *range(-len(topics), 0)]
    best = max(
        sum(counts[topic, session] for topic, session in zip(topics, chosen, strict=True))
        for chosen in permutations(sessions, len(topics))
    )
    return best / len(truth)


def rand_index(truth: Sequence[int], found: Sequence[int]) -> float:
    """How far two groupings agree on pairs: 1 the same, 0 chance (Hubert and Arabie 1985)."""

    def pairs(counts: Counter[int] | Counter[tuple[int, int]]) -> float:
        return sum(count * (count - 1) / 2 for count in counts.values())

    both = pairs(Counter(zip(truth, found, strict=True)))
    one, other = pairs(Counter(truth)), pairs(Counter(found))
    every = len(truth) * (len(truth) - 1) / 2
    expected = one * other / every if every else 0.0
    most = (one + other) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)
