"""Vectors from an OpenAI-compatible API."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from haive.core.persistence import errors
from haive.core.persistence.embedding import Calibration, Embedder, OpenAIEmbedder


def embedder(api, **options: object) -> OpenAIEmbedder:
    given: dict[str, object] = {"dimensions": 8, "base_url": api.url, "api_key": api.key, **options}
    return OpenAIEmbedder("some-model", **given)


def unit(api, text: str) -> np.ndarray:
    found = np.array(api.vector(text, 8))
    return found / np.linalg.norm(found)


async def test_each_text_has_its_vector_whatever_the_order_of_the_answer(api) -> None:
    async with embedder(api) as model:
        assert isinstance(model, Embedder)
        found = await model.embed(["one", "two", "three", "one"])
    assert found.shape == (4, 8)
    assert found.dtype == np.float32
    for row, text in zip(found, ["one", "two", "three", "one"], strict=True):
        np.testing.assert_allclose(row, unit(api, text), atol=1e-6)
    assert api.requests == [
        {"model": "some-model", "input": ["one", "two", "three"], "encoding_format": "float"}
    ]
    assert api.headers[0]["Authorization"] == f"Bearer {api.key}"
    assert model.name == "some-model-8"


async def test_texts_go_in_batches_by_count_and_by_tokens_four_at_once(api) -> None:
    api.slow = 0.05
    async with embedder(api, batch_size=3, batch_tokens=1000) as model:
        texts = [f"text {number}" for number in range(20)]
        found = await model.embed(texts)
        np.testing.assert_allclose(found[19], unit(api, "text 19"), atol=1e-6)
        assert [len(request["input"]) for request in api.requests] == [3] * 6 + [2]
        assert api.most_at_once == 4
        api.requests.clear()
        await model.embed([f"{number} " + "word " * 300 for number in range(4)])
    assert [len(request["input"]) for request in api.requests] == [1, 1, 1, 1]


async def test_nothing_and_an_empty_text_have_vectors(api) -> None:
    async with embedder(api) as model:
        assert (await model.embed([])).shape == (0, 8)
        assert not api.requests
        one, other, blank = await model.embed(["", "word", "  \n"])
    np.testing.assert_array_equal(one, blank)
    assert not np.allclose(one, other)


async def test_a_text_that_is_too_long_is_cut(api) -> None:
    async with embedder(api, max_text_tokens=100) as model:
        await model.embed(["word " * 1000, "語" * 1000])
    long, dense = api.requests[0]["input"]
    assert 200 <= len(long) <= 300
    assert 40 <= len(dense) <= 50


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("1 2 3 4 5 " * 100, 100),  # a digit is a token, and so is the space between two
        ("3.14159265" * 100, 100),
        ("-->|<==;~~" * 100, 100),
        ("01890a5d-ac96-774b-bcce-b302099a8057," * 100, 150),
        ("🐈語é" * 100, 50),
    ],
)
async def test_a_text_of_more_than_words_is_cut_earlier(api, text: str, characters: int) -> None:
    async with embedder(api, max_text_tokens=100) as model:
        await model.embed([text])
    [sent] = api.requests[0]["input"]
    assert text.startswith(sent)
    assert 40 <= len(sent) <= characters


async def test_a_text_that_is_refused_as_too_long_is_found_and_halved(api) -> None:
    """Letters without words have more tokens than any estimate of words says."""

    def strict(body: dict[str, Any]) -> web.Response:
        if any(text.startswith("kR") and len(text) > 80 for text in body["input"]):
            return api.failure(400)
        return api._embeddings(body)

    api.answers = [strict] * 20
    words, key = "word " * 50, "kRxQbWTzLmVcaYop" * 10
    async with embedder(api, max_text_tokens=100) as model:
        found = await model.embed(["one", words, "two", key, "three"])
    for row, text in zip(found, ["one", words, "two", key[:80], "three"], strict=True):
        np.testing.assert_allclose(row, unit(api, text), atol=1e-6)
    assert len(api.requests) <= 8


async def test_what_is_refused_for_another_reason_is_not_halved_for_long(api) -> None:
    api.answers = [lambda _: api.failure(400)] * 50
    async with embedder(api, max_text_tokens=100) as model:
        with pytest.raises(errors.ModelRequestError):
            await model.embed([f"{number} " + "word " * 50 for number in range(32)])
    assert len(api.requests) <= 8
    api.requests.clear()
    api.answers = [lambda _: api.failure(404, "model_not_found")]
    async with embedder(api, max_text_tokens=100) as model:
        with pytest.raises(errors.ModelRequestError, match="model_not_found"):
            await model.embed(["word " * 50])
    assert len(api.requests) == 1


async def test_fewer_dimensions_are_asked_for_where_the_model_has_more(api) -> None:
    options = {"base_url": api.url, "api_key": api.key}
    async with OpenAIEmbedder("text-embedding-3-large", dimensions=256, **options) as model:
        assert (await model.embed(["a"])).shape == (1, 256)
    assert api.requests[0]["dimensions"] == 256
    api.dimensions = 3072
    async with OpenAIEmbedder("text-embedding-3-large", **options) as model:
        assert (await model.embed(["a"])).shape == (1, 3072)
    assert "dimensions" not in api.requests[1]


async def test_what_is_busy_is_asked_again_after_as_long_as_it_says(api) -> None:
    api.answers = [lambda _: api.failure(429, "rate_limit_exceeded", **{"Retry-After": "0.3"})]
    async with embedder(api) as model:
        start = time.monotonic()
        await model.embed(["a"])
        assert time.monotonic() - start >= 0.3
        assert (model.usage.requests, model.usage.retries) == (1, 1)


async def test_retry_after_may_be_a_date_or_milliseconds(api) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    api.answers = [lambda _: api.failure(503, **{"Retry-After": soon})]
    api.answers += [lambda _: api.failure(429, **{"retry-after-ms": "200", "Retry-After": "9"})]
    async with embedder(api) as model:
        start = time.monotonic()
        await model.embed(["a"])
        assert 0.2 <= time.monotonic() - start < 3


async def test_who_is_asked_to_wait_for_too_long_hears_it_at_once(api) -> None:
    api.answers = [lambda _: api.failure(429, "rate_limit_exceeded", **{"Retry-After": "3600"})]
    async with embedder(api) as model:
        with pytest.raises(errors.ModelLimitError) as caught:
            await model.embed(["a"])
    assert caught.value.retryable
    assert caught.value.retry_after == 3600
    assert len(api.requests) == 1


async def test_an_empty_account_is_not_asked_again(api) -> None:
    api.answers = [lambda _: api.failure(429, "insufficient_quota")] * 2
    async with embedder(api) as model:
        with pytest.raises(errors.ModelLimitError, match="nothing left") as caught:
            await model.embed(["a"])
    assert not caught.value.retryable
    assert len(api.requests) == 1


async def test_failures_are_tried_again_and_then_raised(api) -> None:
    api.answers = [lambda _: api.failure(500)] * 2
    async with embedder(api, max_retries=2) as model:
        await model.embed(["a"])
        api.answers = [lambda _: api.failure(502)] * 3
        with pytest.raises(errors.ModelUnavailableError, match="HTTP 502") as caught:
            await model.embed(["b"])
    assert caught.value.retryable
    assert len(api.requests) == 6


async def test_a_server_that_is_away_or_slow_is_unavailable(api) -> None:
    nobody = OpenAIEmbedder("m", dimensions=8, base_url="http://127.0.0.1:9/v1", max_retries=1)
    with pytest.raises(errors.ModelUnavailableError, match="connection"):
        await nobody.embed(["a"])
    await nobody.aclose()
    api.slow = 2
    async with embedder(api, timeout=0.3, max_retries=1) as model:
        with pytest.raises(errors.ModelUnavailableError, match="in time"):
            await model.embed(["a"])
        assert (model.usage.requests, model.usage.retries) == (0, 1)


async def test_a_refused_key_or_request_is_not_tried_again(api) -> None:
    async with embedder(api, api_key="sk-another") as model:
        with pytest.raises(errors.ModelAccessError, match="invalid_api_key"):
            await model.embed(["a"])
        api.answers = [lambda _: api.failure(404, "model_not_found")]
        with pytest.raises(errors.ModelRequestError, match="model_not_found"):
            await model.embed(["a"])
    assert len(api.requests) == 2


async def test_a_redirect_is_not_followed(api) -> None:
    api.answers = [lambda _: web.Response(status=307, headers={"Location": f"{api.url}/other"})]
    async with embedder(api) as model:
        with pytest.raises(errors.ModelRequestError, match="base_url"):
            await model.embed(["a"])
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "document",
    [
        {"data": []},
        {"data": [{"index": 0, "embedding": [1.0] * 8}]},
        {"data": [{"index": 0, "embedding": [1.0] * 8}] * 2},
        {"data": [{"index": place, "embedding": [1.0] * 7} for place in (0, 1)]},
        {"data": [{"index": place, "embedding": [0.0] * 8} for place in (0, 1)]},
        {"data": [{"index": place, "embedding": ["x"] * 8} for place in (0, 1)]},
        {"data": [{"index": place, "embedding": "AAAA"} for place in (0, 1)]},
        {"data": [{"index": [], "embedding": [1.0] * 8}] * 2},
        {"data": ["x", "y"]},
        {"data": None},
        ["data"],
    ],
)
async def test_what_is_not_one_vector_a_text_is_refused(api, document: object) -> None:
    api.answers = [lambda _: web.json_response(document)]
    async with embedder(api) as model:
        with pytest.raises(errors.ModelAnswerError):
            await model.embed(["a", "b"])
    assert len(api.requests) == 1


@pytest.mark.parametrize("text", ["<html>", "", '{"data": [{"index": 0, "embedding": [NaN]}]}'])
async def test_what_is_no_json_is_refused(api, text: str) -> None:
    api.answers = [lambda _: web.Response(text=text)]
    async with embedder(api) as model:
        with pytest.raises(errors.ModelAnswerError):
            await model.embed(["a"])


async def test_one_failed_batch_ends_the_others(api) -> None:
    api.slow = 0.02
    api.answers = [lambda _: api.failure(400)]
    async with embedder(api, batch_size=1) as model:
        with pytest.raises(errors.ModelRequestError):
            await model.embed([f"text {number}" for number in range(50)])
        asked = len(api.requests)
        await asyncio.sleep(0.1)
    assert len(api.requests) == asked < 50


async def test_errors_show_neither_the_key_nor_what_was_sent(api) -> None:
    api.answers = [lambda _: api.failure(400, "no secret sentence")]
    async with embedder(api) as model:
        with pytest.raises(errors.ModelRequestError) as caught:
            await model.embed(["a secret sentence"])
    assert "secret" not in str(caught.value)
    assert api.key not in f"{caught.value!r} {model!r} {vars(model)}"


async def test_usage_is_counted(api) -> None:
    async with embedder(api, batch_size=2) as model:
        await model.embed(["one two", "three", "four five six"])
        assert (model.usage.requests, model.usage.input_tokens) == (2, 6)
        assert model.usage.output_tokens == 0


async def test_a_calibration_is_measured_once_or_given(api) -> None:
    async with embedder(api) as model:
        measured = await model.calibration()
        assert await model.calibration() is measured
    assert sum(len(request["input"]) for request in api.requests) == 72
    given = Calibration(unrelated=(0.0, 0.5))
    assert await embedder(api, calibration=given).calibration() is given


async def test_the_environment_names_server_and_key(api, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIEmbedder()
    monkeypatch.setenv("OPENAI_API_KEY", api.key)
    assert OpenAIEmbedder().dimensions == 1536
    monkeypatch.setenv("OPENAI_BASE_URL", api.url)
    async with OpenAIEmbedder("some-model", dimensions=8) as model:
        await model.embed(["a"])
    assert len(api.requests) == 1


def test_arguments_that_cannot_be_are_refused() -> None:
    for model, options in [
        ("unknown", {}),
        ("text-embedding-3-small", {"dimensions": 2000}),
        ("text-embedding-ada-002", {"dimensions": 512}),
        ("text-embedding-3-small", {"batch_size": 0}),
        ("text-embedding-3-small", {"base_url": "api.example.org"}),
        ("text-embedding-3-small", {"base_url": "http://localhost:port/v1"}),
        ("text-embedding-3-small", {"base_url": "http://[::1/v1"}),
        ("text-embedding-3-small", {"timeout": 0}),
    ]:
        with pytest.raises(errors.ConfigurationError):
            OpenAIEmbedder(model, api_key="sk", **options)


def test_one_object_works_in_one_loop_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(model: OpenAIEmbedder) -> None:
        with pytest.raises(errors.ModelUnavailableError):
            await model.embed(["a"])
        await model.aclose()

    model = OpenAIEmbedder("m", dimensions=8, base_url="http://127.0.0.1:9/v1", max_retries=0)
    for _ in range(2):
        asyncio.run(ask(model))
