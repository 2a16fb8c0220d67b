"""The coroutines behind `HaiveVectorStore`; they run on the event loop of the store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from haive.core.persistence.errors import (
    ConfigurationError,
    InvalidInputError,
    UnsupportedOperationError,
)
from haive.core.persistence.integrations._checking import checked_user, listed
from haive.core.persistence.integrations._documents import (
    asked_keys,
    derived_from,
    document_of,
    is_memory_id,
    key_of,
    keys_of,
    memory_of,
)
from haive.core.persistence.integrations._embeddings import LangChainEmbedder, opened_memory
from haive.core.persistence.vector import EmbeddingStrategy, MemoryConfig, VectorMemory
from haive.core.persistence.vector._arguments import checked_count
from haive.core.persistence.vector._batches import batches
from haive.core.persistence.vector._duplicates import NEAREST
from haive.core.persistence.vector._searching import MAX_TOP_K, unexpired
from haive.core.persistence.vector.filters import parse
from haive.core.persistence.vector.models import Memory
from haive.core.persistence.vector.records import Query

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.store import Store
    from haive.core.persistence.vector._shelf import Shelf
    from haive.core.persistence.vector.models import MemoryHit

Scored = list[tuple[Document, float]]
_OPTIONS = frozenset({"rerank", "as_of", "include_archived"})


class Vectors:
    """Documents in a collection of memories.

    Args:
        memory: The collection; None where its width is to be measured before it is opened.
        whose: The user that all documents are of; None for all of the tenant's.
        store: Where the collection is, where it is to be made.
        config: How it is made.
        embeddings: What makes its vectors.
    """

    def __init__(
        self,
        memory: VectorMemory | None,
        whose: str | None,
        *,
        store: Store | None = None,
        config: MemoryConfig | None = None,
        embeddings: Embeddings | None = None,
    ) -> None:
        self._whose = checked_user(whose)
        self._store = store
        self._config = config or MemoryConfig()
        if embeddings is not None:
            _check_model(embeddings, self._config)
        self.embeddings = embeddings
        self._opening = asyncio.Lock()
        if memory is None and embeddings is None:
            memory = VectorMemory(config=self._config, store=store)
        self.memory = memory

    async def aclose(self) -> None:
        """Close what was opened here."""
        if self.memory is not None:
            await self.memory.aclose()

    async def _opened(self) -> tuple[VectorMemory, Shelf]:
        if self.memory is None:
            await self._make()
        assert self.memory is not None  # noqa: S101 # nosec B101
        return self.memory, await self.memory._open()

    async def _make(self) -> None:
        async with self._opening:
            if self.memory is None:
                assert self.embeddings is not None  # noqa: S101 # nosec B101 - else it was made
                wanted = self._config.embedding_dimensions
                embedder = (
                    await LangChainEmbedder.of(self.embeddings)
                    if wanted is None
                    else LangChainEmbedder(self.embeddings, wanted)
                )
                self.memory = await opened_memory(self._store, self._config, embedder)

    # -- writing ---------------------------------------------------------------------------------

    async def add(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None,
        ids: Iterable[str | None] | None,
        batch_size: int | None = None,
    ) -> list[str]:
        """Write documents, each in the place of the one of the same id."""
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise InvalidInputError("batch_size is a number from 1 on.")
        contents = listed(texts, "texts")
        metadatas = None if metadatas is None else listed(metadatas, "metadatas")
        if metadatas and len(metadatas) != len(contents):
            raise InvalidInputError(
                f"There are {len(metadatas)} metadatas for {len(contents)} texts."
            )
        keys = keys_of(ids, len(contents))
        _, shelf = await self._opened()
        places = await self._places(keys if ids is not None else [], shelf)
        now = shelf.clock()
        memories: dict[str, Memory] = {}
        for text, metadata, key in zip(contents, metadatas or [{}] * len(keys), keys, strict=True):
            place = places.get(key, key)
            memories[place] = memory_of(
                text,
                metadata,
                key=key,
                memory_id=place,
                whose=self._whose,
                now=now,
                redactor=shelf.redactor,
            )
        for batch in batches(memories.values(), batch_size or len(memories) or 1):
            await shelf.write(batch)
        return keys

    async def _places(self, keys: Sequence[str], shelf: Shelf) -> dict[str, str]:
        """The memories' ids for documents to be written.

        A UUID is the memory's own id. Where the vector store is for one user, only if that is
        theirs already: nobody writes over what is another user's by guessing its id.
        """
        exact = [key for key in keys if is_memory_id(key)]
        if self._whose is not None and exact:
            found = await shelf.get(exact)
            exact = [key for key in exact if key in found and self._is_seen(found[key], shelf)]
        places = {key: derived_from(key, shelf.tenant, self._whose) for key in keys}
        return places | {key: key for key in exact}

    async def delete(self, ids: Sequence[str] | None, filters: Mapping[str, Any] | None) -> bool:
        """Forget documents, with all that was made of them."""
        if (ids is None) == (filters is None):
            raise InvalidInputError("Give ids or a filter.")
        keys = None if ids is None else asked_keys(ids)
        memory, shelf = await self._opened()
        if keys is None:
            if parse(filters) is None:
                raise InvalidInputError("This filter lets all documents pass.")
            await memory.forget(filters=self._where(filters))
        elif found := await self._found(keys, shelf):
            await memory.forget([each.id for each in found])
        return True

    # -- reading ---------------------------------------------------------------------------------

    async def get(self, ids: Sequence[str]) -> list[Document]:
        """Documents by id, without those that are not there."""
        keys = asked_keys(ids)
        _, shelf = await self._opened()
        return [document_of(memory) for memory in await self._found(keys, shelf)]

    async def _found(self, keys: Sequence[str], shelf: Shelf) -> list[Memory]:
        """The memories of documents, one for each id."""
        asked: list[str] = []
        for key in keys:
            exact = is_memory_id(key)
            if exact:
                asked.append(key)
            if not exact or self._whose is not None:
                asked.append(derived_from(key, shelf.tenant, self._whose))
        memories = await shelf.get(asked)
        seen = [memory for memory in memories.values() if self._is_seen(memory, shelf)]
        return list({key_of(memory): memory for memory in reversed(seen)}.values())[::-1]

    def _is_seen(self, memory: Memory, shelf: Shelf) -> bool:
        if memory.expires_at is not None and memory.expires_at <= shelf.clock():
            return False
        return self._whose is None or memory.user_id == self._whose

    def _where(self, filters: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """A filter of the caller's, among what is the user's."""
        if self._whose is None:
            return filters
        whose = {"user_id": {"$eq": self._whose}}
        if filters is None or parse(filters) is None:
            return whose
        return {"$and": [whose, filters]}

    async def search(
        self,
        query: str,
        k: int,
        filters: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> Scored:
        """The best documents by words, vectors and the rest, best first, with their scores."""
        hits = await self._hits(query, k, filters, options)
        return [(document_of(hit.memory), hit.score) for hit in hits]

    async def _hits(
        self,
        query: str,
        k: int,
        filters: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> list[MemoryHit]:
        if unknown := sorted(set(options) - _OPTIONS):
            raise InvalidInputError(
                f"A search takes no {', '.join(unknown)}.",
                hint=f"It takes k, filter, {', '.join(sorted(_OPTIONS))}.",
            )
        if not isinstance(query, str):
            raise InvalidInputError("The query is a text.")
        memory, _ = await self._opened()
        return await memory.search(
            query, checked_count(k, "k", MAX_TOP_K), self._where(filters), **options
        )

    async def near(
        self, query: str | Sequence[float], k: int, filters: Mapping[str, Any] | None
    ) -> Scored:
        """The documents with the nearest vectors, with cosines from 0 to 1, nearest first."""
        _, shelf = await self._opened()
        found = await self._nearest(await self._vector(query, shelf), k, filters, shelf)
        return [(document_of(memory), min(max(cosine, 0.0), 1.0)) for memory, _, cosine in found]

    async def varied(
        self,
        query: str | Sequence[float],
        *,
        k: int,
        fetch_k: int,
        lambda_mult: float,
        filters: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> list[Document]:
        """Of the best documents those that are alike the query and unlike each other."""
        checked_count(k, "k", MAX_TOP_K)
        if isinstance(lambda_mult, bool) or not 0 <= lambda_mult <= 1:
            raise InvalidInputError("lambda_mult is from 0 to 1.")
        _, shelf = await self._opened()
        fetch_k = max(checked_count(fetch_k, "fetch_k", MAX_TOP_K), k)
        if isinstance(query, str):
            documents, vectors = await self._candidates(query, fetch_k, filters, options, shelf)
            vector, vectors = vectors[0], vectors[1:]
        else:
            if options:
                raise InvalidInputError(f"By a vector there is no {', '.join(sorted(options))}.")
            vector = await self._vector(query, shelf)
            found = await self._nearest(vector, fetch_k, filters, shelf)
            documents = [document_of(memory) for memory, _, _ in found]
            vectors = np.array([each for _, each, _ in found])
        if not documents:
            return []
        chosen = maximal_marginal_relevance(vector, list(vectors), lambda_mult=lambda_mult, k=k)
        return [documents[place] for place in chosen]

    async def _candidates(
        self,
        query: str,
        count: int,
        filters: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        shelf: Shelf,
    ) -> tuple[list[Document], NDArray[np.float32]]:
        """The best documents for a query, and the vectors of query and documents."""
        hits = await self._hits(query, count, filters, options)
        own = await shelf.query_vector(query)
        if own is None:  # they are compared by their letters
            texts = [query, *(hit.text for hit in hits)]
            return [document_of(hit.memory) for hit in hits], await shelf.meaning.embed(texts)
        stored = await self._stored([hit.id for hit in hits], shelf)
        known = [hit for hit in hits if hit.id in stored]
        vectors = np.array([own, *(stored[hit.id] for hit in known)], np.float32)
        return [document_of(hit.memory) for hit in known], vectors

    async def _vector(self, query: str | Sequence[float], shelf: Shelf) -> NDArray[np.float32]:
        """The vector to be near to, of length 1."""
        if shelf.embedder is None:
            raise UnsupportedOperationError(
                "The collection has no vectors.",
                hint="Give an embedding; without one documents are found by their words.",
            )
        if isinstance(query, str):
            made = await shelf.query_vector(query)
            assert made is not None  # noqa: S101 # nosec B101 - there is an embedder
            return made
        try:
            vector = np.asarray(query, np.float64)
        except (TypeError, ValueError):
            raise InvalidInputError("A vector is a list of numbers.") from None
        width = shelf.collection.dimensions
        if vector.shape != (width,):
            raise InvalidInputError(f"A vector of this collection has {width} numbers.")
        length = np.linalg.norm(vector)
        if not np.isfinite(length) or not length:
            raise InvalidInputError("A vector has a direction, and no NaN or infinity.")
        unit: NDArray[np.float32] = (vector / length).astype(np.float32)
        return unit

    async def _nearest(
        self,
        vector: NDArray[np.float32],
        k: int,
        filters: Mapping[str, Any] | None,
        shelf: Shelf,
    ) -> list[tuple[Memory, NDArray[np.float32], float]]:
        query = Query(
            text="",
            vector=vector,
            limit=checked_count(k, "k", MAX_TOP_K),
            filter=parse(self._where(filters)),
            weights=NEAREST,
            now=shelf.clock(),
            recall=shelf.config.recall,
        )
        hits = await unexpired(query, shelf)
        stored = await self._stored([hit.record.id for hit in hits], shelf)
        found = [
            (
                Memory.from_metadata(hit.record.id, hit.record.metadata),
                stored[hit.record.id],
                float(stored[hit.record.id] @ vector),
            )
            for hit in hits
            if hit.record.id in stored
        ]
        return sorted(found, key=lambda each: (-each[2], each[0].id))

    async def _stored(self, ids: Sequence[str], shelf: Shelf) -> dict[str, NDArray[np.float32]]:
        records = await shelf.backend.get(ids, vectors=True) if ids else []
        return {record.id: record.vector for record in records if record.vector is not None}


def _check_model(embeddings: object, config: MemoryConfig) -> None:
    """Refuse two models for one collection.

    Raises:
        ConfigurationError: The config names another one, or this is none.
    """
    if not isinstance(embeddings, Embeddings):
        raise ConfigurationError(
            f"A {type(embeddings).__name__} is no Embeddings of LangChain's.",
            hint="An Embedder of this package is MemoryConfig(embedder=…).",
        )
    strategy, model = config.embedding_strategy, config.embedding_model
    if config.embedder or model or strategy is not EmbeddingStrategy.AUTO:
        raise ConfigurationError(
            "embedding is given beside an embedder, embedding_strategy or embedding_model.",
            hint="Leave those out: the embedding is what makes the vectors.",
        )
