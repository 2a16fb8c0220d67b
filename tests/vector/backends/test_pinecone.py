"""What is Pinecone's own: its bounds, its key, and what it is asked."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest
from backends.fakes.pinecone import KEY, FakePinecone
from making import collection, record

from haive.core.persistence.errors import (
    AccessDeniedError,
    CollectionMismatchError,
    ConfigurationError,
    ContentTooLargeError,
    DatabaseError,
    UnavailableError,
)
from haive.core.persistence.vector.backends.pinecone import PineconeBackend
from haive.core.persistence.vector.config import IndexType
from haive.core.persistence.vector.filters import parse


@pytest.fixture
async def fake() -> AsyncIterator[FakePinecone]:
    made = FakePinecone()
    await made.server.start_server()
    yield made
    await made.server.close()


@pytest.fixture
async def backend(fake: FakePinecone) -> AsyncIterator[PineconeBackend]:
    made = PineconeBackend(tenant="acme", api_key=KEY, url=fake.url)
    await made.open(collection(model="BAAI/bge:small"))
    yield made
    await made.aclose()


def test_without_a_key_the_setting_and_its_variable_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PINECONE_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=r"Pass api_key, or set PINECONE_API_KEY\."):
        PineconeBackend()


@pytest.mark.parametrize("missing", ["pinecone", "snowballstemmer"])
def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'haive-persistence\[pinecone\]'"):
        PineconeBackend(api_key=KEY)


async def test_too_much_metadata_is_refused_before_anything_is_stored(
    backend: PineconeBackend,
) -> None:
    await backend.put([record("é" * 19_000)])
    with pytest.raises(ContentTooLargeError, match=r"Pinecone takes 40,960"):
        await backend.put([record("small"), record("é" * 21_000)])
    assert await backend.count(None) == 1


async def test_a_tenant_is_a_namespace_and_no_negation_is_sent(
    fake: FakePinecone, backend: PineconeBackend
) -> None:
    await backend.put([record("a", topic="tea"), record("b", topic=None)])
    assert await backend.count(parse({"topic": {"$ne": "tea"}, "n": {"$not": {"$gt": 1}}})) == 1
    for path, body in fake.requests:
        if path.startswith("/data") and body is not None and "vectors/" in path:
            assert body["namespace"] == "acme"
        assert not any(op in str(body) for op in ("$ne", "$nin", "$not", "$exists"))


async def test_a_large_batch_is_sent_in_requests_that_the_service_takes(
    fake: FakePinecone, backend: PineconeBackend
) -> None:
    await backend.put([record("x" * 30_000) for _ in range(120)])
    assert await backend.count(None) == 120
    sent = [len(body["vectors"]) for path, body in fake.requests if path.endswith("upsert")]
    assert sum(sent) == 120
    assert max(sent) < 60


async def test_an_index_of_pinecones_own_is_all_there_is() -> None:
    made = PineconeBackend(api_key=KEY)
    with pytest.raises(ConfigurationError, match="Leave index_type at hnsw"):
        await made.open(collection(index_type=IndexType.FLAT))


async def test_an_index_of_somebody_else_is_left_alone(
    fake: FakePinecone, backend: PineconeBackend
) -> None:
    fake.indexes["memories"]["tags"] = None
    other = PineconeBackend(api_key=KEY, url=fake.url)
    with pytest.raises(CollectionMismatchError, match="not one of ours"):
        await other.open(collection())
    assert (await backend.find(None, limit=1)) == []


async def test_a_wrong_key_is_told(fake: FakePinecone) -> None:
    made = PineconeBackend(api_key="pcsk-other", url=fake.url)
    with pytest.raises(AccessDeniedError, match="PINECONE_API_KEY"):
        await made.open(collection())


@pytest.mark.parametrize(
    ("status", "error"), [(400, DatabaseError), (403, AccessDeniedError), (503, UnavailableError)]
)
async def test_errors_of_the_service_are_told_apart_and_not_quoted(
    fake: FakePinecone, backend: PineconeBackend, status: int, error: type[Exception]
) -> None:
    fake.fails = [status] * 10
    with pytest.raises(error) as caught:
        await backend.get([record().id])
    assert "secret" not in str(caught.value)
