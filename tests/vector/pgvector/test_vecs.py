"""Supabase's own client reads, writes and queries our collections, and we what it has written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import numpy as np
import pytest
from making_notes import WIDTH, collection_of, memory, unit

from haive.core.persistence.local import LocalStack
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.config import IndexType, RetrievalWeights
from haive.core.persistence.vector.filters import parse
from haive.core.persistence.vector.records import Query

vecs = pytest.importorskip("vecs")

Open = Callable[..., Awaitable[PgvectorBackend]]
pytestmark = [
    pytest.mark.parametrize("transport", ["postgres"], indirect=True),
    # Its own, of 2023.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]


@pytest.fixture
def vecs_client(stack: LocalStack) -> Iterator[Any]:
    # With SQLAlchemy 2.1 a plain postgresql:// would mean psycopg 3, which vecs cannot use.
    client = vecs.create_client(
        stack.database_url.replace("postgresql://", "postgresql+psycopg2://")
    )
    yield client
    client.disconnect()


def _query(text: str, vector: Any, **more: Any) -> Query:
    facts = {"limit": 5, "filter": None, "weights": RetrievalWeights(), "now": datetime.now(UTC)}
    return Query(text=text, vector=vector, **{**facts, **more})


async def test_vecs_reads_and_queries_what_we_wrote(
    backend: PgvectorBackend, vecs_client: Any
) -> None:
    written = [memory(f"cat {n}", seed=n, topic="tea" if n % 2 else "coffee") for n in range(8)]
    await backend.put(written)
    name = backend.collection.name
    assert name in {each.name for each in vecs_client.list_collections()}
    docs = vecs_client.get_collection(name)
    assert docs.dimension == WIDTH
    ((key, vector, metadata),) = docs.fetch([written[3].id])
    assert (key, metadata) == (written[3].id, written[3].metadata)
    np.testing.assert_allclose(vector, written[3].vector, atol=1e-6)
    found = docs.query(unit(3), limit=3, filters={"topic": {"$eq": "tea"}})
    assert found[0] == written[3].id
    assert docs.is_indexed_for_measure(vecs.IndexMeasure.cosine_distance)


async def test_we_find_what_vecs_wrote_changed_and_deleted(
    open_backend: Open, vecs_client: Any
) -> None:
    backend = await open_backend(tenant="default")
    docs = vecs_client.get_collection(backend.collection.name)
    docs.upsert([
        ("one", unit(1), {"text": "The grinder stops", "user_id": "ann"}),
        ("two", unit(2), {"text": "Weather is fine"}),
    ])  # fmt: skip
    hits = await backend.search(_query("Why do grinders stop?", unit(9)))
    assert hits[0].record.id == "one"
    assert await backend.count(parse({"user_id": "ann"})) == 1
    docs.upsert([("one", unit(1), {"text": "A cat sleeps"})])
    hits = await backend.search(_query("Does the cat sleep?", None))
    assert (hits[0].record.id, len(hits)) == ("one", 2)
    assert await backend.count(parse({"user_id": "ann"})) == 0
    docs.delete(ids=["one"])
    assert [hit.record.id for hit in await backend.search(_query("cat", None))] == ["two"]
    assert (await backend.stats())["words"] == 2


async def test_a_text_that_vecs_changes_loses_the_vectors_of_its_old_words(
    open_backend: Open, vecs_client: Any
) -> None:
    backend = await open_backend(tenant="default")
    first = memory("old")
    await backend.put([type(first)(**{**_fields(first), "tokens": b"packed"})])
    assert await backend.tokens([first.id]) == {first.id: b"packed"}
    docs = vecs_client.get_collection(backend.collection.name)
    docs.upsert([(first.id, first.vector, {"text": "old", "more": 1})])
    assert await backend.tokens([first.id]) == {first.id: b"packed"}
    docs.upsert([(first.id, first.vector, {"text": "new"})])
    assert await backend.tokens([first.id]) == {}


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("id", "metadata", "vector", "tokens")}


async def test_vectors_of_16_bits_are_read_and_written_by_vecs_too(
    open_backend: Open, vecs_client: Any, owner: asyncpg.Connection
) -> None:
    wide = collection_of(dimensions=3072, index_type=IndexType.HNSW)
    backend = await open_backend(wide, tenant="default")
    await backend.put([memory(f"cat {n}", seed=n, width=3072) for n in range(4)])
    docs = vecs_client.get_collection(wide.name)
    docs.upsert([("theirs", unit(9, 3072), {"text": "dog"})])
    assert docs.query(unit(9, 3072), limit=1) == ["theirs"]
    hits = await backend.search(_query("", unit(9, 3072), limit=1))
    assert hits[0].record.id == "theirs"
    kind = (
        "select format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = $1::text::regclass and attname = 'vec'"
    )
    assert (await owner.fetchval(kind, f'vecs."{wide.name}"')).endswith("halfvec(3072)")
