"""`haive bench memory`: whether the turns that answer a question are found."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from haive.core.persistence.bench.locomo import long_talks_of
from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.embedding import MiniLMEmbedder
from haive.core.persistence.errors import ConfigurationError, InvalidInputError
from haive.core.persistence.vector import (
    EmbeddingStrategy,
    MemoryConfig,
    RetrievalWeights,
    VectorMemory,
)
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.reranking import LateInteraction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from haive.core.persistence.bench.locomo import LongTalk, Question
    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress
    from haive.core.persistence.store import Store

    Find = Callable[[LongTalk, str], Awaitable[list[str]]]
    """The turns that a question finds, best first."""

_METHOD = (
    "{questions} questions on {talks} conversations of {turns} turns, whose evidence is known;"
    " questions without an answer are left out. recall_at_k: the share of a question's evidence"
    " among the first k turns; mrr: one by the place of its first evidence among the first"
    " {deepest}. The value is of all questions, lowest and highest of one conversation. All"
    " conversations are in one collection, and searches are filtered to one."
)
_DEPTHS = (5, 10, 20)
_DEEPEST = 50
_BARS = {
    ("lexical", "recall_at_10"): Bar(at_least=0.72),
    ("hybrid_rerank", "recall_at_10"): Bar(at_least=0.78),
    ("hybrid_rerank", "mrr"): Bar(at_least=0.6),
}
_NOTHING = RetrievalWeights(
    words=0, context=0, vector=0, neighbours=0, speaker=0, recency=0, importance=0
)
_BM25 = _NOTHING.model_copy(update={"words": 1.0})
_DENSE = _NOTHING.model_copy(update={"vector": 1.0})
# As plain Postgres does it: all words of a question, or any of them.
_SEARCHES = {
    "fts_and": "plainto_tsquery('english', $2)",
    "fts_or": "replace(plainto_tsquery('english', $2)::text, ' & ', ' | ')::tsquery",
}


@dataclass(slots=True)
class _Scores:
    """What each question of one conversation gave."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, question: Question, found: Sequence[str]) -> None:
        for name, value in measures(question.evidence, found).items():
            self.values.setdefault(name, []).append(value)


async def measure(server: Server, *, file: str, only: Sequence[str], progress: Progress) -> Report:
    """Run the bench."""
    progress("reading the conversations")
    talks = [talk for talk in long_talks_of(file) if not only or talk.id in only]
    if not talks:
        raise InvalidInputError(f"The file has no conversation {', '.join(only)}.")
    notes: list[str] = []
    rows: list[Row] = []
    async with server.store() as store:
        await _fill_plainly(server, talks)
        for name, condition in _SEARCHES.items():
            rows += await _rows(name, talks, partial(_plainly, server, condition), progress)
        none = MemoryConfig(index_name="bench-words", embedding_strategy=EmbeddingStrategy.NONE)
        await _fill(store, none, talks, progress)
        for name, weights in {"bm25": _BM25, "lexical": RetrievalWeights()}.items():
            config = none.model_copy(update={"weights": weights})
            rows += await _rows(name, talks, _by_memory(store, config), progress)
        if (embedder := _embedder(notes)) is not None:
            meant = MemoryConfig(index_name="bench-vectors", embedder=embedder)
            ranks = LateInteraction(embedder)
            await _fill(store, meant, talks, progress, ranks)
            only_dense = meant.model_copy(update={"weights": _DENSE})
            for name, config, rerank in (
                ("dense", only_dense, False),
                ("hybrid", meant, False),
                ("hybrid_rerank", meant, True),
            ):
                find = _by_memory(store, config, ranks if rerank else None)
                rows += await _rows(name, talks, find, progress)
    return Report(
        bench="memory",
        method=_METHOD.format(
            questions=sum(len(talk.questions) for talk in talks),
            talks=len(talks),
            turns=sum(len(session) for talk in talks for session in talk.sessions),
            deepest=_DEEPEST,
        ),
        machine=server.machine,
        rows=rows,
        notes=notes,
    )


def measures(evidence: frozenset[str], found: Sequence[str]) -> dict[str, float]:
    """The figures of one question: what share of its evidence is found, and how early the first."""
    values = {
        f"recall_at_{depth}": len(evidence.intersection(found[:depth])) / len(evidence)
        for depth in _DEPTHS
    }
    place = next((n for n, turn in enumerate(found[:_DEEPEST], 1) if turn in evidence), None)
    return {**values, "mrr": 1 / place if place else 0.0}


def _embedder(notes: list[str]) -> MiniLMEmbedder | None:
    try:
        return MiniLMEmbedder()
    except ConfigurationError as error:
        notes.append(f"dense, hybrid, hybrid_rerank: left out. {error}")
        return None


async def _rows(name: str, talks: Sequence[LongTalk], find: Find, progress: Progress) -> list[Row]:
    every, of_talk = _Scores(), []
    asked, total = 0, sum(len(talk.questions) for talk in talks)
    for talk in talks:
        scores = _Scores()
        for question in talk.questions:
            progress(f"{name}: {asked}/{total} questions")
            found = await find(talk, question.text)
            every.add(question, found)
            scores.add(question, found)
            asked += 1
        of_talk.append(scores)
    rows = []
    for metric, values in every.values.items():
        means = [_mean(scores.values[metric]) for scores in of_talk if scores.values]
        rows.append(
            Row(
                name=name,
                metric=metric,
                value=_mean(values),
                unit="share",
                low=min(means),
                high=max(means),
                bar=_BARS.get((name, metric)),
            )
        )
    return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


async def _fill(
    store: Store,
    config: MemoryConfig,
    talks: Sequence[LongTalk],
    progress: Progress,
    reranker: LateInteraction | None = None,
) -> None:
    """Store the conversations as a user of the SDK does: a session each."""
    memory = VectorMemory(config=config, backend=PgvectorBackend(store), reranker=reranker)
    async with memory:
        for number, talk in enumerate(talks, 1):
            for session, turns in enumerate(talk.sessions, 1):
                progress(
                    f"{config.index_name}: conversation {number}/{len(talks)},"
                    f" session {session}/{len(talk.sessions)}"
                )
                messages = [
                    {
                        "role": "user",
                        "speaker": said.speaker,
                        "content": said.text,
                        "timestamp": said.at,
                        "id": f"{talk.id} {said.id}",
                    }
                    for said in turns
                ]
                ids = [said.id for said in turns]
                about = {"user_id": talk.id, "turns": ids}
                await memory.store_conversation(messages, about)


def _by_memory(store: Store, config: MemoryConfig, reranker: LateInteraction | None = None) -> Find:
    memory = VectorMemory(config=config, backend=PgvectorBackend(store), reranker=reranker)

    async def find(talk: LongTalk, question: str) -> list[str]:
        hits = await memory.search(
            question, _DEEPEST, {"user_id": talk.id}, rerank=reranker is not None
        )
        # A turn that is long is several memories.
        turns = [hit.memory.metadata["turns"][(hit.memory.seq or 1) - 1] for hit in hits]
        return list(dict.fromkeys(turns))

    return find


async def _fill_plainly(server: Server, talks: Sequence[LongTalk]) -> None:
    await server.owner.execute(
        "create temporary table plain (talk text, turn text, words tsvector)"
    )
    await server.owner.executemany(
        "insert into plain values ($1, $2, to_tsvector('english', $3))",
        [
            (talk.id, said.id, f"{said.speaker}: {said.text}")
            for talk in talks
            for session in talk.sessions
            for said in session
        ],
    )


async def _plainly(server: Server, condition: str, talk: LongTalk, question: str) -> list[str]:
    rows = await server.owner.fetch(
        f"select turn from plain, (select {condition}) as q (asked)"  # noqa: S608 - of _SEARCHES # nosec B608
        " where talk = $1 and words @@ asked order by ts_rank(words, asked) desc, turn"
        f" limit {_DEEPEST}",
        talk.id,
        question,
    )
    return [row["turn"] for row in rows]
