"""Models of vectors between LangChain and this package, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from langchain_core.embeddings import Embeddings

from haive.core.persistence.embedding import QueryEmbedder, calibrate
from haive.core.persistence.embedding._directions import directions
from haive.core.persistence.errors import CollectionMismatchError, ModelError
from haive.core.persistence.integrations._naming import former_names, name_of
from haive.core.persistence.vector import VectorMemory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.embedding import Calibration, Embedder
    from haive.core.persistence.integrations._bridge import Bridge
    from haive.core.persistence.store import Store
    from haive.core.persistence.vector import MemoryConfig

T = TypeVar("T")

_PROBE = "How wide is a vector?"


class LangChainEmbedder:
    """LangChain's ``Embeddings`` as an `Embedder`; texts and questions by its own two methods.

    Args:
        embeddings: What makes the vectors.
        dimensions: Numbers in a vector.
        name: What a collection records of it; the class and the model it names if not given.
    """

    def __init__(self, embeddings: Embeddings, dimensions: int, *, name: str | None = None) -> None:
        self.embeddings = embeddings
        self._dimensions = dimensions
        self._name = name or f"{name_of(embeddings)}-{dimensions}"
        self._former = [] if name else [f"{each}-{dimensions}" for each in former_names(embeddings)]

    @classmethod
    async def of(cls, embeddings: Embeddings, *, name: str | None = None) -> LangChainEmbedder:
        """One whose width was measured, by a vector that is made for it.

        Raises:
            ModelError: It makes none.
        """
        made = await _made(embeddings.aembed_query(_PROBE), embeddings)
        probe = directions([made], name_of(embeddings))
        return cls(embeddings, probe.shape[1], name=name)

    @property
    def name(self) -> str:
        """What made a vector: ``OpenAIEmbeddings:text-embedding-3-small-1536``."""
        return self._name

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self._dimensions

    def _formerly(self) -> list[LangChainEmbedder]:
        """The same under the names that versions before gave to a function, the latest first."""
        return [
            LangChainEmbedder(self.embeddings, self._dimensions, name=name) for name in self._former
        ]

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts: shape (len(texts), dimensions), each row of length 1.

        Raises:
            ModelError: There are none.
        """
        if not texts:
            return np.zeros((0, self._dimensions), np.float32)
        made = await _made(self.embeddings.aembed_documents(list(texts)), self.embeddings)
        return directions(made, name_of(self.embeddings))

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a question: shape (dimensions,), of length 1.

        Raises:
            ModelError: There is none.
        """
        made = await _made(self.embeddings.aembed_query(text), self.embeddings)
        vector: NDArray[np.float32] = directions([made], name_of(self.embeddings))[0]
        return vector

    async def calibration(self) -> Calibration:
        """Measured on short conversations, at each call.

        Raises:
            ModelError: It could not be measured.
        """
        return await calibrate(self)


class HaiveEmbeddings(Embeddings):
    """An `Embedder` as LangChain's ``Embeddings``.

    Args:
        embedder: What makes the vectors.
        bridge: Where it works.
    """

    def __init__(self, embedder: Embedder, bridge: Bridge) -> None:
        self._embedder = embedder
        self._bridge = bridge

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts."""
        vectors = await self._bridge.run(self._embedder.embed(texts))
        rows: list[list[float]] = vectors.tolist()
        return rows

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        if not isinstance(self._embedder, QueryEmbedder):
            return (await self.aembed_documents([text]))[0]
        vector = await self._bridge.run(self._embedder.embed_query(text))
        row: list[float] = vector.tolist()
        return row

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """See `aembed_documents`."""
        return self._bridge.wait("aembed_documents", self.aembed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        """See `aembed_query`."""
        return self._bridge.wait("aembed_query", self.aembed_query(text))


async def opened_memory(
    store: Store | None, config: MemoryConfig, embedder: Embedder
) -> VectorMemory:
    """The memories of a collection, also of one that knows the model by a former name.

    Raises:
        CollectionMismatchError: It is made with another model.
    """
    former = embedder._formerly() if isinstance(embedder, LangChainEmbedder) else []
    refused: CollectionMismatchError | None = None
    for each in [embedder, *former]:
        memory = VectorMemory(config=config.model_copy(update={"embedder": each}), store=store)
        try:
            await memory._open()
        except CollectionMismatchError as error:
            refused = refused or error
        else:
            return memory
    assert refused is not None  # noqa: S101 # nosec B101
    if not former:
        raise refused
    raise CollectionMismatchError(
        refused.message,
        hint=f"{refused.hint} If the model is the same, pass a LangChainEmbedder with the name that"
        " the collection has.",
    ) from None


async def _made(work: Awaitable[T], by: Embeddings) -> T:
    """What LangChain's model makes; its errors are of many kinds, and become one.

    Raises:
        ModelError: It failed.
    """
    try:
        return await work
    except Exception as error:
        raise ModelError(f"{name_of(by)} made no vectors: {type(error).__name__}.") from error
