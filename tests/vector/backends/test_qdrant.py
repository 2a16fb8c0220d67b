"""What is Qdrant's own: where it is, what it has not, and what it refuses."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from backends.fakes.qdrant import StrictQdrant
from making import collection, record, unit
from qdrant_client import AsyncQdrantClient
from qdrant_client.models import PointStruct

from haive.core.persistence.errors import (
    AccessDeniedError,
    CollectionMismatchError,
    ConfigurationError,
    DatabaseError,
    UnavailableError,
)
from haive.core.persistence.vector.backends._fusing import described
from haive.core.persistence.vector.backends._narrowing import COMPARED
from haive.core.persistence.vector.backends.qdrant import QdrantBackend
from haive.core.persistence.vector.config import IndexType
from haive.core.persistence.vector.filters import parse


async def test_a_folder_keeps_memories(tmp_path: Path) -> None:
    kept = record("kept")
    for _ in range(2):
        backend = QdrantBackend(path=str(tmp_path))
        await backend.open(collection())
        await backend.put([kept])
        await backend.aclose()
    backend = QdrantBackend(path=str(tmp_path))
    await backend.open(collection())
    assert await backend.count(None) == 1
    await backend.aclose()


async def test_a_collection_that_has_not_all_indexes_gets_those_that_it_lacks() -> None:
    """Its maker may have been killed, or have been of an earlier version."""
    client = StrictQdrant()
    await QdrantBackend(client=client).open(collection())
    made = dict(client.indexes)
    assert {"tenant", "terms"} < made.keys()
    client.indexes.popitem()
    again = QdrantBackend(client=client)
    assert await again.open(collection()) == collection()
    assert client.indexes == made
    await again.put([record("a", importance=0.5)])
    assert await again.count(parse({"importance": {"$gt": 0.1}})) == 1
    await client.close()


async def test_a_collection_that_says_in_a_point_what_it_is_says_it_in_its_metadata() -> None:
    client = StrictQdrant()
    await client.create_collection("memories", {})
    facts = described(collection())
    point = PointStruct(id=str(UUID(int=0)), vector={}, payload={"collection": facts})
    await client.upsert("memories", [point])
    assert await QdrantBackend(client=client).open(collection()) == collection()
    assert (await client.get_collection("memories")).config.metadata == {"haive": facts}
    await client.close()


async def test_what_is_large_is_sent_in_requests_that_a_server_takes() -> None:
    client = StrictQdrant()
    backend = QdrantBackend(client=client)
    await backend.open(collection(dimensions=3072))
    await backend.put([replace(record("word " * 600), vector=unit(n, 3072)) for n in range(500)])
    assert await backend.count(None) == 500
    assert max(client.writes) < 9 * 1024 * 1024
    await client.close()


async def test_a_client_that_was_given_is_not_closed() -> None:
    client = AsyncQdrantClient(":memory:")
    backend = QdrantBackend(client=client)
    await backend.open(collection())
    await backend.aclose()
    with pytest.raises(ConfigurationError, match="not open"):
        await backend.count(None)
    assert await client.collection_exists("memories")
    await client.close()


def test_without_a_url_the_setting_and_its_variable_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("QDRANT_URL", raising=False)
    with pytest.raises(ConfigurationError, match=r"Pass url, or set QDRANT_URL\."):
        QdrantBackend()


@pytest.mark.parametrize("missing", ["qdrant_client", "snowballstemmer"])
def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'haive-persistence\[qdrant\]'"):
        QdrantBackend(location=":memory:")


async def test_an_index_that_qdrant_has_not_is_refused() -> None:
    backend = QdrantBackend(location=":memory:")
    with pytest.raises(ConfigurationError, match="hnsw, flat or binary"):
        await backend.open(collection(index_type=IndexType.IVFFLAT))


async def test_a_collection_of_somebody_else_is_left_alone() -> None:
    client = StrictQdrant()
    await client.create_collection("memories", {})
    with pytest.raises(CollectionMismatchError, match="not one of ours"):
        await QdrantBackend(client=client).open(collection())
    assert client.indexes == {}
    await client.close()


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "2"}, {"Retry-After": "soon"}])
@pytest.mark.parametrize(
    ("status", "error"),
    [(401, AccessDeniedError), (403, AccessDeniedError), (429, UnavailableError),
     (503, UnavailableError), (400, DatabaseError)],
)  # fmt: skip
async def test_errors_of_the_server_are_told_apart(
    status: int, error: type[Exception], headers: dict[str, str]
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        body = {"status": {"error": "quotes a secret"}}
        return web.json_response(body, status=status, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    async with TestServer(app) as server:
        backend = QdrantBackend(url=str(server.make_url("/")))
        with pytest.raises(error) as caught:
            await backend.open(collection())
        assert "secret" not in str(caught.value)
        await backend.aclose()


async def test_a_server_that_is_not_there_may_be_tried_again(unused_tcp_port: int) -> None:
    backend = QdrantBackend(url=f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(UnavailableError):
        await backend.open(collection())
    await backend.aclose()


async def test_what_a_server_is_asked_for_a_binary_collection() -> None:
    """The requests themselves: the local mode has neither indexes nor their parameters."""
    asked: list[tuple[str, str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        asked.append((request.method, request.path, body))
        result: Any = True
        if request.path.endswith("/exists"):
            result = {"exists": False}
        elif request.path.endswith("/points/count"):
            result = {"count": 5_000}
        elif request.path.endswith("/points/query"):
            result = {"points": []}
        elif request.path.endswith("/points/scroll"):
            result = {"points": [], "next_page_offset": None}
        elif (request.method, request.path) == ("GET", "/collections/memories"):
            (made,) = (body for method, _, body in asked if method == "PUT")
            result = {
                "status": "green", "optimizer_status": "ok", "segments_count": 1,
                "payload_schema": {"terms": {"data_type": "keyword", "points": 0}},
                "config": {
                    "params": {}, "metadata": made["metadata"],
                    "hnsw_config": {
                        "m": 16, "ef_construct": 100, "full_scan_threshold": 10_000,
                    },
                    "optimizer_config": {
                        "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000,
                        "default_segment_number": 0, "flush_interval_sec": 5,
                    },
                },
            }  # fmt: skip
        elif request.path.endswith("/index"):
            result = {"operation_id": 1, "status": "completed"}
        return web.json_response({"result": result, "status": "ok", "time": 0.001})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        backend = QdrantBackend(url=str(server.make_url("/")), tenant="acme")
        wanted = collection(index_type=IndexType.BINARY, m=24, ef_construction=99)
        assert await backend.open(wanted) == wanted
        (made,) = (
            body
            for method, path, body in asked
            if (method, path) == ("PUT", "/collections/memories")
        )
        vectors = made["vectors"]["memory"]
        assert (vectors["size"], vectors["distance"]) == (8, "Cosine")
        assert vectors["hnsw_config"] == {"m": 24, "ef_construct": 99}
        assert vectors["quantization_config"] == {"binary": {"always_ram": True}}
        indexed = {
            body["field_name"]: body["field_schema"]
            for _, path, body in asked
            if path.endswith("/index")
        }
        assert indexed.pop("tenant") == {"type": "keyword", "is_tenant": True}
        assert indexed == {f"numbers.{key}": "float" for key in COMPARED}
        assert await backend.count(None) == 5_000
        must = asked[-1][2]["filter"]["must"]
        assert must == [{"key": "tenant", "match": {"value": "acme"}}]
        await backend.aclose()
