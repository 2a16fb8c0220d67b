"""The memories of a tenant: their tables are in schema vecs, whoever has made them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from haive.core.persistence.errors import PersistenceError
from haive.core.persistence.schema import check_schema_name

if TYPE_CHECKING:
    from haive.core.persistence.schema import Connection

_COLUMNS = "id, vec, metadata, tenant_id, tokens"


async def drop_collections(connection: Connection, schema: str) -> None:
    """Remove the tables of an installation's collections, which do not go with its schemas."""
    for _, table in await collections(connection, schema):
        await connection.execute(f"drop table if exists {table}")


async def move_memories(
    connection: Connection, source: str, target: str, tenant_id: str
) -> dict[str, int]:
    """Put the memories of a tenant into another installation, in the caller's transaction.

    Collections that are missing there are made. Neither meters nor the audit log hear of it.

    Returns:
        How many each collection had.

    Raises:
        ConflictError: A collection there has the same name, and another model or language.
        PersistenceError: What was copied is not what was removed; roll back.
    """
    found = []
    for name, table in await collections(connection, source):
        has = f"select exists (select from {table} where tenant_id = $1)"  # noqa: S608 # nosec B608 - quoted by Postgres
        if await connection.fetchval(has, tenant_id):
            settings = await connection.fetchval(
                f"select {source}_private.memory_collection_doc(c) "  # noqa: S608 # nosec B608
                f"from {source}_private.memory_collections as c where c.name = $1",
                name,
            )
            made = await connection.fetchval(
                f"select {target}.open_memory_collection($1, '')", settings
            )
            there = await connection.fetchval(
                "select pg_catalog.format('vecs.%I', $1::text)", json.loads(made)["table"]
            )
            found.append((name, table, there))
    # A target that had the tenant before: the source is the truth.
    for _, table in await collections(connection, target):
        await connection.execute(f"delete from {table} where tenant_id = $1", tenant_id)  # noqa: S608 # nosec B608
    moved = {}
    for name, table, there in found:
        copied = await connection.execute(
            f"insert into {there} ({_COLUMNS}) select {_COLUMNS} from {table} "  # noqa: S608 # nosec B608
            "where tenant_id = $1 for update",
            tenant_id,
        )
        removed = await connection.execute(f"delete from {table} where tenant_id = $1", tenant_id)  # noqa: S608 # nosec B608
        moved[name] = int(copied.rpartition(" ")[2])
        if int(removed.rpartition(" ")[2]) != moved[name]:
            raise PersistenceError(f"Of {name}, {copied} were copied and {removed} removed.")
    # What the writers of the source have left of its words.
    for table in ("memory_words", "memory_sizes"):
        await connection.execute(
            f"delete from {source}_private.{table} where tenant_id = $1",  # noqa: S608 # nosec B608
            tenant_id,
        )
    return moved


async def collections(connection: Connection, schema: str) -> list[tuple[str, str]]:
    """The name and the quoted table of each collection; none in an installation without any."""
    check_schema_name(schema)
    register = f"{schema}_private.memory_collections"
    if not await connection.fetchval("select pg_catalog.to_regclass($1) is not null", register):
        return []
    rows = await connection.fetch(
        f"select name, pg_catalog.format('vecs.%I', table_name) from {register} order by name"  # noqa: S608 # nosec B608
    )
    return [(name, table) for name, table in rows]
