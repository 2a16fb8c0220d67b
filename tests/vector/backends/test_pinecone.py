"""What is Pinecone's own: its bounds, its key, and what it is asked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from unittest.mock import AsyncMock, Mock

import pytest
from backends.fakes.pinecone import KEY, FakePinecone
from making import collection, record, unit
from pinecone.errors import PineconeValueError

from haive.core.persistence.errors import (
    AccessDeniedError,
    CollectionMismatchError,
    ConfigurationError,
    ContentTooLargeError,
    DatabaseError,
    UnavailableError,
)
from haive.core.persistence.vector.backends import _fusing, pinecone
from haive.core.persistence.vector.backends.pinecone import PineconeBackend
from haive.core.persistence.vector.config import IndexType, RetrievalWeights
from haive.core.persistence.vector.filters import parse
from haive.core.persistence.vector.records import Query


@pytest.fixture
async def fake() -> AsyncIterator[FakePinecone]:
    made = FakePinecone()
    await made.server.start_server()
    yield made
    await made.server.close()


@pytest.fixture
async def backend(fake: FakePinecone) -> AsyncIterator[PineconeBackend]:
    made = PineconeBackend(tenant="acme", api_key=KEY, url=fake.url)
    await made.open(collection(model="BAAI/bge:small"))
    yield made
    await made.aclose()


def test_without_a_key_the_setting_and_its_variable_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PINECONE_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=r"Pass api_key, or set PINECONE_API_KEY\."):
        PineconeBackend()


@pytest.mark.parametrize("missing", ["pinecone", "snowballstemmer"])
def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'haive-persistence\[pinecone\]'"):
        PineconeBackend(api_key=KEY)


async def test_too_much_metadata_is_refused_before_anything_is_stored(
    backend: PineconeBackend,
) -> None:
    await backend.put([record("é" * 19_000)])
    with pytest.raises(ContentTooLargeError, match=r"Pinecone takes 40,960"):
        await backend.put([record("small"), record("é" * 21_000)])
    assert await backend.count(None) == 1


async def test_what_is_made_of_500_memories_is_stored_and_of_more_said_to_be_long(
    backend: PineconeBackend,
) -> None:
    whole = record("opening", sources=[record().id for _ in range(500)])
    await backend.put([whole])
    assert await backend.count(parse({"sources": {"$contains": whole.metadata["sources"][7]}})) == 1
    with pytest.raises(ContentTooLargeError, match=r"Pinecone takes 40,960") as caught:
        await backend.put([record("", sources=[record().id for _ in range(600)])])
    assert "so long a conversation as several" in str(caught.value.hint)


async def test_a_tenant_is_a_namespace_and_no_negation_is_sent(
    fake: FakePinecone, backend: PineconeBackend
) -> None:
    await backend.put([record("a", topic="tea"), record("b", topic=None)])
    assert await backend.count(parse({"topic": {"$ne": "tea"}, "n": {"$not": {"$gt": 1}}})) == 1
    for path, body in fake.requests:
        if path.startswith("/data") and body is not None and "vectors/" in path:
            assert body["namespace"] == "acme"
        assert not any(op in str(body) for op in ("$ne", "$nin", "$not", "$exists"))


async def test_a_large_batch_is_sent_in_requests_that_the_service_takes(
    fake: FakePinecone, backend: PineconeBackend
) -> None:
    await backend.put([record("x" * 30_000) for _ in range(120)])
    assert await backend.count(None) == 120
    sent = [len(body["vectors"]) for path, body in fake.requests if path.endswith("upsert")]
    assert sum(sent) == 120
    assert max(sent) < 60


async def test_answers_stay_below_what_the_service_sends(backend: PineconeBackend) -> None:
    await backend.put([replace(record("x" * 30_000, n=n), vector=unit(n)) for n in range(250)])
    hits = await backend.search(
        Query(
            text="x", vector=unit(0), limit=30, filter=None, weights=RetrievalWeights(),
            now=datetime(2026, 6, 1, tzinfo=UTC),
        )
    )  # fmt: skip
    assert len(hits) == 30
    assert len(await backend.find(None, limit=300)) == 250
    ids = [hit.record.id for hit in hits]
    assert [each.id for each in await backend.get(ids)] == ids


async def test_of_many_not_all_are_read_where_enough_of_the_nearest_pass(
    fake: FakePinecone, backend: PineconeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fusing, "WORDS_UP_TO", 300)
    monkeypatch.setattr(pinecone, "_MOST_NEAR", 400)
    topics = ["coffee" if n % 50 == 0 else "tea" for n in range(600)]
    await backend.put([record("x", seed=n, topic=topic) for n, topic in enumerate(topics)])
    hits = await backend.search(
        Query(
            text="x", vector=unit(0), limit=5, filter=parse({"topic": {"$ne": "tea"}}),
            weights=RetrievalWeights(), now=datetime(2026, 6, 1, tzinfo=UTC),
        )
    )  # fmt: skip
    assert [hit.record.metadata["topic"] for hit in hits] == ["coffee"] * 5
    assert not any(path.endswith("fetch_by_metadata") for path, _ in fake.requests)


async def test_what_was_just_written_is_found_by_its_id(
    fake: FakePinecone, backend: PineconeBackend
) -> None:
    fake.lag = 2
    one, two, three = (replace(record(str(n), seed=n), tokens=b"\x00") for n in range(3))
    await backend.put([one, two, three])
    assert [each.id for each in await backend.get([one.id])] == [one.id]
    assert await backend.replace([replace(two, metadata={"n": 1}, vector=None, tokens=None)]) == 1
    await backend.put([replace(three, metadata={"n": 2}, vector=None, tokens=None)])
    for each in await backend.get([two.id, three.id], vectors=True):
        assert each.vector is not None
    assert len(await backend.tokens([two.id, three.id])) == 2
    assert await backend.delete([two.id, three.id]) == [two.id, three.id]
    assert await backend.count(None) == 1


async def test_what_was_just_changed_is_found_as_it_is(
    fake: FakePinecone, backend: PineconeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinecone, "_PAUSE", 0.01)
    fake.lag = 2
    one = record("one")
    await backend.put([one])
    for name in ("a", "b"):
        [found] = await backend.get([one.id])
        told = {**found.metadata, name: 1}
        assert await backend.replace([replace(one, metadata=told, vector=None)]) == 1
    [found] = await backend.get([one.id], vectors=True)
    assert found.metadata == {**one.metadata, "a": 1, "b": 1}
    # What another process has written since is not waited for.
    fake.lag = 0
    other = PineconeBackend(tenant="acme", api_key=KEY, url=fake.url)
    await other.open(collection(model="BAAI/bge:small"))
    await backend.put([one])
    await other.put([replace(one, metadata={"theirs": 1})])
    monkeypatch.setattr(pinecone, "_PAUSE", 1_000)
    assert [each.metadata for each in await backend.get([one.id])] == [{"theirs": 1}]
    await other.aclose()


async def test_of_a_write_that_was_cut_off_what_is_there_is_waited_for(
    fake: FakePinecone, backend: PineconeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinecone, "_PAUSE", 0.01)
    monkeypatch.setattr(pinecone, "_AT_ONCE", 1)
    fake.lag = 2
    one, two = record("one"), record("two")
    upsert = backend._index.upsert
    monkeypatch.setattr(
        backend._index,
        "upsert",
        lambda **batch: upsert(**batch) if batch["vectors"][0]["id"] == one.id else _cut_off(),
    )
    with pytest.raises(DatabaseError):
        await backend.put([one, two])
    assert [each.id for each in await backend.get([one.id, two.id])] == [one.id]


async def _cut_off() -> None:
    raise PineconeValueError("it is gone")


async def test_what_another_process_has_just_written_can_be_deleted(
    fake: FakePinecone, backend: PineconeBackend
) -> None:
    one = record("one")
    await backend.put([one])
    fake.unseen[one.id] = 1_000_000
    other = PineconeBackend(tenant="acme", api_key=KEY, url=fake.url)
    await other.open(collection(model="BAAI/bge:small"))
    assert await other.delete([one.id]) == []  # it was not seen, and so is not told
    await other.aclose()
    assert await backend.count(None) == 0


@pytest.mark.parametrize("name", ["notes-", "-notes", "n" * 46, "Notes"])
async def test_a_name_that_pinecone_does_not_take_is_told_in_words(
    fake: FakePinecone, name: str
) -> None:
    made = PineconeBackend(api_key=KEY, url=fake.url)
    with pytest.raises(ConfigurationError, match="45 small letters, digits and hyphens"):
        await made.open(collection(name=name))
    assert fake.requests == []


async def test_a_model_whose_name_fits_in_no_tag_is_told(fake: FakePinecone) -> None:
    made = PineconeBackend(api_key=KEY, url=fake.url)
    with pytest.raises(ConfigurationError, match="120"):
        await made.open(collection(model="m" * 121))
    assert fake.requests == []


async def test_what_the_client_refuses_is_an_error_of_ours(
    backend: PineconeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = AsyncMock(side_effect=PineconeValueError("it quotes a secret"))
    monkeypatch.setattr(backend, "_index", Mock(fetch=refuse, close=AsyncMock()))
    with pytest.raises(DatabaseError) as caught:
        await backend.get([record().id])
    assert "secret" not in str(caught.value)


async def test_an_index_that_another_makes_is_waited_for(
    fake: FakePinecone, backend: PineconeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinecone, "_PAUSE", 0.01)
    status = fake.indexes["memories"]["status"]
    status.update(ready=False, state="Initializing")
    other = PineconeBackend(tenant="acme", api_key=KEY, url=fake.url)
    opening = asyncio.create_task(other.open(collection(model="BAAI/bge:small")))
    await asyncio.sleep(0.2)
    assert not opening.done()
    status.update(ready=True, state="Ready")
    assert (await opening).name == "memories"
    await other.aclose()
    status.update(ready=False)
    monkeypatch.setattr(pinecone, "_READY", 0.05)
    with pytest.raises(UnavailableError, match="not ready"):
        await other.open(collection(model="BAAI/bge:small"))


async def test_an_index_of_pinecones_own_is_all_there_is() -> None:
    made = PineconeBackend(api_key=KEY)
    with pytest.raises(ConfigurationError, match="Leave index_type at hnsw"):
        await made.open(collection(index_type=IndexType.FLAT))


async def test_an_index_of_somebody_else_is_left_alone(
    fake: FakePinecone, backend: PineconeBackend
) -> None:
    fake.indexes["memories"]["tags"] = None
    other = PineconeBackend(api_key=KEY, url=fake.url)
    with pytest.raises(CollectionMismatchError, match="not one of ours"):
        await other.open(collection())
    assert (await backend.find(None, limit=1)) == []


async def test_a_wrong_key_is_told(fake: FakePinecone) -> None:
    made = PineconeBackend(api_key="pcsk-other", url=fake.url)
    with pytest.raises(AccessDeniedError, match="PINECONE_API_KEY"):
        await made.open(collection())


@pytest.mark.parametrize(
    ("status", "error"), [(400, DatabaseError), (403, AccessDeniedError), (503, UnavailableError)]
)
async def test_errors_of_the_service_are_told_apart_and_not_quoted(
    fake: FakePinecone, backend: PineconeBackend, status: int, error: type[Exception]
) -> None:
    fake.fails = [status] * 10
    with pytest.raises(error) as caught:
        await backend.get([record().id])
    assert "secret" not in str(caught.value)
