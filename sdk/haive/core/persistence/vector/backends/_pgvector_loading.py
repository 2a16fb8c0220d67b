"""COPY of memories, as the owner of the tables: what is else done by row is done at once."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from haive.core.persistence.vector._batches import batches
from haive.core.persistence.vector.backends._pgvector_owner import owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.schema import Connection
    from haive.core.persistence.vector.records import Record

    #: Of some records the vectors that they have, a row each, in order.
    Vectors = Callable[[Sequence[Record]], NDArray[np.float32]]

_DROPPABLE = """
select i.indexrelid::pg_catalog.regclass::text, pg_catalog.pg_get_indexdef(i.indexrelid)
from pg_catalog.pg_index as i
where i.indrelid = $1::text::pg_catalog.regclass and not i.indisunique
"""
_TRIGGERS = """
select t.tgname, pg_catalog.pg_get_triggerdef(t.oid)
from pg_catalog.pg_trigger as t
where t.tgrelid = $1::text::pg_catalog.regclass and t.tgname = any ($2)
"""
_COLUMNS = ("id", "vec", "metadata", "tokens", "tenant_id")
# What one message carries: while Postgres stores it, the next ones are made.
_ROWS = 200
_MEMORY = "256MB"  # for the indexes that are made again, but those of vectors
_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_length = struct.Struct(">i").pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where memories go.

    Args:
        schema: Of the installation.
        tenant: Whose they are; None for the tenant that a call without one works in.
        collection: Its name.
        table: Its table in schema vecs, without quotes.
        kind: ``vector`` or ``halfvec``.
        indexes: Those of its vectors, with schema and quotes.
    """

    schema: str
    tenant: str | None
    collection: str
    table: str
    kind: str
    indexes: Sequence[str]


async def copy_in(
    dsn: str,
    place: Place,
    records: Sequence[Record],
    *,
    vectors: Vectors,
    document: Callable[[Record], bytes],
) -> int:
    """COPY records in, all or none; return how many.

    Where the table is empty, nothing is done by row that can be done at once: indexes of vectors
    are dropped, all others made anew, and what triggers would count is counted from the table.
    Nobody reads or writes it meanwhile.

    Args:
        dsn: A direct connection as the owner.
        place: Where they go.
        records: Of ids that are not there.
        vectors: Checks records and returns their vectors.
        document: The metadata of a record as JSON in UTF-8.
    """
    async with owner(dsn) as connection:
        quoted = await connection.fetchval(
            "select pg_catalog.format('vecs.%I', $1::text)", place.table
        )
        # Before the transaction, which would keep the lock of the look: of two loads that keep it,
        # neither gets the table for itself.
        looked_empty = await _is_empty(connection, quoted)
        return await _copy(
            connection,
            place,
            quoted,
            records,
            looked_empty=looked_empty,
            vectors=vectors,
            document=document,
        )


async def _copy(
    connection: Connection,
    place: Place,
    quoted: str,
    records: Sequence[Record],
    *,
    looked_empty: bool,
    vectors: Vectors,
    document: Callable[[Record], bytes],
) -> int:
    async with connection.transaction():
        # As every operation begins: a tenant that is closed, or being moved, takes nothing.
        entered = await connection.fetchval(
            f"select e.tenant from {place.schema}_private.enter_tenant($1, true) as e",  # noqa: S608 # nosec B608 - checked
            place.tenant,
        )
        empty = False
        if looked_empty:
            await connection.execute(f"lock table {quoted} in access exclusive mode")
            empty = await _is_empty(connection, quoted)
        again = await _without_indexes(connection, quoted, place.indexes) if empty else []
        counting = await _without_triggers(connection, place, entered, quoted) if empty else []
        done: str = await connection.copy_to_table(
            place.table,
            schema_name="vecs",
            columns=_COLUMNS,
            format="binary",
            source=_messages(records, place.kind, entered, vectors=vectors, document=document),
        )
        if empty:
            await connection.execute(f"set local maintenance_work_mem = '{_MEMORY}'")
            for definition in again:
                await connection.execute(definition)
            await connection.execute(
                f"select {place.schema}_private.count_loaded_memories($1, $2)",  # nosec B608 - checked
                *(entered, place.collection),
            )
            for definition in counting:
                await connection.execute(definition)
            # Else the planner takes any tenant for small, until the server analyzes by itself. Of
            # 3,000 rows, which are soon read.
            await connection.execute("set local default_statistics_target = 10")
            await connection.execute(f"analyze {quoted} (tenant_id)")
    return int(done.rpartition(" ")[2])


async def _is_empty(connection: Connection, quoted: str) -> bool:
    looked = f"select not exists (select from {quoted})"  # noqa: S608 # nosec B608 - quoted
    return bool(await connection.fetchval(looked))


async def _without_indexes(
    connection: Connection, quoted: str, dropped: Sequence[str]
) -> list[str]:
    """Drop all indexes but the key, and return how to make those that are not of vectors."""
    again = []
    for name, definition in await connection.fetch(_DROPPABLE, quoted):
        await connection.execute(f"drop index {name}")
        if name not in dropped:
            again.append(definition)
    return again


async def _without_triggers(
    connection: Connection, place: Place, tenant: str, quoted: str
) -> list[str]:
    """Drop the triggers that would keep a copy of each row, and return how to make them.

    It is kept for those that are disabled, too: a gigabyte for 500,000 rows, on the disk.
    """
    audited = await connection.fetchval(
        f"select {place.schema}_private.is_audited($1)",  # nosec B608 - checked
        tenant,
    )
    names = ["count_added"] if audited else ["count_added", "audit_insert"]
    found = await connection.fetch(_TRIGGERS, quoted, names)
    for name, _ in found:
        await connection.execute(f"drop trigger {name} on {quoted}")
    return [definition for _, definition in found]


async def _messages(
    records: Sequence[Record],
    kind: str,
    tenant: str,
    *,
    vectors: Vectors,
    document: Callable[[Record], bytes],
) -> AsyncIterator[bytes]:
    """The binary format of COPY."""
    yield _BEGIN
    last = _field(tenant.encode())
    for some in batches(records, _ROWS):
        packed = iter(_packed(vectors(some), kind))
        yield b"".join([_row(record, document(record), packed, last) for record in some])
    yield _END


def _row(record: Record, metadata: bytes, vectors: Iterator[bytes], tenant: bytes) -> bytes:
    key = record.id.encode()
    return b"".join(
        (
            b"\0\5",
            _length(len(key)),
            key,
            _NULL if record.vector is None else next(vectors),
            _length(len(metadata) + 1),
            b"\1",  # of the format of jsonb
            metadata,
            _NULL if record.tokens is None else _field(record.tokens),
            tenant,
        )
    )


def _packed(vectors: NDArray[np.float32], kind: str) -> list[bytes]:
    """Vectors as pgvector takes them in binary, each with its length."""
    number, width = vectors.shape
    if not number:
        return []
    sort: Any = ">f4" if kind == "vector" else ">f2"
    numbers = vectors.astype(sort).view(np.uint8).reshape(number, -1)
    head = np.frombuffer(
        _length(4 + numbers.shape[1]) + width.to_bytes(2, "big") + bytes(2), np.uint8
    )
    rows = np.hstack([np.broadcast_to(head, (number, len(head))), numbers])
    return [row.tobytes() for row in rows]


def _field(value: bytes) -> bytes:
    return _length(len(value)) + value
