"""What a memory is made of, opened at the first call."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from haive.core.persistence._model_api import ModelUsage
from haive.core.persistence.embedding import (
    HashingEmbedder,
    MiniLMEmbedder,
    OpenAIEmbedder,
)
from haive.core.persistence.errors import ConfigurationError, UnsupportedOperationError
from haive.core.persistence.vector._opening import (
    backend_of,
    checked_name,
    collection_of,
    embedder_of,
    store_from_environment,
)
from haive.core.persistence.vector._recalled import Recalled
from haive.core.persistence.vector._shelf import Shelf
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.config import MemoryConfig
from haive.core.persistence.vector.reranking.late_interaction import LateInteraction
from haive.core.persistence.vector.reranking.sentences import SentenceReranker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from haive.core.persistence.embedding import Embedder
    from haive.core.persistence.privacy import Redactor
    from haive.core.persistence.store import Store
    from haive.core.persistence.vector.backends.protocol import MemoryBackend
    from haive.core.persistence.vector.reranking.protocol import Reranker


class OpenedMemory:
    """Opens a collection, and closes what it opened; `VectorMemory` works in it."""

    def __init__(
        self,
        vector_store: str | None = None,
        config: MemoryConfig | None = None,
        *,
        store: Store | None = None,
        backend: MemoryBackend | None = None,
        tenant: str | None = None,
        reranker: Reranker | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.config = config or MemoryConfig()
        self._name = _named(vector_store, backend)
        self._embedder = embedder_of(self.config)
        self._tenant = tenant
        self._store, self._own_store = store, False
        self._backend, self._own_backend = backend, False
        self._reranker = reranker
        self._clock = clock
        self._recalled = Recalled()
        self._shelf: Shelf | None = None
        self._opening = asyncio.Lock()

    @property
    def usage(self) -> dict[str, ModelUsage]:
        """What was used of APIs since this object was made.

        By role: ``embedder``, ``chat`` and ``reranker``, of which those are there that ask an API.
        An object that was given counts for all that use it.
        """
        models = {
            "embedder": self._embedder, "chat": self.config.chat, "reranker": self._reranker,
        }  # fmt: skip
        return {
            role: used
            for role, model in models.items()
            if isinstance(used := getattr(model, "usage", None), ModelUsage)
        }

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what was opened here."""
        self._shelf = None
        if self._own_backend and self._backend is not None:
            backend, self._backend, self._own_backend = self._backend, None, False
            await backend.aclose()
        if self._own_store and self._store is not None:
            store, self._store, self._own_store = self._store, None, False
            await store.aclose()
        if self.config.embedder is None and isinstance(self._embedder, OpenAIEmbedder):
            await self._embedder.aclose()

    async def _open(self) -> Shelf:
        if self._shelf is not None:
            return self._shelf
        async with self._opening:
            if self._shelf is None:
                own = await self._tenant_of_store()
                if self._backend is None:
                    self._backend = await backend_of(
                        self._name,
                        self.config,
                        tenant=own or self._tenant or "default",
                        open_store=self._open_store,
                    )
                    self._own_backend = True
                tenant = await self._backend.tenant()
                if own not in {None, tenant}:
                    raise ConfigurationError(
                        f"The memories are the tenant {tenant}'s, and the store is another's.",
                        hint="Give a backend that has the tenant of the store.",
                    )
                if self._tenant not in {None, tenant}:
                    raise ConfigurationError(
                        f"The memories are the tenant {tenant}'s, and tenant= is another.",
                        hint="Leave tenant out: a store or backend that is given has its own.",
                    )
                wanted = collection_of(self.config, self._embedder)
                self._shelf = Shelf(
                    backend=self._backend,
                    collection=await self._backend.open(wanted),
                    config=self.config,
                    tenant=tenant,
                    embedder=self._embedder,
                    reranker=self._reranker or _reranker_of(self._embedder),
                    clock=self._clock,
                    redactor=self._redactor(),
                )
        return self._shelf

    async def _tenant_of_store(self) -> str | None:
        """The tenant of the store that was given; None where memories are in it anyway.

        Raises:
            UnsupportedOperationError: The tenant's content is sealed, and here it would not be.
        """
        in_store = self._backend is None and self._name == PgvectorBackend.name
        if self._store is None or in_store:
            return None
        if self._store._sealer is not None and self._name != PgvectorBackend.name:
            raise UnsupportedOperationError(
                f"The tenant's content is sealed, and memories in {self._name} are not.",
                hint="Memories are searched by their words, which have to be seen.",
            )
        return await PgvectorBackend(self._store).tenant()

    def _redactor(self) -> Redactor | None:
        """What the store does with personal data, its memories have done too."""
        store = self._at_hand()
        return None if store is None else store._redactor

    def _at_hand(self) -> Store | None:
        """The store that is there already, the backend's if no other one."""
        if self._store is None and isinstance(self._backend, PgvectorBackend):
            return self._backend._store
        return self._store

    async def _open_store(self) -> Store:
        if self._store is None:
            self._store, self._own_store = await store_from_environment(), True
        return self._store


def _named(vector_store: str | None, backend: MemoryBackend | None) -> str:
    """The name of the vector database."""
    if backend is None:
        return checked_name("pgvector" if vector_store is None else vector_store)
    if vector_store not in {None, backend.name}:
        raise ConfigurationError(
            f"vector_store names another database than the backend, which is {backend.name}.",
            hint="Leave vector_store out where a backend is given.",
        )
    return backend.name


def _reranker_of(embedder: Embedder | None) -> Reranker:
    if isinstance(embedder, MiniLMEmbedder):
        return LateInteraction(embedder)
    return SentenceReranker(embedder or HashingEmbedder())
