"""LangChain's vector store over the memories of a store."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self

from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.integrations._bridge import Bridge, loop_in_thread
from haive.core.persistence.integrations._checking import no_more
from haive.core.persistence.integrations._embeddings import HaiveEmbeddings, LangChainEmbedder
from haive.core.persistence.integrations._open import opened
from haive.core.persistence.integrations._vectors import Vectors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings

    from haive.core.persistence.store import Store
    from haive.core.persistence.vector import MemoryConfig, VectorMemory

_SEARCHES = ("similarity", "hybrid", "vector", "mmr", "similarity_score_threshold")


class HaiveRetriever(VectorStoreRetriever):
    """Finds documents in a `HaiveVectorStore`.

    ``search_type`` is ``similarity`` or ``hybrid``, which are the same, ``vector``, ``mmr`` or
    ``similarity_score_threshold``: see `HaiveVectorStore.asearch`. ``search_kwargs`` has what that
    takes.
    """

    allowed_search_types: ClassVar[Collection[str]] = _SEARCHES

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self.vectorstore.search(query, self.search_type, **self.search_kwargs | kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        wanted = self.search_kwargs | kwargs
        return await self.vectorstore.asearch(query, self.search_type, **wanted)


class HaiveVectorStore(VectorStore):
    """Documents among the memories of a store, found by their words and their meaning at once.

    They are memories as any other: a `VectorMemory` over the same collection finds, consolidates
    and forgets them, and what it has remembered is found here as documents. Each is written as it
    is, whether something like it is there or not, and one of the same id is replaced.

    An id may be any text. A UUID is the memory's own id; any other is the document's alone, and its
    memory has one made of it, other for each tenant and user. Metadata is any JSON. Under names of
    ours that a caller of `VectorMemory.add` may give (``user_id``, ``timestamp``, ``importance`` …)
    it means ours; under any other name of ours it is kept, but filters of that name read ours.

    With ``user_id`` every document is that user's, and nobody else's is found, read or deleted.

    Its methods are those of ``VectorStore``. Those without ``await`` work in any thread except the
    one that runs the event loop of the store. What a filter is, `VectorMemory.search` says.
    """

    def __init__(self, vectors: Vectors, bridge: Bridge) -> None:
        self._vectors = vectors
        self._bridge = bridge
        self._own: AbstractContextManager[object] | None = None

    @classmethod
    def from_store(
        cls,
        store: Store,
        embedding: Embeddings | None = None,
        config: MemoryConfig | None = None,
        *,
        user_id: str | None = None,
    ) -> Self:
        """Documents in the database of an open store; to be called where that was opened.

        Args:
            store: An open `PostgresStore` or `SupabaseStore`.
            embedding: What makes the vectors. Without one it is what ``config`` says: the model of
                the extra ``embeddings`` where that is installed, else none.
            config: The collection and how it is searched. ``embedding_dimensions`` saves a call of
                ``embedding`` that measures how wide its vectors are.
            user_id: Whose documents; None for all of the tenant's.

        Raises:
            InvalidInputError: No event loop is running.
            ConfigurationError: The settings contradict each other.
        """
        bridge = Bridge.here()
        return cls(Vectors(None, user_id, store=store, config=config, embeddings=embedding), bridge)

    @classmethod
    def from_memory(cls, memory: VectorMemory, *, user_id: str | None = None) -> Self:
        """Documents in any collection, Qdrant's, Pinecone's and Weaviate's too.

        To be called where the memory is used. A model of LangChain's is its
        ``MemoryConfig(embedder=await LangChainEmbedder.of(embeddings))``.

        Raises:
            InvalidInputError: No event loop is running.
        """
        return cls(Vectors(memory, user_id), Bridge.here())

    @classmethod
    @contextmanager
    def from_conn_string(
        cls,
        url: str,
        embedding: Embeddings | None = None,
        config: MemoryConfig | None = None,
        *,
        user_id: str | None = None,
        **settings: Any,
    ) -> Iterator[Self]:
        """Documents with a store of their own, for a program without an event loop.

        Store and loop run in a thread until the block ends.

        Args:
            url: ``postgresql://…`` of a database, or ``https://…`` of a Supabase project.
            embedding: As in `from_store`.
            config: As in `from_store`.
            user_id: As in `from_store`.
            settings: What `PersistenceConfig` or `SupabaseStore` takes beside: ``schema``,
                ``tenant``, ``key`` …
        """
        with loop_in_thread() as loop:
            bridge = Bridge(loop)
            store = bridge.wait("from_store", opened(url, settings))
            try:
                vectors = Vectors(None, user_id, store=store, config=config, embeddings=embedding)
                try:
                    yield cls(vectors, bridge)
                finally:
                    bridge.wait("aclose", vectors.aclose())
            finally:
                bridge.wait("aclose", store.aclose())

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        connection_string: str | None = None,
        **settings: Any,
    ) -> Self:
        """Add texts to a vector store of their own, which is to be closed with `close`.

        Args:
            texts: As in `aadd_texts`.
            embedding: As in `from_store`.
            metadatas: As in `aadd_texts`.
            ids: As in `aadd_texts`.
            connection_string: ``url`` of `from_conn_string`.
            settings: What that takes beside.

        Raises:
            InvalidInputError: There is no ``connection_string``.
        """
        if connection_string is None:
            raise InvalidInputError(
                "from_texts opens a store by its connection_string.",
                hint="Await afrom_texts with an open store=, or give the connection_string.",
            )
        own = cls.from_conn_string(connection_string, embedding, **settings)
        made = own.__enter__()
        made._own = own
        try:
            made.add_texts(texts, metadatas, ids=ids)
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        store: Store | None = None,
        config: MemoryConfig | None = None,
        user_id: str | None = None,
        **settings: Any,
    ) -> Self:
        """Add texts to the database of an open store.

        Args:
            texts: As in `aadd_texts`.
            embedding: As in `from_store`.
            metadatas: As in `aadd_texts`.
            ids: As in `aadd_texts`.
            store: As in `from_store`.
            config: As in `from_store`.
            user_id: As in `from_store`.
            settings: There are no others.

        Raises:
            InvalidInputError: There is no ``store``, or something that it does not take.
        """
        if settings:
            raise InvalidInputError(f"afrom_texts takes no {', '.join(sorted(settings))}.")
        if store is None:
            raise InvalidInputError("afrom_texts adds to an open store.", hint="Give it as store=.")
        made = cls.from_store(store, embedding, config, user_id=user_id)
        await made.aadd_texts(texts, metadatas, ids=ids)
        return made

    def close(self) -> None:
        """Close the store that `from_texts` has opened; nothing else was opened here."""
        if self._own is not None:
            own, self._own = self._own, None
            own.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def embeddings(self) -> Embeddings | None:
        """What makes the vectors; None where documents are found by their words alone."""
        if self._vectors.embeddings is not None:
            return self._vectors.embeddings
        memory = self._vectors.memory
        embedder = None if memory is None else memory._embedder
        if isinstance(embedder, LangChainEmbedder):
            return embedder.embeddings
        return None if embedder is None else HaiveEmbeddings(embedder, self._bridge)

    def as_retriever(self, **kwargs: Any) -> HaiveRetriever:
        """A retriever of these documents.

        Args:
            kwargs: ``search_type`` and ``search_kwargs``, as `HaiveRetriever` has them, and what
                any retriever takes.
        """
        tags = [*(kwargs.pop("tags", None) or []), *self._get_retriever_tags()]
        return HaiveRetriever(vectorstore=self, tags=tags, **kwargs)

    # -- awaited ---------------------------------------------------------------------------------

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Write documents, replacing those of the same id, and return their ids; one round trip.

        Up to 1,000 of them, of up to 8 MiB, are written all or none, and more by as many. It is one
        round trip more where the vector store is for a user and UUIDs are given as ids. What a
        consolidation made of a document that is replaced stays as it is until the next one.

        Args:
            texts: Their contents, of up to 256 KiB each.
            metadatas: One for each text: any JSON.
            ids: One for each text, of any kind; where it is None, one is made.
            batch_size: How many are embedded and written at once, where not all are.
            kwargs: There are no others.

        Raises:
            InvalidInputError: Something cannot be stored; then nothing is.
            ModelError: There are no vectors; nothing was stored.
        """
        no_more(kwargs)
        return await self._bridge.run(self._vectors.add(texts, metadatas, ids, batch_size))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id, in the order asked for, without those that are not there.

        One round trip for 500.
        """
        return await self._bridge.run(self._vectors.get(ids))

    async def adelete(
        self,
        ids: list[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> bool:
        """Forget documents with all that was made of them, as `VectorMemory.forget`.

        Seven round trips for 500, as what was made of them is looked for.

        Args:
            ids: Which ones; those that are not there are passed over.
            filter: Or all that pass.
            kwargs: There are no others.

        Returns:
            True.

        Raises:
            InvalidInputError: Neither is given, or both, or a filter that all documents pass.
        """
        no_more(kwargs)
        return await self._bridge.run(self._vectors.delete(ids, filter))

    async def asearch(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """The documents that answer a query best.

        Args:
            query: In any words.
            search_type: ``similarity`` or ``hybrid`` for `asimilarity_search`, ``vector`` for the
                nearest vectors alone, ``mmr`` for `amax_marginal_relevance_search`,
                ``similarity_score_threshold`` for the nearest vectors with a cosine of
                ``score_threshold`` or more.
            kwargs: What that takes.

        Raises:
            InvalidInputError: There is no such search.
        """
        match _checked_search(search_type):
            case "similarity" | "hybrid":
                return await self.asimilarity_search(query, **kwargs)
            case "mmr":
                return await self.amax_marginal_relevance_search(query, **kwargs)
            case _:
                found = await self.asimilarity_search_with_relevance_scores(query, **kwargs)
                return [document for document, _ in found]

    async def asimilarity_search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[Document]:
        """The documents that answer a query best, best first; one round trip.

        By their words, their vectors where there are any, and what else `RetrievalWeights` in the
        config has: hybrid search, without further settings.

        Args:
            query: In any words.
            k: How many, 1 to 1,000.
            filter: What their metadata must be, as ``{"page": {"$gte": 2}}``.
            kwargs: ``rerank``, ``as_of`` and ``include_archived``, as in `VectorMemory.search`.

        Raises:
            InvalidInputError: The query is empty, a filter wrong, or an argument unknown.
            ModelError: The query has no vector.
        """
        found = await self.asimilarity_search_with_score(query, k, filter=filter, **kwargs)
        return [document for document, _ in found]

    async def asimilarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """As `asimilarity_search`, with scores.

        The score is the weighted sum of the signals, each scaled to 0…1 over the candidates of this
        search: higher is better, and scores of different queries are not compared. What is compared
        with a threshold are the cosines of `asimilarity_search_with_relevance_scores`.
        """
        return await self._bridge.run(self._vectors.search(query, k, filter, kwargs))

    async def _asimilarity_search_with_relevance_scores(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """The nearest by their vectors alone, with their cosines; below 0 it is 0."""
        no_more(kwargs)
        return await self._bridge.run(self._vectors.near(query, k, filter))

    async def asimilarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[Document]:
        """The documents with the nearest vectors, nearest first; two round trips.

        Args:
            embedding: As many numbers as the collection's vectors have.
            k: How many, 1 to 1,000.
            filter: What their metadata must be.
            kwargs: There are no others.

        Raises:
            InvalidInputError: The vector is none of this collection's.
            UnsupportedOperationError: The collection has no vectors.
        """
        no_more(kwargs)
        found = await self._bridge.run(self._vectors.near(embedding, k, filter))
        return [document for document, _ in found]

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[Document]:
        """Of the best documents those that are alike the query and unlike each other.

        Two round trips; one without vectors, where texts are compared by their letters.

        Args:
            query: In any words.
            k: How many.
            fetch_k: Out of how many of `asimilarity_search`.
            lambda_mult: 1 for likeness to the query alone, 0 for variety alone.
            filter: What their metadata must be.
            kwargs: As in `asimilarity_search`.
        """
        return await self._bridge.run(
            self._vectors.varied(
                query, k=k, fetch_k=fetch_k, lambda_mult=lambda_mult, filters=filter, options=kwargs
            )
        )

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[Document]:
        """As `amax_marginal_relevance_search`, out of those with the nearest vectors."""
        return await self._bridge.run(
            self._vectors.varied(
                embedding,
                k=k,
                fetch_k=fetch_k,
                lambda_mult=lambda_mult,
                filters=filter,
                options=kwargs,
            )
        )

    # -- waited for ------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """See `aadd_texts`."""
        no_more(kwargs)
        return self._bridge.wait("aadd_texts", self._vectors.add(texts, metadatas, ids, batch_size))

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """See `aget_by_ids`."""
        return self._bridge.wait("aget_by_ids", self._vectors.get(ids))

    def delete(
        self,
        ids: list[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> bool:
        """See `adelete`."""
        no_more(kwargs)
        return self._bridge.wait("adelete", self._vectors.delete(ids, filter))

    def search(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """See `asearch`."""
        match _checked_search(search_type):
            case "similarity" | "hybrid":
                return self.similarity_search(query, **kwargs)
            case "mmr":
                return self.max_marginal_relevance_search(query, **kwargs)
            case _:
                found = self.similarity_search_with_relevance_scores(query, **kwargs)
                return [document for document, _ in found]

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[Document]:
        """See `asimilarity_search`."""
        found = self.similarity_search_with_score(query, k, filter=filter, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """See `asimilarity_search_with_score`."""
        return self._bridge.wait(
            "asimilarity_search_with_score", self._vectors.search(query, k, filter, kwargs)
        )

    def _similarity_search_with_relevance_scores(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        no_more(kwargs)
        return self._bridge.wait(
            "asimilarity_search_with_relevance_scores", self._vectors.near(query, k, filter)
        )

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[Document]:
        """See `asimilarity_search_by_vector`."""
        no_more(kwargs)
        found = self._bridge.wait(
            "asimilarity_search_by_vector", self._vectors.near(embedding, k, filter)
        )
        return [document for document, _ in found]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[Document]:
        """See `amax_marginal_relevance_search`."""
        return self._bridge.wait(
            "amax_marginal_relevance_search",
            self._vectors.varied(
                query, k=k, fetch_k=fetch_k, lambda_mult=lambda_mult, filters=filter, options=kwargs
            ),
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[Document]:
        """See `amax_marginal_relevance_search_by_vector`."""
        return self._bridge.wait(
            "amax_marginal_relevance_search_by_vector",
            self._vectors.varied(
                embedding,
                k=k,
                fetch_k=fetch_k,
                lambda_mult=lambda_mult,
                filters=filter,
                options=kwargs,
            ),
        )


def _checked_search(search_type: object) -> str:
    if search_type not in _SEARCHES:
        raise InvalidInputError(
            f"There is no search_type {str(search_type)[:40]!r}.",
            hint=f"There are {', '.join(_SEARCHES)}.",
        )
    return str(search_type)
