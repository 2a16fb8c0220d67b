"""A backend over a vector database that finds vectors and filters, and no words.

Up to 1,000 memories that pass a search's filter are all candidates (of Pinecone 200): the answer is
exact. Of more, the nearest ones are. Without vectors up to 10,000 are read for one search, and more
are refused.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from haive.core.persistence.errors import (
    CollectionMismatchError,
    ConfigurationError,
    ContentTooLargeError,
    InvalidInputError,
    UnsupportedOperationError,
)
from haive.core.persistence.vector._values import time_text, to_json_value
from haive.core.persistence.vector.backends._narrowing import (
    Has,
    Narrow,
    Narrowed,
    both,
    narrow,
)
from haive.core.persistence.vector.backends._scoring import Candidate, fuse
from haive.core.persistence.vector.filters import (
    All,
    AnyOf,
    Comparison,
    Filter,
    Operator,
    matches,
)
from haive.core.persistence.vector.records import Collection, Hit, Query, Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from numpy.typing import NDArray

WORDS_UP_TO = 10_000
PAGE = 500
# What is near is fetched so many times over, so that words can put it in another order.
_OVER = 10
_AT_LEAST = 200
# And of what is read one by one, so many times more are held until the nearest are chosen.
_HELD = 4
# The text search configurations that Postgres comes with; Estonian from version 18 on.
# fmt: off
_LANGUAGES = frozenset({
    "arabic", "armenian", "basque", "catalan", "danish", "dutch", "english", "estonian", "finnish",
    "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian",
    "lithuanian", "nepali", "norwegian", "portuguese", "romanian", "russian", "serbian", "simple",
    "spanish", "swedish", "tamil", "turkish", "yiddish",
})
# fmt: on
MAX_TEXT_BYTES = 8 * 1024 * 1024


class FusingBackend(ABC):
    """What `MemoryBackend` asks for, over five operations of a service."""

    #: Whether the service finds records *without* a term.
    negations = True
    #: Keys of numbers that the service compares; None for all.
    comparable: frozenset[str] | None = None
    #: Of so many memories all are read for a search.
    exact_up_to = 1_000

    def __init__(self) -> None:
        self._opened: Collection | None = None

    # What a service does.

    @abstractmethod
    async def _count(self, where: Narrow | None) -> int:
        """How many records pass."""

    @abstractmethod
    async def _scan(
        self, where: Narrow | None, *, after: str | None, limit: int, vectors: bool
    ) -> tuple[list[Record], str | None]:
        """Records by id from ``after`` on, and the id to go on after; None at the end."""

    @abstractmethod
    async def _nearest(
        self, vector: NDArray[np.float32], where: Narrow | None, *, limit: int, recall: float
    ) -> list[Candidate]:
        """The nearest records, nearest first."""

    # What is made of it.

    @property
    def collection(self) -> Collection:
        """The collection that is open."""
        if self._opened is None:
            raise ConfigurationError("The backend is not open.", hint="Await open() first.")
        return self._opened

    async def search(self, query: Query) -> list[Hit]:
        """The best memories for a query, best first, equal ones by id."""
        if query.limit < 1:
            return []
        self.check_vector(query.vector)
        where = _holding(query)
        narrowed = self._narrowed(where).where
        number = 0 if query.vector is None else await self._size(narrowed)
        if query.vector is not None and number > self.exact_up_to:
            found = await self._near(query, query.vector, where, number)
        else:
            found = await self._everything(query, where)
        # Of a thousand texts the words take a tenth of a second, for which nobody else waits.
        return await asyncio.to_thread(fuse, query, found, self.collection.language)

    async def find(
        self, where: Filter | None, *, limit: int, after: str | None = None, vectors: bool = False
    ) -> list[Record]:
        """Records that pass a filter, by id, from ``after`` on."""
        found: list[Record] = []
        if limit < 1:
            return found
        async for record in self._records(where, after=after, vectors=vectors, page=limit):
            found.append(record)
            if len(found) == limit:
                break
        return found

    async def count(self, where: Filter | None) -> int:
        """How many pass a filter, exactly."""
        narrowed = self._narrowed(where)
        if narrowed.doubts == frozenset():
            return await self._count(narrowed.where)
        # Only rows in doubt are read: those with a text where a time is compared, for instance.
        doubts = None if narrowed.doubts is None else Has(tuple(sorted(narrowed.doubts)))
        doubtful = both(narrowed.where, doubts)
        sure = 0
        if doubts is not None:
            sure = await self._count(narrowed.where) - await self._count(doubtful)
        async for record in self._pages(doubtful, after=None, vectors=False, page=PAGE):
            sure += matches(where, record.metadata)
        return sure

    def check_vector(self, vector: NDArray[np.float32] | None) -> None:
        """Whether a vector is one of the collection's.

        Raises:
            InvalidInputError: It has another width, or numbers that are none.
        """
        if vector is None:
            return
        width = self.collection.dimensions
        if width is None:
            raise InvalidInputError(f"{self.collection.name} has no model, and so no vectors.")
        if np.shape(vector) != (width,):
            raise InvalidInputError(
                f"A vector of {self.collection.name} has {width} numbers, not"
                f" {'x'.join(map(str, np.shape(vector))) or 'one'}."
            )
        if not np.isfinite(vector).all():
            raise InvalidInputError("A vector has a number that is NaN or an infinity.")
        if self.collection.metric == "cosine" and not np.any(vector):
            raise InvalidInputError("A vector has no direction: all of its numbers are 0.")

    def check(self, records: Sequence[Record]) -> list[Record]:
        """The records with their metadata as JSON; nothing is written before all are checked.

        Raises:
            InvalidInputError: An id is no UUID, a vector not the collection's, metadata no JSON.
            ContentTooLargeError: Texts are too large.
        """
        checked = {}
        for record in records:
            if not is_uuid(record.id):
                raise InvalidInputError(f"{record.id[:40]!r} is no UUID in lower case.")
            self.check_vector(record.vector)
            metadata = to_json_value(record.metadata, "metadata")
            if sum(len(str(value)) for value in metadata.values()) > MAX_TEXT_BYTES:
                raise ContentTooLargeError(f"Metadata has more than {MAX_TEXT_BYTES:,} characters.")
            checked[record.id] = Record(
                id=record.id, metadata=metadata, vector=record.vector, tokens=record.tokens
            )
        return list(checked.values())

    async def _everything(self, query: Query, where: Filter) -> list[Candidate]:
        found: list[Candidate] = []
        async for record in self._stream(where, vectors=query.vector is not None):
            if len(found) == WORDS_UP_TO:
                raise UnsupportedOperationError(
                    f"A search by words alone reads at most {WORDS_UP_TO:,} memories here, and more"
                    " pass the filter.",
                    hint="Narrow the filter, give the collection a model, or use pgvector.",
                )
            near_by = self._nearness(query.vector, record.vector)
            found.append(Candidate(record=record, nearness=near_by))
        return found

    async def _near(
        self, query: Query, vector: NDArray[np.float32], where: Filter, number: int
    ) -> list[Candidate]:
        """The nearest that pass: so many that words can put them in another order, or all."""
        narrowed = self._narrowed(where).where
        limit = wanted = max(_AT_LEAST, _OVER * query.limit)
        while True:
            near = await self._nearest(vector, narrowed, limit=limit, recall=query.recall)
            found = {each.record.id: each for each in near if matches(where, each.record.metadata)}
            # Where all of them pass, no others took the places of some that would.
            enough = wanted if len(found) < len(near) and limit < WORDS_UP_TO else query.limit
            if len(found) >= enough or len(near) >= number:
                return list(found.values())
            if limit >= number or len(near) < limit:
                break
            limit *= 4
        if len(found) >= query.limit and number > WORDS_UP_TO:
            return list(found.values())
        # What has no vector, was not found on the graph, or is farther than a service tells.
        async for record in self._stream(where, vectors=True):
            if record.id not in found:
                near_by = self._nearness(vector, record.vector)
                found[record.id] = Candidate(record=record, nearness=near_by)
            if len(found) == _HELD * wanted:
                found = _nearest_of(found, wanted)
        return list(_nearest_of(found, wanted).values())

    def _narrowed(self, where: Filter | None) -> Narrowed:
        return narrow(where, negations=self.negations, comparable=self.comparable)

    async def _size(self, where: Narrow | None) -> int:
        """How many records pass, or a number above it that is told sooner."""
        return await self._count(where)

    async def _stream(self, where: Filter | None, *, vectors: bool) -> AsyncIterator[Record]:
        """All records that pass, in any order."""
        async for record in self._records(where, vectors=vectors):
            yield record

    async def _records(
        self,
        where: Filter | None,
        *,
        after: str | None = None,
        vectors: bool = False,
        page: int = PAGE,
    ) -> AsyncIterator[Record]:
        """All records that pass, by id."""
        narrowed = self._narrowed(where).where
        async for record in self._pages(narrowed, after=after, vectors=vectors, page=page):
            if matches(where, record.metadata):
                yield record

    async def _pages(
        self, where: Narrow | None, *, after: str | None, vectors: bool, page: int
    ) -> AsyncIterator[Record]:
        while True:
            found, after = await self._scan(
                where, after=after, limit=min(max(page, 10), PAGE), vectors=vectors
            )
            for record in found:
                yield record
            if after is None:
                return

    def _nearness(
        self, query: NDArray[np.float32] | None, vector: NDArray[np.float32] | None
    ) -> float | None:
        if query is None or vector is None:
            return None
        if self.collection.metric == "l2":
            return -float(np.linalg.norm(query - vector))
        product = float(query @ vector)
        if self.collection.metric == "cosine":
            return product / float(np.linalg.norm(query) * np.linalg.norm(vector) or 1)
        return product


def _nearest_of(found: Mapping[str, Candidate], number: int) -> dict[str, Candidate]:
    def nearness(one: Candidate) -> float:
        return -math.inf if one.nearness is None else one.nearness

    return {one.record.id: one for one in heapq.nlargest(number, found.values(), key=nearness)}


def same(wanted: Collection, found: Collection) -> Collection:
    """What was found, if it is what was wanted; its index is as it was made.

    Raises:
        CollectionMismatchError: It has another model, width, metric or language.
    """
    for name in ("model", "dimensions", "metric", "language"):
        ours, theirs = getattr(wanted, name), getattr(found, name)
        if ours != theirs:
            raise CollectionMismatchError(
                f"The collection {found.name} has {name} {theirs}, not {ours}.",
                hint="Name another index_name; VectorMemory.reembed fills it with these memories.",
            )
    return found


def check_language(collection: Collection) -> None:
    """Refuse a language that Postgres has not: collections mean the same in every backend.

    Raises:
        InvalidInputError: There is no such text search configuration.
    """
    if collection.language not in _LANGUAGES:
        raise InvalidInputError(
            f"There is no language {collection.language}.",
            hint="Languages are the text search configurations of Postgres: english, german, "
            "simple…",
        )


def described(collection: Collection) -> dict[str, Any]:
    """A collection as JSON."""
    return {
        name: getattr(collection, name)
        for name in ("name", "model", "dimensions", "metric", "language", "m", "ef_construction")
    } | {"index_type": collection.index_type.value}


def collection_from(facts: Mapping[str, Any]) -> Collection:
    """A collection from its JSON."""
    from haive.core.persistence.vector.config import IndexType  # noqa: PLC0415 - a circle else

    return Collection(**{**facts, "index_type": IndexType(facts["index_type"])})


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID in its usual form, lower case with hyphens."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _holding(query: Query) -> Filter:
    """What passes the filter and held at the time that is asked for.

    Written without negations, so that every service can tell.
    """
    moment = time_text(query.as_of or query.now)
    parts: list[Filter] = [
        AnyOf((*_empty("valid_from"), Comparison(("valid_from",), Operator.LTE, moment))),
        AnyOf((*_empty("valid_to"), Comparison(("valid_to",), Operator.GT, moment))),
    ]
    if not query.include_archived:
        not_archived = Comparison(("archived",), Operator.EQ, value=False)
        parts.append(AnyOf((*_empty("archived"), not_archived)))
    return All((*parts, *((query.filter,) if query.filter is not None else ())))


def _empty(name: str) -> tuple[Filter, Filter]:
    return (
        Comparison((name,), Operator.EXISTS, value=False),
        Comparison((name,), Operator.EQ, None),
    )
