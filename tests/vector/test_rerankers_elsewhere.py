"""Rerankers behind an API, against a server that answers as those do, and a cross-encoder."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from haive.core.persistence import errors
from haive.core.persistence.vector.reranking import (
    Candidate,
    CrossEncoder,
    HttpReranker,
    Reranker,
)

KEY = "made-up"


@dataclass
class Api:
    """What was asked, and what is answered: `answers` first, each once, then as it should be."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[Callable[[], web.StreamResponse]] = field(default_factory=list)

    @staticmethod
    def score(query: str, text: str) -> float:
        """The share of the query's words that a text has."""
        words = set(query.split())
        return len(words & set(text.split())) / len(words)

    async def rerank(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        await asyncio.sleep(0)
        if self.answers:
            return self.answers.pop(0)()
        tei = "texts" in body
        texts = body["texts"] if tei else body["documents"]
        if not texts or "" in texts or len(texts) > 100:
            return web.json_response({"message": f"wrong: {texts}"}, status=400)
        if not tei and request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"message": "invalid api token"}, status=401)
        scores = [(self.score(body["query"], text), place) for place, text in enumerate(texts)]
        name = "score" if tei else "relevance_score"
        results = [
            {"index": place, name: score}
            for score, place in sorted(scores, key=lambda one: -one[0])
        ]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        return web.json_response(results if tei else {"results": results, "usage": usage})


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "COHERE_API_KEY", "JINA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("haive.core.persistence._model_api._FIRST_DELAY", 0.01)
    found = Api()
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v2/rerank", found.rerank)
    async with TestServer(app) as server:
        found.url = str(server.make_url("/v2"))
        yield found


def candidates(*texts: str) -> list[Candidate]:
    return [Candidate(id=f"id-{n}", text=text, tokens=None) for n, text in enumerate(texts)]


def reranker(api: Api, style: str = "cohere", **options: Any) -> HttpReranker:
    given = {"base_url": api.url, "api_key": KEY, "max_retries": 2, **options}
    return HttpReranker("rank-1", style=style, **given)


@pytest.mark.parametrize("style", ["cohere", "jina", "tei"])
async def test_each_text_has_its_score_whatever_the_order_of_the_answer(
    api: Api, style: str
) -> None:
    async with reranker(api, style) as ranks:
        assert isinstance(ranks, Reranker)
        assert ranks.name == "rank-1"
        assert await ranks.prepare(["a"]) is None
        found = await ranks.rank("a red boat", candidates("a dog", "a red boat", "red", "a dog"))
        assert found == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])
        assert await ranks.rank("a", []) == []
        assert ranks.usage.requests == 1
    [body] = api.requests
    texts = ["a dog", "a red boat", "red"]
    assert (
        body
        == {
            "cohere": {"model": "rank-1", "query": "a red boat", "documents": texts},
            "jina": {
                "model": "rank-1",
                "query": "a red boat",
                "documents": texts,
                "return_documents": False,
            },
            "tei": {"query": "a red boat", "texts": texts, "truncate": True},
        }[style]
    )
    assert "id-0" not in str(body)


async def test_texts_go_in_batches_and_empty_and_long_ones_are_read(api: Api) -> None:
    async with reranker(api, batch_size=10, max_text_chars=50) as ranks:
        texts = [f"text {number}" for number in range(25)]
        found = await ranks.rank("text 24", candidates(*texts, "", "word " * 1000))
        assert len(found) == 27
        assert int(np.argmax(found)) == 24
    assert sorted(len(body["documents"]) for body in api.requests) == [7, 10, 10]
    assert all(len(text) <= 50 for body in api.requests for text in body["documents"])
    async with reranker(api) as ranks:
        assert await ranks.rank("  ", candidates("a", "")) == [0, 1]


async def test_what_is_busy_is_asked_again(api: Api) -> None:
    api.answers = [
        lambda: web.json_response({}, status=429, headers={"Retry-After": "0.01"}),
        lambda: web.json_response({}, status=503),
    ]
    async with reranker(api) as ranks:
        assert await ranks.rank("a", candidates("a", "b")) == [1, 0]
        assert ranks.usage.retries == 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.ModelRequestError),
        (401, errors.ModelAccessError),
        (429, errors.ModelLimitError),
        (500, errors.ModelUnavailableError),
    ],
)
async def test_a_refusal_has_its_error_and_quotes_nothing(
    api: Api, status: int, error: type[errors.ModelError]
) -> None:
    api.answers = [lambda: web.json_response({"message": "a secret"}, status=status)] * 3
    async with reranker(api) as ranks:
        with pytest.raises(error) as caught:
            await ranks.rank("a", candidates("a secret"))
    assert "secret" not in str(caught.value)


_GARBAGE: list[Any] = [
    None,
    [],
    {},
    {"results": None},
    {"results": [{"index": 0, "relevance_score": 1.0}]},
    {"results": [{"index": 0, "relevance_score": 1}, {"index": 0, "relevance_score": 1}]},
    {"results": [{"index": 0, "relevance_score": 1}, {"index": 2, "relevance_score": 1}]},
    {"results": [{"index": 0, "relevance_score": 1}, {"index": True, "relevance_score": 1}]},
    {"results": [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": "1"}]},
    {"results": [{"index": 0, "relevance_score": 1}, {"index": 1}]},
    {"results": [{"index": 0, "relevance_score": 1}, "text"]},
]


@pytest.mark.parametrize("answer", _GARBAGE)
async def test_an_answer_that_is_none_is_refused(api: Api, answer: Any) -> None:
    api.answers = [lambda: web.json_response(answer)]
    async with reranker(api) as ranks:
        with pytest.raises(errors.ModelAnswerError):
            await ranks.rank("a", candidates("a", "b"))
    assert len(api.requests) == 1


@pytest.mark.parametrize("text", ["<html>", '{"results": [{"index": 0, "relevance_score": NaN}]}'])
async def test_an_answer_that_is_no_json_is_refused(api: Api, text: str) -> None:
    api.answers = [lambda: web.Response(text=text)]
    async with reranker(api) as ranks:
        with pytest.raises(errors.ModelAnswerError):
            await ranks.rank("a", candidates("a"))


async def test_a_list_is_no_answer_of_an_api_with_results(api: Api) -> None:
    api.answers = [lambda: web.json_response({"results": []})]
    async with reranker(api, "tei") as ranks:
        with pytest.raises(errors.ModelAnswerError):
            await ranks.rank("a", candidates("a"))


async def test_a_key_goes_to_whom_it_belongs_alone(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "COHERE_API_KEY", "JINA_API_KEY"):
        monkeypatch.setenv(name, "of-somebody-else")
    async with HttpReranker(style="tei", base_url=api.url) as ranks:
        assert ranks.name == "tei"
        await ranks.rank("a", candidates("a"))
    assert "Authorization" not in api.headers[0]
    async with HttpReranker("rank-1", base_url=api.url) as ranks:
        with pytest.raises(errors.ModelAccessError):
            await ranks.rank("a", candidates("a"))
    assert "Authorization" not in api.headers[1]


@pytest.mark.usefixtures("api")
def test_what_is_missing_is_named() -> None:
    with pytest.raises(errors.ConfigurationError, match="COHERE_API_KEY"):
        HttpReranker("rerank-v3.5")
    with pytest.raises(errors.ConfigurationError, match="JINA_API_KEY"):
        HttpReranker("jina-reranker-v2", style="jina")
    with pytest.raises(errors.ConfigurationError, match="base_url"):
        HttpReranker(style="tei")
    with pytest.raises(errors.ConfigurationError, match="needs a model"):
        HttpReranker(api_key=KEY)
    with pytest.raises(errors.ConfigurationError, match="cohere, jina, tei"):
        HttpReranker("a", style="other")  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigurationError, match="batch_size"):
        HttpReranker("a", api_key=KEY, batch_size=0)


class Overlap:
    """A cross-encoder as sentence-transformers has them, without weights."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def predict(self, sentences: Any, *, batch_size: int, show_progress_bar: bool) -> Any:
        assert batch_size > 0
        assert not show_progress_bar
        if self.answer is not None:
            return self.answer
        return np.array([Api.score(query, text) for query, text in sentences], np.float32)


async def test_a_cross_encoder_reads_each_text_beside_the_query() -> None:
    ranks = CrossEncoder(Overlap())
    assert isinstance(ranks, Reranker)
    assert ranks.name == "Overlap"
    assert await ranks.prepare(["a"]) is None
    assert await ranks.rank("a b", candidates("b a", "c", "b")) == [1, 0, 0.5]
    assert await ranks.rank("a b", []) == []


@pytest.mark.parametrize("answer", [[1.0], [1.0, float("nan")], [[1, 2], [3, 4]], 7])
async def test_a_cross_encoder_with_other_than_a_number_a_text_is_refused(answer: Any) -> None:
    with pytest.raises(errors.ModelAnswerError, match="one number"):
        await CrossEncoder(Overlap(answer)).rank("a", candidates("a", "b"))


def test_without_sentence_transformers_the_error_names_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "haive.core.persistence.vector.reranking.cross_encoder.find_spec",
        lambda name: None if name == "sentence_transformers" else find(name),
    )
    with pytest.raises(errors.ConfigurationError, match="pip install sentence-transformers"):
        CrossEncoder()
    with pytest.raises(errors.ConfigurationError, match="over 0"):
        CrossEncoder(Overlap(), batch_size=0)
