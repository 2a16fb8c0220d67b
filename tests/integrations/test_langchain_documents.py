"""What `HaiveVectorStore` keeps and finds, beyond LangChain's own suite."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, aindex
from qdrant_client import AsyncQdrantClient

from haive.core.persistence import PersistenceConfig, PostgresStore, Store
from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.errors import (
    CollectionMismatchError,
    ConfigurationError,
    InvalidFilterError,
    InvalidInputError,
    ModelAnswerError,
    ModelError,
    PersistenceError,
    UnsupportedOperationError,
)
from haive.core.persistence.integrations.langchain import (
    HaiveEmbeddings,
    HaiveVectorStore,
    LangChainEmbedder,
)
from haive.core.persistence.local import LocalStack
from haive.core.persistence.vector import MemoryConfig, VectorMemory
from haive.core.persistence.vector.backends.qdrant import QdrantBackend

OpenStore = Callable[..., Awaitable[Store]]
Make = Callable[..., HaiveVectorStore]
UUID_ID = "018f0000-0000-7000-8000-000000000001"


class Words(Embeddings):
    """Vectors of hashed words, and a question's turned round: an asymmetric model."""

    def __init__(self, width: int = 64, *, model: str = "words", sign: float = 1.0) -> None:
        self.model = model
        self.asked: Counter[str] = Counter()
        self._width = width
        self._sign = sign

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return asyncio.run(self.aembed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        return asyncio.run(self.aembed_query(text))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked["documents"] += 1
        made = await HashingEmbedder(self._width).embed(texts)
        return (3 * made).tolist()

    async def aembed_query(self, text: str) -> list[float]:
        self.asked["query"] += 1
        return (self._sign * (await HashingEmbedder(self._width).embed([text]))[0]).tolist()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
def make(store: Store, tenant: str) -> Make:
    def make_one(
        embedding: Embeddings | None = None, *, user_id: str | None = None, **settings: Any
    ) -> HaiveVectorStore:
        if embedding is None:
            settings.setdefault("embedding_strategy", "none")
        config = MemoryConfig(**{"index_name": f"docs-{tenant}", **settings})
        return HaiveVectorStore.from_store(store, embedding, config, user_id=user_id)

    return make_one


TEXTS = [
    "Anna grinds her coffee by hand.",
    "The grinder of the coffee machine is broken.",
    "Basel lies on the Rhine.",
    "Trains from Basel to Rome take seven hours.",
]


def texts_of(documents: list[Document]) -> list[str]:
    return [document.page_content for document in documents]


# -- what is kept ---------------------------------------------------------------------------------


async def test_documents_come_back_with_any_id_and_metadata(
    make: Make,
) -> None:
    documents = [
        Document(id="doc:1/ä", page_content="one", metadata={"page": 1, "deep": {"a": [1, None]}}),
        Document(id=UUID_ID.upper(), page_content="two", metadata={}),
        Document(id=UUID_ID, page_content="three", metadata={"langchain": 1, "id": "x"}),
        Document(
            id="4",
            page_content="four",
            metadata={
                "keywords": "", "kind": "report", "context": None, "sources": 3, "text": "own",
                "words_hash": "w",
                "timestamp": "2026-01-02", "user_id": "anna", "importance": 1, "speaker": "Anna",
            },
        ),
        Document(page_content="five"),
    ]  # fmt: skip
    vectors = make(Words())
    ids = await vectors.aadd_documents(documents)
    assert ids[:4] == [document.id for document in documents[:4]]
    documents[4].id = ids[4]
    assert await vectors.aget_by_ids([*ids, "none", ids[0]]) == documents
    found = await vectors.asimilarity_search("four", k=10)
    assert sorted(found, key=lambda each: ids.index(str(each.id))) == documents


async def test_a_document_of_the_same_id_is_replaced(make: Make) -> None:
    vectors = make(Words())
    await vectors.aadd_texts(["first", "other"], [{"a": 1}, {"b": 2}], ids=["1", "2"])
    await vectors.aadd_texts(["second", "last"], ids=["1", "1"])
    assert await vectors.aget_by_ids(["1", "2"]) == [
        Document(id="1", page_content="last"),
        Document(id="2", page_content="other", metadata={"b": 2}),
    ]
    assert texts_of(await vectors.asimilarity_search("first second last", k=10)) != []
    assert len(await vectors.asimilarity_search("first", k=10)) == 2


async def test_what_is_alike_is_written_all_the_same(make: Make) -> None:
    vectors = make(Words())
    await vectors.aadd_texts(["the same", "the same"])
    await vectors.aadd_texts(["the same"])
    assert len(await vectors.asimilarity_search("the same", k=10)) == 3


async def test_documents_are_memories_and_memories_documents(
    make: Make, store: Store, tenant: str
) -> None:
    vectors = make()
    config = MemoryConfig(index_name=f"docs-{tenant}", embedding_strategy="none")
    memory = VectorMemory(config=config, store=store)
    when = datetime(2026, 1, 2, tzinfo=UTC)
    await vectors.aadd_texts(
        ["Anna grinds coffee."], [{"user_id": "anna", "timestamp": when}], ids=[UUID_ID]
    )
    kept = await memory.get(UUID_ID)
    assert (kept.text, kept.user_id, kept.timestamp) == ("Anna grinds coffee.", "anna", when)

    note = await memory.add("Ben drinks tea.", {"page": 1}, user_id="ben")
    (found,) = await vectors.aget_by_ids([note])
    assert (found.id, found.page_content) == (note, "Ben drinks tea.")
    assert found.metadata["page"] == 1
    assert found.metadata["user_id"] == "ben"
    assert found.metadata["kind"] == "note"
    found.page_content = "Ben drinks water."
    await vectors.aadd_documents([found])
    assert (await memory.get(note)).text == "Ben drinks water."
    assert (await memory.get(note)).user_id == "ben"

    gone = await memory.add("Soon gone.", ttl=timedelta(milliseconds=1))
    await asyncio.sleep(0.01)
    assert await vectors.aget_by_ids([gone]) == []


async def test_what_was_made_of_a_document_goes_with_it(
    make: Make, store: Store, tenant: str
) -> None:
    vectors = make()
    config = MemoryConfig(index_name=f"docs-{tenant}", embedding_strategy="none")
    memory = VectorMemory(config=config, store=store)
    await vectors.aadd_texts(
        ["Anna likes strong coffee.", "Anna likes strong black coffee."], ids=["1", "2"]
    )
    done = await memory.consolidate_memories(similarity_threshold=0.3)
    assert done.created
    assert await vectors.aget_by_ids(list(done.created))
    await vectors.adelete(["1", "2"])
    assert await vectors.aget_by_ids(["1", "2", *done.created]) == []


async def test_documents_are_deleted_by_id_or_filter(make: Make) -> None:
    vectors = make()
    await vectors.aadd_texts(
        ["a", "b", "c", "d"], [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}], ids=["a", "b", "c", UUID_ID]
    )
    assert await vectors.adelete(["a", "none", UUID_ID]) is True
    assert await vectors.adelete(filter={"n": {"$gte": 3}}) is True
    assert await vectors.adelete([]) is True
    assert texts_of(await vectors.aget_by_ids(["a", "b", "c", UUID_ID])) == ["b"]


# -- whose -----------------------------------------------------------------------------------------


async def test_users_have_documents_of_their_own(make: Make) -> None:
    anna, ben, every = make(user_id="anna"), make(user_id="ben"), make()
    for vectors, whose in ((anna, "anna"), (ben, "ben")):
        await vectors.aadd_texts([f"coffee of {whose}", f"{whose}"], ids=["1", UUID_ID])
    for vectors, whose in ((anna, "anna"), (ben, "ben")):
        assert texts_of(await vectors.aget_by_ids(["1", UUID_ID])) == [f"coffee of {whose}", whose]
        found = await vectors.asimilarity_search("coffee")
        assert texts_of(found) == [f"coffee of {whose}", whose]
        assert len(await vectors.asimilarity_search("coffee", filter={})) == 2
        other = {"$or": [{"user_id": "anna"}, {"user_id": "ben"}]}
        assert len(await vectors.asimilarity_search("coffee", filter=other)) == 2
    assert len(await every.asimilarity_search("coffee")) == 4

    await ben.adelete(filter={"user_id": "ben"})
    assert await ben.aget_by_ids(["1", UUID_ID]) == []
    assert len(await anna.aget_by_ids(["1", UUID_ID])) == 2


async def test_a_uuid_does_not_lead_to_what_is_another_users(make: Make) -> None:
    anna, ben = make(user_id="anna"), make(user_id="ben")
    (made,) = await anna.aadd_texts(["mine"])
    assert await ben.aget_by_ids([made]) == []
    await ben.adelete([made])
    await ben.aadd_texts(["ours?"], ids=[made])
    await ben.adelete(filter={"user_id": "anna"})
    assert texts_of(await anna.aget_by_ids([made])) == ["mine"]
    assert texts_of(await ben.aget_by_ids([made])) == ["ours?"]
    await anna.aadd_texts(["still mine"], ids=[made])
    assert texts_of(await anna.aget_by_ids([made])) == ["still mine"]
    assert texts_of(await ben.aget_by_ids([made])) == ["ours?"]
    await ben.adelete([made])
    assert texts_of(await anna.aget_by_ids([made])) == ["still mine"]


async def test_a_document_of_another_user_is_refused(make: Make) -> None:
    vectors = make(user_id="anna")
    with pytest.raises(InvalidInputError, match="another user"):
        await vectors.aadd_texts(["fine", "not"], [{}, {"user_id": "ben"}], ids=["1", "2"])
    assert await vectors.aget_by_ids(["1", "2"]) == []
    await vectors.aadd_texts(["fine"], [{"user_id": "anna"}])


async def test_tenants_have_documents_of_their_own(
    make: Make, stack: LocalStack, tenant: str
) -> None:
    mine = make(Words())
    await mine.aadd_texts(["mine"], ids=["1"])
    async with PostgresStore(
        PersistenceConfig(connection_string=stack.database_url, pool_size=1)
    ) as other:
        config = MemoryConfig(index_name=f"docs-{tenant}")
        theirs = HaiveVectorStore.from_store(other, Words(), config)
        await theirs.adelete(["1"])
        assert await theirs.aget_by_ids(["1"]) == []
        assert await theirs.asimilarity_search("mine") == []
        await theirs.aadd_texts(["theirs"], ids=["1"])
        assert texts_of(await mine.aget_by_ids(["1"])) == ["mine"]
        await theirs.adelete(["1"])


# -- what is found ---------------------------------------------------------------------------------


async def test_searches_find_by_words_and_vectors(make: Make) -> None:
    vectors = make(Words())
    await vectors.aadd_texts(TEXTS, [{"n": n} for n in range(4)])
    hybrid = await vectors.asimilarity_search_with_score("Does a train go to Basel?", k=2)
    assert hybrid[0][0].page_content == TEXTS[3]
    assert hybrid[0][1] > hybrid[1][1]
    assert (
        texts_of(await vectors.asimilarity_search("Basel", k=4, filter={"n": {"$lt": 3}}))[0]
        == TEXTS[2]
    )
    reranked = await vectors.asimilarity_search("coffee machine", k=1, rerank=True)
    assert texts_of(reranked) == [TEXTS[1]]

    near = await vectors.asimilarity_search_with_relevance_scores(TEXTS[0], k=4)
    assert near[0][0].page_content == TEXTS[0]
    assert near[0][1] == pytest.approx(1, abs=1e-3)
    assert all(0 <= cosine <= 1 for _, cosine in near)
    best = await vectors.asimilarity_search_with_relevance_scores(TEXTS[0], score_threshold=0.9)
    assert texts_of([document for document, _ in best]) == [TEXTS[0]]

    query = await vectors.embeddings.aembed_query(TEXTS[2])
    assert texts_of(await vectors.asimilarity_search_by_vector(query, k=1)) == [TEXTS[2]]
    filtered = await vectors.asimilarity_search_by_vector(query, k=1, filter={"n": 0})
    assert texts_of(filtered) == [TEXTS[0]]


async def test_variety_leaves_out_what_is_said_already(make: Make) -> None:
    vectors = make(Words())
    await vectors.aadd_texts(
        ["coffee in Basel", "coffee in Basel", "coffee in Basel!", "Basel has a zoo"]
    )
    query = await vectors.embeddings.aembed_query("Basel coffee")
    for found in (
        await vectors.amax_marginal_relevance_search("Basel coffee", k=2, lambda_mult=0.3),
        await vectors.amax_marginal_relevance_search_by_vector(query, k=2, lambda_mult=0.3),
    ):
        assert [text.strip("!") for text in texts_of(found)] == [
            "coffee in Basel", "Basel has a zoo",
        ]  # fmt: skip
    same = await vectors.amax_marginal_relevance_search("Basel coffee", k=2, lambda_mult=1)
    assert [text.strip("!") for text in texts_of(same)] == ["coffee in Basel"] * 2
    narrow = await vectors.amax_marginal_relevance_search("Basel coffee", k=3, fetch_k=1)
    assert len(narrow) == 3
    nothing = await vectors.amax_marginal_relevance_search("Basel coffee", filter={"n": 1})
    assert nothing == []


async def test_without_a_model_words_find_and_letters_compare(make: Make) -> None:
    vectors = make()
    assert vectors.embeddings is None
    await vectors.aadd_texts(["coffee in Basel", "coffee in Basel!", "Basel has a zoo"])
    assert texts_of(await vectors.asimilarity_search("zoo", k=1)) == ["Basel has a zoo"]
    varied = await vectors.amax_marginal_relevance_search("Basel coffee", k=2, lambda_mult=0.3)
    assert "Basel has a zoo" in texts_of(varied)
    for search in (
        vectors.asimilarity_search_by_vector([0.1]),
        vectors.asimilarity_search_with_relevance_scores("zoo"),
        vectors.asearch("zoo", "vector"),
    ):
        with pytest.raises(UnsupportedOperationError):
            await search


async def test_questions_are_embedded_as_questions(make: Make) -> None:
    model = Words(sign=-1.0)
    vectors = make(model)
    await vectors.aadd_texts(TEXTS)
    assert model.asked == {"query": 1, "documents": 1}
    near = await vectors.asimilarity_search_with_relevance_scores(TEXTS[0], k=4)
    assert near[-1][0].page_content == TEXTS[0]
    assert near[-1][1] == 0
    await vectors.asimilarity_search("coffee")
    assert model.asked == {"query": 3, "documents": 1}
    told = make(model, embedding_dimensions=64)
    await told.aadd_texts(["again"])
    assert model.asked == {"query": 3, "documents": 2}


async def test_a_retriever_has_every_search(make: Make) -> None:
    vectors = make(Words())
    await vectors.aadd_texts(TEXTS, [{"n": n} for n in range(4)])
    for search_type, more in (
        ("similarity", {}),
        ("hybrid", {"rerank": True}),
        ("vector", {}),
        ("mmr", {"fetch_k": 10}),
        ("similarity_score_threshold", {"score_threshold": 0.1}),
    ):
        retriever = vectors.as_retriever(
            search_type=search_type, search_kwargs={"k": 1, "filter": {"n": {"$lt": 2}}, **more}
        )
        assert texts_of(await retriever.ainvoke("coffee machine")) == [TEXTS[1]]
        assert texts_of(await vectors.asearch("coffee machine", search_type, k=1, **more)) == [
            TEXTS[1]
        ]
        assert texts_of(await asyncio.to_thread(retriever.invoke, "coffee machine")) == [TEXTS[1]]
    assert texts_of(await retriever.ainvoke("coffee machine", k=2)) != []
    with pytest.raises(ValueError, match="not allowed"):
        vectors.as_retriever(search_type="psychic")
    with pytest.raises(InvalidInputError, match="hybrid"):
        await vectors.asearch("coffee", "psychic")


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "metadatas", "ids"),
    [
        ("one text", None, None),
        (7, None, None),
        (["a", ""], None, None),
        (["a", "\x00"], None, None),
        (["a", 7], None, None),
        (["a", "b"], [{}], None),
        (["a", "b"], None, ["1"]),
        (["a", "b"], None, "12"),
        (["a", "b"], None, ["1", ""]),
        (["a", "b"], None, ["1", 2]),
        (["a", "b"], None, ["1", "2" * 1001]),
        (["a", "b"], None, ["1", "\x00"]),
        (["a", "b"], [{}, {"f": float("nan")}], None),
        (["a", "b"], [{}, {"f": object()}], None),
        (["a", "b"], [{}, {7: 1}], None),
        (["a", "b"], [{}, "metadata"], None),
        (["a", "b"], [{}, {"timestamp": "yesterday"}], None),
        (["a", "b"], [{}, {"importance": 7}], None),
        (["a", "b"], [{}, {"user_id": 7}], None),
    ],
    ids=[str(number) for number in range(19)],
)
async def test_nothing_is_stored_of_what_cannot_be(
    make: Make, texts: Any, metadatas: Any, ids: Any
) -> None:
    vectors = make()
    with pytest.raises(InvalidInputError):
        await vectors.aadd_texts(texts, metadatas, ids=ids)
    assert await vectors.asimilarity_search("a") == []


async def test_wrong_questions_are_refused(make: Make) -> None:
    vectors = make(Words())
    await vectors.aadd_texts(["a"])
    wrong: list[Awaitable[Any]] = [
        vectors.asimilarity_search(""),
        vectors.asimilarity_search(7),
        vectors.asimilarity_search("a", k=0),
        vectors.asimilarity_search("a", k=1001),
        vectors.asimilarity_search("a", k="4"),
        vectors.asimilarity_search("a", where={}),
        vectors.asimilarity_search_with_relevance_scores("a", rerank=True),
        vectors.asimilarity_search_by_vector([1.0]),
        vectors.asimilarity_search_by_vector([0.0] * 64),
        vectors.asimilarity_search_by_vector([float("nan")] * 64),
        vectors.asimilarity_search_by_vector(["x"] * 64),
        vectors.asimilarity_search_by_vector([1.0] * 64, rerank=True),
        vectors.amax_marginal_relevance_search("a", lambda_mult=2),
        vectors.amax_marginal_relevance_search("a", k=0),
        vectors.amax_marginal_relevance_search("a", fetch_k=-1),
        vectors.amax_marginal_relevance_search("a", where=1),
        vectors.adelete(),
        vectors.adelete(["1"], filter={"n": 1}),
        vectors.adelete(filter={}),
        vectors.adelete("1"),
        vectors.adelete(["1"], soft=True),
        vectors.aget_by_ids("1"),
        vectors.aget_by_ids([7]),
        vectors.aadd_texts(["b"], refresh=True),
        vectors.aadd_texts(["b"], batch_size=0),
    ]
    for question in wrong:
        with pytest.raises(InvalidInputError):
            await question
    for filters in ({"n": {"$near": 1}}, "n", "", lambda _: True):
        for each in (vectors, make(Words(), user_id="anna")):
            with pytest.raises(InvalidFilterError):
                await each.asimilarity_search("a", filter=filters)
    for whose in ("", 7):
        with pytest.raises(InvalidInputError):
            make(user_id=whose)


class Broken(Words):
    def __init__(self, answer: object) -> None:
        super().__init__()
        self._answer = answer

    async def aembed_documents(self, texts: list[str]) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (RuntimeError("a key: secret"), ModelError),
        ([[1.0]], ModelAnswerError),
        ([["a"] * 64], ModelAnswerError),
        ([[0.0] * 64], ModelAnswerError),
        ([[float("nan")] * 64], ModelAnswerError),
        ([], ModelAnswerError),
        (None, ModelAnswerError),
    ],
    ids=["raises", "narrow", "text", "zero", "nan", "none", "nothing"],
)
async def test_a_model_that_fails_stores_nothing(
    make: Make, answer: object, error: type[ModelError]
) -> None:
    vectors = make(Broken(answer))
    with pytest.raises(error) as caught:
        await vectors.aadd_texts(["a"], ids=["1"])
    assert "secret" not in str(caught.value)
    assert await vectors.aget_by_ids(["1"]) == []


async def test_another_model_is_refused(make: Make) -> None:
    await make(Words()).aadd_texts(["a"])
    for other in (Words(32), Words(model="other"), None):
        with pytest.raises(CollectionMismatchError):
            await make(other).aadd_texts(["b"])
    for twice in (
        {"embedding_strategy": "local"},
        {"embedding_model": "text-embedding-3-small"},
        {"embedder": HashingEmbedder(64)},
    ):
        with pytest.raises(ConfigurationError, match="beside"):
            make(Words(), **twice)
    for none in (HashingEmbedder(64), "text-embedding-3-small", len):
        with pytest.raises(ConfigurationError, match="no Embeddings"):
            make(none)
    with pytest.raises(ModelAnswerError, match="64"):
        await make(Words(), embedding_dimensions=32, index_name="narrow").aadd_texts(["b"])


# -- how -------------------------------------------------------------------------------------------


async def test_what_is_written_at_once_is_there_once(make: Make) -> None:
    several = [make(Words()), make(Words())]
    await asyncio.gather(
        *(several[n % 2].aadd_texts([f"{n}", "shared"], ids=[f"{n}", "shared"]) for n in range(10))
    )
    found = await several[0].aget_by_ids([*map(str, range(10)), "shared"])
    assert texts_of(found) == [*map(str, range(10)), "shared"]
    assert len(await several[0].asimilarity_search_by_vector([1.0] * 64, k=100)) == 11


async def test_an_operation_is_a_round_trip(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: Counter[str] = Counter()
    call = store._transport.call

    async def counting(function: str, *args: Any, **kwargs: Any) -> Any:
        counted[function] += 1
        return await call(function, *args, **kwargs)

    monkeypatch.setattr(store._transport, "call", counting)
    vectors, anna = make(Words()), make(Words(), user_id="anna")
    await vectors.aadd_texts(["first"])
    await anna.aadd_texts(["first"])
    query = [1.0] * 64

    async def made_by(work: Awaitable[Any]) -> dict[str, int]:
        counted.clear()
        await work
        return dict(counted)

    for one in (vectors, anna):
        assert await made_by(one.aadd_texts(TEXTS)) == {"put_memories": 1}
        assert await made_by(one.aadd_texts(TEXTS, ids=["a", "b", "c", "d"])) == {"put_memories": 1}
        assert await made_by(one.aget_by_ids(["a", UUID_ID])) == {"get_memories": 1}
        assert await made_by(one.asimilarity_search("coffee")) == {"search_memories": 1}
        for work in (
            one.asimilarity_search_by_vector(query),
            one.asearch("coffee", "vector"),
            one.asearch("coffee", "mmr"),
        ):
            assert await made_by(work) == {"search_memories": 1, "get_memories": 1}
    assert await made_by(vectors.aadd_texts(["x"], ids=[UUID_ID])) == {"put_memories": 1}
    assert await made_by(anna.aadd_texts(["x"], ids=[UUID_ID])) == {
        "put_memories": 1, "get_memories": 1,
    }  # fmt: skip
    gone = await made_by(vectors.adelete(["a", "b", "c", "d"]))
    # Two of the six look again, for what others wrote of them meanwhile.
    assert gone == {"get_memories": 2, "find_memories": 6, "delete_memories": 1}


async def test_waiting_on_the_loop_of_the_store_is_refused(make: Make) -> None:
    vectors = make(Words())
    with pytest.raises(PersistenceError, match="block") as caught:
        vectors.similarity_search("coffee")
    assert "asimilarity_search" in str(caught.value.hint)
    await asyncio.to_thread(vectors.add_texts, TEXTS)
    assert texts_of(await vectors.asimilarity_search("Rhine", k=1)) == [TEXTS[2]]


@pytest.mark.parametrize(
    ("strategy", "ids"), [("dedupe", ["m1/p3", "m2/p9"]), ("summarize", [UUID_ID, None])]
)
async def test_what_is_made_of_documents_is_none_of_them(
    store: Store, tenant: str, strategy: str, ids: list[str]
) -> None:
    memory = VectorMemory(
        config=MemoryConfig(index_name=f"docs-{tenant}", embedding_strategy="none"), store=store
    )
    vectors = HaiveVectorStore.from_memory(memory)
    await vectors.aadd_texts([TEXTS[0]] * 2, [{"source": "m", "importance": 0.3}] * 2, ids=ids)
    done = await memory.consolidate_memories(
        consolidation_strategy=strategy, archive_originals=True
    )
    [made] = done.created
    [found] = await vectors.asimilarity_search("coffee")
    assert found.id == made
    assert (found.metadata["source"], found.metadata["kind"]) == (
        "m", "merged" if strategy == "dedupe" else "summary",
    )  # fmt: skip
    await memory.aclose()


async def test_langchains_indexing_keeps_the_collection_like_its_source(make: Make) -> None:
    vectors = make(Words())
    record = InMemoryRecordManager(namespace="manuals")
    await record.acreate_schema()
    source = [Document(page_content=text, metadata={"source": "m"}) for text in TEXTS]

    async def indexed(documents: list[Document]) -> dict[str, int]:
        return dict(
            await aindex(
                documents,
                record,
                vectors,
                batch_size=3,
                cleanup="full",
                source_id_key="source",
                key_encoder="sha256",
            )
        )

    assert (await indexed(source))["num_added"] == 4
    assert (await indexed(source))["num_skipped"] == 4
    changed = await indexed(source[:2])
    assert (changed["num_deleted"], changed["num_skipped"]) == (2, 2)
    assert sorted(texts_of(await vectors.asimilarity_search("coffee", k=9))) == sorted(TEXTS[:2])


async def test_texts_are_embedded_by_batches(make: Make) -> None:
    model = Words()
    vectors = make(model)
    ids = await vectors.aadd_texts(TEXTS, batch_size=3)
    assert model.asked["documents"] == 2
    assert texts_of(await vectors.aget_by_ids(ids)) == TEXTS


async def test_a_model_has_the_name_that_its_vectors_are_known_by() -> None:
    class Cached(Words):
        underlying_embeddings = Words(model="behind")

    assert (await LangChainEmbedder.of(Words())).name == "Words:words-64"
    assert (await LangChainEmbedder.of(Cached())).name == "Words:behind-64"
    assert (await LangChainEmbedder.of(Words(), name="ours-1")).name == "ours-1"
    long = (await LangChainEmbedder.of(Words(model="x" * 500))).name
    assert len(long) <= 200
    assert long.endswith("-64")


async def test_texts_make_a_vector_store(make: Make, store: Store, tenant: str) -> None:
    config = MemoryConfig(index_name=f"docs-{tenant}")
    documents = [Document(id=str(n), page_content=text) for n, text in enumerate(TEXTS)]
    vectors = await HaiveVectorStore.afrom_documents(
        documents, Words(), store=store, config=config, user_id="anna"
    )
    assert await vectors.aget_by_ids(["2"]) == [documents[2]]
    assert await make(Words()).aget_by_ids(["2"]) == []
    with pytest.raises(InvalidInputError, match="store"):
        await HaiveVectorStore.afrom_texts(TEXTS, Words())
    with pytest.raises(InvalidInputError, match="batch"):
        await HaiveVectorStore.afrom_texts(TEXTS, Words(), store=store, batch=1)
    with pytest.raises(InvalidInputError, match="connection_string"):
        HaiveVectorStore.from_texts(TEXTS, Words())


def test_texts_make_a_vector_store_without_await(
    stack: LocalStack, tenant: str, transport: str
) -> None:
    where: dict[str, Any] = {"connection_string": stack.database_url, "pool_size": 2}
    if transport == "supabase":
        where = {"connection_string": stack.url, "key": stack.secret_key}
    config = MemoryConfig(index_name=f"docs-{tenant}")
    documents = [Document(id=str(n), page_content=text) for n, text in enumerate(TEXTS)]
    with HaiveVectorStore.from_documents(
        documents, Words(), config=config, tenant=tenant, **where
    ) as vectors:
        query = vectors.embeddings.embed_query(TEXTS[2])
        assert vectors.get_by_ids(["2"]) == [documents[2]]
        assert texts_of(vectors.similarity_search("Rhine", k=1)) == [TEXTS[2]]
        assert texts_of(vectors.similarity_search_by_vector(query, k=1)) == [TEXTS[2]]
        assert len(vectors.max_marginal_relevance_search("Basel", k=2)) == 2
        assert len(vectors.max_marginal_relevance_search_by_vector(query, k=2)) == 2
        assert vectors.similarity_search_with_relevance_scores(TEXTS[2], k=1)[0][1] > 0.99
        for search_type in ("hybrid", "vector", "mmr"):
            assert vectors.search("Rhine", search_type, k=1) == [documents[2]]
        assert vectors.delete(["2"]) is True
        assert vectors.get_by_ids(["2"]) == []
    vectors.close()
    with pytest.raises(PersistenceError, match="closed"):
        vectors.get_by_ids(["1"])


async def test_our_own_embedder_serves_langchain(store: Store, tenant: str) -> None:
    config = MemoryConfig(index_name=f"docs-{tenant}", embedder=HashingEmbedder(64))
    vectors = HaiveVectorStore.from_store(store, config=config)
    await vectors.aadd_texts(TEXTS)
    assert isinstance(vectors.embeddings, HaiveEmbeddings)
    query = await vectors.embeddings.aembed_query(TEXTS[1])
    assert texts_of(await vectors.asimilarity_search_by_vector(query, k=1)) == [TEXTS[1]]
    made = await asyncio.to_thread(vectors.embeddings.embed_documents, ["a", "b"])
    assert [len(vector) for vector in made] == [64, 64]


class _Asymmetric(HashingEmbedder):
    """Reads a question otherwise than a text."""

    async def embed_query(self, text: str) -> Any:
        return -(await self.embed([text]))[0]


async def test_our_own_embedder_reads_questions_as_questions(store: Store, tenant: str) -> None:
    embedder = _Asymmetric(64)
    config = MemoryConfig(index_name=f"docs-{tenant}", embedder=embedder)
    embeddings = HaiveVectorStore.from_store(store, config=config).embeddings
    assert embeddings is not None
    expected = (await embedder.embed_query("a")).tolist()
    assert await embeddings.aembed_query("a") == expected
    assert await asyncio.to_thread(embeddings.embed_query, "a") == expected
    assert await embeddings.aembed_documents(["a"]) == (await embedder.embed(["a"])).tolist()


async def test_other_vector_databases_keep_documents_too() -> None:
    client = AsyncQdrantClient(":memory:")
    embedder = await LangChainEmbedder.of(Words())
    memory = VectorMemory(
        backend=QdrantBackend(client=client), config=MemoryConfig(embedder=embedder)
    )
    anna = HaiveVectorStore.from_memory(memory, user_id="anna")
    ben = HaiveVectorStore.from_memory(memory, user_id="ben")
    assert isinstance(anna.embeddings, Words)
    await anna.aadd_texts(TEXTS, [{"n": n} for n in range(4)], ids=list("abcd"))
    await ben.aadd_texts(["Ben's"], ids=["a"])
    assert texts_of(await anna.aget_by_ids(["d", "a"])) == [TEXTS[3], TEXTS[0]]
    assert texts_of(await anna.asimilarity_search("Rhine", k=1)) == [TEXTS[2]]
    for search_type in ("vector", "mmr"):
        found = await anna.asearch(TEXTS[1], search_type, k=1, filter={"n": {"$gte": 1}})
        assert texts_of(found) == [TEXTS[1]]
    await anna.adelete(["a"])
    assert await anna.aget_by_ids(["a"]) == []
    assert texts_of(await ben.aget_by_ids(["a"])) == ["Ben's"]
    await client.close()


def test_a_vector_store_needs_a_loop() -> None:
    with pytest.raises(InvalidInputError, match="event loop"):
        HaiveVectorStore.from_memory(VectorMemory(config=MemoryConfig(embedding_strategy="none")))


async def test_a_new_id_is_made_for_what_has_none(make: Make) -> None:
    vectors = make()
    ids = await vectors.aadd_texts(["a", "b"], ids=[None, "2"])
    assert ids[1] == "2"
    assert texts_of(await vectors.aget_by_ids(ids)) == ["a", "b"]
    assert await vectors.aadd_texts([]) == []
    assert await vectors.aget_by_ids([str(uuid4())]) == []
