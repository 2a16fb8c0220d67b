"""Memories go where their tenant goes, and their user: limits, records, erasure, export, purge."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from making_notes import collection_of, make_tenant, memory

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    QuotaExceededError,
    SubjectErasedError,
)
from haive.core.persistence.local import LocalStack
from haive.core.persistence.multitenancy import IsolationLevel, TenantConfig, TenantManager
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.config import RetrievalWeights
from haive.core.persistence.vector.filters import parse
from haive.core.persistence.vector.records import Query

Open = Callable[..., Awaitable[PgvectorBackend]]


async def _counts(owner: asyncpg.Connection, name: str, tenant: str) -> list[int]:
    return [
        await owner.fetchval(f"select count(*) from {table}", tenant)
        for table in (
            f'vecs."{name}" where tenant_id = $1',
            "haive_private.memory_words where tenant_id = $1",
            "haive_private.memory_sizes where tenant_id = $1",
        )
    ]


async def test_an_erased_user_leaves_no_memory_and_no_word_and_writes_none(
    backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    await backend.put([memory(f"cat {n}", user_id="ann") for n in range(30)])
    await backend.put([memory("dog", user_id="bob")])
    erase = "select haive.erase_user('ann', 20, $1)"
    answers = [json.loads(await owner.fetchval(erase, tenant)) for _ in range(5)]
    assert answers[-1]["done"]
    assert answers[-1]["counts"]["memories"] == 30
    assert [each.metadata["text"] for each in await backend.find(None, limit=9)] == ["dog"]
    words = "select lexeme from haive_private.memory_words where tenant_id = $1"
    assert [row[0] for row in await owner.fetch(words, tenant)] == ["dog"]
    with pytest.raises(SubjectErasedError):
        await backend.put([memory("cat", user_id="ann")])
    with pytest.raises(asyncpg.PostgresError, match="erased"):  # nor does vecs, as the owner
        await owner.execute(
            f'insert into vecs."{backend.collection.name}" (id, metadata, tenant_id)'
            """ values ('x', '{"user_id": "ann"}', $1)""",
            tenant,
        )


async def test_what_is_held_about_a_user_is_exported_by_pages(
    open_backend: Open, owner: asyncpg.Connection, tenant: str
) -> None:
    written = []
    for of in (collection_of(), collection_of()):
        backend = await open_backend(of)
        some = [memory(f"cat {n}", user_id="ann") for n in range(3)]
        await backend.put([*some, memory("dog", user_id="bob")])
        written += [(of.name, each.id) for each in some]
    found, after = [], None
    while True:
        answer = await owner.fetchval(
            "select haive.export_user('ann', 'memories', 2, $1, $2)", after, tenant
        )
        page = json.loads(answer)
        found += [(row["collection"], row["id"]) for row in page["rows"]]
        after = page["next"]
        if after is None:
            break
    assert found == sorted(written)


async def test_a_purged_tenant_leaves_nothing(
    backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    await backend.put([memory("a cat")])
    assert await _counts(owner, backend.collection.name, tenant) == [1, 1, 1]
    await owner.execute("update haive.tenants set status = 'deleted' where tenant_id = $1", tenant)
    await owner.execute("select haive.purge_tenant($1)", tenant)
    assert await _counts(owner, backend.collection.name, tenant) == [0, 0, 0]


async def test_retention_removes_memories_by_the_time_of_their_writing(
    backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    await backend.put([memory("old", created_at="2020-01-01T00:00:00.000000Z"), memory("undated")])
    apply = "select haive.apply_retention(10, $1)"
    assert "memories" not in json.loads(await owner.fetchval(apply, tenant))["counts"]
    await owner.execute(
        """update haive.tenants set settings = '{"data_retention_days": 30}'"""
        " where tenant_id = $1",
        tenant,
    )
    for _ in range(4):
        answer = json.loads(await owner.fetchval(apply, tenant))
    assert answer["done"]
    assert [each.metadata["text"] for each in await backend.find(None, limit=9)] == ["undated"]


async def test_retention_keeps_items_from_when_they_were_put_and_nothing_until_a_date_to_come(
    backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    old, today = "2020-01-01T00:00:00.000000Z", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    item = {"namespace": ["n"], "key": "j", "path": "n", "value": {}, "parts": []}
    unmarked = memory("put", **item, timestamp=today, created_at=old)
    ahead = memory("ahead", created_at="9999-01-01T00:00:00.000000Z")
    of_a_file = memory("noted", path="notes/2019.md", timestamp=old, created_at=today)
    gone = memory("gone", timestamp=today, created_at=old)
    await backend.put([unmarked, ahead, of_a_file, gone])
    name = backend.collection.name
    item = {"id": str(uuid4()), "namespace": ["n"], "key": "k", "value": {}}
    put = ("select haive.put_memory_items($1, $2, $3)", name, json.dumps([item]), tenant)
    await owner.fetchval(*put)
    table = await owner.fetchval(
        "select table_name from haive_private.memory_collections where name = $1", name
    )
    await owner.execute(
        f'update vecs."{table}" set metadata = metadata || $2 where id = $1',
        *(item["id"], json.dumps({"created_at": old})),
    )
    await owner.fetchval(*put)
    await owner.execute(
        """update haive.tenants set settings = '{"data_retention_days": 30}'"""
        " where tenant_id = $1",
        tenant,
    )
    for limit in (1, None):
        # What may not be written to waits, and keeps nothing else of retention from its work.
        await owner.execute(
            "update haive.tenants set metered = true, max_storage_bytes = $2 where tenant_id = $1",
            *(tenant, limit),
        )
        await owner.execute("select haive.reconcile_usage($1)", tenant)
        for _ in range(4):
            answer = await owner.fetchval("select haive.apply_retention(10, $1)", tenant)
        assert json.loads(answer)["done"]
        left = {each.id: each.metadata for each in await backend.find(None, limit=9)}
        assert ("renewed_at" in left[ahead.id]) is (limit is None)
    assert set(left) == {item["id"], unmarked.id, ahead.id, of_a_file.id}
    assert today < left[ahead.id]["renewed_at"] < f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


async def test_retention_leaves_nothing_of_what_it_removes(
    backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    old = memory("xylophone", created_at="2020-01-01T00:00:00.000000Z")
    following = memory("next", context="xylophone", context_ids=[old.id, "other"])
    kept = memory("kept", context="next", context_ids=[following.id])
    summary = memory("xylophone, next", kind="summary", sources=[old.id, following.id])
    above = memory("xylophone and all", kind="summary", sources=[summary.id])
    behind = memory("behind", archived=True, archived_for=above.id)
    apart = memory("a summary of its own", kind="summary", sources=[kept.id])
    await backend.put([old, following, kept, summary, above, behind, apart])
    await owner.execute(
        """update haive.tenants set settings = '{"data_retention_days": 30}'"""
        " where tenant_id = $1",
        tenant,
    )
    for _ in range(4):
        answer = json.loads(await owner.fetchval("select haive.apply_retention(10, $1)", tenant))
    assert answer["done"]
    left = {each.metadata["text"]: each.metadata for each in await backend.find(None, limit=9)}
    assert set(left) == {"next", "kept", "behind", "a summary of its own"}
    assert "xylophone" not in str(left)
    assert left["next"]["context_ids"] == []
    assert left["kept"]["context"] == "next"
    assert left["behind"]["archived"] is False


async def test_bytes_are_metered_exactly_and_held_to_the_limit(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    tenant = await make_tenant(owner, metered=True, max_storage_bytes=100_000)
    backend = await open_backend(tenant=tenant)
    first = memory("a cat", user_id="ann")
    await backend.put([first, *(memory(f"dog {n}") for n in range(20))])
    await backend.put([type(first)(id=first.id, metadata={"text": "longer " * 50})])
    await backend.delete([first.id])
    reconciled = await owner.fetchval("select haive.reconcile_usage($1)", tenant)
    assert json.loads(reconciled)["storage_drift"] == 0
    assert json.loads(reconciled)["storage"] > 2_000
    with pytest.raises(QuotaExceededError):
        await backend.put([memory("x" * 100_000)])
    assert await backend.count(None) == 20


async def test_what_is_written_and_read_goes_on_record(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    tenant = await make_tenant(owner, audit="all")
    backend = await open_backend(tenant=tenant)
    written = memory("a cat")
    await backend.put([written])
    await backend.get([written.id])
    await backend.delete([written.id])
    rows = await owner.fetch(
        "select action, object, rows from haive.audit_log where tenant_id = $1"
        " and object in ('memories', 'get_memories') order by seq",
        tenant,
    )
    name = backend.collection.name
    assert [(row["action"], json.loads(row["rows"])) for row in rows] == [
        ("insert", {written.id: name}),
        ("read", {name: 1}),
        ("delete", {written.id: name}),
    ]


async def test_a_sealed_tenant_has_no_memories(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    tenant = await make_tenant(owner)
    backend = await open_backend(tenant=tenant)
    await owner.execute("update haive.tenants set encrypted = true where tenant_id = $1", tenant)
    query = Query(
        text="a",
        vector=None,
        limit=1,
        filter=None,
        weights=RetrievalWeights(),
        now=datetime.now(UTC),
    )
    for attempt in (backend.put([memory("a")]), backend.search(query)):
        with pytest.raises(InvalidInputError, match="sealed"):
            await attempt
    with pytest.raises(asyncpg.PostgresError, match="sealed"):  # nor does vecs, as the owner
        await owner.execute(
            f"insert into vecs.\"{backend.collection.name}\" (id, tenant_id) values ('x', $1)",
            tenant,
        )


async def test_a_tenant_with_memories_is_not_sealed_and_one_that_was_can_delete_them(
    backend: PgvectorBackend, open_backend: Open, owner: asyncpg.Connection, tenant: str
) -> None:
    left = memory("in the clear")
    await backend.put([left])
    seal = "select haive.update_tenant($1, '{\"encrypted\": true}')"
    with pytest.raises(asyncpg.PostgresError, match="has memories") as refused:
        await owner.execute(seal, tenant)
    assert refused.value.sqlstate == "PT409"
    # Sealed before this was refused: what is there can be found, and goes.
    await owner.execute("update haive.tenants set encrypted = true where tenant_id = $1", tenant)
    again = await open_backend(backend.collection)
    assert [each.id for each in await again.find(None, limit=9)] == [left.id]
    assert await again.delete([left.id]) == [left.id]
    assert await again.count(None) == 0
    await owner.execute("update haive.tenants set encrypted = false where tenant_id = $1", tenant)
    await owner.execute(seal, tenant)


async def test_no_id_of_another_tenant_is_taken_and_no_collection_is_there_unopened(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    ours = await open_backend()
    theirs = await open_backend(tenant=await make_tenant(owner))
    one = memory("ours")
    await ours.put([one])
    with pytest.raises(ConflictError):
        await theirs.put([memory("new"), one])
    assert await theirs.count(None) == 0
    assert (await ours.get([one.id]))[0].metadata == one.metadata
    await owner.execute(f'drop table vecs."{ours.collection.name}"')
    await owner.execute(
        "delete from haive_private.memory_collections where name = $1", ours.collection.name
    )
    with pytest.raises(NotFoundError):
        await ours.count(None)


async def test_a_member_sees_and_writes_their_own_and_reads_nobodys(
    stack: LocalStack, backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    await owner.execute(
        "insert into haive.members (tenant_id, user_id, role) values ($1, $2, 'member')",
        *(tenant, f"ann of {tenant}"),
    )
    user = f"ann of {tenant}"
    mine = memory("cat", user_id=user)
    shared, other = memory("cat"), memory("cat", user_id="bob")
    await backend.put([mine, shared, other])
    async with SupabaseStore(
        stack.url, stack.publishable_key, access_token=stack.mint_user_token(user)
    ) as store:
        ann = PgvectorBackend(store)
        with pytest.raises(AccessDeniedError):
            await ann.open(backend.collection)
        ann._opened = backend.collection
        assert [each.id for each in await ann.find(None, limit=9)] == [mine.id, shared.id]
        assert await ann.count(parse({"$not": {"user_id": user}})) == 1
        await ann.put([memory("dog", user_id=user)])
        for foreign in (memory("dog"), memory("dog", user_id="bob")):
            with pytest.raises(AccessDeniedError):
                await ann.put([foreign])
        for taken in (shared, other):
            with pytest.raises(ConflictError):
                await ann.put([type(taken)(id=taken.id, metadata={"user_id": user})])
        assert await ann.delete([mine.id, shared.id, other.id]) == [mine.id]


async def test_a_number_is_not_the_member_whose_id_has_its_digits(
    stack: LocalStack, backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    user = tenant.removeprefix("memories-")
    await owner.execute(
        "insert into haive.members (tenant_id, user_id, role) values ($1, $2, 'member')",
        *(tenant, user),
    )
    token = stack.mint_user_token(user)
    async with SupabaseStore(stack.url, stack.publishable_key, access_token=token) as store:
        member = PgvectorBackend(store)
        member._opened = backend.collection
        await member.put([memory("cat", user_id=user)])
        with pytest.raises(AccessDeniedError):
            await member.put([memory("cat", user_id=int(user))])
    assert await backend.count(None) == 1


@pytest.mark.parametrize("transport", ["postgres"], indirect=True)
async def test_a_tenant_moves_with_its_memories_and_a_dropped_schema_drops_its_collections(
    stack: LocalStack, owner: asyncpg.Connection, backend: PgvectorBackend, tenant: str
) -> None:
    name = backend.collection.name
    written = [memory(f"cat {n}", seed=n) for n in range(5)]
    await backend.put(written)
    async with PostgresStore(PersistenceConfig(connection_string=stack.database_url)) as base:
        manager = TenantManager(base, TenantConfig())
        await manager.move_tenant(tenant, IsolationLevel.SCHEMA)
        assert await _counts(owner, name, tenant) == [0, 0, 0]
        async with manager.tenant_context(tenant) as store:
            await _has_all(store, backend, written)
            schema = store._transport.schema
            tables = f"select table_name from {schema}_private.memory_collections"
            assert [row[0] for row in await owner.fetch(tables)] == [f"{schema}:{name}"]
        await manager.move_tenant(tenant, IsolationLevel.ROW)
        async with manager.tenant_context(tenant) as store:
            await _has_all(store, backend, written)
        await manager.move_tenant(tenant, IsolationLevel.SCHEMA)
        await manager.delete_tenant(tenant)
        await manager.purge_tenant(tenant)
    left = "select to_regclass(format('vecs.%I', $1::text)) is not null"
    assert not await owner.fetchval(left, f"{schema}:{name}")
    assert await owner.fetchval(left, name)


async def _has_all(store: Store, of: PgvectorBackend, written: list[Any]) -> None:
    backend = PgvectorBackend(store)
    await backend.open(of.collection)
    assert [each.id for each in await backend.find(None, limit=9)] == [each.id for each in written]
    assert (await backend.stats())["words"] == 10


async def test_only_the_owner_opens_a_collection_without_a_tenant(
    owner: asyncpg.Connection, stack: LocalStack
) -> None:
    settings = json.dumps({"name": "nobodys"})
    opening = "select haive.open_memory_collection($1, '')"
    assert json.loads(await owner.fetchval(opening, settings))["table"] == "nobodys"
    for role in ("service_role", "haive_client"):
        async with owner.transaction():
            await owner.execute(f"set local role {role}")
            with pytest.raises(asyncpg.PostgresError) as refused:
                await owner.fetchval(opening, settings)
        assert refused.value.sqlstate == "PT404"
