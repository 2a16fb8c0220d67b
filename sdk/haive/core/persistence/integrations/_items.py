"""The coroutines behind `HaiveStore`; they run on the event loop of the store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    GetOp,
    ListNamespacesOp,
    PutOp,
    SearchOp,
    ensure_embeddings,
    validate_op_namespace,
)
from pydantic import TypeAdapter

from haive.core.persistence._encoding import Document, to_json
from haive.core.persistence.embedding import Embedder
from haive.core.persistence.errors import (
    ConfigurationError,
    ContentTooLargeError,
    InvalidInputError,
)
from haive.core.persistence.integrations._checking import checked_user, listed
from haive.core.persistence.integrations._embeddings import LangChainEmbedder, opened_memory
from haive.core.persistence.integrations._item_filters import filter_document
from haive.core.persistence.integrations._item_values import (
    ItemRow,
    item_id,
    json_form,
    stored_form,
    texts_of,
)
from haive.core.persistence.vector import EmbeddingStrategy, MemoryConfig, VectorMemory
from haive.core.persistence.vector._batches import batches
from haive.core.persistence.vector.backends.pgvector import vector_text

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from langgraph.store.base import IndexConfig, Op, Result
    from numpy.typing import NDArray

    from haive.core.persistence.store import Store
    from haive.core.persistence.vector._shelf import Shelf

T = TypeVar("T")

_COLLECTION = "langgraph"
_INDEX = frozenset({"dims", "embed", "fields"})
# A call is a statement and a request.
_GETS, _PUTS, _READS, _EXPIRED = 1_000, 1_000, 100, 1_000
# What one search or listing answers at most.
_PAGE = 10_000
# Each text of an item is a memory, and has its value with it.
_TEXTS = 100
_BYTES = 8 * 1024 * 1024
_LIMIT = 64 * 1024 * 1024
_FOUND = TypeAdapter(list[ItemRow])
_SEARCHED = TypeAdapter(list[list[ItemRow]])
_LISTED = TypeAdapter(list[list[tuple[str, ...]]])
_COUNT = TypeAdapter(int)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Put:
    """An item to be written, before it has vectors."""

    document: dict[str, Any]
    texts: list[str]


class Items:
    """Items in a collection of memories.

    Args:
        store: Where the collection is.
        config: How it is made.
        index: How items are found.
        whose: The user that all items are of; None for those of nobody.
    """

    def __init__(
        self,
        store: Store,
        config: MemoryConfig | None,
        index: IndexConfig | None,
        whose: str | None,
    ) -> None:
        self._store = store
        self._whose = checked_user(whose)
        self._fields = ["$"] if index is None else list(index.get("fields") or ["$"])
        self._embed = _embedder_of(index)
        self._dimensions = None if index is None else index.get("dims")
        if config is None:
            config = MemoryConfig(
                index_name=_COLLECTION,
                embedding_strategy=(
                    EmbeddingStrategy.NONE if self._embed is None else EmbeddingStrategy.AUTO
                ),
            )
        elif self._embed is not None and (
            config.embedder
            or config.embedding_model
            or config.embedding_strategy is not EmbeddingStrategy.AUTO
        ):
            raise ConfigurationError(
                "index has embed, beside an embedder, embedding_strategy or embedding_model.",
                hint="Leave those out: embed is what makes the vectors.",
            )
        self._config = config
        self._opening = asyncio.Lock()
        self._shelf: Shelf | None = None

    async def run(self, ops: Iterable[Op]) -> list[Result]:
        """What operations give, in their order; what is read is as it was before any is written."""
        every = list(ops)
        for op in every:
            if not isinstance(op, GetOp | SearchOp | ListNamespacesOp | PutOp):
                raise InvalidInputError(f"Unknown operation type: {type(op).__name__}.")
            validate_op_namespace(op)
        shelf = await self._open()
        results: list[Result] = [None] * len(every)
        gets = [(place, op) for place, op in enumerate(every) if isinstance(op, GetOp)]
        searches = [(place, op) for place, op in enumerate(every) if isinstance(op, SearchOp)]
        listings = [(p, op) for p, op in enumerate(every) if isinstance(op, ListNamespacesOp)]
        # Whatever cannot be stored is refused before anything is done.
        puts = self._puts([op for op in every if isinstance(op, PutOp)], shelf)
        for some in batches(gets, _GETS):
            await self._get(some, results, shelf)
        for some_searches in batches(searches, _READS):
            await self._search(some_searches, results, shelf)
        for some_listings in batches(listings, _READS):
            await self._list(some_listings, results)
        if puts:
            await self._write(puts, shelf)
        return results

    async def sweep(self) -> int:
        """Remove what has expired, and return how many items that were."""
        await self._open()
        removed = 0
        while True:
            count = await self._call("expire_memory_items", _COUNT, safe=False, batch=_EXPIRED)
            removed += count
            if count < _EXPIRED:
                return removed

    # -- operations ------------------------------------------------------------------------------

    async def _get(
        self, ops: Sequence[tuple[int, GetOp]], results: list[Result], shelf: Shelf
    ) -> None:
        refresh: dict[str, bool] = {}
        places: dict[str, list[int]] = {}
        for place, op in ops:
            key = item_id(op.namespace, op.key, shelf.tenant, self._whose)
            refresh[key] = refresh.get(key, False) or op.refresh_ttl
            places.setdefault(key, []).append(place)
        found = await self._call(
            "get_memory_items", _FOUND, ids=list(refresh), refresh=list(refresh.values())
        )
        for row in found:
            for place in places[row.id]:
                results[place] = row.item()

    async def _search(
        self, ops: Sequence[tuple[int, SearchOp]], results: list[Result], shelf: Shelf
    ) -> None:
        documents = [self._search_document(op, shelf) for _, op in ops]
        if shelf.embedder is not None:
            queries = list(dict.fromkeys(d["text"] for d in documents if d["text"]))
            made = await asyncio.gather(*(shelf.query_vector(query) for query in queries))
            vectors = dict(zip(queries, map(vector_text, made), strict=True))
            for document in documents:
                document["vector"] = vectors.get(document["text"])
        found = await self._paged(
            "search_memory_items", "searches", _SEARCHED, documents, lambda row: row.id
        )
        for (place, _), rows in zip(ops, found, strict=True):
            results[place] = [row.found() for row in rows]

    def _search_document(self, op: SearchOp, shelf: Shelf) -> dict[str, Any]:
        return {
            "namespace": op.namespace_prefix,
            "filter": filter_document(op.filter),
            "text": op.query if op.query and op.query.strip() else None,
            "recall": shelf.config.recall,
            "limit": op.limit,
            "offset": op.offset,
            "refresh": op.refresh_ttl,
            "user_id": self._whose,
        }

    async def _list(
        self, ops: Sequence[tuple[int, ListNamespacesOp]], results: list[Result]
    ) -> None:
        documents = [
            {
                "conditions": [each._asdict() for each in op.match_conditions or ()],
                "max_depth": op.max_depth,
                "limit": op.limit,
                "offset": op.offset,
                "user_id": self._whose,
            }
            for _, op in ops
        ]
        found = await self._paged(
            "list_memory_namespaces", "listings", _LISTED, documents, lambda namespace: namespace
        )
        for (place, _), namespaces in zip(ops, found, strict=True):
            results[place] = namespaces

    async def _paged(
        self,
        function: str,
        name: str,
        returns: TypeAdapter[list[list[T]]],
        documents: Iterable[dict[str, Any]],
        known_by: Callable[[T], Hashable],
    ) -> list[list[T]]:
        """What a function finds for each document, in as many calls as the longest one takes."""
        left = dict(enumerate(documents))
        found: list[dict[Hashable, T]] = [{} for _ in left]
        while left:
            asked = [
                document | {"limit": _PAGE} if _is_long(document) else document
                for document in left.values()
            ]
            given: dict[str, Any] = {name: to_json(asked, name, _LIMIT)}
            pages = await self._call(function, returns, **given)
            further: dict[int, dict[str, Any]] = {}
            for (place, document), page in zip(left.items(), pages, strict=True):
                # What is written meanwhile moves the rest on, over the end of a page.
                found[place] |= {known_by(each): each for each in page}
                if _is_long(document) and len(page) == _PAGE:
                    limit, offset = document["limit"] - _PAGE, document["offset"] + _PAGE
                    further[place] = document | {"limit": limit, "offset": offset}
            left = further
        return [list(each.values()) for each in found]

    def _puts(self, ops: Iterable[PutOp], shelf: Shelf) -> list[_Put]:
        last: dict[str, _Put] = {}
        for op in ops:
            key = item_id(op.namespace, op.key, shelf.tenant, self._whose)
            last.pop(key, None)  # the order is that of the last ones
            last[key] = self._put(op, key)
        return list(last.values())

    def _put(self, op: PutOp, key: str) -> _Put:
        if op.value is None:
            return _Put(document={"id": key}, texts=[])
        form = json_form(op.value, "The value of an item")
        if not isinstance(form, dict):
            raise InvalidInputError("The value of an item is a dict.")
        stored, exact = stored_form(form)
        paths = self._fields if op.index is None else _paths(op.index)
        document = {
            "id": key,
            "namespace": op.namespace,
            "key": op.key,
            "value": stored,
            "exact": exact,
            "ttl": op.ttl,
            "user_id": self._whose,
        }
        to_json(document, "An item")
        texts = texts_of(form, paths)
        if len(texts) > _TEXTS:
            raise ContentTooLargeError(
                f"An item is found by {len(texts):,} texts; at most {_TEXTS:,} are kept.",
                hint="Put its parts as items of their own.",
            )
        return _Put(document=document, texts=texts)

    async def _write(self, puts: Sequence[_Put], shelf: Shelf) -> None:
        texts = list(dict.fromkeys(text for put in puts for text in put.texts))
        made = await shelf.vectors(texts) if texts else None
        vectors = {} if made is None else dict(zip(texts, made, strict=True))
        documents = [
            put.document
            | {"texts": [_text_document(text, vectors.get(text)) for text in put.texts]}
            for put in puts
        ]
        for some in _chunks(documents):
            await self._call("put_memory_items", _COUNT, items=some)

    # -- the way there ---------------------------------------------------------------------------

    async def _open(self) -> Shelf:
        if self._shelf is None:
            async with self._opening:
                if self._shelf is None:
                    self._shelf = await self._opened()
        return self._shelf

    async def _opened(self) -> Shelf:
        if self._embed is None:
            memory = VectorMemory(config=self._config, store=self._store)
        else:
            embedder = await self._embedder(self._embed)
            memory = await opened_memory(self._store, self._config, embedder)
        shelf = await memory._open()
        await self._call("index_memory_items", _COUNT)
        return shelf

    async def _embedder(self, embed: Embeddings | Embedder) -> Embedder:
        if not isinstance(embed, Embeddings):
            return embed
        if self._dimensions is None:
            return await LangChainEmbedder.of(embed)
        return LangChainEmbedder(embed, self._dimensions)

    async def _call(
        self, function: str, returns: TypeAdapter[T], *, safe: bool = True, **arguments: object
    ) -> T:
        given: Mapping[str, object] = {"collection": self._config.collection_name, **arguments}
        return await self._store._transport.call(function, given, returns, safe=safe)


def _embedder_of(index: IndexConfig | None) -> Embeddings | Embedder | None:
    """What makes the vectors.

    Raises:
        ConfigurationError: It is nothing that could, or ``index`` has something else in it.
    """
    if index is None:
        return None
    if unknown := sorted(set(index) - _INDEX):
        raise ConfigurationError(
            f"index has {', '.join(unknown)}.",
            hint="It has dims, embed and fields; how vectors are indexed is in MemoryConfig.",
        )
    embed: Any = index.get("embed")
    if embed is None:
        return None
    if not isinstance(embed, Embeddings) and isinstance(embed, Embedder):
        return embed
    if not isinstance(embed, str | Embeddings) and not callable(embed):
        raise ConfigurationError(f"A {type(embed).__name__} makes no vectors.")
    try:
        return ensure_embeddings(embed)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(f"embed cannot be loaded: {error}") from None


def _is_long(document: Mapping[str, Any]) -> bool:
    """Whether a search or a listing asks for more than one call answers."""
    return isinstance(document["limit"], int) and document["limit"] > _PAGE


def _paths(index: object) -> list[str]:
    """The paths by which an item is found.

    Raises:
        InvalidInputError: They are no list of texts, and not False.
    """
    if index is False:
        return []
    paths = [] if index is True else listed(index, "index")
    if index is True or not all(isinstance(path, str) for path in paths):
        raise InvalidInputError("index is a list of paths, or False.")
    return paths


def _text_document(text: str, vector: NDArray[np.float32] | None) -> dict[str, str | None]:
    return {"text": text, "vector": vector_text(vector)}


def _chunks(documents: Iterable[Mapping[str, Any]]) -> Iterator[Document]:
    """As many items at once as fit, as JSON."""
    chunk: list[str] = []
    size = memories = 0
    for document in documents:
        text = to_json(document, "An item", _LIMIT)
        count = max(1, len(document["texts"]))
        weight = len(text) * count
        if chunk and (size + weight > _BYTES or memories + count > _PUTS):
            yield _joined(chunk)
            chunk, size, memories = [], 0, 0
        chunk.append(text)
        size, memories = size + weight, memories + count
    if chunk:
        yield _joined(chunk)


def _joined(parts: Iterable[str]) -> Document:
    """A list of what is JSON already."""
    return Document(f"[{','.join(parts)}]")
