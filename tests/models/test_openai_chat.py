"""Answers from an OpenAI-compatible API."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from haive.core.persistence import errors
from haive.core.persistence.language import ChatModel, OpenAIChat


def chat(api, **options: object) -> OpenAIChat:
    given: dict[str, object] = {"base_url": api.url, "api_key": api.key, **options}
    return OpenAIChat("some-model", **given)


async def test_a_prompt_is_answered_and_what_it_took_is_counted(api) -> None:
    async with chat(api, options={"temperature": 0}) as model:
        assert isinstance(model, ChatModel)
        assert await model.complete("How are you?", system="Be brief.", max_tokens=7) == "Fine."
        assert (model.usage.input_tokens, model.usage.output_tokens) == (20, 5)
    assert model.name == "some-model"
    assert api.requests == [
        {
            "model": "some-model",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "How are you?"},
            ],
            "max_tokens": 7,
            "temperature": 0,
        }
    ]


async def test_an_answer_without_a_text_is_refused(api) -> None:
    api.answers = [
        lambda _: api.said(None, "length"),
        lambda _: api.said("  "),
        lambda _: web.json_response({"choices": []}),
        lambda _: web.json_response({"choices": [{"message": "text"}]}),
        lambda _: web.json_response({"error": "none"}),
    ]
    async with chat(api) as model:
        with pytest.raises(errors.ModelAnswerError, match="out of tokens"):
            await model.complete("a")
        for _ in range(4):
            with pytest.raises(errors.ModelAnswerError):
                await model.complete("a")


async def test_half_an_answer_is_refused(api) -> None:
    api.answers = [lambda _: api.said("Anna moved the data", "length")]
    async with chat(api) as model:
        with pytest.raises(errors.ModelAnswerError, match="out of tokens"):
            await model.complete("a")
        assert model.usage.output_tokens == 5


@pytest.mark.parametrize(
    ("url", "limit"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://API.openai.com/v1/", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://api.openai.com.example.org/v1", "max_tokens"),
        ("https://notapi.openai.com/v1", "max_tokens"),
    ],
)
async def test_the_limit_has_the_name_that_the_server_knows(
    api, monkeypatch: pytest.MonkeyPatch, url: str, limit: str
) -> None:
    sent = await _sent(monkeypatch, chat(api, base_url=url))
    assert {name: sent[name] for name in sent if "tokens" in name} == {limit: 512}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_among_the_options_is_the_one(
    api, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for url in (api.url, "https://api.openai.com/v1"):
        sent = await _sent(monkeypatch, chat(api, base_url=url, options={name: 4096}))
        assert {key: sent[key] for key in sent if "tokens" in key} == {name: 4096}


async def _sent(monkeypatch: pytest.MonkeyPatch, model: OpenAIChat) -> dict[str, Any]:
    """What a model sends, which no server hears."""
    bodies: list[dict[str, Any]] = []

    async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        bodies.append(body)
        return {"choices": [{"message": {"content": "Fine."}}]}

    monkeypatch.setattr(model, "post", post)
    await model.complete("a")
    return bodies[0]


@pytest.mark.parametrize("key", ["sk-made-up\n", "sk-m\u0430de-up", "sk made up", "\x7f"])
def test_a_key_that_no_header_takes_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match="api_key") as caught:
        OpenAIChat("m", api_key=key)
    assert key not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(errors.ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIChat("m")


async def test_a_damaged_answer_is_refused(api) -> None:
    gzip = {"Content-Encoding": "gzip"}
    api.answers = [lambda _: web.Response(body=b"no gzip at all", headers=gzip)]
    async with chat(api) as model:
        with pytest.raises(errors.ModelAnswerError, match="DecodingError"):
            await model.complete("a")
    assert len(api.requests) == 1


@pytest.mark.parametrize("prompt", ["half of a pair: \ud83d", b"bytes"])
async def test_what_is_no_json_is_not_sent(api, prompt: str) -> None:
    async with chat(api) as model:
        with pytest.raises(errors.ModelRequestError, match="JSON") as caught:
            await model.complete(prompt)
    assert "half" not in str(caught.value)
    assert not api.requests


async def test_it_is_asked_again_as_an_embedder_is(api) -> None:
    api.answers = [lambda _: api.failure(503), lambda _: api.failure(429)]
    async with chat(api) as model:
        assert await model.complete("a") == "Fine."
        assert model.usage.retries == 2
        api.answers = [lambda _: api.failure(400, "context_length_exceeded")]
        with pytest.raises(errors.ModelRequestError, match="context_length_exceeded"):
            await model.complete("a")
