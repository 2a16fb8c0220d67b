"""What a vector database has to do; everything else is written once, above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.vector.filters import Filter
    from haive.core.persistence.vector.records import Collection, Hit, Query, Record


class MemoryBackend(Protocol):
    """Keeps the memories of one tenant in one collection, and finds them.

    Every method works in the collection that was opened and never leaves the tenant.
    """

    @property
    def name(self) -> str:
        """As `VectorMemory` is asked for it: ``pgvector``, ``qdrant`` and so on."""

    async def tenant(self) -> str:
        """Whose memories these are: ids that are made of what is stored are made of it as well."""

    async def open(self, collection: Collection) -> Collection:
        """Make the collection where there is none, and return what it is.

        Raises:
            CollectionMismatchError: It has another model, width or metric.
        """

    async def put(self, records: Sequence[Record]) -> None:
        """Write records, replacing those of the same id; all or none where the database can.

        ``tokens`` None keeps the ones that are there only if ``vector`` is None too: then a record
        keeps both, and its metadata alone is replaced.
        """

    async def replace(self, records: Sequence[Record]) -> int:
        """As `put`, but writes only those that are still there, and returns how many.

        What was forgotten since it was read is not brought back by a rewrite: for certain in
        Postgres; elsewhere it is looked up just before, and a deletion in between is undone.
        """

    async def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        """Records by id, in the order asked for, without those that are not there."""

    async def tokens(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Packed token vectors by id, without those that have none."""

    async def search(self, query: Query) -> list[Hit]:
        """The best memories for a query, best first, equal ones by id.

        A filter loses no rows: with at least ``limit`` memories that pass it, so many are found.
        """

    async def find(
        self, where: Filter | None, *, limit: int, after: str | None = None, vectors: bool = False
    ) -> list[Record]:
        """Records that pass a filter, by id (ids are UUIDv7: oldest first), from ``after`` on.

        ``where`` alone decides: archived and superseded ones are found too.
        """

    async def count(self, where: Filter | None) -> int:
        """How many pass a filter, exactly."""

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove records and return the ids of those that were there."""

    async def aclose(self) -> None:
        """Close what the backend itself opened."""
