"""Memories in Pinecone; needs ``haive-persistence[pinecone]``.

A collection is a serverless index, and what it is stands in its tags. A tenant is a namespace. In
the metadata, which Pinecone bounds to 40 KB and which has no nulls and no objects, stand:

    json    the metadata as it was given
    terms   what filters look up; n_… what they compare: numbers, and times as seconds
    order   the time in the id, by which pages are found
    blind   that there is no vector: Pinecone wants one, so another stands there
    tokens  packed token vectors, base64
    stamp   when it was written, in microseconds

Pinecone does not say what a negation means for a list, so those are not sent: rows are fetched
without them and checked. It finds no rows in order and counts none, so `find` and `count` read what
passes the rest of a filter.

What was just written may be found a little later, and until then what it was before. Where it is
asked for by its id, what came from here is waited for, or what is stamped later; what another
process wrote is not seen until then, and deleted all the same.

This was tested against a server written from Pinecone's description of its API (2026-07), and not
against the service itself.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import json
import math
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote
from uuid import UUID

import numpy as np

from haive.core.persistence.errors import (
    AccessDeniedError,
    CollectionMismatchError,
    ConfigurationError,
    ConflictError,
    ContentTooLargeError,
    DatabaseError,
    UnavailableError,
)
from haive.core.persistence.vector._batches import batches, packed
from haive.core.persistence.vector.backends._extras import library, optional, setting
from haive.core.persistence.vector.backends._fusing import (
    FusingBackend,
    check_language,
    is_uuid,
    same,
)
from haive.core.persistence.vector.backends._narrowing import (
    Between,
    Both,
    Either,
    Has,
    Narrow,
    numbers,
    terms,
)
from haive.core.persistence.vector.backends._scoring import Candidate
from haive.core.persistence.vector.config import IndexType
from haive.core.persistence.vector.filters import Filter, matches
from haive.core.persistence.vector.records import Collection, Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
    from typing import TypeVar

    from numpy.typing import NDArray
    from pydantic import SecretStr

    T = TypeVar("T")

_METRICS = {"cosine": "cosine", "l2": "euclidean", "inner_product": "dotproduct"}
_MAX_METADATA = 40 * 1024
# A request may have 2 MB, and an answer 4.
_MAX_REQUEST = 1_500_000
_MAX_ANSWER = 3_500_000
_AT_ONCE = 100
_MOST_NEAR = 1_000
_MARK = "haive"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?")
_MAX_TAG = 120
# Seconds: until a new index is ready, until what is written is found, and between two looks.
_READY = 300.0
_LAG = 10.0
_PAUSE = 0.5


class PineconeBackend(FusingBackend):
    """One tenant's memories in an index of Pinecone.

    Args:
        tenant: Whose memories, a namespace.
        api_key: ``PINECONE_API_KEY`` from the environment if not given.
        url: Of the control plane; ``PINECONE_CONTROLLER_HOST`` from the environment if not given,
            else Pinecone's own.
        cloud: Where a new index is made.
        region: Of the cloud.
        timeout: Seconds for a request.

    Raises:
        ConfigurationError: The extra is not installed, or there is no key.
    """

    negations = False
    # All of a record comes with it, its vector too.
    exact_up_to = 200

    def __init__(
        self,
        *,
        tenant: str = "default",
        api_key: SecretStr | str | None = None,
        url: str | None = None,
        cloud: str = "aws",
        region: str = "us-east-1",
        timeout: float = 30.0,
    ) -> None:
        super().__init__()
        self._library = library("pinecone", "pinecone")
        self._errors = library("pinecone.errors", "pinecone")
        self._key = setting(api_key, "api_key", "PINECONE_API_KEY")
        self._url = optional(url, "PINECONE_CONTROLLER_HOST")
        self._deployment = {"deployment_type": "managed", "cloud": cloud, "region": region}
        self._tenant = tenant
        self._timeout = timeout
        self._index: Any = None
        # What was written lately and not seen since: its stamp, and when.
        self._unseen: dict[str, tuple[int, float]] = {}

    @property
    def name(self) -> str:
        """``pinecone``."""
        return "pinecone"

    async def tenant(self) -> str:
        """Whose memories these are."""
        return self._tenant

    async def open(self, collection: Collection) -> Collection:
        """Make the index where there is none, wait until it is ready, and return what it is.

        Raises:
            CollectionMismatchError: It has another model, width, metric or language, or is not one
                of ours.
            InvalidInputError: There is no such language.
            ConfigurationError: Another index than Pinecone's own is wanted, or a name that it does
                not take.
            UnavailableError: The index is not ready after five minutes.
        """
        check_language(collection)
        if collection.index_type is not IndexType.HNSW:
            raise ConfigurationError(
                "Pinecone chooses its index itself.", hint="Leave index_type at hnsw."
            )
        if _NAME.fullmatch(collection.name) is None:
            raise ConfigurationError(
                f"Pinecone takes no index named {collection.name!r}: a name has up to 45 small"
                " letters, digits and hyphens, and no hyphen at its ends.",
                hint="Set another index_name or environment.",
            )
        tags = _tags(collection)
        client = self._library.AsyncPinecone(
            api_key=self._key, host=self._url, timeout=self._timeout
        )
        async with client:
            if not await self._call(client.indexes.exists(collection.name)):
                await self._create(client, collection, tags)
            described = await self._ready(client, collection.name)
        found = self._described(described)
        self._opened = same(collection, found)
        if self._index is None:
            self._index = self._library.AsyncIndex(
                host=described.host, api_key=self._key, timeout=self._timeout
            )
        return found

    async def put(self, records: Sequence[Record]) -> None:
        """Write records, replacing those of the same id; 100 at once, or none of them.

        Raises:
            ContentTooLargeError: The metadata of one is over 40 KB; nothing was stored.
        """
        checked = self.check(records)
        await self._write(checked, await self._fetch(_metadata_alone(checked)))

    async def replace(self, records: Sequence[Record]) -> int:
        """As `put`, but write only those that are there: one removed meanwhile comes back."""
        checked = self.check(records)
        there = await self._fetch([each.id for each in checked])
        left = [each for each in checked if each.id in there]
        await self._write(left, {each: there[each] for each in _metadata_alone(left)})
        return len(left)

    async def _write(self, records: Sequence[Record], kept: Mapping[str, Any]) -> None:
        """Write records: metadata alone beside the vectors and tokens that are kept."""
        stamp = time.time_ns() // 1_000
        rows = [self._row(record, kept.get(record.id), stamp) for record in records]
        for record, row in zip(records, rows, strict=True):
            size = len(json.dumps(row["metadata"], ensure_ascii=False).encode())
            if size > _MAX_METADATA:
                raise ContentTooLargeError(
                    f"The memory {row['id']} has {size:,} bytes of metadata; Pinecone takes"
                    f" {_MAX_METADATA:,}.",
                    hint="It names all that it was made of: remember so long a conversation as"
                    " several, or in another vector_store."
                    if record.metadata.get("sources")
                    else "Store the bulk elsewhere, or use smaller chunks.",
                )
        for batch in packed(
            rows, _AT_ONCE, weight=lambda row: len(json.dumps(row)), heaviest=_MAX_REQUEST
        ):
            await self._call(self._index.upsert(vectors=batch, namespace=self._tenant))
            now = time.monotonic()
            lately = {each: seen for each, seen in self._unseen.items() if now - seen[1] < _LAG}
            self._unseen = lately | dict.fromkeys((row["id"] for row in batch), (stamp, now))

    async def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        """Records by id, in the order asked for, without those that are not there."""
        found = await self._fetch(ids)
        return [_record(found[each], vectors=vectors) for each in ids if each in found]

    async def tokens(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Packed token vectors by id, without those that have none."""
        return {
            each: base64.b64decode(vector.metadata["tokens"])
            for each, vector in (await self._fetch(ids)).items()
            if "tokens" in vector.metadata
        }

    async def count(self, where: Filter | None) -> int:
        """How many pass a filter; all of them are read."""
        number = 0
        async for _ in self._stream(where, vectors=False):
            number += 1
        return number

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove records and return the ids of those that were there."""
        there = await self._fetch(ids)
        # Those that are not seen as well: they may have been written just now.
        for batch in batches(sorted({each for each in ids if is_uuid(each)}), _AT_ONCE):
            await self._call(self._index.delete(ids=batch, namespace=self._tenant))
        for each in ids:
            self._unseen.pop(each, None)
        return [each for each in dict.fromkeys(ids) if each in there]

    async def aclose(self) -> None:
        """Close the connection."""
        self._opened = None
        if self._index is not None:
            index, self._index = self._index, None
            await index.close()

    async def _count(self, where: Narrow | None) -> int:
        return sum([1 async for _ in self._passing(_filter(where))])

    async def _size(self, where: Narrow | None) -> int:
        stats = await self._call(self._index.describe_index_stats())
        space = stats.namespaces.get(self._tenant)
        return space.vector_count if space is not None else 0

    async def _stream(self, where: Filter | None, *, vectors: bool) -> AsyncIterator[Record]:
        asked = _filter(self._narrowed(where).where)
        _ = self.collection
        async for vector in self._passing(asked):
            record = _record(vector, vectors=vectors)
            if matches(where, record.metadata):
                yield record

    async def _scan(
        self, where: Narrow | None, *, after: str | None, limit: int, vectors: bool
    ) -> tuple[list[Record], str | None]:
        # What passes comes in no order: the first ones of all that are not before the last page.
        asked = _filter(where, after)
        rows = [
            (vector.id, vector)
            async for vector in self._passing(asked)
            if after is None or vector.id > after
        ]
        first = heapq.nsmallest(limit, rows, key=lambda row: row[0])
        records = [_record(vector, vectors=vectors) for _, vector in first]
        return records, (records[-1].id if len(rows) > limit else None)

    async def _nearest(
        self,
        vector: NDArray[np.float32],
        where: Narrow | None,
        *,
        limit: int,
        recall: float,
    ) -> list[Candidate]:
        # With the metadata of all the answer may be larger than Pinecone sends.
        found = await self._call(
            self._index.query(
                vector=vector.tolist(),
                top_k=min(limit, _MOST_NEAR),
                filter=_filter(where),
                namespace=self._tenant,
            )
        )
        scores = {match.id: self._near_by(match.score) for match in found.matches}
        rows = await self._fetch(list(scores))
        return [
            Candidate(
                record=_record(rows[each], vectors=False),
                nearness=None if rows[each].metadata.get("blind") else near_by,
            )
            for each, near_by in scores.items()
            if each in rows
        ]

    def _near_by(self, score: float) -> float:
        # Euclidean scores are squares of distances.
        return -math.sqrt(max(score, 0.0)) if self.collection.metric == "l2" else score

    async def _create(self, client: Any, collection: Collection, tags: Mapping[str, str]) -> None:
        try:
            await self._call(
                client.indexes.create(
                    name=collection.name,
                    dimension=collection.dimensions or 1,
                    metric=_METRICS[collection.metric],
                    deployment=self._deployment,
                    tags=tags,
                    timeout=-1,  # whoever opens it waits
                )
            )
        except ConflictError:
            return

    async def _ready(self, client: Any, name: str) -> Any:
        """What the index is, when it is ready."""
        until = time.monotonic() + _READY
        while True:
            described = await self._call(client.indexes.describe(name))
            if described.status.ready:
                return described
            if time.monotonic() > until:
                raise UnavailableError(f"The index {name} is not ready yet; try again.")
            await asyncio.sleep(_PAUSE)

    def _described(self, found: Any) -> Collection:
        tags = found.tags or {}
        if _MARK not in tags:
            raise CollectionMismatchError(
                f"The index {found.name} is not one of ours.", hint="Name another index_name."
            )
        model = tags.get("model")
        metrics = {theirs: ours for ours, theirs in _METRICS.items()}
        return Collection(
            name=found.name,
            model=None if model is None else unquote(model.replace("+", "%")),
            dimensions=None if model is None else found.dimension,
            metric=metrics[found.metric],
            language=tags["language"],
            index_type=IndexType.HNSW,
            m=int(tags["m"]),
            ef_construction=int(tags["ef_construction"]),
        )

    def _row(self, record: Record, kept: Any, stamp: int) -> dict[str, Any]:
        metadata = dict(record.metadata)
        row: dict[str, Any] = {
            "json": json.dumps(metadata, ensure_ascii=False),
            "terms": terms(metadata),
            "order": _order(record.id),
            "stamp": stamp,
            **{f"n_{key}": number for key, number in numbers(metadata).items()},
        }
        if kept is not None:
            row |= {
                name: kept.metadata[name] for name in ("blind", "tokens") if name in kept.metadata
            }
            return {"id": record.id, "values": kept.values, "metadata": row}
        if record.tokens is not None:
            row["tokens"] = base64.b64encode(record.tokens).decode()
        if record.vector is None:
            row["blind"] = True
            width = self.collection.dimensions or 1
            return {"id": record.id, "values": [1.0] + [0.0] * (width - 1), "metadata": row}
        return {"id": record.id, "values": record.vector.tolist(), "metadata": row}

    @property
    def _page(self) -> int:
        """So many records have an answer that Pinecone sends, however large they are."""
        width = self.collection.dimensions or 1
        return max(1, min(_AT_ONCE, _MAX_ANSWER // (_MAX_METADATA + 24 * width)))

    async def _fetch(self, ids: Sequence[str]) -> dict[str, Any]:
        """Rows by id; those that were just written from here are waited for."""
        found: dict[str, Any] = {}
        wanted = sorted({each for each in ids if is_uuid(each)})
        while True:
            pages = [
                self._call(self._index.fetch(ids=batch, namespace=self._tenant))
                for batch in batches(wanted, self._page)
            ]
            for page in await asyncio.gather(*pages):
                found |= page.vectors
            for each, vector in found.items():
                stamp, _ = self._unseen.get(each, (math.inf, None))
                if vector.metadata.get("stamp", 0) >= stamp:
                    del self._unseen[each]
            since = time.monotonic() - _LAG
            wanted = [e for e in wanted if e in self._unseen and self._unseen[e][1] > since]
            if not wanted:
                return found
            await asyncio.sleep(_PAUSE)

    async def _passing(self, asked: dict[str, Any]) -> AsyncIterator[Any]:
        token: str | None = None
        while True:
            page = await self._call(
                self._index.fetch_by_metadata(
                    filter=asked, namespace=self._tenant, limit=self._page, pagination_token=token
                )
            )
            for vector in page.vectors.values():
                yield vector
            token = page.pagination.next if page.pagination is not None else None
            if token is None:
                return

    async def _call(self, request: Awaitable[T]) -> T:
        """The answer to a request; what the service says of an error is not passed on."""
        try:
            return await request
        except self._errors.ApiError as error:
            raise _error(error.status_code) from None
        except (self._errors.PineconeTimeoutError, self._errors.PineconeConnectionError):
            raise UnavailableError("Pinecone cannot be reached now; try again.") from None
        except self._errors.PineconeError:
            # What the client refuses itself.
            raise DatabaseError("Pinecone's client refused the request.") from None


def _metadata_alone(records: Sequence[Record]) -> list[str]:
    """Ids of those that bring neither a vector nor tokens, and keep what is stored."""
    return [each.id for each in records if each.vector is None and each.tokens is None]


def _tags(collection: Collection) -> dict[str, str]:
    """What the collection is, beside what Pinecone knows of it."""
    tags = {
        _MARK: "memories",
        "language": collection.language,
        "m": str(collection.m),
        "ef_construction": str(collection.ef_construction),
    }
    if collection.model is not None:
        # A tag has no slashes and colons, which names of models have.
        tags["model"] = quote(collection.model, safe="").replace("%", "+")
        if len(tags["model"]) > _MAX_TAG:
            raise ConfigurationError(
                f"The model's name is too long for Pinecone, where a tag has {_MAX_TAG} characters."
            )
    return tags


def _filter(where: Narrow | None, after: str | None = None) -> dict[str, Any]:
    """As Pinecone wants it, which takes none that is empty."""
    everything = {"order": {"$gte": 0 if after is None else _order(after)}}
    if where is None:
        return everything
    return {"$and": [everything, _condition(where)]} if after is not None else _condition(where)


def _condition(where: Narrow) -> dict[str, Any]:
    match where:
        case Has(wanted):
            return {"terms": {"$in": list(wanted)}}
        case Between(key, operator, bound):
            return {f"n_{key}": {f"${operator}": bound}}
        case Both(parts):
            return {"$and": [_condition(part) for part in parts]}
        case Either(parts):
            return {"$or": [_condition(part) for part in parts]}
        case _:
            raise TypeError("Pinecone is asked for nothing negated.")


def _record(vector: Any, *, vectors: bool) -> Record:
    seen = vectors and not vector.metadata.get("blind")
    return Record(
        id=vector.id,
        metadata=json.loads(vector.metadata["json"]),
        vector=np.asarray(vector.values, np.float32) if seen else None,
    )


def _order(text: str) -> int:
    """The first 48 bits of an id, in a UUIDv7 milliseconds: a float holds them."""
    return UUID(text).int >> 80


def _error(status: int) -> Exception:
    if status in {401, 403}:
        return AccessDeniedError(
            "Pinecone refuses the key.", hint="Pass another api_key, or set PINECONE_API_KEY."
        )
    if status == 409:
        return ConflictError("The index is there already.")
    if status == 429 or status >= 500:
        return UnavailableError(f"Pinecone cannot answer now (HTTP {status}); try again.")
    return DatabaseError(f"Pinecone refused the request (HTTP {status}).")
