"""A server that answers as Pinecone describes its API (2026-07), and refuses what that refuses.

What is not described is answered in the least helpful way: rows by metadata come in no order.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer

KEY = "pcsk-made-up"
_PAIRS: dict[str, Callable[[float, float], bool]] = {
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
}


class Refused(Exception):  # noqa: N818 - no error of ours
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakePinecone:
    """Control plane and data plane at one address; an index has a path of its own there."""

    def __init__(self) -> None:
        self.indexes: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        self.fails: list[int] = []
        #: How often what is new is not found by its id before it is, and what was is found instead.
        self.lag = 0
        self.unseen: dict[str, int] = {}
        self.before: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, Any]] = []
        app = web.Application(middlewares=[self._guard], client_max_size=2 * 1024 * 1024)
        app.router.add_get("/indexes/{name}", self._describe)
        app.router.add_post("/indexes", self._create)
        app.router.add_post("/data/{name}/vectors/upsert", self._upsert)
        app.router.add_get("/data/{name}/vectors/fetch", self._fetch)
        app.router.add_post("/data/{name}/vectors/fetch_by_metadata", self._by_metadata)
        app.router.add_post("/data/{name}/vectors/delete", self._delete)
        app.router.add_post("/data/{name}/query", self._query)
        app.router.add_post("/data/{name}/describe_index_stats", self._stats)
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.fails:
            return _failure(self.fails.pop(0), "it quotes a secret")
        if request.headers.get("Api-Key") != KEY:
            return _failure(401, "Invalid API Key")
        if request.headers.get("X-Pinecone-Api-Version") != "2026-07":
            return _failure(400, "unsupported version")
        if request.can_read_body:
            request["body"] = await request.json()
        self.requests.append((request.path, request.get("body")))
        try:
            answer: web.StreamResponse = await handler(request)
        except Refused as error:
            return _failure(error.status, str(error))
        if isinstance(answer, web.Response) and len(answer.body or b"") > 4 * 1024 * 1024:
            return _failure(400, "the answer has more than 4 MB")
        return answer

    async def _describe(self, request: web.Request) -> web.Response:
        return web.json_response(self._named(request))

    async def _create(self, request: web.Request) -> web.Response:
        body = request["body"]
        name = body["name"]
        if name in self.indexes:
            raise Refused(409, "Resource already exists")
        if not (1 <= len(name) <= 45 and all(each.isalnum() or each == "-" for each in name)):
            raise Refused(422, "bad name")
        for tag in body.get("tags", {}).values():
            if not all(each.isalnum() or each in "_-@.+ " for each in tag):
                raise Refused(422, "bad tag")
        self.indexes[name] = {
            "name": name,
            "schema": body["schema"],
            "deployment": {**body["deployment"], "environment": "made-up"},
            "host": f"{self.url}/data/{name}",
            "status": {"ready": True, "state": "Ready"},
            "read_capacity": {"mode": "OnDemand", "status": {"state": "Ready"}},
            "deletion_protection": "disabled",
            "tags": body.get("tags"),
        }
        return web.json_response(self.indexes[name], status=201)

    async def _upsert(self, request: web.Request) -> web.Response:
        body = request["body"]
        field = self._field(request)
        if len(body["vectors"]) > 1000:
            raise Refused(400, "too many")
        new = {}
        for vector in body["vectors"]:
            values = np.asarray(vector["values"], np.float32)
            if values.shape != (field["dimension"],):
                raise Refused(400, "Vector dimension does not match the dimension of the index")
            if not values.any():
                raise Refused(400, "Dense vectors must contain at least one non-zero value")
            metadata = vector.get("metadata", {})
            _check(metadata)
            new[vector["id"]] = {"values": values, "metadata": metadata}
        rows = self._space(request, body)
        self.unseen.update((each, self.lag) for each in new)
        self.before.update((each, rows[each]) for each in new if each in rows)
        rows.update(new)
        return web.json_response({"upsertedCount": len(new)})

    async def _fetch(self, request: web.Request) -> web.Response:
        rows = self._space(request, request.query)
        wanted = request.query.getall("ids")
        there = {each: self.before.get(each) if self._late(each) else rows[each]
                 for each in wanted if each in rows}  # fmt: skip
        found = {each: _shown(each, row) for each, row in there.items() if row is not None}
        return web.json_response({"vectors": found, "namespace": "", "usage": {"readUnits": 1}})

    def _late(self, each: str) -> bool:
        left = self.unseen.get(each, 0)
        self.unseen[each] = max(left - 1, 0)
        return left > 0

    async def _by_metadata(self, request: web.Request) -> web.Response:
        body = request["body"]
        if not body.get("filter"):
            raise Refused(400, "a filter is needed")
        rows = self._space(request, body)
        found = sorted(each for each in rows if _passes(body["filter"], rows[each]["metadata"]))
        random.Random(7).shuffle(found)
        at, limit = int(body.get("paginationToken", 0)), body.get("limit", 100)
        page = {each: _shown(each, rows[each]) for each in found[at : at + limit]}
        answer: dict[str, Any] = {"vectors": page, "namespace": "", "usage": {"readUnits": 1}}
        if at + limit < len(found):
            answer["pagination"] = {"next": str(at + limit)}
        return web.json_response(answer)

    async def _delete(self, request: web.Request) -> web.Response:
        rows = self._space(request, request["body"])
        for each in request["body"]["ids"]:
            rows.pop(each, None)
            self.before.pop(each, None)
        return web.json_response({})

    async def _query(self, request: web.Request) -> web.Response:
        body = request["body"]
        metric = self._field(request)["metric"]
        rows = self._space(request, body)
        query = np.asarray(body["vector"], np.float32)
        scored = [
            (_score(metric, query, row["values"]), each)
            for each, row in rows.items()
            if not body.get("filter") or _passes(body["filter"], row["metadata"])
        ]
        scored.sort(key=lambda pair: pair[0] if metric == "euclidean" else -pair[0])
        matched = [
            {"id": each, "score": score, "values": []}
            | ({"metadata": rows[each]["metadata"]} if body.get("includeMetadata") else {})
            for score, each in scored[: body["topK"]]
        ]
        return web.json_response({"matches": matched, "namespace": "", "usage": {"readUnits": 1}})

    async def _stats(self, request: web.Request) -> web.Response:
        field = self._field(request)
        spaces = self.rows.get(request.match_info["name"], {})
        counts = {name: {"vectorCount": len(rows)} for name, rows in spaces.items() if rows}
        return web.json_response(
            {
                "namespaces": counts,
                "dimension": field["dimension"],
                "indexFullness": 0,
                "totalVectorCount": sum(map(len, spaces.values())),
            }
        )

    def _named(self, request: web.Request) -> dict[str, Any]:
        try:
            return self.indexes[request.match_info["name"]]
        except KeyError:
            raise Refused(404, "Resource not found") from None

    def _field(self, request: web.Request) -> dict[str, Any]:
        (field,) = self._named(request)["schema"]["fields"].values()
        return dict(field)

    def _space(self, request: web.Request, body: Any) -> dict[str, dict[str, Any]]:
        spaces = self.rows.setdefault(request.match_info["name"], {})
        return spaces.setdefault(body.get("namespace", ""), {})


def _failure(status: int, message: str) -> web.Response:
    return web.json_response(
        {"error": {"code": "MADE_UP", "message": message}, "status": status}, status=status
    )


def _shown(each: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"id": each, "values": row["values"].tolist(), "metadata": row["metadata"]}


def _check(metadata: dict[str, Any]) -> None:
    if len(json.dumps(metadata, ensure_ascii=False).encode()) > 40 * 1024:
        raise Refused(400, "Metadata size is over 40960 bytes")
    for key, value in metadata.items():
        plain = isinstance(value, str | bool | int | float)
        texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if key.startswith("$") or not (plain or texts):
            raise Refused(
                400, "Metadata value must be a string, number, boolean or list of strings"
            )


def _passes(where: dict[str, Any], metadata: dict[str, Any]) -> bool:
    if not where:
        raise Refused(400, "empty filter")
    for key, value in where.items():
        if key in {"$and", "$or"}:
            if not isinstance(value, list) or not value:
                raise Refused(400, f"{key} takes a list")
            held = [_passes(part, metadata) for part in value]
            if not (all(held) if key == "$and" else any(held)):
                return False
        elif key.startswith("$"):
            raise Refused(400, f"{key} cannot stand here")
        elif not all(_compares(metadata.get(key), op, bound) for op, bound in value.items()):
            return False
    return True


def _compares(found: Any, op: str, bound: Any) -> bool:
    if op == "$in":
        if not isinstance(bound, list) or len(bound) > 10_000:
            raise Refused(400, "$in takes a list")
        values = found if isinstance(found, list) else [found]
        return any(each in bound for each in values)
    if op not in _PAIRS:
        raise Refused(400, f"{op} is nothing that this server was written for")
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        raise Refused(400, f"{op} takes a number")
    number = isinstance(found, int | float) and not isinstance(found, bool)
    return number and _PAIRS[op](float(found), float(bound))


def _score(metric: str, query: Any, values: Any) -> float:
    if metric == "euclidean":
        return float(((query - values) ** 2).sum())
    product = float(query @ values)
    if metric == "dotproduct":
        return product
    return product / float(np.linalg.norm(query) * np.linalg.norm(values))
