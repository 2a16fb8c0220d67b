"""Erased is gone: from the files of the server too, whose every byte is searched."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store
from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer
from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.errors import AccessDeniedError, LockTimeoutError
from haive.core.persistence.local import LocalStack
from haive.core.persistence.multitenancy import (
    AuditMode,
    IsolationLevel,
    Members,
    Subjects,
    TenantConfig,
    TenantManager,
    _scrub,
    scrub,
)
from haive.core.persistence.schema import migrate
from haive.core.persistence.vector import IndexType, MemoryConfig, VectorMemory


@pytest.fixture(scope="module")
async def server():
    """A server of its own, with an installation of its own: every file of it is searched."""
    async with LocalStack() as running:
        yield running


@pytest.fixture
async def admin(server):
    connection = await asyncpg.connect(server.admin_url)
    yield connection
    await connection.close()


def _markers(prefix):
    # Put together here, so that it is in no file but those of the server.
    return [f"{prefix}x{n:03d}x{prefix[::-1]}" for n in range(200)]


def _found(root: Path, prefix: str) -> dict[str, int]:
    """How often markers are in which file."""
    found = {}
    for file in root.rglob("*"):
        try:
            count = file.read_bytes().count(f"{prefix}x".encode()) if file.is_file() else 0
        except FileNotFoundError:  # of a server at work
            continue
        if count:
            found[str(file.relative_to(root))] = count
    return found


async def _leave_traces(store: Store, prefix: str, user: str) -> None:
    """Store 200 markers in all places that hold what users say, and learn them by ANALYZE."""
    markers = _markers(prefix)
    conversations = [
        await store.create_conversation(
            "agent", user, {"title": marker, "tags": [marker], "context": {"k": marker}}
        )
        for marker in markers[:20]
    ]
    # The commonest values are what ANALYZE keeps, so each is there several times.
    for _ in range(3):
        await asyncio.gather(
            *(
                store.add_message(
                    conversations[n % 20].id,
                    "user",
                    marker if n % 20 else f"{marker} {os.urandom(3000).hex()}",
                    metadata={"said": marker},
                )
                for n, marker in enumerate(markers)
            )
        )
    checkpointer = Checkpointer(store, CheckpointConfig(compression="none"))
    for n, marker in enumerate(markers[:50]):
        await checkpointer.save(
            f"{prefix}x thread {n % 3}", {"said": marker}, {"note": marker}, (marker,),
            user_id=user,
        )  # fmt: skip
    await Members(store).add(user)
    await Members(store).invite(label=user)
    bystander = await store.create_conversation("agent", "bystander", {"participants": [user]})
    await store.add_message(bystander.id, "user", "this stays")
    await _leave_memories(store, markers, user)


async def _leave_memories(store: Store, markers: list[str], user: str) -> None:
    # With a graph of vectors, and one of bits: what ANALYZE learns of those is kept of their index.
    for kind in (IndexType.HNSW, IndexType.BINARY):
        config = MemoryConfig(
            index_name=f"said-{kind}",
            index_type=kind,
            embedder=HashingEmbedder(64),
            near_duplicate=None,
        )
        async with VectorMemory(config=config, store=store) as memory:
            await memory.add_many([f"remember {marker}" for marker in markers[:20]], user_id=user)


@pytest.fixture
def trace(server, admin):
    """Leave markers in the server's files and erase their user: `await trace("prefix")`."""

    async def leave(prefix: str) -> None:
        user = f"{prefix}x user"
        config = PersistenceConfig(connection_string=server.database_url, pool_size=2)
        async with PostgresStore(config) as store:
            await _leave_traces(store, prefix, user)
        await admin.execute("analyze")
        await admin.execute("checkpoint")
        before = _found(server.data_dir, prefix)
        assert sum(before.values()) > 1_000
        assert any("pg_wal" in name for name in before)
        async with PostgresStore(config) as store:
            await Subjects(store).erase(user)

    return leave


async def test_vacuum_and_checkpoint_alone_leave_what_was_erased(server, admin, trace):
    """The control: what the search finds without what `scrub` does."""
    await trace("alone")
    await admin.execute("vacuum")
    await admin.execute("checkpoint")
    found = _found(server.data_dir, "alone")
    assert any("pg_wal" in name for name in found)
    assert any("base" in name for name in found)
    await scrub(server.admin_url)


async def test_nothing_erased_is_in_any_file_after_a_scrub(server, admin, trace):
    await trace("gone")
    learnt = (
        "select count(*) from pg_statistic join pg_class as c on c.oid = starelid"
        " where relnamespace = 'vecs'::regnamespace and relkind = $1"
    )
    assert await admin.fetchval(learnt, b"r") > 0
    assert await admin.fetchval(learnt, b"i") > 0
    done = await scrub(server.admin_url)
    assert done.left == []
    assert done.tables > 10
    assert done.columns > 0
    assert done.wal_segments > 0
    assert _found(server.data_dir, "gone") == {}
    assert await admin.fetchval(learnt, b"r") == 0
    assert await admin.fetchval(learnt, b"i") == 0
    config = PersistenceConfig(connection_string=server.database_url)
    async with PostgresStore(config) as store:
        page = await store.query_conversations("bystander", include_messages=True)
        assert {one.messages[0].content for one in page} == {"this stays"}


@pytest.mark.parametrize(
    ("step", "remains"),
    [
        ("_write_anew", "base"),
        ("_forget_statistics", "base"),
        ("_run_through_log", "pg_wal"),
    ],
)
async def test_each_step_of_it_is_needed(server, trace, monkeypatch, step, remains):
    prefix = f"without{step}"
    await trace(prefix)

    async def skip(*_: object) -> None:
        """Do nothing in its place."""

    with monkeypatch.context() as sabotaged:
        sabotaged.setattr(_scrub, step, skip)
        await scrub(server.admin_url)
    assert any(remains in name for name in _found(server.data_dir, prefix))
    await scrub(server.admin_url)
    assert _found(server.data_dir, prefix) == {}


async def test_who_may_not_touch_the_log_is_told_so_and_gets_the_rest(server, trace):
    await trace("owner")
    done = await scrub(server.database_url)
    assert any("write-ahead log" in one for one in done.left)
    found = _found(server.data_dir, "owner")
    assert found
    assert all("pg_wal" in name for name in found)
    await scrub(server.admin_url)


async def test_who_still_sees_what_was_deleted_is_waited_for_and_told(server, trace):
    reader = await asyncpg.connect(server.database_url)
    transaction = reader.transaction(isolation="repeatable_read")
    await transaction.start()
    await reader.fetch("select count(*) from pg_class")
    await trace("seen")
    done = await scrub(server.admin_url, patience=0.2)
    assert any("still see" in one for one in done.left)
    assert _found(server.data_dir, "seen") != {}
    waiting = asyncio.create_task(scrub(server.admin_url))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await transaction.rollback()
    await reader.close()
    assert (await waiting).left == []
    assert _found(server.data_dir, "seen") == {}


async def test_a_table_in_use_is_a_lock_timeout(server):
    other = await asyncpg.connect(server.database_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("lock table haive.messages")
    with pytest.raises(LockTimeoutError):
        await scrub(server.admin_url, lock_timeout="100ms")
    await transaction.rollback()
    await other.close()


async def test_an_installation_of_another_name_is_scrubbed_and_databases_are_left(server, admin):
    await migrate(server.database_url, schema="elsewhere")
    await admin.execute(
        "insert into elsewhere.tenants (tenant_id, name, isolation, location)"
        " values ('far', 'Far', 'database', 'eu-1')"
    )
    done = await scrub(server.admin_url, schema="elsewhere")
    assert done.tables > 10
    assert [one for one in done.left if "databases of tenants" in one and "eu-1" in one]


async def test_only_the_owner_scrubs(server, admin):
    await admin.execute("create role passer_by login password 'x'")
    host = server.database_url.partition("@")[2]
    with pytest.raises(AccessDeniedError):
        await scrub(f"postgresql://passer_by:x@{host}")


async def test_schemas_of_tenants_are_scrubbed_too_and_what_is_left_of_purged_ones(server, admin):
    config = PersistenceConfig(connection_string=server.database_url, pool_size=2)
    async with PostgresStore(config) as store:
        manager = TenantManager(store, TenantConfig(isolation_level=IsolationLevel.SCHEMA))
        await manager.create_tenant("apart", audit=AuditMode.OFF)
        # The record stays when a tenant is purged, and with it the emptied schema.
        await manager.create_tenant("recorded", audit=AuditMode.WRITES)
        for tenant in ("apart", "recorded"):
            async with manager.tenant_context(tenant) as its_store:
                await _leave_memories(its_store, _markers(tenant), "somebody")
        await admin.execute("analyze")
        async with manager.tenant_context("apart") as its_store:
            await Subjects(its_store).erase("somebody")
        await manager.delete_tenant("recorded")
        await manager.purge_tenant("recorded")
    await admin.execute("checkpoint")
    schemas = "select count(*) from pg_namespace where nspname like 'haive_t_recorded_%'"
    assert await admin.fetchval(schemas) == 2
    for tenant in ("apart", "recorded"):
        assert any("base" in name for name in _found(server.data_dir, tenant))
    done = await scrub(server.admin_url)
    assert done.left == []
    for tenant in ("apart", "recorded"):
        assert _found(server.data_dir, tenant) == {}
