"""Finds the stretches of conversations that a query is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.vector._importance import decay
from haive.core.persistence.vector._searching import Asked, search
from haive.core.persistence.vector._shelf import both, equals
from haive.core.persistence.vector.filters import Comparison, Operator
from haive.core.persistence.vector.models import Episode, Memory, MemoryKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.vector._shelf import Shelf
    from haive.core.persistence.vector.filters import Filter
    from haive.core.persistence.vector.records import Record

_SAID = Comparison(("kind",), Operator.IN, [MemoryKind.TURN.value, MemoryKind.CHUNK.value])
# Hits that episodes are made around: of 5 episodes some are of one conversation.
_HITS_EACH = 20
# After so many seconds of silence it is another episode.
_SILENCE = 1800.0
# How many turns on each side are compared, and how few an episode has before its topic can change.
_WINDOW, _SHORTEST = 3, 4
# A topic changes where the two sides are less alike than usual by so many standard deviations
# (Hearst 1997, TextTiling, has half a deviation for its liberal cut; one makes fewer, longer ones).
_DEVIATIONS = 1.0


async def episodes(
    query: str, *, weight: float, most: int, where: Filter | None, shelf: Shelf
) -> list[Episode]:
    """The best episodes, best first.

    Args:
        query: What they are to be about.
        weight: 0 for relevance alone, 1 for recency alone.
        most: How many.
        where: Which turns count.
        shelf: Where they are.
    """
    hits = await search(
        Asked(query=query, top_k=min(most * _HITS_EACH, 1000), where=both(_SAID, where)), shelf
    )
    if not hits:
        return []
    scores = {hit.id: hit.score for hit in hits}
    best = max([1e-9, *scores.values()])
    # Two users may call a conversation alike.
    talks = dict.fromkeys((hit.memory.user_id, hit.memory.conversation_id or "") for hit in hits)
    now, half_life = shelf.clock(), shelf.config.weights.recency_half_life
    found: list[Episode] = []
    for whose, talk in talks:
        for turns in await _stretches(whose, talk, where, shelf):
            named = sorted((t.id for t in turns if t.id in scores), key=lambda i: -scores[i])
            if not named:
                continue
            relevance = max(scores[named[0]] / best, 0.0)
            recency = decay(turns[-1].timestamp, now, half_life)
            found.append(
                Episode(
                    conversation_id=talk,
                    turns=tuple(turns),
                    score=(1 - weight) * relevance + weight * recency,
                    relevance=relevance,
                    recency=recency,
                    hits=tuple(named),
                )
            )
    return sorted(found, key=lambda e: (-e.score, e.turns[0].id))[:most]


async def _stretches(
    whose: str | None, talk: str, where: Filter | None, shelf: Shelf
) -> list[list[Memory]]:
    """The turns of a conversation in its episodes: those that a search would find by the filter."""
    wanted = both(equals(conversation_id=talk, user_id=whose), _SAID, where)
    now = shelf.clock()
    turns: list[Memory] = []
    records: list[Record] = []
    async for record in shelf.records(wanted, vectors=shelf.embedder is not None):
        turn = Memory.from_metadata(record.id, record.metadata)
        expired = turn.expires_at is not None and turn.expires_at <= now
        if turn.holds_at(now) and not turn.archived and not expired:
            turns.append(turn)
            records.append(record)
    order = sorted(range(len(turns)), key=lambda i: (turns[i].seq or 0, turns[i].id))
    turns = [turns[i] for i in order]
    if shelf.embedder is None:
        vectors = await shelf.meaning.embed([turn.text for turn in turns])
    else:
        width = shelf.collection.dimensions or 1
        nothing = np.zeros(width, np.float32)
        vectors = np.array(
            [nothing if (v := records[i].vector) is None else v for i in order], np.float32
        ).reshape(len(order), width)
    cuts = boundaries(turns, vectors)
    return [turns[a:b] for a, b in zip([0, *cuts], [*cuts, len(turns)], strict=True) if a < b]


def boundaries(turns: Sequence[Memory], vectors: NDArray[np.float32]) -> list[int]:
    """Where episodes begin within a conversation: after a silence, and where the topic changes."""
    silent = {
        place
        for place in range(1, len(turns))
        if (before := turns[place - 1].timestamp)
        and (after := turns[place].timestamp)
        and (after - before).total_seconds() > _SILENCE
    }
    places = range(1, len(turns))
    alike = np.array([_alike(vectors, place) for place in places])
    if len(alike) < 2 * _SHORTEST:
        return sorted(silent)
    usual, spread = float(alike.mean()), float(alike.std())
    cuts = sorted(silent)
    # The clearest changes first, each as far from the others as an episode is long at least.
    for index in np.argsort(np.round(alike, 5), kind="stable").tolist():
        if alike[index] >= usual - _DEVIATIONS * spread or spread < 1e-6:
            break
        place = index + 1
        ends = [0, len(turns), *cuts]
        if all(abs(place - other) >= _SHORTEST for other in ends):
            cuts.append(place)
    return sorted(cuts)


def _alike(vectors: NDArray[np.float32], place: int) -> float:
    """How alike the turns before a place are to those from there on."""
    before = vectors[max(place - _WINDOW, 0) : place].mean(axis=0)
    after = vectors[place : place + _WINDOW].mean(axis=0)
    lengths = float(np.linalg.norm(before)) * float(np.linalg.norm(after))
    return float(before @ after) / max(lengths, 1e-9)
