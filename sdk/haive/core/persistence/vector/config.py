"""How memories are embedded, indexed, kept and found."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from haive.core.persistence._encoding import describe
from haive.core.persistence.embedding import Embedder  # noqa: TC001 - pydantic reads it
from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.language import ChatModel  # noqa: TC001 - pydantic reads it


class IndexType(StrEnum):
    """How the nearest vectors are found."""

    HNSW = "hnsw"
    """A graph: quick, and exact enough at any size."""
    IVFFLAT = "ivfflat"
    """Lists: built faster, found less exactly. There are none, and every vector is compared, until
    ``reindex`` is called with 10,000 memories; call it again when there are four times as many."""
    FLAT = "flat"
    """None: every vector is compared, and the answer is exact."""
    BINARY = "binary"
    """A graph over one bit a number, then exact distances: for wide vectors in great number."""


class EmbeddingStrategy(StrEnum):
    """Where vectors come from."""

    AUTO = "auto"
    """``embedder`` where one is given, else the API where ``embedding_model`` names a model, else
    the model on this machine where the extra ``embeddings`` is installed, else none."""
    API = "api"
    """An OpenAI-compatible API."""
    LOCAL = "local"
    """The model of the extra ``embeddings``, on this machine."""
    NONE = "none"
    """Nowhere: memories are found by their words."""


class RetrievalWeights(BaseModel):
    """How much each signal counts, each scaled to 0…1 over the candidates of a search.

    The defaults suit conversations; `haive bench memory` measures what is found with them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: float = Field(default=0.7, ge=0)
    """BM25 of the memory's text."""
    context: float = Field(default=1.0, ge=0)
    """BM25 of the text before it and its own."""
    vector: float = Field(default=1.0, ge=0)
    """Nearness of the vectors."""
    neighbours: float = Field(default=0.25, ge=0, le=1)
    """Share of what the messages right before and after it have, of the three above."""
    speaker: float = Field(default=1.0, ge=0)
    """Whether the query names who said it."""
    recency: float = Field(default=0.0, ge=0)
    """Its age, halved each ``recency_half_life`` days."""
    importance: float = Field(default=0.0, ge=0)
    """Its importance."""
    recency_half_life: float = Field(default=30.0, gt=0)
    """Days."""


class MemoryConfig(BaseModel):
    """Settings of a `VectorMemory`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from None

    api_key: SecretStr | None = None
    """Of the vector database's service; pgvector has the store's own."""
    environment: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9-]{0,20}$")
    """Keeps the memories of ``production`` and of ``staging`` apart: a part of the collection's
    name."""
    url: str | None = None
    """Where the vector database is, unless it is pgvector."""
    index_name: str = Field(default="haive-memories", pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    """The collection."""

    embedding_strategy: EmbeddingStrategy = EmbeddingStrategy.AUTO
    embedding_model: str | None = None
    """As the API calls it, ``text-embedding-3-large``."""
    embedding_dimensions: int | None = Field(default=None, ge=1, le=16_000)
    """Numbers in a vector."""
    embedding_batch_size: int = Field(default=100, ge=1, le=2048)
    """Texts in a request."""
    embedder: Embedder | None = Field(default=None, repr=False)
    """What makes vectors, in place of a model's name."""

    index_type: IndexType = IndexType.HNSW
    """With ``ef_construction`` and ``m``: of a collection that is made. One that is there keeps the
    index it has."""
    metric: Literal["cosine", "l2", "inner_product"] = "cosine"
    ef_construction: int = Field(default=64, ge=4, le=1000)
    """How many candidates a graph is built with: more is slower to build and finds more."""
    m: int = Field(default=16, ge=2, le=100)
    """Edges of each point of a graph."""
    recall: float = Field(default=0.97, gt=0, le=1)
    """Of the nearest vectors, the share that a search is to find; 1 compares them all."""

    language: str = Field(default="english", pattern=r"^[a-z_]{1,40}$")
    """How words are stemmed: a text search configuration of Postgres. A collection keeps its own,
    and another one is refused."""
    weights: RetrievalWeights = Field(default_factory=RetrievalWeights)
    near_duplicate: float | None = Field(default=0.97, gt=0, le=1)
    """From which likeness on a memory is not written a second time; None writes all."""
    chat: ChatModel | None = Field(default=None, repr=False)
    """A language model for summaries; without one they are extracts."""

    @property
    def collection_name(self) -> str:
        """The collection's name in the database."""
        return f"{self.index_name}-{self.environment}" if self.environment else self.index_name
