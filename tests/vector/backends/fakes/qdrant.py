"""The local mode behind what a server refuses: filters without an index, and requests too large.

Qdrant Cloud has strict mode on for every collection.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.http.models import PayloadSchemaType

MAX_REQUEST = 32 * 1024 * 1024


class StrictQdrant:
    """A client of such a server."""

    def __init__(self) -> None:
        self.inner = AsyncQdrantClient(":memory:")
        self.init_options = {"url": "http://strict"}
        self.indexes: dict[str, Any] = {}
        self.writes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def create_payload_index(self, _: str, field: str, schema: Any) -> None:
        self.indexes[field] = getattr(schema, "type", schema)

    async def get_collection(self, name: str) -> Any:
        found = await self.inner.get_collection(name)
        return found.model_copy(update={"payload_schema": dict(self.indexes)})

    async def count(self, name: str, where: Any, *, exact: bool) -> Any:
        self._check(where)
        return await self.inner.count(name, where, exact=exact)

    async def scroll(self, name: str, *, scroll_filter: Any, **how: Any) -> Any:
        self._check(scroll_filter)
        return await self.inner.scroll(name, scroll_filter=scroll_filter, **how)

    async def query_points(
        self, name: str, *, query_filter: Any, search_params: Any, **how: Any
    ) -> Any:
        self._check(query_filter)
        assert search_params is not None
        return await self.inner.query_points(name, query_filter=query_filter, **how)

    async def delete(self, name: str, selector: Any) -> Any:
        self._check(selector.filter)
        return await self.inner.delete(name, selector)

    async def batch_update_points(self, name: str, steps: list[Any]) -> Any:
        self.writes.append(sum(len(step.model_dump_json(exclude_none=True)) for step in steps))
        if self.writes[-1] > MAX_REQUEST:
            raise _refused(413)
        return await self.inner.batch_update_points(name, steps)

    def _check(self, where: Any) -> None:
        for condition in _conditions(json.loads(where.model_dump_json(exclude_none=True))):
            wanted = PayloadSchemaType.FLOAT if "range" in condition else PayloadSchemaType.KEYWORD
            if self.indexes.get(condition["key"]) != wanted:
                raise _refused(400)


def _conditions(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if "key" in part:
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _conditions(each)


def _refused(status: int) -> UnexpectedResponse:
    return UnexpectedResponse(status, "refused", b"it quotes a secret", httpx.Headers())
