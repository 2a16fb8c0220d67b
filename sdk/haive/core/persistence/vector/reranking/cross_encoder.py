"""Scores from a cross-encoder on this machine."""

from __future__ import annotations

import asyncio
import math
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, cast

from haive.core.persistence.errors import ConfigurationError, ModelAnswerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.vector.reranking.protocol import Candidate

_INSTALL = "pip install sentence-transformers"


class _Predicts(Protocol):
    """What is used of a ``sentence_transformers.CrossEncoder``."""

    def predict(self, sentences: Any, *, batch_size: int, show_progress_bar: bool) -> Any:
        """One score a pair."""


class CrossEncoder:
    """A model that reads query and text at once, by sentence-transformers.

    The most exact and the slowest: every search runs the model over each candidate. The model is
    loaded at the first search, from the network where it is not on this machine yet.

    Args:
        model: Its name or folder, or a ``sentence_transformers.CrossEncoder`` that is loaded.
        batch_size: Pairs that go through it at once.
        max_text_chars: What a text has beyond them is not read.
        device: ``cpu``, ``cuda``…; what is there if not given.

    Raises:
        ConfigurationError: sentence-transformers is not installed, or an argument is out of range.
    """

    def __init__(
        self,
        model: str | _Predicts = "cross-encoder/ms-marco-MiniLM-L6-v2",
        *,
        batch_size: int = 32,
        max_text_chars: int = 20_000,
        device: str | None = None,
    ) -> None:
        if batch_size < 1 or max_text_chars < 1:
            raise ConfigurationError("batch_size and max_text_chars are over 0.")
        if isinstance(model, str) and find_spec("sentence_transformers") is None:
            raise ConfigurationError("sentence_transformers is not installed.", hint=f"{_INSTALL}.")
        self._model = model
        self._batch_size = batch_size
        self._max_text_chars = max_text_chars
        self._device = device
        self._loading = threading.Lock()
        self._name = model if isinstance(model, str) else type(model).__name__

    @property
    def name(self) -> str:
        """The model's name, or the class of the one that was given."""
        return self._name

    async def prepare(self, texts: Sequence[str]) -> list[bytes] | None:
        """None: it reads the texts themselves."""
        return None

    async def rank(self, query: str, candidates: Sequence[Candidate]) -> list[float]:
        """The model's score for each candidate, in their order.

        Raises:
            ConfigurationError: There is no such model.
            ModelAnswerError: It has not one number for each.
        """
        if not candidates:
            return []
        texts = [candidate.text[: self._max_text_chars] for candidate in candidates]
        return await asyncio.to_thread(self._rank, query[: self._max_text_chars], texts)

    def _rank(self, query: str, texts: list[str]) -> list[float]:
        found = self._loaded().predict(
            [(query, text) for text in texts], batch_size=self._batch_size, show_progress_bar=False
        )
        try:
            scores = [float(score) for score in found]
        except (TypeError, ValueError):
            scores = []
        if len(scores) != len(texts) or not all(map(math.isfinite, scores)):
            raise ModelAnswerError(
                "The cross-encoder did not give one number a text.", hint="It has one label."
            )
        return scores

    def _loaded(self) -> _Predicts:
        with self._loading:
            if not isinstance(self._model, str):
                return self._model
            try:
                # Slow to import, and not always there.
                model = import_module("sentence_transformers").CrossEncoder(
                    self._model, device=self._device
                )
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"The model {self._name} cannot be loaded.") from error
            self._model = model
            return cast("_Predicts", model)
