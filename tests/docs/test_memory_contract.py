"""The documented snippet of memory runs as written, with each vector database.

Pinecone and Weaviate are asked by their own clients, and servers written from their descriptions
answer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from backends.fakes import pinecone, weaviate

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.vector import MemoryKind

SNIPPET = Path(__file__).parent / "contract" / "memory.py"
# datetime.utcnow() is deprecated from Python 3.12 on; the documentation uses it.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
SAID = [
    ("user", "How does the persistence layer handle state?"),
    ("assistant", "The persistence layer keeps state in PostgreSQL, as checkpoints of each agent."),
    ("user", "And who reads the state when an agent starts again?"),
    ("assistant", "The checkpointer restores the last state from Supabase."),
]


async def _embeddings(request: web.Request) -> web.Response:
    """Vectors of texts: the sum of those of their words, so that likeness means something."""
    body = await request.json()
    assert body["model"] == "text-embedding-3-large"

    def vector(text: str) -> list[float]:
        words = "".join(sign if sign.isalnum() else " " for sign in text.lower()).split()
        seeds = [hashlib.sha256(word.encode()).digest() for word in words or ["-"]]
        return sum(
            np.random.default_rng(int.from_bytes(seed[:8], "big")).standard_normal(3072)
            for seed in seeds
        ).tolist()

    data = [{"index": n, "embedding": vector(text)} for n, text in enumerate(body["input"])]
    return web.json_response({"data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}})


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/embeddings", _embeddings)
    async with TestServer(app) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up")
        monkeypatch.setenv("OPENAI_BASE_URL", str(server.make_url("/v1")))
        yield


@pytest.fixture(params=["pgvector", "qdrant", "pinecone", "weaviate"])
async def vector_store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """A vector database, found by what is set in the environment."""
    for name in ("PINECONE_API_KEY", "QDRANT_API_KEY", "WEAVIATE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    async with AsyncExitStack() as running:
        if request.param == "qdrant":
            monkeypatch.setenv("QDRANT_URL", ":memory:")
        elif request.param == "pinecone":
            service = pinecone.FakePinecone()
            await running.enter_async_context(service.server)
            monkeypatch.setenv("PINECONE_CONTROLLER_HOST", service.url)
            monkeypatch.setenv("PINECONE_API_KEY", pinecone.KEY)
        elif request.param == "weaviate":
            other = weaviate.FakeWeaviate()
            await other.start()
            running.push_async_callback(other.stop)
            monkeypatch.setenv("WEAVIATE_URL", other.url)
            monkeypatch.setenv("WEAVIATE_GRPC_PORT", str(other.grpc_port))
            monkeypatch.setenv("WEAVIATE_API_KEY", weaviate.KEY)
        yield request.param


async def test_the_memory_snippet_stores_finds_consolidates_and_tells_episodes(
    environment: None, provider: None, vector_store: str, run
) -> None:
    async with PostgresStore(PersistenceConfig()) as store:
        conversation = await store.create_conversation("assistant", user_id="user-123")
        for role, text in SAID:
            await store.add_message(conversation.id, role, text)
        # A collection of the test's own: other widths of this name may be there.
        source = SNIPPET.read_text().replace('"pinecone"', f'"{vector_store}"', 1)
        source = source.replace("haive-memories", f"m{uuid4().hex[:12]}")
        names = await run(
            source,
            {
                "os": os, "datetime": datetime, "timedelta": timedelta,
                "conversation": conversation,
            },
        )  # fmt: skip
    memory = names["vector_memory"]
    try:
        stats = await memory.stats()
        assert (stats.backend, stats.dimensions) == (vector_store, 3072)
        assert stats.model == "text-embedding-3-large-3072"
        assert stats.collection.endswith("-production")
        whole = await memory.get(names["memory_id"])
        assert (whole.kind, whole.importance) == (MemoryKind.SUMMARY, 0.9)
        assert whole.metadata["entities"] == ["PostgreSQL", "Supabase"]
        assert [(await memory.get(each)).text for each in whole.sources] == [t for _, t in SAID]
        hits = names["relevant_memories"]
        assert 4 <= len(hits) <= 10
        assert "persistence layer" in hits[0].text
        assert all(hit.metadata["topics"] == ["architecture", "persistence"] for hit in hits)
        since = datetime.now(UTC) - timedelta(days=30)
        assert all(hit.memory.timestamp >= since for hit in hits)
        assert names["consolidated"].plan.considered == 4
        [episode] = names["episodes"]
        assert [turn.text for turn in episode.turns] == [text for _, text in SAID]
        assert episode.conversation_id == str(conversation.id)
    finally:
        await memory.aclose()
