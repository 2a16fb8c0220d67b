"""A server that answers as OpenAI's API does, and as it should not."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

KEY = "sk-made-up"
Answer = Callable[[dict[str, Any]], web.StreamResponse]


@dataclass
class Api:
    """What was asked, and what is answered: `answers` first, each once, then as it should be."""

    url: str = ""
    dimensions: int = 8
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    slow: float = 0.0
    key: str = KEY

    @staticmethod
    def vector(text: str, dimensions: int) -> list[float]:
        """A vector of a text, of any length but one."""
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        return (np.random.default_rng(seed).standard_normal(dimensions) * 3).tolist()

    @staticmethod
    def failure(status: int, code: str = "server_error", **headers: str) -> web.Response:
        """An error as OpenAI words it; its message quotes what was sent."""
        error = {"message": "You sent: a secret sentence", "type": "invalid", "code": code}
        return web.json_response({"error": error}, status=status, headers=headers)

    @staticmethod
    def said(text: str | None, finish: str = "stop") -> web.Response:
        """A chat completion."""
        message = {"role": "assistant", "content": text}
        return web.json_response(
            {
                "object": "chat.completion",
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
            }
        )

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, self._embeddings)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, self._chat)

    async def _answer(self, request: web.Request, proper: Answer) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.slow)
            if self.answers:
                return self.answers.pop(0)(body)
            if request.headers.get("Authorization") != f"Bearer {KEY}":
                return self.failure(401, "invalid_api_key")
            return proper(body)
        finally:
            self.at_once -= 1

    def _embeddings(self, body: dict[str, Any]) -> web.Response:
        texts = body["input"]
        # As OpenAI's: these are refused.
        if not texts or "" in texts or len(texts) > 2048:
            return self.failure(400, "invalid_input")
        size = body.get("dimensions", self.dimensions)
        data = [
            {"object": "embedding", "index": place, "embedding": self.vector(text, size)}
            for place, text in enumerate(texts)
        ]
        tokens = sum(len(text.split()) for text in texts)
        return web.json_response(
            {
                "object": "list",
                "data": data[::-1],  # the order is told by the index alone
                "model": body["model"],
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )

    def _chat(self, body: dict[str, Any]) -> web.Response:
        return self.said("Fine.")


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    # Pauses as they are in proportion, and short.
    monkeypatch.setattr("haive.core.persistence._model_api._FIRST_DELAY", 0.01)
    found = Api()
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/embeddings", found.embeddings)
    app.router.add_post("/v1/chat/completions", found.chat)
    async with TestServer(app) as server:
        found.url = str(server.make_url("/v1"))
        yield found
