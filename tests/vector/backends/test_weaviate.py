"""What is Weaviate's own: where it is, its key, and what it is asked."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable
from unittest.mock import AsyncMock

import grpc
import pytest
from backends.fakes.weaviate import KEY, FakeWeaviate
from making import collection, record
from weaviate.proto.v1 import base_pb2

from haive.core.persistence.errors import (
    AccessDeniedError,
    CollectionMismatchError,
    ConfigurationError,
    DatabaseError,
    InvalidInputError,
    UnavailableError,
)
from haive.core.persistence.vector.backends import weaviate
from haive.core.persistence.vector.backends.weaviate import WeaviateBackend
from haive.core.persistence.vector.config import IndexType
from haive.core.persistence.vector.filters import parse


@pytest.fixture
async def fake() -> AsyncIterator[FakeWeaviate]:
    made = FakeWeaviate()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def backend(fake: FakeWeaviate) -> AsyncIterator[WeaviateBackend]:
    made = WeaviateBackend(tenant="acme", api_key=KEY, url=fake.url, grpc_port=fake.grpc_port)
    yield made
    await made.aclose()


def test_without_a_url_the_setting_and_its_variable_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WEAVIATE_URL", raising=False)
    with pytest.raises(ConfigurationError, match=r"Pass url, or set WEAVIATE_URL\."):
        WeaviateBackend()


@pytest.mark.parametrize("port", ["", "grpc", "0", "65536", "-1", "\u0661"])
def test_a_port_of_the_environment_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.setenv("WEAVIATE_GRPC_PORT", port)
    if not port:  # as if it were not set
        WeaviateBackend(url="http://localhost")
        return
    with pytest.raises(ConfigurationError, match="WEAVIATE_GRPC_PORT"):
        WeaviateBackend(url="http://localhost")


@pytest.mark.parametrize("missing", ["weaviate", "snowballstemmer"])
def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'haive-persistence\[weaviate\]'"):
        WeaviateBackend(url="http://localhost")


async def test_without_the_key_its_variable_is_named(
    fake: FakeWeaviate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEAVIATE_API_KEY", raising=False)
    for key in (None, "another"):
        made = WeaviateBackend(api_key=key, url=fake.url, grpc_port=fake.grpc_port)
        with pytest.raises(AccessDeniedError, match="WEAVIATE_API_KEY"):
            await made.open(collection())
        await made.aclose()


@pytest.mark.parametrize(
    ("index", "kind", "binary"),
    [
        (IndexType.HNSW, "hnsw", False),
        (IndexType.BINARY, "hnsw", True),
        (IndexType.FLAT, "flat", None),
    ],
)
async def test_indexes_are_made_as_they_are_asked_for(
    fake: FakeWeaviate, backend: WeaviateBackend, index: IndexType, kind: str, binary: bool | None
) -> None:
    await backend.open(collection(index_type=index, m=24, metric="l2"))
    made = fake.classes["Memory_memories"]
    assert made["vectorIndexType"] == kind
    config = made["vectorIndexConfig"]
    assert config["distance"] == "l2-squared"
    assert config.get("maxConnections") == (24 if kind == "hnsw" else None)
    assert config.get("bq", {}).get("enabled") is binary
    assert made["multiTenancyConfig"]["enabled"] is True
    assert set(fake.tenants["Memory_memories"]) == {"acme"}


async def test_what_weaviate_has_not_is_refused(backend: WeaviateBackend) -> None:
    with pytest.raises(ConfigurationError, match="hnsw, flat or binary"):
        await backend.open(collection(index_type=IndexType.IVFFLAT))
    with pytest.raises(InvalidInputError, match="letters, digits and hyphens"):
        await backend.open(collection(name="a_b"))


async def test_a_collection_of_somebody_else_is_left_alone(
    fake: FakeWeaviate, backend: WeaviateBackend
) -> None:
    await backend.open(collection())
    fake.classes["Memory_memories"]["description"] = "Our articles"
    other = WeaviateBackend(api_key=KEY, url=fake.url, grpc_port=fake.grpc_port)
    with pytest.raises(CollectionMismatchError, match="not one of ours"):
        await other.open(collection())
    await other.aclose()
    assert set(fake.tenants["Memory_memories"]) == {"acme"}


async def test_of_a_collection_from_before_only_what_it_declares_is_compared(
    fake: FakeWeaviate, backend: WeaviateBackend
) -> None:
    await backend.open(collection())
    properties = fake.classes["Memory_memories"]["properties"]
    properties[:] = [each for each in properties if each["name"] != "n_renewed_at"]
    later = WeaviateBackend(tenant="acme", api_key=KEY, url=fake.url, grpc_port=fake.grpc_port)
    await later.open(collection())
    await later.put([record("a", renewed_at="2026-02-01T00:00:00.000000Z"), record("b")])
    assert await later.count(parse({"renewed_at": {"$gt": "2026-01-01T00:00:00Z"}})) == 1
    await later.aclose()


async def test_no_negation_is_sent(fake: FakeWeaviate, backend: WeaviateBackend) -> None:
    await backend.open(collection())
    await backend.put([record("a", topic="tea", seq=2), record("b", topic=None, seq=1)])
    where = parse({"topic": {"$ne": "tea"}, "other": {"$exists": False}, "seq": {"$lt": 2}})
    assert await backend.count(where) == 1
    sent = {base_pb2.Filters.Operator.Name(each) for each in fake.operators}
    assert sent <= {
        "OPERATOR_AND", "OPERATOR_OR", "OPERATOR_CONTAINS_ANY", "OPERATOR_LESS_THAN",
    }  # fmt: skip
    assert "OPERATOR_LESS_THAN" in sent


async def test_pages_do_not_end_in_the_middle_of_a_millisecond(backend: WeaviateBackend) -> None:
    await backend.open(collection())
    ids = [f"01900000-0000-7000-8000-{n:012x}" for n in range(45)]
    made = record("same time")
    await backend.put([type(made)(id=each, metadata={}, vector=made.vector) for each in ids])
    seen: list[str] = []
    while page := await backend.find(None, limit=10, after=seen[-1] if seen else None):
        seen += [each.id for each in page]
    assert seen == ids


async def test_no_memory_is_lost_where_more_share_a_millisecond_than_an_answer_reaches(
    backend: WeaviateBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weaviate, "_MOST", 60)
    await backend.open(collection())
    ids = [f"00000000-0000-7000-8000-{n:012x}" for n in range(150)]
    later = "01900000-0000-7000-8000-000000000000"
    made = record("no time")
    who = {"user_id": "ann"}
    await backend.put([type(made)(id=each, metadata=who, vector=None) for each in [*ids, later]])
    for where in (None, parse(who)):
        seen: list[str] = []
        while page := await backend.find(where, limit=20, after=seen[-1] if seen else None):
            seen += [each.id for each in page]
        assert seen == [*ids, later]


async def test_a_server_that_is_not_there_may_be_tried_again(
    fake: FakeWeaviate, backend: WeaviateBackend, unused_tcp_port: int
) -> None:
    nowhere = WeaviateBackend(api_key=KEY, url=f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(UnavailableError):
        await nowhere.open(collection())
    await nowhere.aclose()
    fake.fails = [503] * 10
    with pytest.raises(UnavailableError) as caught:
        await backend.open(collection())
    assert "secret" not in str(caught.value)
    fake.fails = []
    await backend.open(collection())
    assert await backend.count(None) == 0


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, UnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, UnavailableError),
        (grpc.StatusCode.UNAUTHENTICATED, AccessDeniedError),
        (grpc.StatusCode.PERMISSION_DENIED, AccessDeniedError),
        (grpc.StatusCode.INVALID_ARGUMENT, DatabaseError),
    ],
)
async def test_errors_over_grpc_are_told_apart(
    fake: FakeWeaviate, code: grpc.StatusCode, error: type[Exception]
) -> None:
    backend = WeaviateBackend(
        tenant="acme", api_key=KEY, url=fake.url, grpc_port=fake.grpc_port, timeout=1
    )
    await backend.open(collection())
    one = record("a")
    await backend.put([one])

    async def told(call: Awaitable[object]) -> None:
        with pytest.raises(error) as caught:
            await call
        assert "secret" not in str(caught.value)

    fake.code = code
    await told(backend.get([one.id]))
    await told(backend.put([one]))
    await told(backend.count(None))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(backend, "_fetch", AsyncMock(return_value={one.id: one}))
        await told(backend.delete([one.id]))
    fake.code = None
    assert len(await backend.get([one.id])) == 1
    await backend.aclose()


async def test_what_could_not_be_removed_is_told(
    fake: FakeWeaviate, backend: WeaviateBackend
) -> None:
    await backend.open(collection())
    stays, goes = record("stays"), record("goes")
    await backend.put([stays, goes])
    fake.refused = {stays.id}
    with pytest.raises(UnavailableError, match="1 of 2"):
        await backend.delete([stays.id, goes.id])
    fake.refused = set()
    assert await backend.delete([stays.id, goes.id]) == [stays.id]


async def test_the_client_logs_no_text_of_a_memory_that_was_refused(
    fake: FakeWeaviate, backend: WeaviateBackend, caplog: pytest.LogCaptureFixture
) -> None:
    await backend.open(collection())
    bad = record("of a private talk")
    fake.refused = {bad.id}
    before = list(logging.getLogger("weaviate-client").filters)
    with pytest.raises(DatabaseError, match="1 of 2"):
        await backend.put([bad, record("b")])
    assert "private" not in caplog.text
    assert "Failed to send 1 objects in a batch of 2" in caplog.text
    assert logging.getLogger("weaviate-client").filters == before


async def test_what_is_large_is_sent_in_messages_that_a_server_takes(
    backend: WeaviateBackend,
) -> None:
    await backend.open(collection())
    await backend.put([record("x" * 200_000) for _ in range(100)])
    assert await backend.count(None) == 100
