"""What a signed-in user may say of a memory of theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from haive.core.persistence.vector.backends.pgvector import PgvectorBackend

SOURCE = str(uuid4())
FORGED: list[dict[str, Any]] = [
    {"kind": "summary", "sources": [SOURCE]},
    {"kind": "merged"},
    {"kind": ["note"]},
    {"sources": [SOURCE]},
    {"context_ids": [SOURCE]},
    {"superseded_by": SOURCE},
    {"archived_for": SOURCE, "archived": True},
    {"archived_from": "2026-01-01T00:00:00.000000Z"},
    {"trust": "system"},
    {"writer": "admin"},
]


@asynccontextmanager
async def signed_in(
    owner: asyncpg.Connection, tenant: str, user: str
) -> AsyncIterator[asyncpg.Connection]:
    await owner.execute(
        "insert into haive.members (tenant_id, user_id, role) values ($1, $2, 'member')"
        " on conflict do nothing",
        *(tenant, user),
    )
    claims = json.dumps({"sub": user, "role": "authenticated"})
    async with owner.transaction():
        await owner.execute("select set_config('request.jwt.claims', $1, true)", claims)
        await owner.execute("set local role authenticated")
        yield owner


async def put(
    connection: asyncpg.Connection, backend: PgvectorBackend, tenant: str, memory: dict[str, Any]
) -> int:
    return await connection.fetchval(
        "select haive.put_memories($1, $2, $3)",
        *(backend.collection.name, json.dumps([memory]), tenant),
    )


@pytest.mark.parametrize("forged", FORGED)
async def test_members_do_not_say_what_a_memory_was_made_of(
    backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str, forged: dict[str, Any]
) -> None:
    memory = {"id": str(uuid4()), "metadata": {"text": "x", "user_id": "joe", **forged}}
    with pytest.raises(asyncpg.PostgresError, match="members do not say") as refused:
        async with signed_in(owner, tenant, "joe") as connection:
            await put(connection, backend, tenant, memory)
    assert refused.value.sqlstate == "PT403"
    assert await backend.get([memory["id"]]) == []


async def test_members_write_notes_and_keep_what_a_service_has_written(
    backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    plain = {"text": "x", "kind": "note", "user_id": "joe", "sources": [], "trust": "user",
             "writer": "joe", "superseded_by": None}  # fmt: skip
    made = {**plain, "kind": "turn", "context_ids": [SOURCE], "trust": "assistant", "writer": "bot"}
    memory = {"id": str(uuid4()), "metadata": made}
    await put(owner, backend, tenant, memory)
    async with signed_in(owner, tenant, "joe") as connection:
        assert await put(connection, backend, tenant, {"id": str(uuid4()), "metadata": plain}) == 1
        memory["metadata"] = {**made, "archived": True}
        assert await put(connection, backend, tenant, memory) == 1
    [record] = await backend.get([memory["id"]])
    assert record.metadata["archived"] is True
    memory["metadata"] = {**made, "context_ids": [SOURCE, str(uuid4())]}
    with pytest.raises(asyncpg.PostgresError, match="context_ids"):
        async with signed_in(owner, tenant, "joe") as connection:
            await put(connection, backend, tenant, memory)
