"""Scores from a reranking API."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from haive.core.persistence._in_parallel import in_parallel
from haive.core.persistence._model_api import ModelApi
from haive.core.persistence.errors import ConfigurationError, ModelAnswerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr

    from haive.core.persistence.vector.reranking.protocol import Candidate

_AT_ONCE = 4
# Some APIs refuse an empty text; this says as little.
_NOTHING = "."
_URLS = {"cohere": "https://api.cohere.com/v2", "jina": "https://api.jina.ai/v1"}
_KEYS = {"cohere": "COHERE_API_KEY", "jina": "JINA_API_KEY"}
# Cohere and Jina bill or count a request of up to so many; TEI takes no more as it is delivered.
_BATCH = {"cohere": 100, "jina": 100, "tei": 32}


class HttpReranker(ModelApi):
    """Asks a reranking API: Cohere's, Jina's, or a server that speaks as one of them or TEI does.

    ``cohere`` and ``jina`` take ``documents`` and answer ``results`` (vLLM, LiteLLM and Infinity do
    too); ``tei`` is Hugging Face's Text Embeddings Inference, with ``texts`` and a bare list. An
    answer without one finite score for each text is refused as a whole. Candidates are sent to the
    API as they are, with no names or ids.

    Args:
        model: As the API calls it; a TEI server has but one.
        style: How requests and answers look.
        base_url: Up to and with the version; Cohere's or Jina's own if not given.
        api_key: ``COHERE_API_KEY`` or ``JINA_API_KEY`` from the environment if not given and it is
            asked for by their own address; other servers may need none.
        batch_size: Texts in a request: 100, of TEI 32, if not given.
        max_text_chars: What a text has beyond them is not sent.
        timeout: Seconds for one try of a request.
        max_retries: Tries after the first one.
        max_wait: Seconds; where the API asks to wait longer, its error is raised at once.

    Raises:
        ConfigurationError: An argument is out of its range, or the model, the address or the key is
            missing.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        style: Literal["cohere", "jina", "tei"] = "cohere",
        base_url: str | None = None,
        api_key: SecretStr | str | None = None,
        batch_size: int | None = None,
        max_text_chars: int = 20_000,
        timeout: float = 30.0,
        max_retries: int = 4,
        max_wait: float = 60.0,
    ) -> None:
        if style not in _BATCH:
            raise ConfigurationError(f"A reranking API is one of {', '.join(_BATCH)}.")
        if model is None and style != "tei":
            raise ConfigurationError(f"A reranker of style {style} needs a model.")
        url = base_url or _URLS.get(style)
        if url is None:
            raise ConfigurationError("Where the TEI server is was not said.", hint="Pass base_url.")
        size = _BATCH[style] if batch_size is None else batch_size
        if size < 1 or max_text_chars < 1:
            raise ConfigurationError("batch_size and max_text_chars are over 0.")
        # OPENAI_API_KEY, which ModelApi would take, is none of these servers' business.
        if api_key is None and base_url is None:
            api_key = os.environ.get(_KEYS[style])
            if not api_key:
                raise ConfigurationError(
                    "No key for the reranking API.", hint=f"Pass api_key or set {_KEYS[style]}."
                )
        super().__init__(
            base_url=url,
            api_key="" if api_key is None else api_key,
            timeout=timeout,
            max_retries=max_retries,
            max_wait=max_wait,
        )
        self._model = model
        self._style = style
        self._batch_size = size
        self._max_text_chars = max_text_chars

    @property
    def name(self) -> str:
        """The model, or ``tei``."""
        return self._model or self._style

    async def prepare(self, texts: Sequence[str]) -> list[bytes] | None:
        """None: the API reads the texts themselves."""
        return None

    async def rank(self, query: str, candidates: Sequence[Candidate]) -> list[float]:
        """The API's score for each candidate, in their order.

        Raises:
            ModelError: A request was refused or failed; there are no scores then.
        """
        texts = [
            candidate.text[: self._max_text_chars] if candidate.text.strip() else _NOTHING
            for candidate in candidates
        ]
        asked = query[: self._max_text_chars] if query.strip() else _NOTHING
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        sent = list(places)
        batches = [
            sent[begin : begin + self._batch_size]
            for begin in range(0, len(sent), self._batch_size)
        ]
        found = await in_parallel(
            [partial(self._request, asked, batch) for batch in batches], _AT_ONCE
        )
        scores = [score for batch in found for score in batch]
        return [scores[places[text]] for text in texts]

    async def _request(self, query: str, batch: list[str]) -> list[float]:
        if self._style == "tei":
            body = {"query": query, "texts": batch, "truncate": True}
            answer: Any = await self.post_any("rerank", body)
            self.count(None)
            return _scores(answer, len(batch), "score")
        body = {"model": self._model, "query": query, "documents": batch}
        if self._style == "jina":
            body["return_documents"] = False
        answer = await self.post("rerank", body)
        self.count(answer.get("usage"))
        return _scores(answer.get("results"), len(batch), "relevance_score")


def _scores(results: object, count: int, field: str) -> list[float]:
    """The scores of an answer, in the order of the texts; it tells them by index, best first."""
    if not isinstance(results, list) or len(results) != count:
        raise ModelAnswerError(f"The reranking API did not answer with {count} scores.")
    scores: dict[int, float] = {}
    for item in results:
        index = item.get("index") if isinstance(item, dict) else None
        score = item.get(field) if isinstance(item, dict) else None
        if type(index) is not int or not isinstance(score, int | float) or type(score) is bool:
            raise ModelAnswerError("The reranking API answered with something else than scores.")
        scores[index] = float(score)
    if scores.keys() != set(range(count)):
        raise ModelAnswerError("The reranking API answered twice for one text.")
    if not all(map(math.isfinite, scores.values())):
        raise ModelAnswerError("A score of the reranking API is no number.")
    return [scores[place] for place in range(count)]
