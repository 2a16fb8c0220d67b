"""Answers from an OpenAI-compatible API."""

from __future__ import annotations

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


async def test_it_is_asked_again_as_an_embedder_is(api) -> None:
    api.answers = [lambda _: api.failure(503), lambda _: api.failure(429)]
    async with chat(api) as model:
        assert await model.complete("a") == "Fine."
        assert model.usage.retries == 2
        api.answers = [lambda _: api.failure(400, "context_length_exceeded")]
        with pytest.raises(errors.ModelRequestError, match="context_length_exceeded"):
            await model.complete("a")
