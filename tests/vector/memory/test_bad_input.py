"""What cannot be stored is refused with its own error, and nothing of it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from haive.core.persistence import PersistenceConfig, PostgresStore, errors
from haive.core.persistence._model_api import ModelUsage
from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.models import Conversation, ConversationMetadata, Message, MessageRole
from haive.core.persistence.vector import IndexType, MemoryConfig, VectorMemory
from haive.core.persistence.vector.records import Collection

TALK = [{"role": "user", "content": f"Message number {n} about boats."} for n in range(5)]


class Broken(HashingEmbedder):
    """Vectors as they should not be."""

    def __init__(self, fault: str) -> None:
        super().__init__(64)
        self._fault = fault

    async def embed(self, texts: Any) -> Any:
        found = np.array(await super().embed(texts))
        match self._fault:
            case "wide":
                return np.concatenate([found, found], axis=1)
            case "few":
                return found[1:]
            case "nan":
                found[-1, 0] = np.nan
            case "infinite":
                found[0, 1] = np.inf
        return found


@pytest.mark.parametrize("fault", ["wide", "few", "nan", "infinite"])
async def test_vectors_that_are_none_are_refused_as_a_whole(make, fault: str) -> None:
    memory = make(embedder=Broken(fault))
    for write in (
        memory.store_conversation(TALK, generate_summary=False),
        memory.add_many(["One note.", "Another one."]),
    ):
        with pytest.raises(errors.ModelAnswerError, match="hashing-1-64"):
            await write
    assert (await memory.stats()).total == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", errors.InvalidInputError),
        (" \n\t", errors.InvalidInputError),
        (5, errors.InvalidInputError),
        ("a\x00b", errors.InvalidInputError),
        ("half \ud800", errors.InvalidInputError),
        ("x" * 10_000_000, errors.ContentTooLargeError),
    ],
)
async def test_texts_that_are_none_are_refused(memory: VectorMemory, text, error) -> None:
    with pytest.raises(error):
        await memory.add_many(["A good one.", text])
    if isinstance(text, str) and text.strip():
        with pytest.raises(error):
            await memory.store_conversation([*TALK, {"role": "user", "content": text}])
    assert (await memory.stats()).total == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"metadata": {"score": float("nan")}},
        {"metadata": {"thing": object()}},
        {"metadata": {"importance": 2}},
        {"metadata": {"timestamp": "soon"}},
        {"metadata": {"text": "mine"}},
        {"metadata": [1]},
        {"importance": -0.1},
        {"ttl": 0},
        {"ttl": "long"},
        {"id": "not one"},
    ],
)
async def test_metadata_that_is_none_is_refused(memory: VectorMemory, wrong) -> None:
    with pytest.raises(errors.InvalidInputError):
        await memory.add("A good text.", **wrong)
    assert (await memory.stats()).total == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: m.search(None), "The query is a NoneType"),
        (lambda m: m.search("x", top_k=2.5), "top_k is a whole number from 1 to 1,000"),
        (lambda m: m.reembed(5), "into is the VectorMemory to fill"),
        (lambda m: m.search("x", as_of="2026-01-01"), "as_of is a str, not a datetime"),
        (
            lambda m: m.get_episodic_memories(None, "x", "much"),
            "temporal_weight is a number",
        ),
        (lambda m: m.get_episodic_memories(None, "x", 0.3, 2.5), "max_episodes is a whole number"),
        (lambda m: m.get_episodic_memories(None, 5), "The query is a int"),
        (lambda m: m.consolidate_memories("7d"), "time_window is a str, not a timedelta"),
        (lambda m: m.consolidate_memories(timedelta(0)), "time_window is more than nothing"),
        (lambda m: m.consolidate_memories(similarity_threshold="x"), "similarity_threshold is a"),
        (lambda m: m.consolidate_memories(similarity_threshold=0), "over 0 and up to 1"),
        (lambda m: m.consolidate_memories(until="now"), "until is a str"),
        (lambda m: m.forget(ids=5), "ids is a int"),
        (lambda m: m.forget(ids=[5]), "ids is a int"),
        (lambda m: m.forget(["a\x00"]), "ids contains a NUL"),
        (lambda m: m.get(None), "id is a NoneType"),
        (lambda m: m.get("\x00"), "id contains a NUL"),
        (lambda m: m.history(5), "id is a int"),
        (lambda m: m.update("\x00", text="a"), "id contains a NUL"),
        (lambda m: m.add("y", supersedes=5), "supersedes is a int"),
        (lambda m: m.add_many("abc"), "texts is a str, not a list of texts"),
        (lambda m: m.store_conversation(["x"], {"conversation_id": "a\x00b"}), "contains a NUL"),
        (
            lambda m: m.add("x", {"valid_from": "2026-02-01", "valid_to": "2026-01-01"}),
            "valid_to is before valid_from",
        ),
    ],
)
async def test_an_argument_that_is_none_is_refused_by_its_name(memory, call, says: str) -> None:
    with pytest.raises(errors.InvalidInputError, match=says):
        await call(memory)
    assert (await memory.stats()).total == 0


async def test_an_end_that_is_no_time_is_refused(memory: VectorMemory) -> None:
    made = await memory.add("The boat is red.")
    with pytest.raises(errors.InvalidInputError, match="valid_to is a str"):
        await memory.update(made, valid_to="2026-01-01")


async def test_an_id_is_taken_by_one_text(memory: VectorMemory) -> None:
    taken = "0190a5c0-0000-7000-8000-000000000001"
    assert await memory.add("The boat is red.", id=taken) == taken
    assert await memory.add("The boat is red.", id=taken) == taken
    with pytest.raises(errors.ConflictError):
        await memory.add("The tea is hot.", id=taken)


async def test_another_width_or_model_or_metric_is_refused(make) -> None:
    await make(embedder=HashingEmbedder(64)).add("The boat is red.")
    for other in (
        {"embedder": HashingEmbedder(128)},
        {"embedding_strategy": "none"},
        {"embedder": HashingEmbedder(64), "metric": "l2"},
    ):
        with pytest.raises(errors.CollectionMismatchError):
            await make(**other).add("The boat is blue.")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"metric": "manhattan"}, "metric"),
        ({"index_type": "tree"}, "index_type"),
        ({"embedding_strategy": "magic"}, "embedding_strategy"),
        ({"embedding_model": "nobodys-model"}, "dimensions"),
        ({"embedder": HashingEmbedder(64), "embedding_dimensions": 65}, "64"),
        ({"embedder": HashingEmbedder(64), "embedding_model": "x"}, "embedder"),
        ({"embedding_strategy": "none", "embedding_dimensions": 3}, "no width"),
        ({"embedding_strategy": "local", "embedding_model": "x"}, "local"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, says, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up")
    with pytest.raises(errors.ConfigurationError, match=says):
        VectorMemory("qdrant", MemoryConfig(**settings))


def test_a_missing_key_says_its_variable_and_a_missing_extra_what_to_install(monkeypatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(errors.ConfigurationError, match="OPENAI_API_KEY"):
        VectorMemory("qdrant", MemoryConfig(embedding_model="text-embedding-3-large"))
    monkeypatch.setattr("haive.core.persistence.embedding.minilm.find_spec", lambda _: None)
    with pytest.raises(errors.ConfigurationError, match=r"haive-persistence\[embeddings\]"):
        VectorMemory("qdrant", MemoryConfig(embedding_strategy="local"))
    with pytest.raises(errors.ConfigurationError, match="pgvector, qdrant"):
        VectorMemory("chroma", MemoryConfig())


async def test_a_tenant_or_vector_store_that_is_not_the_backends_is_refused(make) -> None:
    backend = make()._backend
    settings = MemoryConfig(index_name="other-tenant", embedding_strategy="none")
    own = await backend.tenant()
    with pytest.raises(errors.ConfigurationError, match="tenant= is another"):
        await VectorMemory(config=settings, backend=backend, tenant=f"not-{own}").stats()
    assert (await VectorMemory(config=settings, backend=backend, tenant=own).stats()).total == 0
    with pytest.raises(errors.ConfigurationError, match=f"which is {backend.name}"):
        VectorMemory("pinecone", settings, backend=backend)
    assert (await VectorMemory(backend.name, settings, backend=backend).stats()).total == 0


async def test_a_tenant_that_is_not_the_stores_is_refused(stack) -> None:
    config = PersistenceConfig(connection_string=stack.database_url, pool_size=1)
    settings = MemoryConfig(index_name="other-tenant", embedding_strategy="none")
    async with PostgresStore(config) as store:
        with pytest.raises(errors.ConfigurationError, match="tenant= is another"):
            await VectorMemory(config=settings, store=store, tenant="acme").add("The boat is red.")


@pytest.mark.parametrize(
    "what",
    [
        {"speaker": "Anna"},
        {"role": "user"},
        {"valid_from": "2026-01-01"},
        {"valid_to": "2026-01-01"},
    ],
    ids=str,
)
async def test_what_only_messages_say_is_refused_of_a_conversation(
    memory: VectorMemory, what
) -> None:
    with pytest.raises(errors.InvalidInputError, match="not of a whole conversation"):
        await memory.store_conversation(TALK, what)
    assert (await memory.stats()).total == 0


async def test_a_conversation_is_not_stored_under_another_id(memory: VectorMemory) -> None:
    now = memory._clock()
    message = Message(
        id=uuid4(), conversation_id=uuid4(), seq=1, role=MessageRole.USER, content="A boat.",
        metadata={}, created_at=now,
    )  # fmt: skip
    stored = Conversation(
        id=message.conversation_id, tenant_id="t", agent_id="a", user_id=None,
        metadata=ConversationMetadata(), message_count=1, input_tokens=0, output_tokens=0,
        cost=Decimal(0), created_at=now, updated_at=now, last_message_at=now, messages=[message],
    )  # fmt: skip
    with pytest.raises(errors.InvalidInputError, match="another conversation_id"):
        await memory.store_conversation(stored, {"conversation_id": "mine"})
    await memory.store_conversation(stored, {"conversation_id": str(stored.id)})


async def test_without_a_database_named_its_variable_is(monkeypatch) -> None:
    keys = ("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY")
    for name in ("DATABASE_URL", "SUPABASE_URL", *keys, "QDRANT_URL"):
        monkeypatch.delenv(name, raising=False)
    config = MemoryConfig(embedding_strategy="none", index_type=IndexType.HNSW)
    with pytest.raises(errors.ConfigurationError, match="DATABASE_URL"):
        await VectorMemory(config=config).add("The boat is red.")
    with pytest.raises(errors.ConfigurationError, match="QDRANT_URL"):
        await VectorMemory("qdrant", config).add("The boat is red.")
    # What web pages have: without a user's token it opens nothing.
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SUPABASE_ANON_KEY", "anon")
    with pytest.raises(errors.ConfigurationError, match="SUPABASE_SECRET_KEY"):
        await VectorMemory(config=config).add("The boat is red.")


class Provider:
    """An embeddings API that answers as it is told to."""

    def __init__(self) -> None:
        self.fault: str | None = None

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        texts = (await request.json())["input"]
        data = [{"index": n, "embedding": [1.0, float(n), 0.5, 1.0]} for n in range(len(texts))]
        match self.fault:
            case "busy":
                return web.json_response({}, status=429)
            case "down":
                return web.json_response({}, status=500)
            case "garbage":
                return web.Response(text="<html>")
            case "few":
                data = data[1:]
            case "narrow":
                data = [{**each, "embedding": [1.0, 2.0]} for each in data]
            case "nan":
                return web.Response(
                    text='{"data": [{"index": 0, "embedding": [NaN, 1, 1, 1]}]}',
                    content_type="application/json",
                )
        return web.json_response({"data": data, "usage": {"prompt_tokens": 1}})


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    monkeypatch.setattr("haive.core.persistence._model_api._FIRST_DELAY", 0.001)
    found = Provider()
    app = web.Application()
    app.router.add_post("/v1/embeddings", found.embeddings)
    async with TestServer(app) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up")
        monkeypatch.setenv("OPENAI_BASE_URL", str(server.make_url("/v1")))
        yield found


async def test_what_is_used_of_an_api_is_told_with_its_cost(make, provider) -> None:
    assert make().usage == {}
    memory = make(embedding_model="any-model", embedding_dimensions=4)
    assert memory.usage["embedder"].requests == 0
    await memory.store_conversation(TALK)
    used = memory.usage["embedder"]
    assert (used.requests, used.input_tokens) == (1, 1)
    assert memory.usage.keys() == {"embedder"}
    assert used.cost(0.02) == pytest.approx(0.02e-6)
    assert ModelUsage(input_tokens=2_000_000, output_tokens=500_000).cost(3, 8) == 10


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("busy", errors.ModelLimitError),
        ("down", errors.ModelUnavailableError),
        ("garbage", errors.ModelAnswerError),
        ("few", errors.ModelAnswerError),
        ("narrow", errors.ModelAnswerError),
        ("nan", errors.ModelAnswerError),
    ],
)
async def test_what_a_provider_does_wrong_stores_nothing(make, provider, fault, error) -> None:
    memory = make(embedding_model="any-model", embedding_dimensions=4)
    provider.fault = fault
    with pytest.raises(error):
        await memory.store_conversation(TALK)
    with pytest.raises(error):
        await memory.add("The boat is red.")
    assert (await memory.stats()).total == 0
    provider.fault = None
    whole = await memory.get(await memory.store_conversation(TALK))
    assert len(whole.sources) == len(TALK)
    provider.fault = fault
    with pytest.raises(error):
        await memory.update(whole.sources[0], text="Another text.")
    with pytest.raises(error):
        await memory.search("boats")
    assert (await memory.get(whole.sources[0])).text == TALK[0]["content"]


class Unopenable:
    """A backend whose collection cannot be opened."""

    name = "qdrant"

    def __init__(self, fault: BaseException) -> None:
        self._fault = fault
        self.closed = 0

    async def tenant(self) -> str:
        return "default"

    async def open(self, collection: Collection) -> Collection:
        raise self._fault

    async def aclose(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("fault", [errors.ConfigurationError("no"), asyncio.CancelledError()])
@pytest.mark.parametrize("given", [True, False])
async def test_what_cannot_be_opened_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, fault: BaseException, given: bool
) -> None:
    backend = Unopenable(fault)

    async def made(*_: object, **__: object) -> Unopenable:
        return backend

    monkeypatch.setattr("haive.core.persistence.vector._opened.backend_of", made)
    with pytest.raises(type(fault)):
        async with VectorMemory("qdrant", backend=backend if given else None):
            raise AssertionError
    # What was given stays open.
    assert backend.closed == (not given)
