"""Vectors from a function of the caller's."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from haive.core.persistence.embedding._directions import directions
from haive.core.persistence.embedding.reference import calibrate
from haive.core.persistence.errors import ConfigurationError, ModelAnswerError, ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.embedding.calibration import Calibration

    Makes = Callable[[list[str]], Any | Awaitable[Any]]
    """Texts to rows of numbers: a list of lists, an array, or what becomes an array."""


class FunctionEmbedder:
    """Any function from texts to vectors as an `Embedder`.

    Args:
        function: Takes a list of texts and gives a row of numbers for each, in their order. It may
            be a coroutine function; another one runs in a thread, several calls at once.
        name: What a collection records of it. It has to change whenever the vectors do.
        dimensions: Numbers in a vector.
        query_function: As ``function``, for the text of a search, where a model reads questions
            otherwise.
        batch_size: Texts in a call.
        calibration: What the cosines mean; measured at the first need if not given.

    Raises:
        ConfigurationError: An argument is out of range.
    """

    def __init__(
        self,
        function: Makes,
        *,
        name: str,
        dimensions: int,
        query_function: Makes | None = None,
        batch_size: int = 100,
        calibration: Calibration | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigurationError(f"function is a {type(function).__name__}, not a function.")
        if not name or len(name) > 200 or dimensions < 1 or batch_size < 1:
            raise ConfigurationError(
                "name has 1 to 200 characters, and dimensions and batch_size are over 0."
            )
        self._function = function
        self._query_function = query_function or function
        self._name = name
        self._dimensions = dimensions
        self._batch_size = batch_size
        self._calibration = calibration

    @property
    def name(self) -> str:
        """What makes the vectors."""
        return self._name

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts: shape (len(texts), dimensions), each row of length 1.

        Raises:
            ModelError: The function failed, or gave something else.
        """
        made = [np.zeros((0, self._dimensions), np.float32)]
        for start in range(0, len(texts), self._batch_size):
            part = list(texts[start : start + self._batch_size])
            made.append(await self._called(self._function, part))
        return np.concatenate(made)

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """The vector of what is looked for: shape (dimensions,), of length 1.

        Raises:
            ModelError: The function failed, or gave something else.
        """
        vector: NDArray[np.float32] = (await self._called(self._query_function, [text]))[0]
        return vector

    async def calibration(self) -> Calibration:
        """The one that was given, or one that is measured at the first call.

        Raises:
            ModelError: It could not be measured.
        """
        if self._calibration is None:
            self._calibration = await calibrate(self)
        return self._calibration

    async def _called(self, function: Makes, texts: list[str]) -> NDArray[np.float32]:
        try:
            if inspect.iscoroutinefunction(function):
                made = await function(texts)
            else:
                made = await asyncio.to_thread(function, texts)
                if inspect.isawaitable(made):
                    made = await made
        except Exception as error:
            raise ModelError(f"{self._name} made no vectors: {type(error).__name__}.") from error
        vectors = directions(made, self._name)
        if vectors.shape != (len(texts), self._dimensions):
            raise ModelAnswerError(
                f"{self._name} made vectors of the shape {vectors.shape} and not"
                f" {(len(texts), self._dimensions)}."
            )
        return vectors
