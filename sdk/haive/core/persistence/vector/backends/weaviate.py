"""Memories in Weaviate 1.27 or newer; needs ``haive-persistence[weaviate]``.

A collection is one of Weaviate with multi-tenancy: a tenant's memories are a shard of their own,
with an index of their own. What the collection is stands in its description. An object has

    document  the metadata as it was given, as JSON; not searched
    key       its id, and order, the time in it, by which pages are found
    terms     what filters look up
    n_…       what they compare: numbers and times of our own names; others are read and checked
    tokens    packed token vectors, base64

Negations are not sent: what they mean for lists and for what is missing has changed with versions.

This was tested against a server written from Weaviate's description of its API, with its own client
over REST and gRPC, and not against the service itself.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import numpy as np

from haive.core.persistence.errors import (
    AccessDeniedError,
    CollectionMismatchError,
    ConfigurationError,
    ConflictError,
    DatabaseError,
    InvalidInputError,
    PersistenceError,
    UnavailableError,
)
from haive.core.persistence.vector._batches import batches, packed
from haive.core.persistence.vector.backends._extras import library, optional, setting
from haive.core.persistence.vector.backends._fusing import (
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
from haive.core.persistence.vector.filters import Operator
from haive.core.persistence.vector.records import Collection, Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence, Set
    from typing import TypeVar

    from numpy.typing import NDArray
    from pydantic import SecretStr

    T = TypeVar("T")

_METRICS = {"cosine": "cosine", "l2": "l2-squared", "inner_product": "dot"}
#: Properties have to be declared, so these names are compared by Weaviate and no others.
_COMPARED = {key: f"n_{name}" for key, name in COMPARED.items()}
_COMPARISONS = {
    Operator.GT: "greater_than",
    Operator.GTE: "greater_or_equal",
    Operator.LT: "less_than",
    Operator.LTE: "less_or_equal",
}
# Weaviate answers with 10,000 objects at most.
_MOST = 10_000
_AT_ONCE = 100
# A message may have 10 MB.
_BYTES = 4 * 1024 * 1024


class WeaviateBackend(FusingBackend):
    """One tenant's memories in a collection of Weaviate.

    Args:
        tenant: Whose memories.
        url: Of the cluster; ``WEAVIATE_URL`` from the environment if not given.
        api_key: ``WEAVIATE_API_KEY`` from the environment if not given; a server of one's own may
            need none.
        grpc_port: Of a server of one's own; ``WEAVIATE_GRPC_PORT`` from the environment if not
            given, else 50051. Weaviate's cloud has its own address for it.
        timeout: Seconds for a request.

    Raises:
        ConfigurationError: The extra is not installed, there is no url, or the port is none.
    """

    negations = False
    comparable = frozenset(_COMPARED)

    def __init__(
        self,
        *,
        tenant: str = "default",
        url: str | None = None,
        api_key: SecretStr | str | None = None,
        grpc_port: int | None = None,
        timeout: int = 60,
    ) -> None:
        super().__init__()
        self._library = library("weaviate", "weaviate")
        self._classes = library("weaviate.classes", "weaviate")
        self._errors = library("weaviate.exceptions", "weaviate")
        self._rpc_error = library("grpc.aio", "weaviate").AioRpcError
        self._url = setting(url, "url", "WEAVIATE_URL")
        self._key = optional(api_key, "WEAVIATE_API_KEY")
        self._grpc_port = _port(grpc_port)
        self._timeout = timeout
        self._tenant = tenant
        self._client: Any = None
        self._objects: Any = None

    @property
    def name(self) -> str:
        """``weaviate``."""
        return "weaviate"

    async def tenant(self) -> str:
        """Whose memories these are."""
        return self._tenant

    async def open(self, collection: Collection) -> Collection:
        """Make the collection and the tenant where they are missing, and return what it is.

        Raises:
            CollectionMismatchError: It has another model, width, metric or language, or is not one
                of ours.
            InvalidInputError: There is no such language.
            ConfigurationError: Weaviate has no such index.
        """
        check_language(collection)
        if collection.index_type is IndexType.IVFFLAT:
            raise ConfigurationError(
                "Weaviate has no index of lists.", hint="Set index_type to hnsw, flat or binary."
            )
        if self._client is None:
            client = self._connection()
            try:
                await self._call(client.connect())
            except PersistenceError:
                await client.close()
                raise
            self._client = client
        name = _class_name(collection.name)
        if not await self._call(self._client.collections.exists(name)):
            await self._create(name, collection)
        whole = self._client.collections.get(name)
        config = await self._call(whole.config.get(simple=True))
        self._opened = same(collection, _from_description(collection.name, config.description))
        # One that was made before a name was compared has it in no object of then.
        declared = {each.name for each in config.properties}
        self.comparable = frozenset(key for key, name in _COMPARED.items() if name in declared)
        if not await self._call(whole.tenants.exists(self._tenant)):
            await self._add_tenant(whole)
        self._objects = whole.with_tenant(self._tenant)
        return self._opened

    async def put(self, records: Sequence[Record]) -> None:
        """Write records, replacing those of the same id.

        Weaviate takes each by itself: where it refuses one, others may be written.
        """
        checked = self.check(records)
        kept = await self._fetch(
            [each.id for each in checked if each.vector is None and each.tokens is None],
            vectors=True,
        )
        make = self._classes.data.DataObject
        rows = [_row(record, kept.get(record.id), self.comparable) for record in checked]
        for batch in packed(rows, _AT_ONCE, weight=_weight, heaviest=_BYTES):
            objects = [make(**row) for row in batch]
            with _texts_not_logged():
                done = await self._call(self._objects.data.insert_many(objects))
            if done.has_errors:
                raise DatabaseError(f"Weaviate refused {len(done.errors)} of {len(rows)} memories.")

    async def replace(self, records: Sequence[Record]) -> int:
        """As `put`, but write only those that are there: one removed meanwhile comes back."""
        there = await self._fetch([each.id for each in records], vectors=False)
        left = [each for each in records if each.id in there]
        await self.put(left)
        return len(left)

    async def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        """Records by id, in the order asked for, without those that are not there."""
        found = await self._fetch(ids, vectors=vectors)
        return [_record(found[each]) for each in ids if each in found]

    async def tokens(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Packed token vectors by id, without those that have none."""
        return {
            each: base64.b64decode(one.properties["tokens"])
            for each, one in (await self._fetch(ids, vectors=False)).items()
            if one.properties.get("tokens") is not None
        }

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove records and return the ids of those that were there."""
        there = set(await self._fetch(ids, vectors=False))
        for batch in batches(sorted(there), _AT_ONCE):
            where = self._property("key").contains_any(batch)
            done = await self._call(self._objects.data.delete_many(where=where))
            if done.failed:
                raise UnavailableError(
                    f"Weaviate could not remove {done.failed} of {len(there)} memories; try again."
                )
        return [each for each in dict.fromkeys(ids) if each in there]

    async def aclose(self) -> None:
        """Close the connection."""
        self._opened = self._objects = None
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _count(self, where: Narrow | None) -> int:
        _ = self.collection
        found = await self._call(
            self._objects.aggregate.over_all(filters=self._filter(where), total_count=True)
        )
        return int(found.total_count or 0)

    async def _scan(
        self, where: Narrow | None, *, after: str | None, limit: int, vectors: bool
    ) -> tuple[list[Record], str | None]:
        # Ids of one millisecond share their order, so a page can begin with some that are known.
        _ = self.collection
        narrowed = filters = self._filter(where)
        if after is not None:
            later = self._property("order").greater_or_equal(float(_order(after)))
            filters = self._both(narrowed, later)
        records: list[Record] = []
        offset = 0
        while offset + limit < _MOST:
            found = await self._page(filters, limit + 1, offset=offset, vectors=vectors)
            records += [each for each in found if after is None or each.id > after]
            if len(found) <= limit or len(records) > limit:
                break
            offset += len(found)
        else:
            # So many share one that the rest is out of reach; comparing texts reads all of them.
            beyond = self._both(narrowed, self._property("key").greater_than(after))
            records = await self._page(beyond, limit + 1, vectors=vectors)
            if any(each.id <= (after or "") for each in records):
                raise DatabaseError("Weaviate did not go on after the id that it was told.")
        more = len(records) > limit
        return records[:limit], (records[limit - 1].id if more else None)

    async def _page(
        self, filters: Any, limit: int, *, vectors: bool, offset: int = 0
    ) -> list[Record]:
        page = await self._call(
            self._objects.query.fetch_objects(
                filters=filters,
                limit=limit,
                offset=offset,
                sort=self._classes.query.Sort.by_property("order").by_property("key"),
                include_vector=vectors,
                return_properties=["document"],
            )
        )
        return [_record(each) for each in page.objects]

    def _both(self, first: Any, second: Any) -> Any:
        return second if first is None else first & second

    async def _nearest(
        self,
        vector: NDArray[np.float32],
        where: Narrow | None,
        *,
        limit: int,
        recall: float,  # Weaviate decides it for each search, from the limit
    ) -> list[Candidate]:
        found = await self._call(
            self._objects.query.near_vector(
                near_vector=vector.tolist(),
                filters=self._filter(where),
                limit=min(limit, _MOST),
                return_metadata=self._classes.query.MetadataQuery(distance=True),
                return_properties=["document"],
            )
        )
        return [
            Candidate(record=_record(each), nearness=self._near_by(each.metadata.distance))
            for each in found.objects
        ]

    def _near_by(self, distance: float) -> float:
        if self.collection.metric == "l2":
            return -math.sqrt(max(distance, 0.0))
        return 1.0 - distance if self.collection.metric == "cosine" else -distance

    def _connection(self) -> Any:
        init = self._classes.init
        auth = init.Auth.api_key(self._key) if self._key is not None else None
        config = init.AdditionalConfig(
            timeout=init.Timeout(init=self._timeout, query=self._timeout, insert=self._timeout)
        )
        place = urlsplit(self._url if "//" in self._url else f"https://{self._url}")
        host = place.hostname or ""
        secure = place.scheme == "https"
        if host.endswith((".weaviate.cloud", ".weaviate.network")):
            return self._library.use_async_with_weaviate_cloud(
                cluster_url=host, auth_credentials=auth, additional_config=config,
                skip_init_checks=True,
            )  # fmt: skip
        return self._library.use_async_with_custom(
            http_host=host, http_port=place.port or (443 if secure else 80), http_secure=secure,
            grpc_host=host, grpc_port=self._grpc_port, grpc_secure=secure,
            auth_credentials=auth, additional_config=config, skip_init_checks=True,
        )  # fmt: skip

    async def _create(self, name: str, collection: Collection) -> None:
        index: dict[str, Any] = {"distance": _METRICS[collection.metric]}
        flat = collection.index_type is IndexType.FLAT
        if not flat:
            index |= {
                "maxConnections": collection.m,
                "efConstruction": collection.ef_construction,
                "bq": {"enabled": collection.index_type is IndexType.BINARY},
                "skip": collection.model is None,
            }
        text = {"dataType": ["text"], "indexFilterable": False, "indexSearchable": False}
        whole = {"indexFilterable": True, "indexSearchable": False, "tokenization": "field"}
        definition = {
            "class": name,
            "description": json.dumps(described(collection)),
            "vectorizer": "none",
            "vectorIndexType": "flat" if flat else "hnsw",
            "vectorIndexConfig": index,
            "multiTenancyConfig": {"enabled": True, "autoTenantActivation": True},
            "properties": [
                {"name": "document", **text},
                {"name": "tokens", **text},
                {"name": "key", "dataType": ["text"], **whole},
                {"name": "terms", "dataType": ["text[]"], **whole},
                {"name": "order", "dataType": ["number"], "indexRangeFilters": True},
                *(
                    {"name": each, "dataType": ["number"], "indexRangeFilters": True}
                    for each in sorted(set(_COMPARED.values()))
                ),
            ],
        }
        try:
            await self._call(self._client.collections.create_from_dict(definition))
        except ConflictError:
            if not await self._call(self._client.collections.exists(name)):
                raise

    async def _add_tenant(self, whole: Any) -> None:
        try:
            await self._call(whole.tenants.create(self._classes.tenants.Tenant(name=self._tenant)))
        except ConflictError:
            if not await self._call(whole.tenants.exists(self._tenant)):
                raise

    async def _fetch(self, ids: Sequence[str], *, vectors: bool) -> dict[str, Any]:
        _ = self.collection
        found: dict[str, Any] = {}
        for batch in batches(sorted({each for each in ids if is_uuid(each)}), _AT_ONCE):
            page = await self._call(
                self._objects.query.fetch_objects(
                    filters=self._property("key").contains_any(batch),
                    limit=len(batch),
                    include_vector=vectors,
                    return_properties=["document", "tokens"],
                )
            )
            found |= {str(each.uuid): each for each in page.objects}
        return found

    def _property(self, name: str) -> Any:
        return self._classes.query.Filter.by_property(name)

    def _filter(self, where: Narrow | None) -> Any:
        make = self._classes.query.Filter
        match where:
            case None:
                return None
            case Has(wanted):
                return self._property("terms").contains_any(list(wanted))
            case Between(key, operator, bound):
                return getattr(self._property(_COMPARED[key]), _COMPARISONS[operator])(bound)
            case Both(parts):
                return make.all_of([self._filter(part) for part in parts])
            case Either(parts):
                return make.any_of([self._filter(part) for part in parts])
            case _:
                raise TypeError("Weaviate is asked for nothing negated.")

    async def _call(self, request: Awaitable[T]) -> T:
        """The answer to a request; what the server says of an error is not passed on."""
        errors = self._errors
        try:
            # The client tries some requests again for a minute, whatever a request may take.
            async with asyncio.timeout(self._timeout):
                return await request
        except errors.AuthenticationFailedError:
            raise _error(401) from None
        except errors.UnexpectedStatusCodeError as error:
            raise _error(error.status_code) from None
        except (
            TimeoutError,
            httpx.TransportError,
            errors.WeaviateConnectionError,
            errors.WeaviateGRPCUnavailableError,
            errors.WeaviateStartUpError,
            errors.WeaviateTimeoutError,
        ):
            raise UnavailableError("Weaviate cannot be reached now; try again.") from None
        except errors.WeaviateBaseError as error:
            code = self._code(error)
            if code is not None:
                raise _error(code) from None
            raise DatabaseError("Weaviate refused the request.") from None

    def _code(self, error: BaseException | None) -> int | None:
        """The number that gRPC has for the error behind one of the client's."""
        while error is not None:
            if isinstance(error, self._rpc_error):
                return int(error.code().value[0])
            error = error.__cause__ or error.__context__
        return None


@contextmanager
def _texts_not_logged() -> Iterator[None]:
    """Keep what was refused, texts and all, out of what the client logs of it."""

    def without(record: logging.LogRecord) -> bool:
        if isinstance(record.msg, dict):
            record.msg = record.msg.get("message")
        return True

    logger = logging.getLogger("weaviate-client")
    logger.addFilter(without)
    try:
        yield
    finally:
        logger.removeFilter(without)


def _row(record: Record, kept: Any, comparable: Set[str]) -> dict[str, Any]:
    metadata = dict(record.metadata)
    compared = numbers(metadata)
    row: dict[str, Any] = {
        "document": json.dumps(metadata, ensure_ascii=False),
        "key": record.id,
        "order": float(_order(record.id)),
        "terms": terms(metadata),
    }
    for key in comparable & compared.keys():
        row[_COMPARED[key]] = compared[key]
    vector = None if record.vector is None else record.vector.tolist()
    tokens = None if record.tokens is None else base64.b64encode(record.tokens).decode()
    if kept is not None:
        vector, tokens = kept.vector.get("default") or None, kept.properties.get("tokens")
    if tokens is not None:
        row["tokens"] = tokens
    return {"uuid": record.id, "properties": row, "vector": vector}


def _weight(row: dict[str, Any]) -> int:
    """Bytes in a message, or some more."""
    return len(json.dumps(row["properties"])) + 4 * len(row["vector"] or ())


def _record(found: Any) -> Record:
    vector = found.vector.get("default") if found.vector else None
    return Record(
        id=str(found.uuid),
        metadata=json.loads(found.properties["document"]),
        vector=np.asarray(vector, np.float32) if vector else None,
    )


def _port(given: int | None) -> int:
    found = optional(None if given is None else str(given), "WEAVIATE_GRPC_PORT") or "50051"
    if re.fullmatch(r"[0-9]{1,5}", found) is None or not 0 < int(found) < 65_536:
        raise ConfigurationError(
            "grpc_port is no port.", hint="Pass grpc_port, or set WEAVIATE_GRPC_PORT."
        )
    return int(found)


def _class_name(name: str) -> str:
    """The collection's name as Weaviate has it, which knows no hyphens."""
    changed = f"Memory_{name.replace('-', '_')}"
    if "_" in name or not changed.isascii() or not changed.replace("_", "").isalnum():
        raise InvalidInputError(f"{name!r} is no name of letters, digits and hyphens.")
    return changed


def _from_description(name: str, text: str | None) -> Collection:
    try:
        return collection_from(json.loads(text or ""))
    except (TypeError, ValueError, KeyError):
        raise CollectionMismatchError(
            f"The collection {name} is not one of ours: nothing says what it is.",
            hint="Name another index_name.",
        ) from None


def _order(text: str) -> int:
    """The first 48 bits of an id, in a UUIDv7 milliseconds: a float holds them."""
    return UUID(text).int >> 80


def _error(status: int) -> Exception:
    # The client has gRPC's own numbers of errors beside those of HTTP: 7 and 16, 14, 8 and 4.
    if status in {401, 403, 7, 16}:
        return AccessDeniedError(
            "Weaviate refuses the key.", hint="Pass another api_key, or set WEAVIATE_API_KEY."
        )
    if status in {409, 422}:
        return ConflictError("Weaviate has it already.")
    if status in {429, 14, 8, 4} or status >= 500:
        return UnavailableError(f"Weaviate cannot answer now ({status}); try again.")
    return DatabaseError(f"Weaviate refused the request ({status}).")
