"""A server that answers as Weaviate describes its API: the schema over REST, objects over gRPC."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer
from google.protobuf import json_format
from weaviate.proto.v1 import (
    aggregate_pb2,
    base_pb2,
    batch_delete_pb2,
    batch_pb2,
    properties_pb2,
    search_get_pb2,
    weaviate_pb2_grpc,
)

KEY = "weaviate-made-up"
MAX_MESSAGE = 10_000_000
_F = base_pb2.Filters


class FakeWeaviate(weaviate_pb2_grpc.WeaviateServicer):
    """Both of its ports, and what is behind them."""

    def __init__(self) -> None:
        self.classes: dict[str, dict[str, Any]] = {}
        self.tenants: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        self.fails: list[int] = []
        self.code: grpc.StatusCode | None = None
        self.refused: set[str] = set()
        self.operators: set[int] = set()
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/v1/meta", self._meta)
        app.router.add_post("/v1/schema", self._create)
        app.router.add_get("/v1/schema/{name}", self._describe)
        app.router.add_post("/v1/schema/{name}/tenants", self._add_tenants)
        app.router.add_get("/v1/schema/{name}/tenants/{tenant}", self._has_tenant)
        self.server = TestServer(app)
        self.grpc_port = 0

    async def start(self) -> None:
        await self.server.start_server()
        self._grpc = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE)])
        weaviate_pb2_grpc.add_WeaviateServicer_to_server(self, self._grpc)
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        await self._grpc.start()

    async def stop(self) -> None:
        await self._grpc.stop(None)
        await self.server.close()

    @property
    def url(self) -> str:
        return str(self.server.make_url(""))

    # REST

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.fails:
            body = {"error": [{"message": "it quotes a secret"}]}
            return web.json_response(body, status=self.fails.pop(0))
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"code": 401, "message": "anonymous"}, status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _meta(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "1.33.0", "grpcMaxMessageSize": MAX_MESSAGE})

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["class"] in self.classes:
            return _refused("class name already exists")
        # What is not given has its default in the answer.
        body["properties"] = [
            {"indexFilterable": True, "indexSearchable": False, "description": "", **each}
            for each in body["properties"]
        ]
        self.classes[body["class"]] = body
        self.tenants[body["class"]] = {}
        return web.json_response(body)

    async def _describe(self, request: web.Request) -> web.Response:
        found = self.classes.get(request.match_info["name"])
        return web.json_response(found, status=404 if found is None else 200)

    async def _add_tenants(self, request: web.Request) -> web.Response:
        tenants = self.tenants[request.match_info["name"]]
        added = await request.json()
        if any(each["name"] in tenants for each in added):
            return _refused("tenant already exists")
        for each in added:
            tenants[each["name"]] = {}
        return web.json_response(added)

    async def _has_tenant(self, request: web.Request) -> web.Response:
        there = request.match_info["tenant"] in self.tenants[request.match_info["name"]]
        return web.json_response({}, status=200 if there else 404)

    # gRPC

    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802 - as it is called
        rows = await self._rows(request, context)
        found = [(each, row, 0.0) for each, row in rows.items() if self._passes(request, row)]
        if request.HasField("near_vector"):
            near = _vector(request.near_vector)
            distance = self.classes[request.collection]["vectorIndexConfig"]["distance"]
            found = [
                (each, row, _distance(distance, near, row["vector"]))
                for each, row, _ in found
                if row["vector"] is not None
            ]
            found.sort(key=lambda one: one[2])
        for sort in reversed(request.sort_by):
            (path,) = sort.path
            found.sort(key=lambda one: one[1][path], reverse=not sort.ascending)
        if request.offset + request.limit > 10_000:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "query maximum results exceeded")
        page = found[request.offset : request.offset + request.limit]
        return search_get_pb2.SearchReply(results=[self._result(request, *one) for one in page])

    async def BatchObjects(self, request: Any, context: Any) -> Any:  # noqa: N802
        errors = []
        for index, one in enumerate(request.objects):
            rows = await self._rows(one, context)
            if one.uuid in self.refused:
                errors.append({"index": index, "error": "it quotes a secret"})
                continue
            row = json_format.MessageToDict(one.properties.non_ref_properties)
            row |= {p.prop_name: list(p.values) for p in one.properties.text_array_properties}
            vector = _vector(one) if one.vectors or one.vector_bytes or one.vector else None
            others = [other["vector"] for other in rows.values() if other["vector"] is not None]
            if vector is not None and others and others[0].shape != vector.shape:
                errors.append({"index": index, "error": "vector lengths don't match"})
                continue
            declared = {each["name"] for each in self.classes[one.collection]["properties"]}
            assert row.keys() <= declared, row.keys()
            rows[one.uuid] = {**row, "vector": vector}
        return batch_pb2.BatchObjectsReply(errors=errors)

    async def BatchDelete(self, request: Any, context: Any) -> Any:  # noqa: N802
        rows = await self._rows(request, context)
        found = [each for each, row in rows.items() if self._passes(request, row)]
        gone = [each for each in found if each not in self.refused]
        for each in gone:
            del rows[each]
        return batch_delete_pb2.BatchDeleteReply(
            matches=len(found), successful=len(gone), failed=len(found) - len(gone)
        )

    async def Aggregate(self, request: Any, context: Any) -> Any:  # noqa: N802
        rows = await self._rows(request, context)
        count = sum(self._passes(request, row) for row in rows.values())
        single = aggregate_pb2.AggregateReply.Single(objects_count=count)
        return aggregate_pb2.AggregateReply(single_result=single)

    async def _rows(self, request: Any, context: Any) -> dict[str, dict[str, Any]]:
        if self.code is not None:
            await context.abort(self.code, "it quotes a secret")
        sent = dict(context.invocation_metadata() or ())
        if sent.get("authorization") != f"Bearer {KEY}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "anonymous")
        tenants = self.tenants[request.collection]
        if request.tenant not in tenants:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "tenant not found")
        return tenants[request.tenant]

    def _passes(self, request: Any, row: dict[str, Any]) -> bool:
        return not request.HasField("filters") or self._holds(request.filters, row)

    def _holds(self, where: Any, row: dict[str, Any]) -> bool:
        self.operators.add(where.operator)
        if where.operator == _F.OPERATOR_AND:
            return all(self._holds(each, row) for each in where.filters)
        if where.operator == _F.OPERATOR_OR:
            return any(self._holds(each, row) for each in where.filters)
        found = row.get(where.target.property)
        if where.operator == _F.OPERATOR_CONTAINS_ANY:
            values = found if isinstance(found, list) else [found]
            return not set(where.value_text_array.values).isdisjoint(values)
        compared = {
            _F.OPERATOR_GREATER_THAN: lambda a, b: a > b,
            _F.OPERATOR_GREATER_THAN_EQUAL: lambda a, b: a >= b,
            _F.OPERATOR_LESS_THAN: lambda a, b: a < b,
            _F.OPERATOR_LESS_THAN_EQUAL: lambda a, b: a <= b,
        }[where.operator]
        value = where.value_text if where.HasField("value_text") else where.value_number
        return found is not None and bool(compared(found, value))

    def _result(self, request: Any, each: str, row: dict[str, Any], distance: float) -> Any:
        wanted = request.properties.non_ref_properties
        fields = {
            name: properties_pb2.Value(text_value=row[name])
            if name in row
            else properties_pb2.Value(null_value=0)
            for name in wanted
        }
        metadata = search_get_pb2.MetadataResult(
            id=each, id_as_bytes=uuid.UUID(each).bytes, distance=distance, distance_present=True
        )
        if request.metadata.vector and row["vector"] is not None:
            metadata.vector_bytes = row["vector"].astype("<f4").tobytes()
        return search_get_pb2.SearchResult(
            metadata=metadata,
            properties=search_get_pb2.PropertiesResult(
                non_ref_props=properties_pb2.Properties(fields=fields)
            ),
        )


def _refused(message: str) -> web.Response:
    return web.json_response({"error": [{"message": message}]}, status=422)


def _vector(one: Any) -> Any:
    packed = one.vectors[0].vector_bytes if one.vectors else one.vector_bytes
    return np.frombuffer(packed, "<f4") if packed else np.asarray(one.vector, np.float32)


def _distance(metric: str, near: Any, vector: Any) -> float:
    if metric == "l2-squared":
        return float(((near - vector) ** 2).sum())
    product = float(near @ vector)
    if metric == "dot":
        return -product
    return 1 - product / float(np.linalg.norm(near) * np.linalg.norm(vector))
