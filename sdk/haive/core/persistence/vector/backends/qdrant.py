"""Memories in Qdrant 1.16 or newer; needs ``haive-persistence[qdrant]``.

    metadata  as it was given, so that other tools can filter by it
    terms     what filters look up, numbers what they compare (`_narrowing`): those of our own names
              are indexed, for Qdrant's strict mode refuses others, which are read and checked
    tenant    filters every request, and is indexed as Qdrant wants it of tenants
    tokens    packed token vectors, base64

Qdrant finds rows without a term, so filters reach it whole; what `_narrowing` leaves in doubt is
read again and checked. What the collection is stands in its metadata.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from haive.core.persistence.errors import (
    AccessDeniedError,
    CollectionMismatchError,
    ConfigurationError,
    ConflictError,
    DatabaseError,
    UnavailableError,
)
from haive.core.persistence.vector._batches import batches, packed
from haive.core.persistence.vector.backends._extras import library, optional, setting
from haive.core.persistence.vector.backends._fusing import (
    PAGE,
    FusingBackend,
    check_language,
    collection_from,
    described,
    is_uuid,
    same,
)
from haive.core.persistence.vector.backends._narrowing import (
    COMPARED,
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
from haive.core.persistence.vector.records import Collection, Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from typing import TypeVar

    from numpy.typing import NDArray
    from pydantic import SecretStr

    T = TypeVar("T")

_VECTOR = "memory"
_MARK = "haive"
# Of no tenant: where the first collections said what they are.
_FACTS = str(UUID(int=0))
_DISTANCES = {"cosine": "Cosine", "l2": "Euclid", "inner_product": "Dot"}
# A request may have 32 MiB.
_BYTES = 8 * 1024 * 1024
# Where binary vectors choose, so many times more are compared by their numbers.
_OVERSAMPLING = 4.0


class QdrantBackend(FusingBackend):
    """One tenant's memories in a collection of Qdrant.

    Args:
        tenant: Whose memories; no other's are read or written.
        url: Of the server; ``QDRANT_URL`` from the environment if not given.
        api_key: ``QDRANT_API_KEY`` from the environment if not given; a server of one's own may
            need none.
        location: ``":memory:"`` keeps everything in this process, without a server.
        path: A folder that keeps it for this process, without a server.
        client: An `AsyncQdrantClient`, which is not closed.
        timeout: Seconds for a request.

    Raises:
        ConfigurationError: The extra is not installed, or there is no url.
    """

    comparable = frozenset(COMPARED)

    def __init__(
        self,
        *,
        tenant: str = "default",
        url: str | None = None,
        api_key: SecretStr | str | None = None,
        location: str | None = None,
        path: str | None = None,
        client: Any = None,
        timeout: int = 60,
    ) -> None:
        super().__init__()
        self._models = library("qdrant_client", "qdrant").models
        self._tenant = tenant
        self._client = client
        self._own = client is None
        self._timeout = timeout
        self._place: dict[str, Any] = {}
        if location is not None or path is not None:
            self._place = {"location": location, "path": path}
        elif client is None:
            self._place = {
                "url": setting(url, "url", "QDRANT_URL"),
                "api_key": optional(api_key, "QDRANT_API_KEY"),
            }
        options = self._place if client is None else client.init_options
        self._local = options.get("location") == ":memory:" or options.get("path") is not None

    @property
    def name(self) -> str:
        """``qdrant``."""
        return "qdrant"

    async def tenant(self) -> str:
        """Whose memories these are."""
        return self._tenant

    async def open(self, collection: Collection) -> Collection:
        """Make the collection where there is none, and return what it is.

        Raises:
            CollectionMismatchError: It has another model, width, metric or language, or is not one
                of ours.
            InvalidInputError: There is no such language.
            ConfigurationError: Qdrant has no such index.
        """
        check_language(collection)
        if collection.index_type is IndexType.IVFFLAT:
            raise ConfigurationError(
                "Qdrant has no index of lists.", hint="Set index_type to hnsw, flat or binary."
            )
        if self._client is None:
            self._client = library("qdrant_client", "qdrant").AsyncQdrantClient(
                **self._place, timeout=self._timeout, check_compatibility=False
            )
        if not await self._call(self._client.collection_exists(collection.name)):
            await self._create(collection)
        info = await self._call(self._client.get_collection(collection.name))
        found = same(collection, await self._facts(collection.name, info.config.metadata or {}))
        await self._index(collection.name, info.payload_schema)
        self._opened = found
        return found

    async def put(self, records: Sequence[Record]) -> None:
        """Write records, replacing those of the same id; 500 or 8 MiB at once, or none of them.

        Raises:
            ConflictError: An id is another tenant's.
        """
        rows = [(each, _payload(each)) for each in self.check(records)]
        for batch in packed(rows, PAGE, weight=_weight, heaviest=_BYTES):
            await self._put(batch)

    async def replace(self, records: Sequence[Record]) -> int:
        """As `put`, but write only those that are there: one removed meanwhile comes back."""
        points = await self._points([each.id for each in records], ["tenant"])
        there = {str(point.id) for point in points}
        left = [each for each in records if each.id in there]
        await self.put(left)
        return len(left)

    async def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        """Records by id, in the order asked for, without those that are not there."""
        found = {
            point.id: self._record(point)
            for point in await self._points(ids, ["metadata"], vectors=vectors)
        }
        return [found[each] for each in ids if each in found]

    async def tokens(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Packed token vectors by id, without those that have none."""
        return {
            str(point.id): base64.b64decode(point.payload["tokens"])
            for point in await self._points(ids, ["tokens"])
            if point.payload.get("tokens") is not None
        }

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove records and return the ids of those that were there."""
        there = {str(point.id) for point in await self._points(ids, ["tenant"])}
        for batch in batches(sorted(there), PAGE):
            await self._call(
                self._client.delete(
                    self.collection.name,
                    self._models.FilterSelector(filter=self._mine(self._ids(batch))),
                )
            )
        return [each for each in dict.fromkeys(ids) if each in there]

    async def aclose(self) -> None:
        """Close the client, unless it was given."""
        self._opened = None
        if self._own and self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _count(self, where: Narrow | None) -> int:
        found = await self._call(
            self._client.count(self.collection.name, self._where(where), exact=True)
        )
        return int(found.count)

    async def _scan(
        self, where: Narrow | None, *, after: str | None, limit: int, vectors: bool
    ) -> tuple[list[Record], str | None]:
        # A page begins with the id that it is asked from.
        found, more = await self._call(
            self._client.scroll(
                self.collection.name,
                scroll_filter=self._where(where),
                limit=limit + 1,
                offset=after,
                with_payload=["metadata"],
                with_vectors=vectors,
            )
        )
        records = [self._record(point) for point in found if point.id != after]
        return records, (found[-1].id if more is not None else None)

    async def _nearest(
        self, vector: NDArray[np.float32], where: Narrow | None, *, limit: int, recall: float
    ) -> list[Candidate]:
        found = await self._call(
            self._client.query_points(
                self.collection.name,
                query=vector.tolist(),
                using=_VECTOR,
                query_filter=self._where(where),
                search_params=self._effort(recall, limit),
                limit=limit,
                with_payload=["metadata"],
            )
        )
        sign = -1.0 if self.collection.metric == "l2" else 1.0
        return [
            Candidate(record=self._record(point), nearness=sign * point.score)
            for point in found.points
        ]

    def _effort(self, recall: float, limit: int) -> Any:
        """How far the graph is searched: twice the limit, and more for the last per cents."""
        # A local one compares all vectors, and warns of the parameters.
        if self._local:
            return None
        if recall >= 1:
            return self._models.SearchParams(exact=True)
        ef = max(2 * limit, int(4 / (1 - recall)))
        quantized = None
        if self.collection.index_type is IndexType.BINARY:
            quantized = self._models.QuantizationSearchParams(
                rescore=True, oversampling=_OVERSAMPLING
            )
        return self._models.SearchParams(hnsw_ef=min(ef, 10_000), quantization=quantized)

    async def _create(self, collection: Collection) -> None:
        models = self._models
        vectors = {}
        if collection.dimensions is not None:
            binary = models.BinaryQuantization(
                binary=models.BinaryQuantizationConfig(always_ram=True)
            )
            flat = collection.index_type is IndexType.FLAT
            vectors[_VECTOR] = models.VectorParams(
                size=collection.dimensions,
                distance=models.Distance(_DISTANCES[collection.metric]),
                hnsw_config=models.HnswConfigDiff(
                    # Without edges there is no graph, and all vectors are compared.
                    m=0 if flat else collection.m,
                    ef_construct=collection.ef_construction,
                ),
                quantization_config=binary if collection.index_type is IndexType.BINARY else None,
            )
        try:
            await self._call(
                self._client.create_collection(
                    collection.name, vectors, metadata={_MARK: described(collection)}
                )
            )
        except ConflictError:
            return

    async def _facts(self, name: str, metadata: Mapping[str, Any]) -> Collection:
        """What the collection is; what a point says, as it once did, goes into the metadata."""
        if _MARK in metadata:
            return collection_from(metadata[_MARK])
        points = await self._call(self._client.retrieve(name, [_FACTS]))
        facts = (points[0].payload or {}).get("collection") if points else None
        if not isinstance(facts, dict):
            raise CollectionMismatchError(
                f"The collection {name} is not one of ours: nothing says what it is.",
                hint="Name another index_name. Qdrant before 1.16 keeps nothing that says it.",
            )
        found = collection_from(facts)
        await self._call(self._client.update_collection(name, metadata={_MARK: facts}))
        return found

    async def _index(self, name: str, there: Mapping[str, Any]) -> None:
        """Index what is filtered by and is not indexed yet: its maker may have been killed."""
        # A local one has none, and warns of them.
        if self._local:
            return
        models = self._models
        keyword = models.KeywordIndexType.KEYWORD
        wanted: dict[str, Any] = {
            "tenant": models.KeywordIndexParams(type=keyword, is_tenant=True),
            "terms": models.PayloadSchemaType.KEYWORD,
            **{f"numbers.{key}": models.PayloadSchemaType.FLOAT for key in COMPARED},
        }
        for field, schema in wanted.items():
            if field not in there:
                await self._call(self._client.create_payload_index(name, field, schema))

    async def _put(self, batch: Sequence[tuple[Record, dict[str, Any]]]) -> None:
        models = self._models
        found = await self._call(
            self._client.retrieve(
                self.collection.name, [each.id for each, _ in batch], with_payload=["tenant"]
            )
        )
        owners = {str(point.id): (point.payload or {}).get("tenant") for point in found}
        if any(owner != self._tenant for owner in owners.values()):
            raise ConflictError("The id of a memory is taken.", hint="Make a new id for it.")
        points, steps = [], []
        for record, payload in batch:
            if record.vector is None and record.tokens is None and record.id in owners:
                change = models.SetPayload(payload=payload, points=[record.id])
                steps.append(models.SetPayloadOperation(set_payload=change))
                continue
            payload["tenant"] = self._tenant
            vector = {} if record.vector is None else {_VECTOR: record.vector.tolist()}
            points.append(models.PointStruct(id=record.id, vector=vector, payload=payload))
        if points:
            # An id that another tenant has taken meanwhile stays theirs.
            mine = self._mine()
            steps.append(
                models.UpsertOperation(upsert=models.PointsList(points=points, update_filter=mine))
            )
        await self._call(self._client.batch_update_points(self.collection.name, steps))

    async def _points(
        self, ids: Sequence[str], payload: list[str], *, vectors: bool = False
    ) -> list[Any]:
        found: list[Any] = []
        for batch in batches(sorted({each for each in ids if is_uuid(each)}), PAGE):
            page, _ = await self._call(
                self._client.scroll(
                    self.collection.name,
                    scroll_filter=self._mine(self._ids(batch)),
                    limit=len(batch),
                    with_payload=payload,
                    with_vectors=vectors,
                )
            )
            found += page
        return found

    def _record(self, point: Any) -> Record:
        vectors = getattr(point, "vector", None) or {}
        vector = vectors.get(_VECTOR)
        return Record(
            id=str(point.id),
            metadata=point.payload["metadata"],
            vector=None if vector is None else np.asarray(vector, np.float32),
        )

    def _where(self, where: Narrow | None) -> Any:
        return self._mine(*(() if where is None else (self._condition(where),)))

    def _mine(self, *conditions: Any) -> Any:
        models = self._models
        tenant = models.FieldCondition(key="tenant", match=models.MatchValue(value=self._tenant))
        return models.Filter(must=[tenant, *conditions])

    def _ids(self, ids: Sequence[str]) -> Any:
        return self._models.HasIdCondition(has_id=list(ids))

    def _condition(self, where: Narrow) -> Any:
        models = self._models
        match where:
            case Has(wanted):
                any_of = models.MatchAny(any=list(wanted))
                return models.FieldCondition(key="terms", match=any_of)
            case Between(key, operator, bound):
                return models.FieldCondition(
                    key=f"numbers.{key}", range=models.Range(**{operator.value: bound})
                )
            case Both(parts):
                return models.Filter(must=[self._condition(part) for part in parts])
            case Either(parts):
                return models.Filter(should=[self._condition(part) for part in parts])
            case _:
                return models.Filter(must_not=[self._condition(where.part)])

    async def _call(self, request: Awaitable[T]) -> T:
        """The answer to a request; what the server says of an error is not passed on."""
        exceptions = library("qdrant_client.http.exceptions", "qdrant")
        common = library("qdrant_client.common.client_exceptions", "qdrant")
        try:
            return await request
        except exceptions.UnexpectedResponse as error:
            raise _error(error.status_code) from None
        except common.QdrantException:
            # What the client makes of an answer that says when to try again.
            raise _error(429) from None
        except exceptions.ResponseHandlingException:
            raise UnavailableError("Qdrant cannot be reached now; try again.") from None
        except ValueError as error:
            # What a local one says where a server answers 409.
            if "already exists" in str(error):
                raise ConflictError from None
            raise


def _payload(record: Record) -> dict[str, Any]:
    metadata = dict(record.metadata)
    payload: dict[str, Any] = {
        "metadata": metadata, "terms": terms(metadata), "numbers": numbers(metadata),
    }  # fmt: skip
    if record.tokens is not None:
        payload["tokens"] = base64.b64encode(record.tokens).decode()
    return payload


def _weight(row: tuple[Record, dict[str, Any]]) -> int:
    """Bytes in a request, or some more: a number of a vector has up to 24 of them."""
    record, payload = row
    return len(json.dumps(payload)) + 24 * (0 if record.vector is None else len(record.vector))


def _error(status: int | None) -> Exception:
    if status in {401, 403}:
        return AccessDeniedError(
            "Qdrant refuses the key.", hint="Pass another api_key, or set QDRANT_API_KEY."
        )
    if status == 409:
        return ConflictError()
    if status == 429 or (status or 500) >= 500:
        return UnavailableError(f"Qdrant cannot answer now (HTTP {status}); try again.")
    return DatabaseError(f"Qdrant refused the request (HTTP {status}).")
