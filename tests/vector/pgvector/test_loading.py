"""Loading is all or none, and what is done at once leaves what would be left by row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import numpy as np
import pytest
from counting import differences
from making_notes import collection_of, make_tenant, memory, unit

from haive.core.persistence.errors import (
    ConflictError,
    InvalidInputError,
    PersistenceError,
    QuotaExceededError,
    SubjectErasedError,
)
from haive.core.persistence.vector.backends import _pgvector_loading as loading
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.config import IndexType
from haive.core.persistence.vector.records import Record

Open = Callable[..., Awaitable[PgvectorBackend]]
pytestmark = pytest.mark.parametrize("transport", ["postgres"], indirect=True)

_INDEXES = "select indexdef from pg_indexes where schemaname = 'vecs' and tablename = $1 order by 1"
_TRIGGERS = """
select pg_get_triggerdef(oid), tgenabled::text from pg_trigger
where tgrelid = format('vecs.%I', $1::text)::regclass order by 1
"""


async def _left(owner: asyncpg.Connection, name: str) -> dict[str, Any]:
    """What a load could leave otherwise than it was."""
    return {
        "rows": await owner.fetchval(f'select count(*) from vecs."{name}"'),
        "indexes": [row[0] for row in await owner.fetch(_INDEXES, name)],
        "triggers": [tuple(row) for row in await owner.fetch(_TRIGGERS, name)],
        "wrong": await differences(owner, name),
    }


def _memories(number: int, **metadata: Any) -> list[Record]:
    return [
        memory(f"a cat and the dog {n % 7}", seed=n, context="sleeps", n=n, **metadata)
        for n in range(number)
    ]


async def test_what_is_loaded_is_there_as_if_it_had_been_written(
    backend: PgvectorBackend, open_backend: Open, owner: asyncpg.Connection
) -> None:
    name = backend.collection.name
    before = await _left(owner, name)
    records = [
        *_memories(450, user_id="ann"),
        memory("no vector", seed=None, n=10**30, deep={"ü": [1.5, None, True]}),
    ]
    tokens = Record(id=memory().id, metadata={}, vector=unit(7), tokens=b"packed")
    assert await backend.load([*records, tokens]) == 452
    after = await _left(owner, name)
    assert [each for each in before["indexes"] if "hnsw" not in each] == after["indexes"]
    assert (after["rows"], after["wrong"]) == (452, [])
    assert before["triggers"] == after["triggers"]
    found = await backend.get([each.id for each in records], vectors=True)
    assert [each.metadata for each in found] == [each.metadata for each in records]
    np.testing.assert_array_equal(found[3].vector, records[3].vector)
    assert found[-1].vector is None
    assert await backend.tokens([tokens.id]) == {tokens.id: b"packed"}

    seen = "select most_common_freqs from pg_stats where tablename = $1 and attname = 'tenant_id'"
    assert await owner.fetchval(seen, name) == [1], "the planner knows whose they are"

    loaded = await backend.stats()
    other = await open_backend(collection_of())
    await other.put([*records, tokens])
    written = await other.stats()
    for figure in ("memories", "words", "different_words"):
        assert loaded[figure] == written[figure]
    await backend.load(_memories(3))
    assert (await _left(owner, name))["wrong"] == []


async def test_without_vectors_a_large_tenant_gets_lists_of_its_own(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    of = collection_of(model=None, dimensions=None)
    others = await open_backend(of, tenant=await make_tenant(owner))
    assert await others.load([memory("a dog", seed=None) for _ in range(2_000)]) == 2_000
    large = await open_backend(of)
    await large.load([memory(f"a cat {n % 9}", seed=None, n=n % 9) for n in range(5_001)])
    words, data = await large.reindex(memory="64MB")
    whose = f"tenant_id = '{large._store._transport.tenant}'"
    for name, test in ((words, "words @@ 'cat'"), (data, """metadata @> '{"n": 3}'""")):
        plan = await owner.fetch(f'explain select from vecs."{of.name}" where {whose} and {test}')
        assert name.removeprefix("vecs.") in str(plan)


@pytest.mark.parametrize(
    ("text", "context"), [("a cat and a dog", {}), ("", {}), ("", {"context": "a cat sleeps"})]
)
async def test_words_are_counted_wherever_there_are_some(
    backend: PgvectorBackend,
    open_backend: Open,
    owner: asyncpg.Connection,
    text: str,
    context: dict[str, str],
) -> None:
    records = [memory(text, seed=n, **context) for n in range(20)]
    await backend.load(records)
    assert await differences(owner, backend.collection.name) == []
    other = await open_backend(collection_of())
    await other.put(records)
    loaded, written = await backend.stats(), await other.stats()
    for figure in ("memories", "words", "different_words"):
        assert loaded[figure] == written[figure]


async def test_a_load_that_ends_in_the_middle_leaves_all_as_it_was(
    backend: PgvectorBackend, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await _left(owner, backend.collection.name)
    messages = loading._messages
    killed = asyncio.Event()

    async def until_killed(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
        number = 0
        async for message in messages(*args, **kwargs):
            yield message
            number += 1
            if number == 3:
                # The server may be behind: what it is sent does not wait for it to begin.
                while not await owner.fetchval(  # noqa: ASYNC110 - another process tells
                    "select count(*) from pg_stat_activity where query ilike 'copy %'"
                    " and state = 'active' and pg_terminate_backend(pid)"
                ):
                    await asyncio.sleep(0.01)
                killed.set()

    monkeypatch.setattr(loading, "_messages", until_killed)
    with pytest.raises((PersistenceError, OSError)):
        await backend.load(_memories(3_000))
    assert killed.is_set()
    assert await _left(owner, backend.collection.name) == before
    monkeypatch.undo()
    assert await backend.load(_memories(30)) == 30


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (memory("wide", width=9), InvalidInputError),
        (Record(id=memory().id, metadata={}, vector=np.full(4, np.nan)), InvalidInputError),
        (Record(id=memory().id, metadata={}, vector=np.zeros(4)), InvalidInputError),
        (Record(id="one", metadata={}, vector=unit(1)), InvalidInputError),
        (memory("a\x00b"), InvalidInputError),
    ],
)
async def test_one_that_is_bad_keeps_all_out(
    backend: PgvectorBackend, owner: asyncpg.Connection, bad: Record, error: type[Exception]
) -> None:
    before = await _left(owner, backend.collection.name)
    with pytest.raises(error):
        await backend.load([*_memories(250), bad])
    assert await _left(owner, backend.collection.name) == before


async def test_an_id_twice_keeps_all_out(
    backend: PgvectorBackend, owner: asyncpg.Connection
) -> None:
    before = await _left(owner, backend.collection.name)
    some = _memories(30)
    with pytest.raises(ConflictError):
        await backend.load([*some, some[0]])
    assert await _left(owner, backend.collection.name) == before


async def test_what_is_loaded_counts_for_the_limits_of_its_tenant(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    tenant = await make_tenant(owner, max_storage_bytes=20_000, metered=True)
    metered = await open_backend(collection_of(), tenant=tenant)
    name = metered.collection.name
    await metered.load(_memories(40))
    counted = "select sum(bytes)::bigint from haive_private.meters where tenant_id = $1"
    bytes_ = await owner.fetchval(counted, tenant)
    await owner.execute("select set_config('persistence.tenant', $1, false)", tenant)
    assert bytes_ == await owner.fetchval("select haive_private.stored_memory_bytes($1)", tenant)
    assert bytes_ > 40 * 100
    other = await open_backend(collection_of(), tenant=tenant)
    with pytest.raises(QuotaExceededError):
        await other.load(_memories(400))
    assert (await _left(owner, name))["rows"] == 40
    assert (await _left(owner, other.collection.name))["rows"] == 0


async def test_of_an_audited_tenant_a_load_is_on_record(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    tenant = await make_tenant(owner, audit="writes")
    audited = await open_backend(collection_of(), tenant=tenant)
    await audited.load(_memories(1_200))
    (entry,) = await owner.fetch(
        "select action, object, rows, row_count from haive.audit_log where tenant_id = $1"
        " and object = 'memories'",
        tenant,
    )
    assert (entry["action"], entry["row_count"]) == ("insert", 1_200)
    assert json.loads(entry["rows"])["more"] == 200


async def test_nothing_is_loaded_of_who_was_erased(
    backend: PgvectorBackend, owner: asyncpg.Connection
) -> None:
    tenant = backend._store._transport.tenant
    await owner.execute("select haive.erase_user('ann', tenant => $1)", tenant)
    with pytest.raises(SubjectErasedError):
        await backend.load(_memories(30, user_id="ann"))
    assert await backend.count(None) == 0
    assert await backend.load(_memories(30, user_id="bob")) == 30


async def test_memories_that_were_counted_are_not_counted_again(
    backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    await backend.load(_memories(30))
    async with owner.transaction():
        await owner.execute("select haive_private.enter_tenant($1, true)", tenant)
        with pytest.raises(asyncpg.PostgresError, match="are counted"):
            await owner.execute(
                "select haive_private.count_loaded_memories($1, $2)",
                *(tenant, backend.collection.name),
            )
    assert await differences(owner, backend.collection.name) == []


async def test_who_writes_at_once_with_a_load_waits_for_it(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    of = collection_of()
    tenants = [await make_tenant(owner) for _ in range(3)]
    backends = [await open_backend(of, tenant=tenant) for tenant in tenants]
    loads = [each.load(_memories(600)) for each in backends]
    puts = [each.put(_memories(20)) for each in backends]
    await asyncio.gather(*loads, *puts)
    assert [await each.count(None) for each in backends] == [620] * 3
    assert (await _left(owner, of.name))["wrong"] == []
    assert all(fires == "O" for _, fires in (await _left(owner, of.name))["triggers"])


async def test_a_tenant_that_goes_takes_its_memories_and_one_that_is_not_there_gets_none(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    of = collection_of()
    tenant, other = await make_tenant(owner), await make_tenant(owner)
    for each in (tenant, other):
        await (await open_backend(of, tenant=each)).put(_memories(5))
    insert = f'insert into vecs."{of.name}" (id, metadata, tenant_id) values ($1, $2, $3)'
    with pytest.raises(asyncpg.PostgresError, match="no tenant nobody"):
        await owner.execute(insert, "one", "{}", "nobody")
    with pytest.raises(asyncpg.PostgresError, match="no tenant nobody"):
        await owner.execute(f"update vecs.\"{of.name}\" set tenant_id = 'nobody'")

    # Whoever writes holds the tenant, and who removes it waits and takes that along.
    writer = await asyncpg.connect(**_address(owner))
    writing = writer.transaction()
    await writing.start()
    await writer.execute(insert, "late", "{}", tenant)
    gone = asyncio.create_task(
        owner.execute("delete from haive.tenants where tenant_id = $1", tenant)
    )
    await asyncio.sleep(0.3)
    assert not gone.done()
    await writing.commit()
    await writer.close()
    await gone
    rows = f'select tenant_id, count(*) from vecs."{of.name}" group by 1'
    assert [tuple(row) for row in await owner.fetch(rows)] == [(other, 5)]
    async with owner.transaction():
        await owner.execute("set transaction isolation level repeatable read")
        with pytest.raises(asyncpg.PostgresError, match="others have just written"):
            await owner.execute("delete from haive.tenants where tenant_id = $1", other)


def _address(connection: asyncpg.Connection) -> dict[str, Any]:
    host, port = connection._addr
    params = connection._params
    return {
        "host": host, "port": port, "user": params.user, "password": params.password,
        "database": params.database,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("width", "index", "stored"),
    [
        (1_536, IndexType.HNSW, ("vector", "p")),
        (3_072, IndexType.HNSW, ("halfvec", "p")),
        (3_072, IndexType.BINARY, ("halfvec", "p")),
        (4_096, IndexType.BINARY, ("vector", "e")),
    ],
)
async def test_wide_vectors_are_in_the_page_of_their_row(
    open_backend: Open,
    owner: asyncpg.Connection,
    width: int,
    index: IndexType,
    stored: tuple[str, str],
) -> None:
    of = collection_of(dimensions=width, index_type=index)
    backend = await open_backend(of)
    records = [memory("a cat " * 300, seed=n, width=width) for n in range(12)]
    await backend.load(records)
    kind = (
        "select t.typname::text, a.attstorage::text"
        " from pg_attribute as a join pg_type as t on t.oid = a.atttypid"
        " where a.attrelid = format('vecs.%I', $1::text)::regclass and a.attname = 'vec'"
    )
    assert tuple(await owner.fetchrow(kind, of.name)) == stored
    (found,) = await backend.get([records[5].id], vectors=True)
    np.testing.assert_allclose(found.vector, records[5].vector, atol=1e-3)
    await backend.reindex(memory="64MB")
    assert len((await backend.stats())["indexes"]) == 1
