"""Models of vectors between LangChain and this package, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from langchain_core.embeddings import Embeddings

from haive.core.persistence.embedding import QueryEmbedder, calibrate
from haive.core.persistence.embedding._directions import directions
from haive.core.persistence.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.embedding import Calibration, Embedder
    from haive.core.persistence.integrations._bridge import Bridge

T = TypeVar("T")

# Where the classes of LangChain's partners name their model.
_MODEL = ("model", "model_name", "model_id", "deployment_name", "repo_id")
#: The class of all functions, and once the name of what they made.
FUNCTIONS = "EmbeddingsLambda"
_PROBE = "How wide is a vector?"
# A collection records up to 200 characters, and the width is among them.
_LONGEST = 190


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


def name_of(embeddings: Embeddings) -> str:
    """What makes the vectors, by its class and the model that it names.

    What only keeps the vectors of another one (``CacheBackedEmbeddings``) has that one's name, and
    what only calls a function (LangGraph's ``EmbeddingsLambda``) the function's.
    """
    behind = getattr(embeddings, "underlying_embeddings", None)
    if isinstance(behind, Embeddings):
        return name_of(behind)
    if (function := function_of(embeddings)) is not None:
        named = function if hasattr(function, "__qualname__") else type(function)
        return f"{named.__module__}.{named.__qualname__}"[:_LONGEST]
    given = (getattr(embeddings, attribute, None) for attribute in _MODEL)
    model = next((name for name in given if isinstance(name, str) and name), None)
    own = type(embeddings).__name__
    return (f"{own}:{model}" if model else own)[:_LONGEST]


def function_of(embeddings: Embeddings) -> Any:
    """The function that LangGraph's ``EmbeddingsLambda`` calls; None of all others."""
    if type(embeddings).__name__ != FUNCTIONS:
        return None
    return getattr(embeddings, "afunc", None) or getattr(embeddings, "func", None)


async def _made(work: Awaitable[T], by: Embeddings) -> T:
    """What LangChain's model makes; its errors are of many kinds, and become one.

    Raises:
        ModelError: It failed.
    """
    try:
        return await work
    except Exception as error:
        raise ModelError(f"{name_of(by)} made no vectors: {type(error).__name__}.") from error
