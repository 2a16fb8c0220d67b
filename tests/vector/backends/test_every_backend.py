"""What every backend does, whatever is behind it."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from filtering import EACH, comparisons, filters, metadata
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import FACTORIES, WIDTH, Make, collection, record, unit

from haive.core.persistence.errors import (
    CollectionMismatchError,
    ConflictError,
    InvalidInputError,
)
from haive.core.persistence.vector.backends import _narrowing
from haive.core.persistence.vector.backends._narrowing import Has, Narrowed
from haive.core.persistence.vector.backends.protocol import MemoryBackend
from haive.core.persistence.vector.config import RetrievalWeights
from haive.core.persistence.vector.filters import matches, parse
from haive.core.persistence.vector.records import Query

NOW = datetime(2026, 6, 1, tzinfo=UTC)
EARLIER = "2026-01-01T00:00:00.000000Z"
# Those that see to tenants and filters in this process; what pgvector's functions see to has its
# own controls, among those of the policies.
IN_THE_CLIENT = pytest.mark.parametrize("make", list(FACTORIES), indirect=True)
LATER = "2027-01-01T00:00:00.000000Z"


def query(text: str = "", **changes: Any) -> Query:
    facts: dict[str, Any] = {
        "vector": unit(0), "limit": 10, "filter": None, "weights": RetrievalWeights(), "now": NOW,
    }  # fmt: skip
    return Query(text=text, **{**facts, **changes})


# Writing and reading


async def test_what_is_put_is_read_in_the_order_asked_for(backend: MemoryBackend) -> None:
    one = record("one", seed=1, tags=["a", "b"], note={"of": None, "x": [1, 0.5, True]}, seq=1)
    two = record("zwei 日本", seed=None, kind="note")
    await backend.put([one, two])
    missing = record().id
    found = await backend.get([two.id, missing, one.id], vectors=True)
    assert [each.id for each in found] == [two.id, one.id]
    assert [each.metadata for each in found] == [two.metadata, one.metadata]
    assert found[0].vector is None
    assert found[1].vector is not None
    np.testing.assert_allclose(found[1].vector, one.vector, atol=1e-6)
    assert (await backend.get([one.id]))[0].vector is None
    assert await backend.get(["no-uuid", ""]) == []


async def test_putting_again_replaces_all_of_a_record(backend: MemoryBackend) -> None:
    first = replace(record("old", seed=1, topic="tea", n=1), tokens=b"\x00\xff")
    await backend.put([first])
    await backend.put([replace(first, metadata={"text": "new"}, vector=unit(2), tokens=None)])
    (found,) = await backend.get([first.id], vectors=True)
    assert found.metadata == {"text": "new"}
    np.testing.assert_allclose(found.vector, unit(2), atol=1e-6)
    assert await backend.tokens([first.id]) == {}
    assert await backend.count(parse({"topic": "tea"})) == 0
    assert await backend.count(parse({"n": {"$gte": 0}})) == 0


async def test_metadata_alone_is_replaced_beside_vector_and_tokens(backend: MemoryBackend) -> None:
    first = replace(record("old", seed=1, topic="tea"), tokens=b"\x00\xff")
    await backend.put([first])
    changed = replace(first, metadata={"text": "new", "archived": True}, vector=None, tokens=None)
    await backend.put([changed])
    (found,) = await backend.get([first.id], vectors=True)
    assert found.metadata == changed.metadata
    np.testing.assert_allclose(found.vector, unit(1), atol=1e-6)
    assert await backend.tokens([first.id, record().id]) == {first.id: b"\x00\xff"}
    assert await backend.count(parse({"topic": {"$exists": True}})) == 0


async def test_replacing_brings_nothing_back_that_is_gone(backend: MemoryBackend) -> None:
    stays, goes = replace(record("stays", seed=1), tokens=b"\x00"), record("goes")
    await backend.put([stays, goes])
    await backend.delete([goes.id])
    changed = [
        replace(each, metadata={"text": "new"}, vector=None, tokens=None) for each in (goes, stays)
    ]
    await backend.replace([*changed, record("never was")])
    (found,) = await backend.find(None, limit=10, vectors=True)
    assert (found.id, found.metadata) == (stays.id, {"text": "new"})
    np.testing.assert_allclose(found.vector, stays.vector, atol=1e-6)
    assert await backend.tokens([stays.id]) == {stays.id: b"\x00"}


async def test_replacing_writes_the_vector_and_the_tokens_that_it_is_given(
    backend: MemoryBackend,
) -> None:
    said = replace(record("old", seed=1), tokens=b"\x00")
    bare = replace(record("old", seed=3), tokens=b"\x02")
    await backend.put([said, bare])
    changed = [
        replace(said, vector=unit(2), tokens=b"\x01"), replace(bare, vector=unit(4), tokens=None),
    ]  # fmt: skip
    assert await backend.replace(changed) == 2
    first, second = await backend.get([said.id, bare.id], vectors=True)
    np.testing.assert_allclose(first.vector, unit(2), atol=1e-6)
    np.testing.assert_allclose(second.vector, unit(4), atol=1e-6)
    assert await backend.tokens([said.id, bare.id]) == {said.id: b"\x01"}


async def test_the_last_of_two_with_one_id_is_kept(backend: MemoryBackend) -> None:
    one = record("one")
    await backend.put([one, replace(one, metadata={"text": "two"})])
    assert await backend.count(None) == 1
    assert (await backend.get([one.id]))[0].metadata == {"text": "two"}


async def test_deleting_tells_what_was_there(backend: MemoryBackend) -> None:
    records = [record(str(n), seed=n) for n in range(5)]
    await backend.put(records)
    gone = [records[3].id, record().id, records[1].id, records[3].id]
    assert await backend.delete(gone) == [records[3].id, records[1].id]
    assert await backend.delete(gone) == []
    assert await backend.count(None) == 3
    hits = await backend.search(query(limit=5))
    assert {hit.record.id for hit in hits} == {records[n].id for n in (0, 2, 4)}


async def test_find_goes_through_all_in_the_order_of_ids(backend: MemoryBackend) -> None:
    records = [record(str(n), seed=n, even=n % 2 == 0) for n in range(23)]
    await backend.put(records[::-1])
    for where, expected in ((None, records), (parse({"even": True}), records[::2])):
        seen: list[str] = []
        while page := await backend.find(where, limit=4, after=seen[-1] if seen else None):
            assert len(page) <= 4
            seen += [each.id for each in page]
        assert seen == [each.id for each in expected]
    (first,) = await backend.find(None, limit=1, vectors=True)
    np.testing.assert_allclose(first.vector, records[0].vector, atol=1e-6)
    assert await backend.find(None, limit=0) == []


# Refusals: nothing is stored of them


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (np.ones(WIDTH + 1, np.float32), "has 8 numbers, not 9"),
        (np.ones((1, WIDTH), np.float32), "has 8 numbers, not 1x8"),
        (np.full(WIDTH, math.nan, np.float32), "NaN"),
        (np.full(WIDTH, math.inf, np.float32), "NaN or an infinity"),
        (np.zeros(WIDTH, np.float32), "no direction"),
    ],
)
async def test_a_wrong_vector_is_refused_before_anything_is_stored(
    backend: MemoryBackend, vector: Any, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        await backend.put([record("good"), replace(record("bad"), vector=vector)])
    assert await backend.count(None) == 0
    with pytest.raises(InvalidInputError, match=said):
        await backend.search(query(vector=vector))


async def test_metadata_that_is_no_json_is_refused_before_anything_is_stored(
    backend: MemoryBackend,
) -> None:
    for bad in (math.nan, object(), "\x00", "\ud800"):
        with pytest.raises(InvalidInputError):
            await backend.put([record("good"), record("bad", topic=bad)])
    with pytest.raises(InvalidInputError, match="UUID"):
        await backend.put([replace(record("bad"), id="memory-1")])
    assert await backend.count(None) == 0


@pytest.mark.parametrize(
    "change",
    [{"model": "model-b"}, {"dimensions": 9}, {"metric": "l2"}, {"language": "german"}],
    ids=str,
)
async def test_another_model_width_metric_or_language_is_refused(
    make: Make, backend: MemoryBackend, change: dict[str, Any]
) -> None:
    kept = record("kept")
    await backend.put([kept])
    other = await make("acme")
    (name,) = change
    with pytest.raises(CollectionMismatchError, match=f"has {name} "):
        await other.open(collection(**change))
    assert await backend.count(None) == 1


async def test_opening_again_tells_what_the_collection_is(
    make: Make, backend: MemoryBackend
) -> None:
    again = await make("acme")
    assert await again.open(collection(m=8)) == collection()


async def test_a_language_that_postgres_has_not_is_refused_everywhere(make: Make) -> None:
    with pytest.raises(InvalidInputError, match="no language klingon"):
        await (await make("acme")).open(collection(language="klingon"))
    opened = await (await make("acme")).open(collection(language="german"))
    assert opened.language == "german"


# Tenants


async def test_tenants_never_meet(make: Make, backend: MemoryBackend) -> None:
    other = await make("globex")
    await other.open(collection())
    ours, theirs = record("our tea", seed=1), record("their tea", seed=1)
    await backend.put([ours])
    await other.put([theirs])
    for mine, own, foreign in ((backend, ours, theirs), (other, theirs, ours)):
        assert await mine.count(None) == 1
        assert await mine.count(parse({"nothing": {"$exists": False}})) == 1
        assert [each.id for each in await mine.find(None, limit=9)] == [own.id]
        assert await mine.get([foreign.id]) == []
        assert await mine.tokens([foreign.id]) == {}
        assert [hit.record.id for hit in await mine.search(query("tea"))] == [own.id]
        assert await mine.delete([foreign.id]) == []
    assert await backend.count(None) == await other.count(None) == 1


async def test_a_tenant_does_not_overwrite_the_memory_of_another(
    make: Make, backend: MemoryBackend
) -> None:
    other = await make("globex")
    await other.open(collection())
    ours = replace(record("ours", seed=1), tokens=b"1")
    await backend.put([ours])
    for change in ({"vector": unit(2)}, {"vector": None, "tokens": None}):
        try:
            await other.put([replace(ours, metadata={"text": "theirs"}, **change)])
        except ConflictError:
            continue
        # Where ids are a tenant's own, both have theirs.
        assert (await other.get([ours.id]))[0].metadata == {"text": "theirs"}
    assert (await backend.get([ours.id]))[0].metadata == ours.metadata
    assert await backend.tokens([ours.id]) == {ours.id: b"1"}


# Searching


async def test_words_and_vectors_are_fused_and_parts_add_up(backend: MemoryBackend) -> None:
    by_word = record("The grinder stopped after ten seconds", seed=5)
    by_vector = record("nothing of it", seed=0)
    neither = record("weather and wind", seed=9)
    await backend.put([by_word, by_vector, neither])
    hits = await backend.search(query("Why do grinders stop?", parts=True, limit=3))
    assert {hits[0].record.id, hits[1].record.id} == {by_word.id, by_vector.id}
    for hit in hits:
        assert hit.score == pytest.approx(math.fsum(hit.parts.values()), abs=1e-9)
        assert all(0 <= part <= 1 for part in hit.parts.values())
    parts = {hit.record.id: hit.parts for hit in hits}
    usual = RetrievalWeights()
    assert parts[by_word.id]["words"] == usual.words
    assert parts[by_vector.id]["vector"] == usual.vector
    assert parts[by_vector.id]["words"] == 0.0
    plain = await backend.search(query("Why do grinders stop?", limit=3))
    assert [(hit.record.id, hit.score) for hit in plain] == [
        (hit.record.id, hit.score) for hit in hits
    ]
    assert not any(hit.parts for hit in plain)


async def test_the_turns_beside_one_are_those_of_its_user(backend: MemoryBackend) -> None:
    of_two = [
        record("The grinder stopped", kind="turn", conversation_id="main", seq=seq, user_id=user)
        for seq, user in ((1, "ann"), (2, "bob"), (4, "ann"), (5, "ann"), (7, None), (8, None))
    ]
    await backend.put([*of_two, record("weather and wind")])
    hits = await backend.search(query("grinder", parts=True, limit=10))
    beside = {hit.record.metadata["seq"]: hit.parts["neighbours"] for hit in hits[:6]}
    assert {seq for seq, part in beside.items() if part > 0} == {4, 5, 7, 8}


async def test_context_speaker_recency_and_importance_count_as_weighted(
    backend: MemoryBackend,
) -> None:
    zero = {"words": 0, "context": 0, "vector": 0, "neighbours": 0, "speaker": 0}
    best = {
        "context": record("Yes.", context="Do you like jazz?"),
        "speaker": record("I swim.", speaker="Ana Lima"),
        "recency": record("Lately.", timestamp="2026-05-31T00:00:00.000000Z"),
        "importance": record("Allergic to nuts.", importance=0.9),
    }
    other = record("Never.", timestamp=EARLIER, importance=0.1, speaker="Bob")
    await backend.put([*best.values(), other])
    for name, expected in best.items():
        weights = RetrievalWeights(**{**zero, name: 2.0})
        hits = await backend.search(query("Does Ana Lima like jazz?", weights=weights, parts=True))
        assert hits[0].record.id == expected.id, name
        assert hits[0].parts == {name: pytest.approx(2.0)}


async def test_equal_scores_come_by_id(backend: MemoryBackend) -> None:
    records = [record("same", seed=3) for _ in range(6)]
    await backend.put(records[::-1])
    hits = await backend.search(query("same"))
    assert [hit.record.id for hit in hits] == [each.id for each in records]


async def test_only_what_held_then_is_found(backend: MemoryBackend) -> None:
    always = record("a", kind="always")
    old = record("a", kind="old", valid_from=EARLIER, valid_to="2026-03-01T00:00:00.000000Z")
    new = record("a", kind="new", valid_from="2026-03-01T00:00:00.000000Z", valid_to=None)
    future = record("a", kind="future", valid_from=LATER)
    archived = record("a", kind="archived", archived=True)
    kept = record("a", kind="kept", archived=False)
    await backend.put([always, old, new, future, archived, kept])

    async def kinds(**changes: Any) -> set[str]:
        hits = await backend.search(query("a", **changes))
        return {hit.record.metadata["kind"] for hit in hits}

    assert await kinds() == {"always", "new", "kept"}
    assert await kinds(as_of=datetime(2026, 2, 1, tzinfo=UTC)) == {"always", "old", "kept"}
    assert await kinds(as_of=datetime(2026, 3, 1, tzinfo=UTC)) == {"always", "new", "kept"}
    assert await kinds(as_of=NOW + timedelta(days=400)) == {"always", "new", "kept", "future"}
    assert await kinds(include_archived=True) == {"always", "new", "kept", "archived"}
    assert await backend.count(None) == 6


async def test_a_filter_loses_no_rows(backend: MemoryBackend) -> None:
    """Among 1,500 others, of which 60 lie nearer, those that pass are all found."""
    near = unit(0)
    rng = np.random.default_rng(7)
    others = [
        replace(record("other", n=n), vector=_toward(near, rng, 0.05 if n < 60 else 2))
        for n in range(1_500)
    ]
    rare = [replace(record("rare", topic="rare", n=-1), vector=-near) for _ in range(12)]
    blind = [record("rare", seed=None, topic="rare") for _ in range(3)]
    await backend.put(others + rare + blind)
    for where, expected in (
        ({"topic": "rare"}, 15),
        ({"text": {"$contains": "rar"}}, 15),
        ({"n": {"$lt": 0}}, 12),
        ({"$not": {"n": {"$gte": 0}}}, 15),
    ):
        hits = await backend.search(query("x", filter=parse(where), limit=20))
        assert len(hits) == expected, where
        assert {hit.record.metadata["text"] for hit in hits} == {"rare"}
    # Three thirds of it have no vector near, or none at all; as many as are asked for come.
    everything = await backend.search(query("x", limit=100))
    assert len(everything) == 100
    nearest = await backend.search(
        query("", limit=60, weights=RetrievalWeights(words=0, context=0, speaker=0))
    )
    assert sum(hit.record.metadata["n"] < 60 for hit in nearest) >= 58


async def test_a_filter_that_a_service_cannot_decide_finds_what_another_would(
    backend: MemoryBackend,
) -> None:
    """Of 1,500 ever farther ones 20 have it in their title, and the last 300 are of coffee."""
    angles = np.linspace(0, 1.5, 1_500)
    arc = np.outer(np.cos(angles), np.eye(WIDTH)[0]) + np.outer(np.sin(angles), np.eye(WIDTH)[1])
    records = [
        replace(
            record(
                "zanzibar spice route" if n == 750 else "filler",
                title="the needle" if n % 75 == 0 else "plain",
                topic="tea" if n < 1_200 else "coffee",
            ),
            vector=vector.astype(np.float32),
        )
        for n, vector in enumerate(arc)
    ]
    await backend.put(records)
    asked = query("zanzibar spice", vector=records[0].vector)
    needle = parse({"title": {"$contains": "needle"}})
    for limit in (1, 3, 10):
        hits = await backend.search(replace(asked, filter=needle, limit=limit))
        assert len(hits) == limit
        assert records[750].id in {hit.record.id for hit in hits}
    only = RetrievalWeights(words=0, context=0, speaker=0)
    for where in ({"topic": "coffee"}, {"topic": {"$ne": "tea"}}):
        hits = await backend.search(replace(asked, filter=parse(where), limit=5, weights=only))
        assert [hit.record.id for hit in hits] == [each.id for each in records[1_200:1_205]]


def _toward(near: Any, rng: np.random.Generator, noise: float) -> Any:
    vector = near + noise * rng.standard_normal(WIDTH)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


async def test_a_collection_without_model_is_searched_by_words(make: Make) -> None:
    backend = await make("acme")
    await backend.open(collection(name="words", model=None, dimensions=None))
    records = [record("I drink green tea", seed=None), record("Coffee for me", seed=None)]
    await backend.put(records)
    hits = await backend.search(query("teas", vector=None))
    assert hits[0].record.id == records[0].id
    assert hits[0].score > hits[1].score
    with pytest.raises(InvalidInputError, match="no model"):
        await backend.put([record("with a vector")])
    with pytest.raises(InvalidInputError, match="no model"):
        await backend.search(query("teas"))


@pytest.mark.parametrize("metric", ["l2", "inner_product"])
async def test_other_metrics_order_by_their_nearness(make: Make, metric: str) -> None:
    backend = await make("acme")
    name = metric.replace("_", "-")
    await backend.open(collection(name=f"by-{name}", metric=metric))
    lengths = (0.5, 1.0, 4.0)
    records = [replace(record(str(n)), vector=n * unit(0)) for n in lengths]
    await backend.put(records)
    hits = await backend.search(query())
    expected = [1.0, 0.5, 4.0] if metric == "l2" else [4.0, 1.0, 0.5]
    assert [float(hit.record.metadata["text"]) for hit in hits] == expected


# Filters


async def test_each_comparison_means_what_matches_says(backend: MemoryBackend) -> None:
    stored = [replace(record(seed=1), metadata={})]
    stored += [replace(record(seed=1), metadata={"a": value}) for value in EACH]
    await backend.put(stored)
    for where in comparisons():
        parsed = parse(where)
        expected = [each.id for each in stored if matches(parsed, each.metadata)]
        assert [each.id for each in await backend.find(parsed, limit=100)] == expected, where
        assert await backend.count(parsed) == len(expected), where


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    records=st.lists(metadata(), min_size=1, max_size=8),
    wheres=st.lists(filters(), min_size=3, max_size=6),
)
async def test_filters_mean_what_matches_says(
    backend: MemoryBackend, records: list[dict[str, Any]], wheres: list[dict[str, Any]]
) -> None:
    before = [each.id for each in await backend.find(None, limit=100)]
    await backend.delete(before)
    stored = [replace(record("", seed=n), metadata=each) for n, each in enumerate(records)]
    await backend.put(stored)
    # What comes back may have numbers of another type, 10²³ as a float, and passes the same.
    for given_filters in wheres:
        where = parse(given_filters)
        expected = [each.id for each in stored if matches(where, each.metadata)]
        assert [each.id for each in await backend.find(where, limit=100)] == sorted(expected)
        assert await backend.count(where) == len(expected)
        hits = await backend.search(query(filter=where, include_archived=True))
        assert {hit.record.id for hit in hits} == set(expected)


# Controls: what is tested above can fail


@IN_THE_CLIENT
async def test_a_backend_that_forgot_the_tenant_would_be_found_out(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = await make("acme"), await make("globex")
    monkeypatch.setattr(other, "_tenant", "acme")
    for each in (ours, other):
        await each.open(collection())
    await ours.put([record("our tea")])
    with pytest.raises(AssertionError):
        assert await other.count(None) == 0
    with pytest.raises(AssertionError):
        assert await other.search(query("tea")) == []


@IN_THE_CLIENT
async def test_a_service_that_lost_rows_would_be_found_out(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers alone, without the rows in doubt, lose a text that is no time."""
    await backend.put([record("a", timestamp="yesterday")])
    where = parse({"timestamp": {"$gt": "2026-01-01T00:00:00.000000Z"}})
    assert await backend.count(where) == 1
    monkeypatch.setattr(
        _narrowing, "_positive", lambda *_: Narrowed(where=Has(("nothing",)), doubts=frozenset())
    )
    assert await backend.count(where) == 0
