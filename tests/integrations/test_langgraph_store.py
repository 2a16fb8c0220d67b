"""What `HaiveStore` keeps and finds: as LangGraph's own store in memory, and what expires."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypedDict
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.base.embed import EmbeddingsLambda
from langgraph.store.memory import InMemoryStore

from haive.core.persistence import PersistenceConfig, PostgresStore, Store
from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.errors import (
    CollectionMismatchError,
    ConfigurationError,
    ContentTooLargeError,
    InvalidFilterError,
    InvalidInputError,
    ModelError,
    PersistenceError,
    QuotaExceededError,
    SubjectErasedError,
)
from haive.core.persistence.integrations import _items
from haive.core.persistence.integrations._embeddings import LangChainEmbedder
from haive.core.persistence.integrations._naming import name_of
from haive.core.persistence.integrations.langchain import HaiveVectorStore
from haive.core.persistence.integrations.langgraph import HaiveSaver, HaiveStore
from haive.core.persistence.local import LocalStack
from haive.core.persistence.multitenancy import Subjects
from haive.core.persistence.vector import EmbeddingStrategy, MemoryConfig, VectorMemory
from haive.core.persistence.vector.models import Memory

OpenStore = Callable[..., Awaitable[Store]]
EVERYTHING = 1_000
PARTS = ["text[*]"]
WORDS = MemoryConfig(index_name="langgraph-words")
PATIENCE = 20
_roots = itertools.count(1)


class Words(Embeddings):
    """Vectors of hashed words."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return asyncio.run(HashingEmbedder(64).embed(texts)).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked["documents"] += len(texts)
        return (await HashingEmbedder(64).embed(texts)).tolist()

    async def aembed_query(self, text: str) -> list[float]:
        return (await HashingEmbedder(64).embed([text]))[0].tolist()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
async def items(store: Store) -> HaiveStore:
    return HaiveStore.from_store(store)


@pytest.fixture
async def found_by_words(store: Store) -> HaiveStore:
    index: Any = {"embed": Words(), "dims": 64, "fields": ["text", "notes[*]"]}
    return HaiveStore.from_store(store, WORDS, index=index)


async def memories(store: Store, name: str = "langgraph") -> list[Memory]:
    config = MemoryConfig(index_name=name, embedding_strategy=EmbeddingStrategy.NONE)
    return await (await VectorMemory(config=config, store=store)._open()).find(None)


# -- one item --------------------------------------------------------------------------------------

ODD: list[dict[str, Any]] = [
    {},
    {"text": "é 🦜 \u2028", "n": [1, 1.0, -0.5, None, True, {}, [], ""]},
    {"big": 10**40, "float": 1e300, "whole": 2e16, "small": 5e-324, "zero": -0.0},
    {"nul": "a\x00b", "half": "\ud800", "\x00key": 1},
    {"deep": json.loads("[" * 60 + "]" * 60)},
    {"$eq": 1, "a.b": {"$": [{"a": None}]}, "": 0},
]


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
async def test_a_value_comes_back_as_it_was(items: HaiveStore, value: dict[str, Any]) -> None:
    await items.aput(("users", "42"), "a key", value)
    item = await items.aget(("users", "42"), "a key")
    assert item is not None
    assert repr(item.value) == repr(dict(sorted(item.value.items()))) or item.value == value
    assert json.dumps(item.value, sort_keys=True) == json.dumps(value, sort_keys=True)
    assert (item.namespace, item.key) == (("users", "42"), "a key")
    (found,) = await items.asearch(("users",))
    assert json.dumps(found.value, sort_keys=True) == json.dumps(value, sort_keys=True)


@pytest.mark.parametrize(
    "value",
    [{"a": object()}, {"a": float("nan")}, {1: "a"}, {"a": {1, 2}}, "text", [1]],
    ids=["object", "nan", "key", "set", "text", "list"],
)
async def test_what_json_has_not_is_refused(items: HaiveStore, value: Any) -> None:
    with pytest.raises(InvalidInputError):
        await items.abatch([PutOp(("n",), "good", {}), PutOp(("n",), "bad", value)])
    assert await items.aget(("n",), "good") is None


async def test_the_value_is_kept_and_not_the_object(items: HaiveStore) -> None:
    value = {"list": (1, 2)}
    await items.aput(("n",), "k", value)
    item = await items.aget(("n",), "k")
    assert item is not None
    assert item.value == {"list": [1, 2]}


@pytest.mark.parametrize(
    ("namespace", "key"),
    [((), "k"), (("a.b",), "k"), (("",), "k"), (("langgraph",), "k"), (("a\x00",), "k")],
)
async def test_a_wrong_namespace_is_refused(
    items: HaiveStore, namespace: tuple[str, ...], key: str
) -> None:
    with pytest.raises(InvalidNamespaceError):
        await items.aput(namespace, key, {})
    if namespace not in {(), ("langgraph",)}:
        with pytest.raises(InvalidNamespaceError):
            await items.abatch([GetOp(namespace, key)])


@pytest.mark.parametrize(
    "op",
    [
        PutOp(("n",), "a\x00", {}),
        PutOp(("n" * 2_000,), "k", {}),
        PutOp(("n",), 1, {}),
        PutOp(("n",), "k", {}, ttl=-1),
        PutOp(("n",), "k", {}, index=True),
        PutOp(("n",), "k", {}, index="text"),
        PutOp(("n",), "k", {}, index=[1]),
        SearchOp(("n",), limit=-1),
        SearchOp(("n",), offset=-1),
        SearchOp(("n",), filter={"a": {"$in": [1]}}),
        SearchOp(("n",), filter={"a": {"$gt": None}}),
        SearchOp(("n",), filter={"a": {"$gt": 1, "b": 2}}),
        SearchOp(("n",), query="a\x00"),
        ListNamespacesOp(max_depth=0),
        ListNamespacesOp(match_conditions=(MatchCondition("infix", ("a",)),)),
    ],
    ids=lambda op: str(op)[:60],
)
async def test_what_means_nothing_is_refused(items: HaiveStore, op: Any) -> None:
    with pytest.raises(InvalidInputError):
        await items.abatch([op])


async def test_an_unknown_operator_is_a_value_error_as_langgraph_has_it(items: HaiveStore) -> None:
    with pytest.raises(ValueError, match="Unsupported operator"):
        await items.asearch(("n",), filter={"a": {"$near": 1}})
    with pytest.raises(InvalidFilterError):
        await items.asearch(("n",), filter={"a": {"$near": 1}})


async def test_a_change_keeps_the_time_it_was_made_at(items: HaiveStore) -> None:
    await items.aput(("n",), "k", {"v": 1})
    first = await items.aget(("n",), "k")
    await items.aput(("n",), "k", {"v": 2})
    second = await items.aget(("n",), "k")
    assert first
    assert second
    assert second.value == {"v": 2}
    assert second.created_at == first.created_at == first.updated_at < second.updated_at
    await items.adelete(("n",), "k")
    assert await items.aget(("n",), "k") is None
    await items.aput(("n",), "k", {"v": 3})
    third = await items.aget(("n",), "k")
    assert third
    assert third.created_at > second.updated_at


async def test_of_several_puts_of_one_item_the_last_counts(items: HaiveStore) -> None:
    ops = [PutOp(("n",), "k", {"v": n}) for n in range(5)]
    gone = [PutOp(("n",), "gone", {"v": 1}), PutOp(("n",), "gone", None)]
    back = [PutOp(("n",), "back", None), PutOp(("n",), "back", {"v": 1})]
    read = [GetOp(("n",), "k"), SearchOp(("n",)), ListNamespacesOp()]
    assert await items.abatch([*ops, *gone, *back, *read]) == [None] * 9 + [None, [], []]
    found = await items.abatch([GetOp(("n",), key) for key in ("k", "gone", "back", "k")])
    assert [item and item.value for item in found] == [{"v": 4}, None, {"v": 1}, {"v": 4}]


async def test_a_batch_takes_one_round_trip_for_each_kind(
    items: HaiveStore, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    await items.aget(("n",), "k")
    calls: list[str] = []
    call = store._transport.call

    async def counting(function: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(function)
        return await call(function, *args, **kwargs)

    monkeypatch.setattr(store._transport, "call", counting)
    puts = [PutOp(("n", str(n)), str(n), {"n": n}) for n in range(200)]
    await items.abatch(puts)
    await items.abatch(
        [
            *(GetOp(("n", str(n)), str(n)) for n in range(200)),
            *(SearchOp(("n", str(n)), query=q) for n in range(10) for q in (None, "7")),
            *(ListNamespacesOp(max_depth=n + 1) for n in range(3)),
            PutOp(("n", "1"), "1", None),
        ]
    )
    assert calls == [
        "put_memory_items",
        "get_memory_items",
        "search_memory_items",
        "list_memory_namespaces",
        "put_memory_items",
    ]


async def test_those_who_put_one_item_at_once_do_it_one_after_the_other(
    open_store: OpenStore,
) -> None:
    index: Any = {"fields": PARTS}
    config = MemoryConfig(index_name="langgraph", embedding_strategy=EmbeddingStrategy.NONE)
    writers = [HaiveStore.from_store(await open_store(), config, index=index) for _ in range(3)]
    await writers[0].aget(("n",), "k")
    keys = [f"k{n}" for n in range(6)]

    async def write(writer: HaiveStore, turn: int) -> None:
        ops: list[Any] = [
            PutOp(("n",), key, {"text": [f"{key} {part}" for part in range(turn % 4)]})
            for key in (keys if turn % 2 else reversed(keys))
        ]
        await writer.abatch([*ops, *(GetOp(("n",), key) for key in keys)])

    await asyncio.gather(*(write(writers[n % 3], n) for n in range(24)))
    found = await writers[0].asearch(("n",), limit=EVERYTHING)
    assert sorted(item.key for item in found) == keys
    assert all(item.created_at <= item.updated_at for item in found)
    assert len({json.dumps(item.value)[-3:] for item in found}) == 1  # all of one batch
    every = await memories(await open_store())
    assert Counter(memory.metadata["key"] for memory in every) == {
        item.key: max(1, len(item.value["text"])) for item in found
    }


async def test_an_item_that_two_make_at_once_is_one_of_theirs(open_store: OpenStore) -> None:
    makers = [HaiveStore.from_store(await open_store()) for _ in range(3)]
    await asyncio.gather(*(maker.aget(("n",), "k") for maker in makers))
    for key in map(str, range(20)):
        await asyncio.gather(
            *(
                maker.aput(("n",), key, {"text": [f"{key} {part}" for part in range(parts)]}, PARTS)
                for maker, parts in zip(makers, (5, 1, 2), strict=True)
            )
        )
    found = await makers[0].asearch(("n",), limit=EVERYTHING)
    there = Counter(memory.metadata["key"] for memory in await memories(await open_store()))
    assert there == {item.key: len(item.value["text"]) for item in found}
    # It was made when the first of them made it, and changed by the others.
    assert all(item.created_at < item.updated_at for item in found)


# -- as LangGraph's own ----------------------------------------------------------------------------

_labels = st.sampled_from(["a", "b", "a!", "*", "ä", "a\x01", "a\x02", "A"])
_namespaces = st.lists(_labels, min_size=0, max_size=3).map(tuple)
_keys = st.sampled_from(["1", "2", "3"])
_values = st.fixed_dictionaries(
    {
        "n": st.integers(-2, 2) | st.sampled_from([0.5, 1e20]),
        "t": st.sampled_from(["x", "y", "é"]),
        "d": st.none() | st.just("x") | st.fixed_dictionaries({"e": st.integers(0, 1) | st.none()}),
        "l": st.lists(st.integers(0, 1), max_size=2),
    }
)
_number = st.integers(-2, 2) | st.sampled_from([0.5, 1e20])
_wheres = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "n": _number
        | st.dictionaries(
            st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), _number, min_size=1
        ),
        "t": st.sampled_from(["x", "z", {"$ne": "x"}, {"$eq": "y"}]),
        "d": st.none()
        | st.sampled_from(["x", {}, {"e": 1}, {"e": None}, {"e": {"$ne": 1}}, {"$eq": {"e": 0}}]),
        "l": st.lists(st.integers(0, 1), max_size=2),
        "not there": st.none() | st.just(1),
    },
)
_conditions = st.lists(
    st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), _namespaces), max_size=2
).map(tuple)
# Built from tuples: from the types alone, what is not named would be drawn, too.
_ops = st.one_of(
    st.tuples(_namespaces, _keys, _values | _values | st.none()).map(lambda put: PutOp(*put)),
    st.tuples(_namespaces, _keys).map(lambda get: GetOp(*get)),
    st.tuples(_namespaces, _wheres, st.integers(0, 5), st.integers(0, 3)).map(
        lambda search: SearchOp(*search)
    ),
    st.tuples(_conditions, st.none() | st.integers(2, 4), st.integers(0, 9), st.integers(0, 3)).map(
        lambda listing: ListNamespacesOp(*listing)
    ),
)


class Model:
    """LangGraph's store in memory, and the order in which its items were changed."""

    def __init__(self) -> None:
        self._store = InMemoryStore()
        self._changed: dict[tuple[tuple[str, ...], str], int] = {}
        self._times = itertools.count()

    def run(self, ops: list[Any]) -> list[Any]:
        results = [self._read(op) for op in ops]
        for op in ops:
            if isinstance(op, PutOp):
                self._changed.pop((op.namespace, op.key), None)
                if op.value is not None:
                    self._changed[op.namespace, op.key] = next(self._times)
        self._store.batch([op for op in ops if isinstance(op, PutOp)])
        return results

    def _read(self, op: Any) -> Any:
        if isinstance(op, GetOp):
            item = dict(self._items()).get((op.namespace, op.key))
            return None if item is None else shown(item)
        if isinstance(op, SearchOp):
            # It has them in the order in which they were made.
            (found,) = self._store.batch([op._replace(limit=EVERYTHING, offset=0)])
            found.sort(key=lambda item: -self._changed[item.namespace, item.key])
            return [shown(item) for item in found[op.offset : op.offset + op.limit]]
        if isinstance(op, ListNamespacesOp):
            # It lists what was deleted, and what was only asked for.
            fresh = InMemoryStore()
            fresh.batch([PutOp(*place, {}) for place in self._changed])
            return fresh.batch([op])[0]
        return None

    def _items(self) -> Iterator[tuple[tuple[tuple[str, ...], str], Any]]:
        (found,) = self._store.batch([SearchOp((), limit=EVERYTHING)])
        for item in found:
            yield (item.namespace, item.key), item


def shown(item: Any) -> Any:
    return item.namespace, item.key, item.value


def under(op: Any, root: str) -> Any:
    """An operation in a namespace of the example's own."""
    if isinstance(op, SearchOp):
        return op._replace(namespace_prefix=(root, *op.namespace_prefix))
    if isinstance(op, ListNamespacesOp):
        given = tuple(
            c._replace(path=(root, *c.path)) if c.match_type == "prefix" else c
            for c in op.match_conditions or ()
        )
        return op._replace(match_conditions=(MatchCondition("prefix", (root,)), *given))
    return op._replace(namespace=(root, *op.namespace))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=st.lists(st.lists(_ops, min_size=1, max_size=8), min_size=1, max_size=6))
async def test_it_does_what_langgraphs_own_store_does(
    items: HaiveStore, batches: list[list[Any]]
) -> None:
    model, root = Model(), f"root {next(_roots)}"
    for batch in batches:
        ops = [under(op, root) for op in batch]
        found = await items.abatch(ops)
        for op, ours, theirs in zip(ops, found, model.run(ops), strict=True):
            if isinstance(op, SearchOp):
                assert [shown(item) for item in ours] == theirs, op
            elif isinstance(op, GetOp):
                assert (None if ours is None else shown(ours)) == theirs, op
            else:
                assert ours == theirs, op


async def test_a_namespace_is_no_prefix_of_another_that_begins_alike(items: HaiveStore) -> None:
    for label in ("a", "ab", "a\x01", "a\x02", "a\x03"):
        await items.aput((label, "x"), "k", {})
        assert [item.namespace for item in await items.asearch((label,))] == [(label, "x")]
    every = [(label, "x") for label in ("a", "a\x01", "a\x02", "a\x03", "ab")]
    assert await items.alist_namespaces() == every
    assert await items.alist_namespaces(limit=2, offset=2) == every[2:4]
    assert await items.alist_namespaces(max_depth=1) == [n[:1] for n in every]


async def test_more_than_a_call_answers_is_read_page_by_page(
    items: HaiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await items.abatch([PutOp(("n", str(n % 5)), str(n), {"n": n}) for n in range(8)])
    ops = [
        SearchOp(("n",), limit=100_000),
        SearchOp(("n",), limit=20_000, offset=3),
        SearchOp(("n",), limit=2),
        ListNamespacesOp(limit=20_000),
        ListNamespacesOp(limit=20_000, offset=4),
    ]
    whole = await items.abatch(ops)
    assert [len(found) for found in whole] == [8, 5, 2, 5, 1]
    assert len(await items.asearch(("n",), query="anything", limit=20_000)) == 8
    monkeypatch.setattr(_items, "_PAGE", 3)
    paged = await items.abatch([op._replace(limit=min(op.limit, 7)) for op in ops])
    assert paged == [found[:7] for found in whole]


async def test_pages_go_on_for_a_query_and_bring_nothing_twice(
    found_by_words: HaiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(7):
        await found_by_words.aput(("pages",), str(n), {"text": f"a {n}"})
    monkeypatch.setattr(_items, "_PAGE", 3)
    assert len(await found_by_words.asearch(("pages",), query="a", limit=7)) == 7
    call, asked = _items.Items._call, itertools.count()

    async def changing(self: Any, function: str, *given: Any, **arguments: Any) -> Any:
        answer = await call(self, function, *given, **arguments)
        if function == "search_memory_items" and next(asked) == 0:
            await found_by_words.aput(("pages",), "0", {"text": "comes to the front"})
        return answer

    monkeypatch.setattr(_items.Items, "_call", changing)
    found = await found_by_words.asearch(("pages",), limit=7)
    assert [item.key for item in found] == ["6", "5", "4", "3", "2", "1"]


# -- searches --------------------------------------------------------------------------------------

_texts = st.text("abc ", min_size=1, max_size=6).filter(str.strip)
_found = st.fixed_dictionaries({"text": _texts, "notes": st.lists(_texts, max_size=3, unique=True)})


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    values=st.lists(_found, max_size=6),
    query=_texts, limit=st.integers(1, 7), offset=st.integers(0, 2),
)  # fmt: skip
async def test_by_meaning_it_finds_what_langgraphs_own_store_finds(
    found_by_words: HaiveStore, values: list[Any], query: str, limit: int, offset: int
) -> None:
    root = f"root {next(_roots)}"
    # No text is there twice: LangGraph's own store fails on that.
    puts = [
        PutOp(
            (root,), str(n), {"text": f"{n} {v['text']}", "notes": [f"{n}:{t}" for t in v["notes"]]}
        )
        for n, v in enumerate(values)
    ]
    index: Any = {"embed": Words(), "dims": 64, "fields": ["text", "notes[*]"]}
    theirs = InMemoryStore(index=index)
    await theirs.abatch(puts)
    await found_by_words.abatch(puts)
    search = SearchOp((root,), query=query, limit=limit, offset=offset)
    (ours,), (expected,) = await found_by_words.abatch([search]), await theirs.abatch([search])
    assert [item.score for item in ours] == pytest.approx(
        [item.score for item in expected],
        abs=1e-5,
    )


async def test_the_fields_of_a_put_are_what_an_item_is_found_by(
    found_by_words: HaiveStore, store: Store
) -> None:
    put = found_by_words.aput
    await put(("n",), "usual", {"text": "red apples", "notes": ["green pears"], "other": "plums"})
    await put(("n",), "own", {"text": "red apples", "other": "yellow plums"}, index=["other"])
    await put(("n",), "none", {"text": "red apples"}, index=False)
    await put(("n",), "nothing", {"number": 1})

    async def best(query: str) -> tuple[str, float]:
        found = await found_by_words.asearch(("n",), query=query)
        assert {item.key for item in found} == {"usual", "own"}
        assert found[0].score is not None
        return found[0].key, round(found[0].score, 3)

    assert await best("red apples") == ("usual", 1)
    assert await best("green pears") == ("usual", 1)
    assert await best("yellow plums") == ("own", 1)
    assert len(await found_by_words.asearch(("n",))) == 4
    # Put anew without them, it is found by them no more.
    await put(("n",), "usual", {"text": "red apples"}, index=False)
    assert [i.key for i in await found_by_words.asearch(("n",), query="red apples")] == ["own"]


async def test_an_item_of_many_texts_is_stored_whole(items: HaiveStore, store: Store) -> None:
    texts = [f"text {n}" for n in range(100)]
    puts = [PutOp(("n",), str(n), {"t": texts}, ["t[*]"]) for n in range(3)]
    await items.abatch(puts)
    assert len(await memories(store)) == 300
    assert len(await items.asearch(("n",), query="text 7")) == 3
    with pytest.raises(ContentTooLargeError):
        await items.aput(("n",), "more", {"t": [*texts, "one more"]}, ["t[*]"])
    await items.abatch([put._replace(value=None) for put in puts])
    assert await memories(store) == []


async def test_pages_of_a_search_are_parts_of_the_whole(found_by_words: HaiveStore) -> None:
    texts = ["apples", "apples pears", "pears", "plums", "figs apples"]
    await found_by_words.abatch(
        [PutOp(("n",), t, {"text": t, "notes": [f"{t} {n}" for n in range(8)]}) for t in texts]
    )
    whole = await found_by_words.asearch(("n",), query="apples")
    assert [item.key for item in whole][:1] == ["apples"]
    assert len(whole) == 5
    pages = [
        await found_by_words.asearch(("n",), query="apples", limit=2, offset=offset)
        for offset in (0, 2, 4)
    ]
    assert [item.key for page in pages for item in page] == [item.key for item in whole]
    where = {"text": {"$ne": "apples"}}
    found = await found_by_words.asearch(("n",), query="apples", filter=where, limit=1)
    assert [item.key for item in found] == [whole[1].key]


async def test_without_a_model_items_are_found_by_their_words(items: HaiveStore) -> None:
    texts = {
        "dog": "The user walks the dog in the morning",
        "cat": "The user feeds two cats",
        "tea": "In the morning the user drinks tea, and tea again at noon",
    }
    for key, text in texts.items():
        await items.aput(("memories", "alice"), key, {"content": text})
    await items.aput(("memories", "bob"), "cat", {"content": "A cat and another cat"})

    async def order(query: str) -> list[str]:
        return [i.key for i in await items.asearch(("memories", "alice"), query=query)]

    assert (await order("what about cats?"))[0] == "cat"
    assert (await order("which teas"))[0] == "tea"
    assert (await order("walking dogs"))[0] == "dog"
    # As many as there are: the others behind those that have the words.
    assert len(await order("cats")) == 3
    found = await items.asearch(("memories", "alice"), query="cats")
    assert [item.score for item in found] == [1, 0, 0]
    assert [i.score for i in await items.asearch(("memories", "alice"), query=" ")] == [None] * 3


async def one_model(texts: list[str]) -> list[list[float]]:
    return (await HashingEmbedder(64).embed(texts)).tolist()


def another_model(texts: list[str]) -> list[list[float]]:
    return [vector[::-1] for vector in Words().embed_documents(texts)]


async def test_two_functions_are_two_models(store: Store) -> None:
    config = MemoryConfig(index_name="langgraph-functions")
    made = HaiveStore.from_store(store, config, index={"embed": one_model})
    await made.aput(("a",), "1", {"text": "to be found"})
    again = HaiveStore.from_store(store, config, index={"embed": one_model, "dims": 64})
    assert [item.key for item in await again.asearch(("a",), query="to be found")] == ["1"]
    other = HaiveStore.from_store(store, config, index={"embed": another_model})
    with pytest.raises(CollectionMismatchError, match=r"one_model-64, not .*another_model-64"):
        await other.asearch(("a",), query="to be found")


async def test_a_collection_that_is_there_opens_while_another_is_made(
    stack: LocalStack, store: Store, items: HaiveStore
) -> None:
    """Who moves a tenant holds the lock until all of its memories are copied."""
    await items.aput(("a",), "1", {"text": "there"})
    connection = await asyncpg.connect(stack.database_url)
    try:
        async with connection.transaction():
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended('haive/memory collections', 0))"
            )
            again = HaiveStore.from_store(store)
            assert await asyncio.wait_for(again.aget(("a",), "1"), 5)
    finally:
        await connection.close()


class Encoder:
    def __init__(self, model: str) -> None:
        self.model = model

    def encode(self, texts: list[str]) -> list[list[float]]:
        return Words().embed_documents(texts)

    __call__ = encode


def by_model(texts: list[str], model: str) -> list[list[float]]:
    return Words().embed_documents(texts) if model else []


def passing_on(texts: list[str], **options: str) -> list[list[float]]:
    return by_model(texts, **options)


def closing_over(model: str) -> Callable[[list[str]], list[list[float]]]:
    return lambda texts: by_model(texts, model)


@pytest.mark.parametrize(
    "of",
    [
        lambda model: partial(by_model, model=model),
        lambda model: partial(partial(by_model, model="x"), model=model),
        lambda model: partial(passing_on, model=model),
        lambda model: Encoder(model).encode,
        Encoder,
        closing_over,
    ],
    ids=["partial", "partials", "options", "method", "instance", "closure"],
)
def test_functions_that_carry_a_model_are_told_apart_by_it(of: Any) -> None:
    names = [name_of(EmbeddingsLambda(of(model))) for model in ("a", "b")]
    assert [name.rpartition(":")[2] for name in names] == ["a", "b"]
    assert names[0].startswith(f"{__name__}.")


def test_a_function_has_one_name_as_a_script_and_as_a_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main = ModuleType("__main__")
    main.__file__ = "/srv/app/agent.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(one_model, "__module__", "__main__")
    assert name_of(EmbeddingsLambda(one_model)) == "agent.one_model"
    main.__spec__ = ModuleSpec("app.agent", None)
    assert name_of(EmbeddingsLambda(one_model)) == "app.agent.one_model"


@pytest.mark.parametrize("former", ["EmbeddingsLambda-64", "__main__.one_model-64"])
async def test_a_collection_with_a_former_name_of_a_function_still_opens(
    store: Store, former: str
) -> None:
    config = MemoryConfig(index_name=f"langgraph-old-{former[2:6].lower()}")
    embedder = LangChainEmbedder(Words(), 64, name=former)
    old = HaiveStore.from_store(store, config, index={"embed": embedder})
    await old.aput(("a",), "1", {"text": "to be found"})
    made = HaiveStore.from_store(store, config, index={"embed": one_model})
    assert [item.key for item in await made.asearch(("a",), query="to be found")] == ["1"]
    documents = HaiveVectorStore.from_store(store, EmbeddingsLambda(one_model), config)
    assert await documents.asimilarity_search("to be found")


@pytest.mark.parametrize("kind", ["embeddings", "function", "coroutine", "embedder"])
async def test_any_model_makes_the_vectors(store: Store, kind: str) -> None:
    words = Words()
    embed: Any = {
        "embeddings": words,
        "function": lambda texts: words.embed_documents(list(texts)),
        "coroutine": words.aembed_documents,
        "embedder": HashingEmbedder(64),
    }[kind]
    config = MemoryConfig(index_name=f"langgraph-{kind}")
    made = HaiveStore.from_store(store, config, index={"embed": embed})
    await made.aput(("n",), "1", {"text": "red apples"})
    await made.aput(("n",), "2", {"text": "green pears"})
    assert [item.key for item in await made.asearch(("n",), query="pears")] == ["2", "1"]


async def test_settings_that_mean_nothing_are_refused(store: Store) -> None:
    make = HaiveStore.from_store
    for wrong in ({"embed": 5}, {"embeds": Words()}, {"embed": "nobody:no-model"}):
        with pytest.raises(ConfigurationError):
            make(store, index=wrong)
    with pytest.raises(ConfigurationError, match="embed"):
        make(store, MemoryConfig(embedder=HashingEmbedder(64)), index={"embed": Words()})
    for ttl in (
        {"default": 5},
        {"default_ttl": "5"},
        {"default_ttl": -1},
        {"default_ttl": float("nan")},
        {"default_ttl": True},
        {"refresh_on_read": "no"},
        {"sweep_interval_minutes": "5"},
        {"sweep_interval_minutes": 0},
    ):
        with pytest.raises(ConfigurationError, match="ttl"):
            make(store, ttl=ttl)
    none = {"default_ttl": None, "sweep_interval_minutes": None}
    assert make(store, ttl=none).ttl_config == none


async def test_a_collection_has_one_model(found_by_words: HaiveStore, store: Store) -> None:
    await found_by_words.aput(("n",), "k", {"text": "x"})
    other = HaiveStore.from_store(store, WORDS, index={"embed": HashingEmbedder(32)})
    with pytest.raises(CollectionMismatchError):
        await other.aget(("n",), "k")


async def test_where_there_are_no_vectors_nothing_is_stored(store: Store) -> None:
    async def broken(texts: list[str]) -> list[list[float]]:
        raise OSError

    made = HaiveStore.from_store(store, WORDS, index={"embed": broken, "dims": 64})
    config = WORDS.model_copy(update={"index_name": "langgraph-broken"})
    made = HaiveStore.from_store(store, config, index={"embed": broken, "dims": 64})
    with pytest.raises(ModelError):
        await made.aput(("n",), "k", {"text": "x"})
    assert await made.aget(("n",), "k") is None


# -- expiry ----------------------------------------------------------------------------------------

MOMENT = 0.3 / 60


async def test_what_has_expired_is_not_there_and_a_sweep_removes_it(
    items: HaiveStore, store: Store
) -> None:
    await items.aput(("n", "gone"), "gone", {"text": ["a", "b"]}, index=PARTS, ttl=MOMENT)
    await items.aput(("n", "stays"), "stays", {}, ttl=60)
    await items.aput(("n", "ever"), "ever", {})
    await asyncio.sleep(0.4)
    assert await items.aget(("n", "gone"), "gone") is None
    assert [i.key for i in await items.asearch(("n",))] == ["ever", "stays"]
    assert {i.key for i in await items.asearch(("n",), query="a")} == {"ever", "stays"}
    assert await items.alist_namespaces() == [("n", "ever"), ("n", "stays")]
    assert len(await memories(store)) == 4
    assert await items.asweep_ttl() == 1
    assert len(await memories(store)) == 2
    assert await items.asweep_ttl() == 0


async def test_an_item_that_had_expired_is_another_one(items: HaiveStore) -> None:
    await items.aput(("n",), "k", {}, ttl=MOMENT)
    first = await items.aget(("n",), "k", refresh_ttl=False)
    assert first
    await asyncio.sleep(0.4)
    await items.aput(("n",), "k", {})
    second = await items.aget(("n",), "k")
    assert second
    assert second.created_at > first.created_at


async def test_reading_renews_what_expires(store: Store) -> None:
    items = HaiveStore.from_store(store, ttl={"default_ttl": 0.5, "refresh_on_read": True})
    given = {"usual": 30.0, "own": 60.0}
    await items.aput(("n",), "usual", {"text": ["a", "b"]}, PARTS)
    await items.aput(("n",), "own", {}, ttl=1)
    await items.aput(("n",), "ever", {}, ttl=None)

    async def longer() -> set[str]:
        """Which live longer than they were put for; all memories of an item alike."""
        every = [memory for memory in await memories(store) if memory.expires_at]
        assert len({(m.metadata["key"], m.expires_at) for m in every}) == len(given)
        left = {m.metadata["key"]: (m.expires_at - m.timestamp).total_seconds() for m in every}
        return {key for key, seconds in left.items() if seconds > given[key] + 0.01}

    await items.aget(("n",), "usual")
    await asyncio.sleep(0.7)  # more than a hundredth of their time
    assert await longer() == set()
    await items.aget(("n",), "usual", refresh_ttl=False)
    await items.asearch(("n",), refresh_ttl=False)
    assert await longer() == set()
    await items.aget(("n",), "usual")
    assert await longer() == {"usual"}
    await items.asearch(("n",), filter={"text": None})
    assert await longer() == {"usual", "own"}
    await items.aput(("n",), "usual", {"text": ["a"]}, PARTS)
    assert await longer() == {"own"}
    await asyncio.sleep(0.4)
    await items.asearch(("n",), query="a")
    assert await longer() == {"usual", "own"}


async def test_reads_renew_only_where_the_settings_say_so(store: Store) -> None:
    items = HaiveStore.from_store(store, ttl={"default_ttl": 0.5, "refresh_on_read": False})
    await items.aput(("n",), "k", {})
    await asyncio.sleep(0.4)
    before = await memories(store)
    await items.aget(("n",), "k")
    await items.asearch(("n",))
    assert await memories(store) == before
    await items.aget(("n",), "k", refresh_ttl=True)
    assert await memories(store) != before


async def _emptied(store: Store) -> None:
    async with asyncio.timeout(PATIENCE):
        while await memories(store):  # noqa: ASYNC110 - others than this program empty it
            await asyncio.sleep(0.02)


async def test_the_sweeper_sweeps_until_it_is_stopped(items: HaiveStore, store: Store) -> None:
    await items.aput(("n",), "k", {}, ttl=0)
    sweeper = items.start_ttl_sweeper(0.05 / 60)
    assert items.start_ttl_sweeper(0.05 / 60) is sweeper
    await _emptied(store)
    assert not sweeper.done()
    assert await items.astop_ttl_sweeper()
    assert sweeper.result(5) is None
    assert await items.astop_ttl_sweeper(1)
    await items.aput(("n",), "k", {}, ttl=0)
    await asyncio.sleep(0.2)
    assert len(await memories(store)) == 1
    for never in (0, "5", float("nan"), True):
        with pytest.raises(InvalidInputError):
            items.start_ttl_sweeper(never)


async def test_puts_reads_and_sweeps_at_once_leave_whole_items(open_store: OpenStore) -> None:
    stores = [await open_store() for _ in range(3)]
    made = [HaiveStore.from_store(store) for store in stores]
    await made[0].aget(("n",), "k")
    keys = [f"k{n}" for n in range(8)]

    async def work(turn: int) -> None:
        items, order = made[turn % 3], keys if turn % 2 else keys[::-1]
        value = {"text": [f"{turn} {part}" for part in range(turn % 4)]}
        ttl = MOMENT * (turn % 5)
        match turn % 4:
            case 0 | 1:
                await items.abatch([PutOp(("n",), k, value, PARTS, ttl) for k in order])
            case 2:
                await items.abatch([*(GetOp(("n",), k) for k in order), SearchOp(("n",))])
            case 3:
                await items.asweep_ttl()

    for start in range(0, 60, 20):
        await asyncio.gather(*(work(turn) for turn in range(start, start + 20)))
        await asyncio.sleep(0.1)
    for memory in await memories(stores[0]):
        assert memory.metadata["parts"] == max(1, len(memory.metadata["value"]["text"]))
    counts = Counter(memory.metadata["key"] for memory in await memories(stores[0]))
    parts = {m.metadata["key"]: m.metadata["parts"] for m in await memories(stores[0])}
    assert counts == parts
    await asyncio.sleep(2)
    await made[0].asweep_ttl()
    assert all(memory.expires_at is None for memory in await memories(stores[0]))


async def test_a_sweep_that_fails_is_not_the_last(
    items: HaiveStore, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await items.aput(("n",), "k", {}, ttl=0)
    call, failures = store._transport.call, itertools.count()

    async def failing(function: str, *args: Any, **kwargs: Any) -> Any:
        if function == "expire_memory_items" and next(failures) < 2:
            raise OSError
        return await call(function, *args, **kwargs)

    monkeypatch.setattr(store._transport, "call", failing)
    items.start_ttl_sweeper(0.02 / 60)
    await _emptied(store)
    await items.astop_ttl_sweeper()


# -- whose -----------------------------------------------------------------------------------------


async def test_a_users_items_are_theirs(store: Store) -> None:
    ann, bob, nobody = (HaiveStore.from_store(store, user_id=u) for u in ("ann", "bob", None))
    for made, text in ((ann, "apples"), (bob, "pears"), (nobody, "plums")):
        await made.aput(("likes",), "fruit", {"text": text})
    await bob.aput(("dislikes",), "fruit", {"text": "figs"})
    for made, text in ((ann, "apples"), (bob, "pears"), (nobody, "plums")):
        item = await made.aget(("likes",), "fruit")
        assert item
        assert item.value == {"text": text}
        assert [i.value["text"] for i in await made.asearch(("likes",))] == [text]
        assert next(i.value["text"] for i in await made.asearch((), query="pears")) == text
    assert await ann.alist_namespaces() == await nobody.alist_namespaces() == [("likes",)]
    assert await bob.alist_namespaces() == [("dislikes",), ("likes",)]
    await ann.adelete(("likes",), "fruit")
    assert await bob.aget(("likes",), "fruit")
    assert {memory.user_id for memory in await memories(store)} == {"bob", None}


async def test_a_tenant_has_its_own(
    items: HaiveStore, stack: LocalStack, open_store: OpenStore
) -> None:
    await items.aput(("n",), "k", {"text": "ours"}, ttl=0.0001)
    await items.aput(("n",), "kept", {"text": "ours"})
    other = PostgresStore(PersistenceConfig(connection_string=stack.database_url, pool_size=1))
    async with other:
        theirs = HaiveStore.from_store(other)
        assert await theirs.aget(("n",), "kept") is None
        assert await theirs.asearch(()) == [] == await theirs.asearch((), query="ours")
        assert await theirs.alist_namespaces() == []
        await asyncio.sleep(0.05)
        assert await theirs.asweep_ttl() == 0
        await theirs.aput(("n",), "kept", {"text": "theirs"})
        await theirs.adelete(("n",), "kept")
    item = await items.aget(("n",), "kept")
    assert item
    assert item.value == {"text": "ours"}
    assert await items.asweep_ttl() == 1


async def _changed(stack: LocalStack, tenant: str, change: str) -> None:
    connection = await asyncpg.connect(stack.database_url)
    try:
        await connection.execute(f"update haive.tenants set {change} where tenant_id = $1", tenant)
    finally:
        await connection.close()


async def test_a_sealed_tenant_reads_and_removes_what_it_has(
    items: HaiveStore, stack: LocalStack, tenant: str
) -> None:
    await items.aput(("n",), "k", {"text": "in the clear"})
    await _changed(stack, tenant, "encrypted = true")
    for work in (
        items.aput(("n",), "other", {"text": "x"}),
        items.asearch(("n",), query="clear"),
    ):
        with pytest.raises(PersistenceError, match="sealed"):
            await work
    assert await items.aget(("n",), "k")
    assert len(await items.asearch(("n",))) == 1
    await items.adelete(("n",), "k")
    assert await items.alist_namespaces() == []


async def test_items_count_for_the_quotas_of_their_tenant(
    items: HaiveStore, stack: LocalStack, tenant: str
) -> None:
    await items.aget(("n",), "k")
    await _changed(stack, tenant, "metered = true, max_requests_per_minute = 3")
    for _ in range(3):
        await items.aput(("n",), "k", {"text": "x"}, ttl=5)
    with pytest.raises(QuotaExceededError):
        await items.aget(("n",), "k")


async def test_what_is_read_and_written_of_a_tenant_is_on_record(
    items: HaiveStore, stack: LocalStack, tenant: str
) -> None:
    await items.aget(("n",), "k")
    await _changed(stack, tenant, "audit = 'all'")
    await items.aput(("n",), "k", {"text": "x"})
    await items.aget(("n",), "k")
    await items.asearch(("n",))
    await items.asearch(("n",), query="x")
    await items.alist_namespaces()
    await items.adelete(("n",), "k")
    connection = await asyncpg.connect(stack.database_url)
    try:
        rows = await connection.fetch(
            "select action, object, row_count from haive.audit_log where tenant_id = $1"
            " and object <> 'tenants' order by seq",
            tenant,
        )
    finally:
        await connection.close()
    assert [tuple(row) for row in rows] == [
        ("insert", "memories", 1),
        ("read", "get_memory_items", 1),
        ("read", "search_memory_items", 1),
        ("read", "search_memory_items", 1),
        ("read", "list_memory_namespaces", 1),
        ("delete", "memories", 1),
    ]


async def test_who_is_erased_leaves_no_items(store: Store) -> None:
    ann, nobody = (HaiveStore.from_store(store, user_id=user) for user in ("ann", None))
    for made in (ann, nobody):
        await made.aput(("n",), "k", {"text": ["a", "b"]}, PARTS)
    await Subjects(store).erase("ann")
    assert {memory.user_id for memory in await memories(store)} == {None}
    assert await ann.aget(("n",), "k") is None
    with pytest.raises(SubjectErasedError):
        await ann.aput(("n",), "k", {"text": "again"})


# -- in a graph, and without await -----------------------------------------------------------------


class State(TypedDict):
    user: str
    said: str
    known: list[str]


async def _remember(state: State, runtime: Runtime[None]) -> dict[str, Any]:
    assert runtime.store is not None
    found = await runtime.store.asearch(("memories", state["user"]), query=state["said"])
    await runtime.store.aput(("memories", state["user"]), str(uuid4()), {"text": state["said"]})
    return {"known": [item.value["text"] for item in found]}


def _remember_waiting(state: State, runtime: Runtime[None]) -> dict[str, Any]:
    assert runtime.store is not None
    found = runtime.store.search(("memories", state["user"]), query=state["said"])
    runtime.store.put(("memories", state["user"]), str(uuid4()), {"text": state["said"]})
    return {"known": [item.value["text"] for item in found]}


def _graph(node: Any, saver: Any, items: HaiveStore) -> Any:
    builder = StateGraph(State)
    builder.add_node("remember", node)
    builder.add_edge(START, "remember")
    builder.add_edge("remember", END)
    return builder.compile(checkpointer=saver, store=items)


@pytest.mark.parametrize("node", [_remember, _remember_waiting], ids=["awaited", "waited for"])
async def test_a_graph_remembers_from_thread_to_thread(
    items: HaiveStore, store: Store, node: Any
) -> None:
    graph = _graph(node, HaiveSaver.from_store(store), items)

    async def say(thread: str, user: str, said: str) -> list[str]:
        config = {"configurable": {"thread_id": thread}}
        known: list[str] = (await graph.ainvoke({"user": user, "said": said}, config))["known"]
        return known

    assert await say("1", "ann", "I like red apples") == []
    assert await say("2", "ann", "I have a dog") == ["I like red apples"]
    assert (await say("3", "ann", "which apples?"))[0] == "I like red apples"
    assert await say("4", "bob", "which apples?") == []


def test_a_program_without_a_loop_has_a_store_of_its_own(stack: LocalStack, transport: str) -> None:
    given: dict[str, Any] = {"tenant": "default"}
    url = stack.database_url
    if transport == "supabase":
        url, given = stack.url, {"key": stack.secret_key, **given}
    root = f"script {uuid4()}"
    with (
        HaiveStore.from_conn_string(url, ttl={"default_ttl": 5}, **given) as items,
        HaiveSaver.from_conn_string(url, **given) as saver,
    ):
        items.put((root, "n"), "k", {"text": "red apples"})
        assert [i.key for i in items.search((root,), query="apples")] == ["k"]
        assert items.list_namespaces(prefix=(root,)) == [(root, "n")]
        assert items.sweep_ttl() >= 0
        sweeper = items.start_ttl_sweeper()
        graph = _graph(_remember_waiting, saver, items)
        config = {"configurable": {"thread_id": root}}
        graph.invoke({"user": root, "said": "hello"}, config)
        assert [i.value for i in items.search(("memories", root))] == [{"text": "hello"}]
        items.delete((root, "n"), "k")
        assert items.get((root, "n"), "k") is None
    assert sweeper.done()


async def test_waiting_on_the_loop_of_the_store_is_refused(items: HaiveStore) -> None:
    with pytest.raises(PersistenceError, match="block"):
        items.get(("n",), "k")
    assert await asyncio.to_thread(items.get, ("n",), "k") is None
