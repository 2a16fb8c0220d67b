"""Memories in Postgres with pgvector, by the functions of a store: over either transport."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, NotRequired, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypedDict  # pydantic reads no others before 3.12

from haive.core.persistence._encoding import MAX_JSON_BYTES, Document, to_json
from haive.core.persistence.errors import (
    CollectionMismatchError,
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    UnsupportedOperationError,
)
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.vector._batches import batches
from haive.core.persistence.vector._values import MAX_DEPTH, time_text, to_json_value
from haive.core.persistence.vector.backends._fusing import same
from haive.core.persistence.vector.backends._pgvector_loading import Place, copy_in
from haive.core.persistence.vector.backends._pgvector_owner import (
    Owned,
    PlannedIndex,
    build_indexes,
    check_database,
    measure_recall,
)
from haive.core.persistence.vector.config import IndexType  # noqa: TC001 - pydantic reads it
from haive.core.persistence.vector.filters import Filter, to_document
from haive.core.persistence.vector.records import Collection, Hit, Query, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.store import Store

T = TypeVar("T")

# A call is a statement and a request: 8 MiB of text go in one, and no more rows than this.
_ROWS = 1_000
_BYTES = 8 * 1024 * 1024
_LIMIT = 64 * 1024 * 1024
_AS_OURS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _Row(BaseModel):
    id: str
    metadata: dict[str, Any]
    vector: str | None = None

    def record(self) -> Record:
        return Record(id=self.id, metadata=self.metadata, vector=_vector(self.vector))


class _Found(TypedDict):
    # No model: of sixty hits those are a third of a millisecond.
    id: str
    metadata: dict[str, Any]
    score: float
    parts: NotRequired[dict[str, float]]


class _Tenant(BaseModel):
    tenant: str


class _Opened(BaseModel):
    name: str
    model: str | None
    dimensions: int | None
    metric: str
    language: str
    index_type: IndexType
    m: int
    ef_construction: int


_TENANT = TypeAdapter(_Tenant)
_OPENED = TypeAdapter(_Opened)
_ROW_LIST = TypeAdapter(list[_Row])
_FOUND = TypeAdapter(list[_Found])
_COUNT = TypeAdapter(int)
_IDS: TypeAdapter[list[str]] = TypeAdapter(list[str])
_TOKENS = TypeAdapter(dict[str, str])
_STATS = TypeAdapter(dict[str, Any])
_PLAN = TypeAdapter(list[dict[str, str]])


class PgvectorBackend:
    """Keeps memories where the store keeps conversations: in its database, for its tenant.

    Args:
        store: Any store with a schema of this version. It stays open when the backend is closed.
    """

    name = "pgvector"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._opened: Collection | None = None

    @property
    def collection(self) -> Collection:
        """The collection that is open.

        Raises:
            ConfigurationError: None is.
        """
        if self._opened is None:
            raise ConfigurationError("The backend is not open.", hint="Await open() first.")
        return self._opened

    async def tenant(self) -> str:
        """Whose memories these are: the tenant that the store works in."""
        found = await self._call("current_tenant", {}, _TENANT, named=False)
        return found.tenant

    async def open(self, collection: Collection) -> Collection:
        """Make the collection where there is none, and return what it is.

        Raises:
            CollectionMismatchError: It has another model, width, metric or language.
            InvalidInputError: No index takes vectors of that width, or the language is unknown.
        """
        settings = {
            "name": collection.name,
            "model": collection.model,
            "dimensions": collection.dimensions,
            "metric": collection.metric,
            "language": collection.language,
            "index_type": collection.index_type.value,
            "m": collection.m,
            "ef_construction": collection.ef_construction,
        }
        try:
            found = await self._call(
                "open_memory_collection",
                {"settings": to_json(settings, "settings")},
                _OPENED,
                named=False,
            )
        except ConflictError as error:
            raise CollectionMismatchError(error.message, hint=error.hint) from None
        self._opened = same(collection, Collection(**found.model_dump()))
        return self._opened

    async def put(self, records: Sequence[Record]) -> None:
        """Write records, replacing those of the same id; up to 1,000 of them all or none.

        Raises:
            InvalidInputError: A vector is not the collection's, or metadata no JSON.
            ConflictError: An id is another user's or tenant's.
        """
        await self._write(records, {})

    async def replace(self, records: Sequence[Record]) -> int:
        """As `put`, but write only those that are still there: what was forgotten stays so.

        Returns:
            How many.

        Raises:
            InvalidInputError: A vector is not the collection's, or metadata no JSON.
            ConflictError: An id is another user's or tenant's.
        """
        return await self._write(records, {"replace_only": True})

    async def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        """Records by id, in the order asked for, without those that are not there."""
        found: list[Record] = []
        for some in batches(ids, _ROWS):
            rows = await self._call("get_memories", {"ids": some, "vectors": vectors}, _ROW_LIST)
            found += [row.record() for row in rows]
        return found

    async def tokens(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Packed token vectors by id, without those that have none."""
        found: dict[str, bytes] = {}
        for some in batches(ids, _ROWS):
            packed = await self._call("memory_tokens", {"ids": some}, _TOKENS)
            found |= {memory: b64decode(text) for memory, text in packed.items()}
        return found

    async def search(self, query: Query) -> list[Hit]:
        """The best memories for a query, best first, equal ones by id: in one round trip."""
        if query.limit < 1:
            return []
        self._check(query.vector)
        weights = query.weights.model_dump()
        document = {
            "text": query.text,
            "limit": query.limit,
            "filter": _filter(query.filter),
            "weights": weights,
            "now": time_text(query.now),
            "as_of": None if query.as_of is None else time_text(query.as_of),
            "include_archived": query.include_archived,
            "recall": query.recall,
            "parts": query.parts,
        }
        text = to_json(document, "query", _LIMIT)
        if query.vector is not None:
            # It is JSON already, and ten times as long as all else.
            text = Document(f'{{"vector":"{vector_text(query.vector)}",{text[1:]}')
        found = await self._call("search_memories", {"query": text}, _FOUND)
        return [
            Hit(
                record=Record(id=row["id"], metadata=row["metadata"]),
                score=row["score"],
                parts={name: part for name, part in row["parts"].items() if weights[name]}
                if "parts" in row
                else {},
            )
            for row in found
        ]

    async def find(
        self, where: Filter | None, *, limit: int, after: str | None = None, vectors: bool = False
    ) -> list[Record]:
        """Records that pass a filter, by id, from ``after`` on."""
        found: list[Record] = []
        while len(found) < limit:
            size = min(limit - len(found), _ROWS)
            rows = await self._call(
                "find_memories",
                {
                    "filter": to_json(_filter(where), "filter", _LIMIT),
                    "page_size": size,
                    "page_after": after,
                    "vectors": vectors,
                },
                _ROW_LIST,
            )
            found += [row.record() for row in rows]
            if len(rows) < size:
                break
            after = rows[-1].id
        return found

    async def count(self, where: Filter | None) -> int:
        """How many pass a filter, exactly."""
        document = to_json(_filter(where), "filter", _LIMIT)
        return await self._call("count_memories", {"filter": document}, _COUNT)

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove records and return the ids of those that were there."""
        gone: list[str] = []
        for some in batches(ids, _ROWS):
            these = await self._call("delete_memories", {"ids": some}, _IDS, safe=False)
            gone += these
        return gone

    async def stats(self) -> dict[str, Any]:
        """How much the tenant has in the collection, with the sizes of its indexes in bytes."""
        return await self._call("memory_stats", {}, _STATS)

    async def reindex(
        self,
        *,
        connection_string: str | None = None,
        memory: str = "1GB",
        progress: Callable[[str, float], None] | None = None,
    ) -> list[str]:
        """Build the indexes that are missing, while others read and write.

        That is the collection's own of vectors, and one for the tenant where it has more than
        5,000 memories and less than three quarters of all: in that of all, its rows would be lost
        among the others'. Beside it come lists of its words and its metadata. Then it is measured
        how much of an index gives which recall, on a sample of the tenant's vectors; searches go
        by it from then on. Call it again when there are many more memories. Lists of vectors
        (IVFFLAT) are built from 10,000 memories on, and anew where their number is off by four.

        Args:
            connection_string: A direct connection as the owner; that of a `PostgresStore` if None.
            memory: What Postgres may take of memory: a graph that fits is built much faster.
            progress: Told the name of an index and which share of it is built.

        Returns:
            The names of those that were built.

        Raises:
            UnsupportedOperationError: There is no direct connection.
            ConfigurationError: It is to another database than the tenant's.
        """
        dsn = self._dsn(connection_string)
        of = await self._owned()
        if connection_string is not None:
            await check_database(dsn, of)

        async def plan() -> list[PlannedIndex]:
            found = await self._call("plan_memory_indexes", {}, _PLAN)
            return [PlannedIndex(**index) for index in found]

        built = await build_indexes(
            dsn,
            plan,
            of,
            memory=memory,
            progress=progress or (lambda _name, _share: None),
        )
        await measure_recall(dsn, of)
        return built

    async def _owned(self) -> Owned:
        transport, found = self._store._transport, (await self.stats())["collection"]
        return Owned(
            schema=transport.schema,
            tenant=transport.tenant,
            name=self.collection.name,
            table=found["table"],
            created_at=found["created_at"],
        )

    async def load(self, records: Sequence[Record], *, connection_string: str | None = None) -> int:
        """COPY many new records in, all or none, and return how many.

        Into an empty collection its index of vectors is dropped first: `reindex` builds it in a
        fraction of the time that it would take to grow. Until then searches compare all vectors.

        Args:
            records: Of ids that are not there.
            connection_string: As in `reindex`.

        Raises:
            ConflictError: An id is there.
            UnsupportedOperationError: There is no direct connection.
        """
        dsn = self._dsn(connection_string)
        stats = await self.stats()
        transport = self._store._transport
        return await copy_in(
            dsn,
            Place(
                schema=transport.schema,
                tenant=transport.tenant,
                collection=self.collection.name,
                table=stats["collection"]["table"],
                kind=stats["collection"]["storage"],
                indexes=[f"vecs.{index['name']}" for index in stats["indexes"]],
            ),
            records,
            vectors=self._vectors,
            document=_metadata,
        )

    def _dsn(self, given: str | None) -> str:
        if given is not None:
            return given
        if isinstance(self._store, PostgresStore):
            return self._store.config.dsn
        raise UnsupportedOperationError(
            "Only a direct connection does this.",
            hint="Give the connection_string of the database's owner.",
        )

    async def aclose(self) -> None:
        """Nothing: the store was given, and is closed by whoever opened it."""

    async def _write(self, records: Sequence[Record], how: Mapping[str, bool]) -> int:
        documents = [self._document(record) for record in records]
        written = 0
        for chunk in _chunks(documents):
            given = {"memories": to_json(chunk, "memories", _LIMIT), **how}
            written += await self._call("put_memories", given, _COUNT)
        return written

    async def _call(
        self,
        function: str,
        arguments: Mapping[str, object],
        returns: TypeAdapter[T],
        *,
        safe: bool = True,
        named: bool = True,
    ) -> T:
        if named:
            arguments = {"collection": self.collection.name, **arguments}
        return await self._store._transport.call(function, arguments, returns, safe=safe)

    def _document(self, record: Record) -> dict[str, Any]:
        self._checked(record)
        return {
            "id": record.id,
            "metadata": to_json_value(record.metadata, "metadata"),
            "vector": vector_text(record.vector),
            "tokens": None if record.tokens is None else b64encode(record.tokens).decode(),
            **({"once": True} if record.once else {}),
        }

    def _checked(self, record: Record) -> None:
        self._check(record.vector)
        if not _is_uuid(record.id):
            raise _no_uuid(record.id)

    def _vectors(self, records: Sequence[Record]) -> NDArray[np.float32]:
        """Check records, and return the vectors of those that have one."""
        for record in records:
            if not _is_uuid(record.id):
                raise _no_uuid(record.id)
        given = [record.vector for record in records if record.vector is not None]
        width = self.collection.dimensions
        if width is None or any(np.shape(vector) != (width,) for vector in given):
            for vector in given:
                self._check(vector)
        if not given:
            return np.empty((0, 1), np.float32)
        vectors = np.asarray(given, np.float32)
        if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
            for vector in vectors:
                self._check(vector)
        return vectors

    def _check(self, vector: NDArray[np.float32] | None) -> None:
        if vector is None:
            return
        width = self.collection.dimensions
        if width is None:
            raise InvalidInputError(f"{self.collection.name} has no model, and so no vectors.")
        if np.shape(vector) != (width,):
            raise InvalidInputError(
                f"A vector of {self.collection.name} has {width} numbers, not"
                f" {'x'.join(map(str, np.shape(vector))) or 'one'}."
            )
        if not np.isfinite(vector).all():
            raise InvalidInputError("A vector has a number that is NaN or an infinity.")
        if self.collection.metric == "cosine" and not np.any(vector):
            raise InvalidInputError("A vector has no direction: all of its numbers are 0.")


def _is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def _no_uuid(text: str) -> InvalidInputError:
    return InvalidInputError(f"{text[:40]!r} is no UUID in lower case.")


def _metadata(record: Record) -> bytes:
    """The metadata as JSON in UTF-8."""
    plain = _plain_json(record.metadata)
    if plain is not None:
        return plain
    value = to_json_value(record.metadata, "metadata")
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:  # a number of more than 64 bits
        text = b""
    if text and len(text) <= MAX_JSON_BYTES:
        return text
    return to_json(value, "metadata").encode()


def _plain_json(metadata: Mapping[str, Any]) -> bytes | None:
    """As `to_json_value` and `to_json` have it, in a tenth of the time; None where it may be not.

    What orjson writes otherwise than these, or takes and they do not, is times and dataclasses,
    numbers that are none, which become null, NUL, and what is nested too deeply.
    """
    try:
        text = orjson.dumps(metadata, option=_AS_OURS)
    except orjson.JSONEncodeError:
        return None
    nulls = text.count(b"null")
    if (
        len(text) > MAX_JSON_BYTES
        or text.count(b"{") + text.count(b"[") > MAX_DEPTH
        or b"\\u0000" in text
        or (nulls and nulls != sum(value is None for value in metadata.values()))
    ):
        return None
    return text


def _filter(where: Filter | None) -> dict[str, Any] | None:
    return None if where is None else to_document(where)


def vector_text(vector: NDArray[np.float32] | None) -> str | None:
    """A vector as pgvector reads it: the shortest digits that make the same float32."""
    if vector is None:
        return None
    numbers = np.ascontiguousarray(vector, np.float32)
    return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _vector(text: str | None) -> NDArray[np.float32] | None:
    if text is None:
        return None
    return np.array(text[1:-1].split(","), dtype=np.float32)


def _chunks(documents: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many at once as fit: of the size of vectors and tokens, for the rest is small."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for document in documents:
        weight = sum(len(document[name] or "") for name in ("vector", "tokens"))
        weight += sum(len(str(value)) for value in document["metadata"].values())
        if chunk and (size + weight > _BYTES or len(chunk) == _ROWS):
            yield chunk
            chunk, size = [], 0
        chunk.append(document)
        size += weight
    if chunk:
        yield chunk
