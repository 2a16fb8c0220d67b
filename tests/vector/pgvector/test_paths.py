"""However many memories there are, a search finds what comparing all of them would."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest
from making_notes import collection_of, make_tenant, memory

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    TenantSuspendedError,
)
from haive.core.persistence.local import LocalStack
from haive.core.persistence.schema import migrations
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.config import IndexType, RetrievalWeights
from haive.core.persistence.vector.filters import parse
from haive.core.persistence.vector.records import Query, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

Open = Callable[..., Awaitable[PgvectorBackend]]
pytestmark = pytest.mark.parametrize("transport", ["postgres"], indirect=True)
_MANY = 12_000
_WIDTH = 16


def _many(number: int, seed: int, width: int = _WIDTH) -> list[Record]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((number, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    blank = memory()
    return [
        Record(
            id=f"{blank.id[:24]}{seed:02x}{number:010x}",
            metadata={
                "number": number,
                "rare": number % 400 == 0,
                "importance": number % 100 / 100,
            },
            vector=vector,
        )
        for number, vector in enumerate(vectors)
    ]


def _near(center: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    return (center + rng.standard_normal(center.shape)).astype(np.float32)


async def _found(
    backend: PgvectorBackend, vector: Any, where: Any = None, **more: Any
) -> list[str]:
    facts = {"limit": 10, "weights": RetrievalWeights(), "now": datetime.now(UTC), **more}
    hits = await backend.search(Query(text="", vector=vector, filter=parse(where), **facts))
    return [hit.record.id for hit in hits]


def _nearest(records: list[Record], vector: Any, limit: int = 10) -> set[str]:
    vectors = np.stack([record.vector for record in records])
    order = np.argsort(-(vectors @ vector) / np.linalg.norm(vectors, axis=1))
    return {records[place].id for place in order[:limit]}


async def _recall(backend: PgvectorBackend, records: list[Record], where: Any = None) -> float:
    shares = []
    for query in _many(20, 99):
        wanted = _nearest(records, query.vector)
        shares.append(len(wanted & set(await _found(backend, query.vector, where))) / len(wanted))
    return sum(shares) / len(shares)


async def _uses(
    backend: PgvectorBackend,
    owner: asyncpg.Connection,
    name: str,
    counted: str = "idx_scan",
    *,
    of: str = "ix_%",
) -> int:
    """How often an index of vectors of the collection, or one so named, was read."""
    # What a connection counts it keeps to itself for a second, unless it is told not to.
    pool = backend._store._transport._pool
    async with pool.connection() as one, pool.connection() as another:
        for connection in (one, another):
            await connection.execute("select pg_stat_force_next_flush()")
    return await owner.fetchval(
        f"select coalesce(sum({counted}), 0) from pg_stat_user_indexes"
        " where schemaname = 'vecs' and relname = $1 and indexrelname like $2",
        name,
        of,
    )


@pytest.mark.parametrize("index", [IndexType.HNSW, IndexType.BINARY, IndexType.IVFFLAT])
async def test_of_many_the_index_finds_nearly_all_and_filters_lose_nothing(
    open_backend: Open, owner: asyncpg.Connection, index: IndexType
) -> None:
    of = collection_of(dimensions=_WIDTH, index_type=index)
    backend = await open_backend(of)
    records = _many(_MANY, 1)
    assert await backend.load(records) == _MANY
    assert (await backend.stats())["memories"] == _MANY
    told: list[float] = []
    (built,) = await backend.reindex(progress=lambda _, share: told.append(share), memory="64MB")
    assert built.startswith("vecs.ix_bits_" if index is IndexType.BINARY else "vecs.ix_vector_")
    assert told[-1] == 1.0
    assert await backend.reindex(memory="64MB") == []
    # 16 bits say little: those are for wide vectors.
    assert await _recall(backend, records) >= (0.45 if index is IndexType.BINARY else 0.9)
    assert await _uses(backend, owner, of.name) > 0 or index is IndexType.IVFFLAT
    for where, passes in (
        ({"rare": True}, lambda m: m["rare"]),
        ({"importance": {"$lt": 0.02}}, lambda m: m["importance"] < 0.02),
        ({"number": {"$gte": _MANY - 4}}, lambda m: m["number"] >= _MANY - 4),
    ):
        some = [record for record in records if passes(record.metadata)]
        assert await _recall(backend, some, where) == 1.0
    if index is not IndexType.BINARY:
        for where, passes in (
            # Tried on the nearest: enough of them pass, or the index is read further.
            ({"importance": {"$gte": 0.5}}, lambda m: m["importance"] >= 0.5),
            ({"number": {"$lt": _MANY // 6}}, lambda m: m["number"] < _MANY // 6),
        ):
            some = [record for record in records if passes(record.metadata)]
            assert await _recall(backend, some, where) >= 0.9
    everything = _many(1, 99)[0].vector
    assert len(await _found(backend, everything, {"importance": {"$gte": 0.1}}, limit=200)) == 200
    assert set(await _found(backend, everything, recall=1.0)) == _nearest(records, everything)


async def test_what_few_pass_is_compared_and_what_one_in_ten_pass_is_walked_once(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    of = collection_of(dimensions=_WIDTH)
    backend = await open_backend(of)
    records = _many(_MANY, 1)
    await backend.load(records)
    await backend.reindex(memory="64MB")
    await owner.execute(f'analyze vecs."{of.name}"')
    asked = _many(1, 99)[0].vector
    for where, passes, walks in (
        ({"importance": {"$lt": 0.02}}, lambda m: m["importance"] < 0.02, 0),
        ({"importance": {"$lt": 0.15}}, lambda m: m["importance"] < 0.15, 1),
        ({"importance": {"$lt": 0.6}}, lambda m: m["importance"] < 0.6, 1),
    ):
        before = await _uses(backend, owner, of.name)
        found = set(await _found(backend, asked, where))
        assert await _uses(backend, owner, of.name) == before + walks
        some = _nearest([record for record in records if passes(record.metadata)], asked)
        assert len(found & some) >= (10 if walks == 0 else 8)


async def test_of_more_that_pass_than_was_expected_not_all_are_compared(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    of = collection_of(dimensions=4)
    backend = await open_backend(of)
    await owner.execute(f'alter table vecs."{of.name}" set (autovacuum_enabled = false)')
    records = _many(9_000, 1, width=4)
    for record in records:
        record.metadata["importance"] = 0.9 if record.metadata["number"] % 2 else 0.1
    some = records[1::2]
    await backend.load(records[::2])
    await backend.reindex(memory="64MB")
    await owner.execute(f'analyze vecs."{of.name}"')
    await backend.load(some)
    asked = records[7].vector
    walked = await _uses(backend, owner, of.name)
    fetched = "select idx_tup_fetch from pg_stat_user_tables where relname = $1"
    before = await owner.fetchval(fetched, of.name)
    found = set(await _found(backend, asked, {"importance": {"$gt": 0.5}}))
    assert await _uses(backend, owner, of.name) == walked + 1
    assert 1_000 < await owner.fetchval(fetched, of.name) - before < 1_150
    assert len(found & _nearest(some, asked)) >= 8


async def test_of_few_bits_that_pass_few_are_compared(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    of = collection_of(dimensions=256, index_type=IndexType.BINARY)
    backend = await open_backend(of)
    rng = np.random.default_rng(7)
    centers = rng.standard_normal((60, 256))
    records = [
        replace(record, vector=_near(centers[place % 60], rng))
        for place, record in enumerate(_many(9_000, 1, width=256))
    ]
    await backend.load(records)
    await backend.reindex(memory="64MB")
    some = [record for record in records if record.metadata["importance"] < 0.2]
    before = await _uses(backend, owner, of.name, "idx_tup_read")
    shares = []
    for place in range(20):
        asked = _near(centers[place], rng)
        wanted = _nearest(some, asked)
        found = await _found(backend, asked, {"importance": {"$lt": 0.2}})
        shares.append(len(wanted & set(found)) / 10)
    read = await _uses(backend, owner, of.name, "idx_tup_read") - before
    assert sum(shares) / 20 >= 0.95
    # The hundred nearest, to see how many pass; then a hundred that pass, where 400 were compared.
    assert read / 20 < 100 + 1.2 * 100 / 0.2


async def test_of_a_large_tenant_what_passes_is_looked_up_without_reading_all_that_it_has(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    of = collection_of(dimensions=256, index_type=IndexType.FLAT)
    backend = await open_backend(of)
    other = await open_backend(of, tenant=await make_tenant(owner))
    records = _many(16_000, 1, width=256)
    for record in records:
        record.metadata["rare"] = record.metadata["number"] % 20 == 0
    await backend.load(records)
    await other.load(_many(16_000, 2, width=256))
    await owner.execute(f'analyze vecs."{of.name}"')
    passing = f"""t.tenant_id = '{await backend.tenant()}' and t.metadata @> '{{"rare": true}}'"""
    plan = await owner.fetch(f'explain select from vecs."{of.name}" as t where {passing}')
    assert any("BitmapAnd" in row[0] for row in plan), "as the planner would do it"
    before = await _uses(backend, owner, of.name, of="%_tenant_id_%")
    some = [record for record in records if record.metadata["rare"]]
    asked = records[7].vector
    assert set(await _found(backend, asked, {"rare": True})) == _nearest(some, asked)
    assert await _uses(backend, owner, of.name, of="%_tenant_id_%") == before
    assert await _uses(backend, owner, of.name, of="%_metadata_%") > 0


@pytest.mark.parametrize("limit", [None, 4096])
async def test_what_waits_to_be_worked_into_an_index_is_soon_read(
    open_backend: Open, owner: asyncpg.Connection, limit: int | None
) -> None:
    of = collection_of(dimensions=4, index_type=IndexType.FLAT)
    backend = await open_backend(of)
    await owner.execute(f'alter table vecs."{of.name}" set (autovacuum_enabled = false)')
    index = f'vecs."{of.name}_metadata_idx"'
    if limit is not None:  # what Postgres does by itself
        await owner.execute(f"alter index {index} set (gin_pending_list_limit = {limit})")
    await backend.load(_many(10, 1, width=4))
    await backend.load(_many(6_000, 2, width=4))
    pages = await owner.fetchval(f"select gin_clean_pending_list('{index}')")
    assert (pages <= 16) is (limit is None)


async def test_an_index_that_is_there_is_bounded_likewise(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    of = collection_of(dimensions=4, index_type=IndexType.FLAT)
    await open_backend(of)
    index = f'vecs."{of.name}_metadata_idx"'
    await owner.execute(f"alter index {index} reset (gin_pending_list_limit)")
    (again,) = [m for m in migrations() if m.name == "short_pending_lists"]
    options = f"select reloptions from pg_class where oid = '{index}'::regclass"
    transaction = owner.transaction()
    await transaction.start()
    try:
        await owner.execute(again.sql)
        assert await owner.fetchval(options) == ["gin_pending_list_limit=128"]
    finally:
        await transaction.rollback()  # it has functions too, of which later migrations make others


async def test_recall_is_not_measured_by_what_it_began_at(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    of = collection_of(dimensions=_WIDTH)
    tenant = await make_tenant(owner)
    backend = await open_backend(of, tenant=tenant)
    await backend.load(_many(6_000, 1))
    await backend.reindex(memory="64MB")
    recalls = json.loads(
        await owner.fetchval(
            "select haive.measure_memory_recall($1, samples => 7, tenant => $2)", of.name, tenant
        )
    )
    # Of the ten nearest of each of the seven samples nine are looked for.
    assert min(recalls.values()) < 1
    for recall in recalls.values():
        assert recall * 63 == pytest.approx(round(recall * 63))


async def test_a_small_tenant_finds_all_of_its_own_and_a_large_one_gets_an_index_of_its_own(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    of = collection_of(dimensions=_WIDTH)
    most = await open_backend(of)
    small = await open_backend(of, tenant=await make_tenant(owner))
    large = await open_backend(of, tenant=await make_tenant(owner))
    await most.load(_many(17_500, 1))
    few, many = _many(60, 2), _many(5_500, 3)
    await small.put(few)
    await large.load(many)
    assert len(await most.reindex(memory="64MB")) == 1
    assert await small.reindex(memory="64MB") == []
    own = await large.reindex(memory="64MB")
    assert [re.sub("[0-9a-f]{16}$", "", name) for name in own] == [
        "vecs.ix_own_",
        "vecs.ix_own_words_",
        "vecs.ix_own_data_",
    ]
    assert await large.reindex(memory="64MB") == []
    assert await _recall(small, few) == 1.0
    assert len(await _found(small, few[0].vector, limit=60)) == 60
    assert await _recall(large, many) >= 0.9
    assert len((await large.stats())["indexes"]) == 4


async def test_an_index_that_is_missing_is_built(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    backend = await open_backend(collection_of(dimensions=_WIDTH))
    await backend.put(_many(20, 1))
    ((name, valid),) = [(i["name"], i["valid"]) for i in (await backend.stats())["indexes"]]
    assert valid
    await owner.execute(f"drop index vecs.{name}")
    assert await backend.reindex(memory="64MB") == [f"vecs.{name}"]


async def test_lists_are_made_of_many_and_anew_when_their_number_is_off(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    backend = await open_backend(collection_of(dimensions=_WIDTH, index_type=IndexType.IVFFLAT))
    records = _many(_MANY, 1)
    await backend.put(records[:200])
    assert await backend.reindex(memory="64MB") == []
    assert (await backend.stats())["indexes"] == []
    await backend.load(records[200:])
    (name,) = await backend.reindex(memory="64MB")
    assert await _lists(owner, name) == ["lists=12"]
    statement = await owner.fetchval("select pg_get_indexdef($1::regclass)", name)
    for number, made_anew in ((40, False), (100, True)):
        await owner.execute(f"drop index {name}")
        await owner.execute(statement.replace("lists='12'", f"lists='{number}'"))
        assert await backend.reindex(memory="64MB") == ([name] if made_anew else [])
        assert await _lists(owner, name) == ["lists=12" if made_anew else f"lists={number}"]
    assert [f"vecs.{each['name']}" for each in (await backend.stats())["indexes"]] == [name]
    assert await _recall(backend, records) >= 0.9


async def _lists(owner: asyncpg.Connection, name: str) -> list[str]:
    return await owner.fetchval("select reloptions from pg_class where oid = $1::regclass", name)


async def test_an_index_of_a_tenant_that_was_purged_is_removed(
    open_backend: Open, owner: asyncpg.Connection, tenant: str
) -> None:
    of = collection_of(dimensions=_WIDTH)
    backend = await open_backend(of)
    await backend.put(_many(20, 1))
    gone = await make_tenant(owner)
    kept, left = [
        [
            await owner.fetchval(
                "select $3 || left(md5($1 || '/' || $2), 16)", of.name, whose, kind
            )
            for kind in ("ix_own_", "ix_own_words_", "ix_own_data_")
        ]
        for whose in (tenant, gone)
    ]
    names = kept + left
    for name in names:
        await owner.execute(
            f'create index {name} on vecs."{of.name}" using hnsw (vec extensions.vector_cosine_ops)'
        )
    await backend.reindex(memory="64MB")
    assert await _there(owner, names) == set(names)
    await owner.execute("delete from haive.tenants where tenant_id = $1", gone)
    await backend.reindex(memory="64MB")
    assert await _there(owner, names) == set(kept)


async def _there(owner: asyncpg.Connection, names: list[str]) -> set[str]:
    rows = await owner.fetch("select relname from pg_class where relname = any($1)", names)
    return {name for (name,) in rows}


async def test_a_connection_to_another_database_is_refused(
    open_backend: Open,
    owner: asyncpg.Connection,
    stack: LocalStack,
    new_database: Callable[..., Awaitable[str]],
    template: str,
) -> None:
    of = collection_of(dimensions=_WIDTH)
    backend = await open_backend(of, tenant="default")
    elsewhere = await new_database(template)
    with pytest.raises(ConfigurationError, match="another database"):
        await backend.reindex(connection_string=elsewhere, memory="64MB")
    config = PersistenceConfig(connection_string=elsewhere, pool_size=1)
    async with PostgresStore(config) as store:
        await PgvectorBackend(store).open(of)
    with pytest.raises(ConfigurationError, match="another database"):
        await backend.reindex(connection_string=elsewhere, memory="64MB")
    assert await backend.reindex(connection_string=stack.database_url, memory="64MB") == []


async def test_loading_is_all_or_none_counted_and_for_those_who_may_write(
    open_backend: Open, owner: asyncpg.Connection
) -> None:
    tenant = await make_tenant(owner)
    backend = await open_backend(tenant=tenant)
    first = memory("a cat", n=1)
    await backend.put([first])
    with pytest.raises(ConflictError):
        await backend.load([memory("new"), first])
    with pytest.raises(InvalidInputError):
        await backend.load([memory("new"), memory("wide", width=9)])
    assert await backend.count(None) == 1
    assert await backend.load([memory("a cat sleeps") for _ in range(5)]) == 5
    assert (await backend.stats())["words"] == 11
    await owner.execute(
        "update haive.tenants set status = 'suspended' where tenant_id = $1", tenant
    )
    with pytest.raises(TenantSuspendedError):
        await backend.load([memory("new")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dimensions": 4_001}, "no index of type hnsw"),
        ({"language": "klingon"}, "no language klingon"),
        ({"dimensions": 16_001, "index_type": IndexType.FLAT}, "do not mean anything"),
        ({"model": None}, "do not mean anything"),
        ({"m": 50}, "do not mean anything"),
        ({"name": "Upper"}, "name of a collection"),
    ],
)
async def test_a_collection_that_cannot_be_is_refused(
    open_backend: Open, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        await open_backend(collection_of(**change))


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
async def test_nearness_alone_scores_as_it_does_beside_the_other_signals(
    open_backend: Open, owner: asyncpg.Connection, metric: str
) -> None:
    backend = await open_backend(collection_of(metric=metric))
    records = [memory(f"cat {n}", seed=n) for n in range(11)]
    # As vecs may write it: without a direction, so that its cosine is no number.
    blank = memory("cat")
    await backend.put([*records, blank, memory("no vector", seed=None)])
    await owner.execute(
        f"update vecs.\"{backend.collection.name}\" set vec = '[0,0,0,0]' where id = $1", blank.id
    )
    facts: dict[str, Any] = {
        "text": "", "vector": memory(seed=3).vector, "limit": 12, "filter": None,
        "now": datetime.now(UTC), "parts": True,
    }  # fmt: skip
    alone = await backend.search(Query(**facts, weights=RetrievalWeights()))
    beside = await backend.search(Query(**facts, weights=RetrievalWeights(importance=1e-9)))
    assert [hit.record for hit in alone] == [hit.record for hit in beside]
    assert [hit.score for hit in alone] == pytest.approx([hit.score for hit in beside])
    assert alone[0].parts["vector"] == alone[0].score == 1.0
    if metric == "cosine":
        assert (alone[-1].record.id, alone[-1].score) == (blank.id, 0.0)


async def test_what_is_nearest_is_read_once_with_its_metadata(
    backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    await backend.put([memory(f"cat {n}", seed=n) for n in range(12)])
    async with owner.transaction():
        await owner.execute("set local role haive_client")
        await owner.fetchval(
            "select haive.search_memories($1, $2, $3)",
            backend.collection.name,
            '{"vector": "[1,0,0,0]", "limit": 5}',
            tenant,
        )
        reads = await owner.fetchval(
            "select seq_scan + coalesce(idx_scan, 0) from pg_stat_xact_user_tables"
            " where schemaname = 'vecs' and relname = $1",
            backend.collection.name,
        )
    assert reads == 1
