"""Vectors from a model of sentence-transformers on this machine."""

from __future__ import annotations

import asyncio
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from haive.core.persistence.embedding._directions import directions
from haive.core.persistence.embedding.reference import calibrate
from haive.core.persistence.errors import ConfigurationError, ModelAnswerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.embedding.calibration import Calibration

_INSTALL = "pip install sentence-transformers"


class _Encodes(Protocol):
    """What is used of a ``sentence_transformers.SentenceTransformer``, from version 3 on."""

    def encode(self, sentences: Any, **options: Any) -> Any:
        """A row of numbers for each text."""


class SentenceTransformerEmbedder:
    """A model of sentence-transformers: in any language, and on a GPU where there is one.

    Questions and texts are read by ``encode_query`` and ``encode_document`` where the model has
    them, so that the prompts that it was trained with are used. The model is loaded at the first
    call, from the network where it is not on this machine yet. Without PyTorch there is
    `MiniLMEmbedder`.

    Args:
        model: Its name or folder, or a ``SentenceTransformer`` that is loaded.
        name: What a collection records of it; the model's name and width if not given, which a
            loaded one has to be given.
        batch_size: Texts that go through it at once.
        device: ``cpu``, ``cuda``…; what is there if not given.
        calibration: What the cosines mean; measured at the first need if not given.

    Raises:
        ConfigurationError: sentence-transformers is not installed, or an argument is missing or out
            of range.
    """

    def __init__(
        self,
        model: str | Path | _Encodes,
        *,
        name: str | None = None,
        batch_size: int = 32,
        device: str | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError("batch_size is over 0.")
        self._model = str(model) if isinstance(model, Path) else model
        if isinstance(self._model, str):
            if find_spec("sentence_transformers") is None:
                raise ConfigurationError(
                    "sentence_transformers is not installed.", hint=f"{_INSTALL}."
                )
            name = name or Path(self._model).name
        if not name or len(name) > 190:
            raise ConfigurationError("A model that is loaded needs a name, of 190 characters.")
        self._label = name
        self._batch_size = batch_size
        self._device = device
        self._calibration = calibration
        self._loading = threading.Lock()
        self._dimensions: int | None = None

    @property
    def name(self) -> str:
        """``all-mpnet-base-v2-768``: the model, and the width of its vectors."""
        return f"{self._label}-{self.dimensions}"

    @property
    def dimensions(self) -> int:
        """Numbers in a vector; the model is loaded to tell."""
        if self._dimensions is None:
            self._dimensions = int(self._encode("encode_document", ["a"]).shape[1])
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts: shape (len(texts), dimensions), each row of length 1.

        Raises:
            ConfigurationError: There is no such model.
            ModelAnswerError: It gives no vectors.
        """
        return await asyncio.to_thread(self._encode, "encode_document", list(texts))

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a question: shape (dimensions,), of length 1.

        Raises:
            ConfigurationError: There is no such model.
            ModelAnswerError: It gives no vector.
        """
        made = await asyncio.to_thread(self._encode, "encode_query", [text])
        vector: NDArray[np.float32] = made[0]
        return vector

    async def calibration(self) -> Calibration:
        """The one that was given, or one that is measured at the first call."""
        if self._calibration is None:
            self._calibration = await calibrate(self)
        return self._calibration

    def _encode(self, how: str, texts: list[str]) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        model = self._loaded()
        # Version 5 brought the two; until then all was read alike.
        encode = getattr(model, how, model.encode)
        made = encode(texts, batch_size=self._batch_size, show_progress_bar=False)
        vectors = directions(made, self._label)
        if len(vectors) != len(texts):
            raise ModelAnswerError(f"{self._label} made {len(vectors)} vectors of {len(texts)}.")
        return vectors

    def _loaded(self) -> _Encodes:
        with self._loading:
            if not isinstance(self._model, str):
                return self._model
            try:
                # Slow to import, and not always there.
                model = import_module("sentence_transformers").SentenceTransformer(
                    self._model, device=self._device
                )
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"The model {self._label} cannot be loaded.") from error
            self._model = model
            return cast("_Encodes", model)
