"""Vectors from an OpenAI-compatible API."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from haive.core.persistence._in_parallel import in_parallel
from haive.core.persistence._model_api import ModelApi
from haive.core.persistence.embedding.reference import calibrate
from haive.core.persistence.errors import ConfigurationError, ModelAnswerError, ModelRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from pydantic import SecretStr

    from haive.core.persistence.embedding.calibration import Calibration

#: The numbers in a vector of OpenAI's models.
KNOWN_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_SHORTENING = frozenset({"text-embedding-3-small", "text-embedding-3-large"})
_AT_ONCE = 4
# The statuses of a text that is too long, and of other requests that cannot be.
_REFUSED = frozenset({400, 413, 422})
# The letters of words, and the spaces before and within them.
_WORDS = re.compile(r"(?:[A-Za-z]| (?=[ A-Za-z]))+")
# An API refuses an empty text; this says as little.
_NOTHING = "."


class OpenAIEmbedder(ModelApi):
    """Asks an OpenAI-compatible API: OpenAI's own, vLLM, Ollama, LiteLLM and others.

    Texts are sent in batches, four at once; a text that comes twice is sent once. An answer that is
    not one vector of the right dimensions for each text is refused as a whole. Tokens are estimated
    without the model's tokenizer: a text longer than ``max_text_tokens`` is cut there. Where the
    API refuses a batch with a text that may be longer yet, that text is found and halved.

    Without ``calibration`` the first call of `calibration` embeds 72 sentences to measure one.

    Args:
        model: As the API calls it.
        dimensions: Numbers in a vector. Needed for a model that is not OpenAI's; of
            text-embedding-3 models fewer than they have can be asked for.
        name: What made the vectors, recorded beside them; ``MODEL-DIMENSIONS`` if not given.
        batch_size: Texts in a request.
        batch_tokens: Tokens in a request.
        max_text_tokens: Tokens of a text.
        calibration: What the cosines mean.
        base_url: Up to and with the version: ``http://localhost:11434/v1``; ``OPENAI_BASE_URL``
            from the environment if not given, else OpenAI's.
        api_key: ``OPENAI_API_KEY`` from the environment if not given; OpenAI's needs one.
        timeout: Seconds for one try of a request.
        max_retries: Tries after the first one.
        max_wait: Seconds; where the API asks to wait longer, its error is raised at once.

    Raises:
        ConfigurationError: An argument is out of its range, the dimensions are not known, the
            address or the key is none, or the key is missing.
    """

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        *,
        dimensions: int | None = None,
        name: str | None = None,
        batch_size: int = 100,
        batch_tokens: int = 100_000,
        max_text_tokens: int = 8_000,
        calibration: Calibration | None = None,
        base_url: str | None = None,
        api_key: SecretStr | str | None = None,
        timeout: float = 60.0,
        max_retries: int = 4,
        max_wait: float = 60.0,
    ) -> None:
        super().__init__(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            max_retries=max_retries,
            max_wait=max_wait,
        )
        native = KNOWN_DIMENSIONS.get(model)
        size = dimensions if dimensions is not None else native
        if size is None:
            raise ConfigurationError(
                f"The dimensions of {model} are not known.", hint="Pass dimensions."
            )
        if not 1 <= size <= (native or 65_536):
            raise ConfigurationError(f"{model} has no vectors of {size} dimensions.")
        if native is not None and size != native and model not in _SHORTENING:
            raise ConfigurationError(f"{model} has {native} dimensions and no fewer.")
        if min(batch_size, batch_tokens, max_text_tokens) < 1:
            raise ConfigurationError("batch_size, batch_tokens and max_text_tokens are over 0.")
        self._model = model
        self._dimensions = size
        self._name = name or f"{model}-{size}"
        self._shortened = native is not None and size != native
        self._batch_size = batch_size
        self._batch_tokens = batch_tokens
        self._max_text_tokens = max_text_tokens
        self._calibration = calibration

    @property
    def name(self) -> str:
        """What made a vector: ``text-embedding-3-small-1536``."""
        return self._name

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts: shape (len(texts), dimensions), each row of length 1.

        Raises:
            ModelError: A request was refused or failed; there are no vectors then.
        """
        if not texts:
            return np.zeros((0, self._dimensions), np.float32)
        sent = [_cut(text, self._max_text_tokens) if text.strip() else _NOTHING for text in texts]
        places = {text: place for place, text in enumerate(dict.fromkeys(sent))}
        batches = self._batches(list(places))
        found = await in_parallel([partial(self._request, batch) for batch in batches], _AT_ONCE)
        return np.concatenate(found)[[places[text] for text in sent]]

    async def calibration(self) -> Calibration:
        """The one that was given, or one that is measured at the first call.

        Raises:
            ModelError: The API failed.
        """
        if self._calibration is None:
            self._calibration = await calibrate(self)
        return self._calibration

    def _batches(self, texts: list[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        tokens = 0
        for text in texts:
            size = _tokens(text)
            if batch and (len(batch) == self._batch_size or tokens + size > self._batch_tokens):
                yield batch
                batch, tokens = [], 0
            batch.append(text)
            tokens += size
        if batch:
            yield batch

    async def _request(self, batch: list[str]) -> NDArray[np.float32]:
        try:
            return await self._ask(batch)
        except ModelRequestError as error:
            if error.status not in _REFUSED or not any(map(self._may_be_longer, batch)):
                raise
        # An API does not say which one it was.
        middle = len(batch) // 2
        if not middle:
            return await self._request([batch[0][: len(batch[0]) // 2]])
        halves = [await self._request(half) for half in (batch[:middle], batch[middle:])]
        return np.concatenate(halves)

    def _may_be_longer(self, text: str) -> bool:
        """No token is shorter than a byte."""
        return len(text.encode()) > self._max_text_tokens

    async def _ask(self, batch: list[str]) -> NDArray[np.float32]:
        body: dict[str, Any] = {"model": self._model, "input": batch, "encoding_format": "float"}
        if self._shortened:
            body["dimensions"] = self._dimensions
        answer = await self.post("embeddings", body)
        self.count(answer.get("usage"))
        return self._vectors(answer.get("data"), len(batch))

    def _vectors(self, data: object, count: int) -> NDArray[np.float32]:
        if not isinstance(data, list) or len(data) != count:
            raise ModelAnswerError(f"The model's API did not answer with {count} vectors.")
        rows: dict[int, list[float]] = {}
        for place, item in enumerate(data):
            if not isinstance(item, dict) or not isinstance(item.get("embedding"), list):
                raise ModelAnswerError("The model's API answered with something else than vectors.")
            index = item.get("index", place)
            rows[index if isinstance(index, int) else -1] = item["embedding"]
        if rows.keys() != set(range(count)):
            raise ModelAnswerError("The model's API answered twice for one text.")
        if any(len(row) != self._dimensions for row in rows.values()):
            raise ModelAnswerError(
                f"The model's API did not answer with {self._dimensions} dimensions.",
                hint="Pass the dimensions that the model has.",
            )
        try:
            vectors = np.array([rows[place] for place in range(count)], np.float64)
        except (TypeError, ValueError):
            raise ModelAnswerError("The vectors of the model's API are no numbers.") from None
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths == 0).any():
            raise ModelAnswerError("A vector of the model's API has no direction.")
        unit: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
        return unit


def _tokens(text: str) -> int:
    """Tokens of a text: words of ASCII have three letters or more a token, its other signs one."""
    words = sum(map(len, _WORDS.findall(text)))
    plain = sum(map(str.isascii, text))
    return words // 3 + plain - words + 2 * (len(text) - plain) + 1


def _cut(text: str, tokens: int) -> str:
    while _tokens(text) > tokens and len(text) > 1:
        text = text[: max(int(len(text) * tokens / _tokens(text)), 1)]
    return text
