"""Ways to save the states of a workflow: ours and the peer's, by hand and in a graph."""

from __future__ import annotations

import operator
import warnings
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypedDict

from haive.core.persistence.bench.timing import Sample
from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer, KeyRing
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

    from haive.core.persistence.bench.corpus import Dialogue
    from haive.core.persistence.store import Store

#: Workflows that save at once over the slow link.
AT_ONCE = 10

_OURS = ("threads", "branches", "checkpoints", "checkpoint_writes", "checkpoint_schemas")
_PEERS = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "checkpoint_migrations")

#: Tables counted whole, and tables of which only the growth counts, for others write there too.
OUR_TABLES = tuple(f"haive.{table}" for table in _OURS), ("haive.events",)
PEER_TABLES = tuple(f"public.{table}" for table in _PEERS), ()


class Saver(Protocol):
    """Something that saves, with an empty database of its own."""

    async def save_all(self, messages: Dialogue) -> Sample:
        """Save after each message; a graph as a whole, so that there is one latency for all."""

    async def restore(self) -> float:
        """Seconds that the latest state takes."""

    async def history(self) -> float:
        """Seconds that all checkpoints take, without states if that can be had."""


class SlowSaver(Protocol):
    """Something that saves over the slow link."""

    async def put(self, thread: int, step: int) -> None:
        """Save a step of one of `AT_ONCE` workflows; the first step begins it."""


def missing() -> str | None:
    """What to say when the peer is not installed."""
    packages = ("langgraph", "langgraph.checkpoint.postgres", "psycopg", "psycopg_pool")
    absent = [name for name in packages if not _is_there(name)]
    if not absent:
        return None
    return (
        f"LangGraph is left out: {', '.join(absent)} not installed."
        " `pip install 'haive-persistence[bench]'` brings it."
    )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _state(messages: Dialogue, step: int) -> dict[str, Any]:
    return {"messages": messages[: step + 1], "step": step, "status": "running"}


def _metadata(step: int) -> dict[str, Any]:
    return {"source": "loop", "step": step, "parents": {}}


# -- ours ------------------------------------------------------------------------------------------


class _Ours:
    def __init__(self, store: Store, config: CheckpointConfig) -> None:
        self._store = store
        self._config = config

    async def save_all(self, messages: Dialogue) -> Sample:
        checkpointer = Checkpointer(self._store, self._config)
        sample = Sample()
        begin = start = perf_counter()
        for step in range(len(messages)):
            await checkpointer.save("bench", _state(messages, step), _metadata(step))
            now = perf_counter()
            sample.latencies.append(now - start)
            start = now
        sample.seconds = start - begin
        return sample

    async def restore(self) -> float:
        checkpointer = Checkpointer(self._store, self._config)  # with nothing in its cache
        start = perf_counter()
        await checkpointer.recover("bench")
        return perf_counter() - start

    async def history(self) -> float:
        checkpointer = Checkpointer(self._store, self._config)
        start = perf_counter()
        await checkpointer.get_history("bench", limit=1_000)
        return perf_counter() - start


@asynccontextmanager
async def ours(dsn: str) -> AsyncIterator[Saver]:
    """`Checkpointer`."""
    async with _store(dsn) as store:
        yield _Ours(store, CheckpointConfig())


@asynccontextmanager
async def ours_sealed(dsn: str) -> AsyncIterator[Saver]:
    """`Checkpointer` with a key."""
    async with _store(dsn) as store:
        yield _Ours(store, CheckpointConfig(encryption_key=KeyRing.generate()))


class _OursSlow:
    def __init__(self, store: Store, messages: Dialogue) -> None:
        self._checkpointer = Checkpointer(store)
        self._messages = messages

    async def put(self, thread: int, step: int) -> None:
        state = _state(self._messages, step)
        await self._checkpointer.save(f"bench-{thread}", state, _metadata(step))


@asynccontextmanager
async def ours_slow(dsn: str, messages: Dialogue) -> AsyncIterator[SlowSaver]:
    """`Checkpointer` over a slow link."""
    async with _store(dsn, pool_size=AT_ONCE) as store:
        yield _OursSlow(store, messages)


def _store(dsn: str, **settings: Any) -> PostgresStore:
    return PostgresStore(PersistenceConfig(connection_string=dsn, **settings))


# -- the peer --------------------------------------------------------------------------------------


class _Peer:
    """`AsyncPostgresSaver` as a graph calls it, without the graph."""

    def __init__(self, saver: BaseCheckpointSaver[str]) -> None:
        self._saver = saver

    async def save_all(self, messages: Dialogue) -> Sample:
        sample = Sample()
        config: Any = {"configurable": {"thread_id": "bench", "checkpoint_ns": ""}}
        versions: dict[str, Any] = {}
        begin = start = perf_counter()
        for step in range(len(messages)):
            config, versions = await _put(self._saver, config, versions, messages, step)
            now = perf_counter()
            sample.latencies.append(now - start)
            start = now
        sample.seconds = start - begin
        return sample

    async def restore(self) -> float:
        start = perf_counter()
        await self._saver.aget_tuple(_thread())
        return perf_counter() - start

    async def history(self) -> float:
        start = perf_counter()
        async for _ in self._saver.alist(_thread()):
            pass
        return perf_counter() - start


def _thread() -> Any:
    return {"configurable": {"thread_id": "bench"}, "recursion_limit": 1_000}


async def _put(
    saver: BaseCheckpointSaver[str],
    config: Any,
    versions: dict[str, Any],
    messages: Dialogue,
    step: int,
) -> tuple[Any, dict[str, Any]]:
    from langgraph.checkpoint.base import empty_checkpoint  # noqa: PLC0415 - the extra "bench"

    state = _state(messages, step)
    changed = ("messages", "step") if versions else tuple(state)
    new: Any = {name: saver.get_next_version(versions.get(name), None) for name in changed}
    versions = versions | new
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = state
    checkpoint["channel_versions"] = versions
    checkpoint["updated_channels"] = sorted(changed)
    metadata: Any = _metadata(step)
    return await saver.aput(config, checkpoint, metadata, new), versions


@asynccontextmanager
async def langgraph_postgres(dsn: str) -> AsyncIterator[Saver]:
    """LangGraph's saver."""
    async with _peer(dsn) as saver:
        yield _Peer(saver)


class _PeerSlow:
    def __init__(self, saver: BaseCheckpointSaver[str], messages: Dialogue) -> None:
        self._saver = saver
        self._messages = messages
        self._last: dict[int, tuple[Any, dict[str, Any]]] = {}

    async def put(self, thread: int, step: int) -> None:
        begin: Any = {"configurable": {"thread_id": f"bench-{thread}", "checkpoint_ns": ""}}
        config, versions = self._last.get(thread, (begin, {}))
        self._last[thread] = await _put(self._saver, config, versions, self._messages, step)


@asynccontextmanager
async def peer_slow(dsn: str, messages: Dialogue) -> AsyncIterator[SlowSaver]:
    """LangGraph's saver over a slow link, with a pool."""
    async with _peer(dsn) as saver:
        yield _PeerSlow(saver, messages)


@asynccontextmanager
async def _peer(dsn: str) -> AsyncIterator[BaseCheckpointSaver[str]]:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: PLC0415
    from psycopg.rows import dict_row  # noqa: PLC0415
    from psycopg_pool import AsyncConnectionPool  # noqa: PLC0415

    # What its documentation sets for a pool.
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(
        dsn, min_size=AT_ONCE, max_size=AT_ONCE, kwargs=settings
    ) as pool:
        saver = AsyncPostgresSaver(pool)  # type: ignore[arg-type] # its rows are dicts by the setting
        await saver.setup()
        yield saver


# -- in a graph ------------------------------------------------------------------------------------


class _InGraph:
    """A graph whose one node adds a message and is run again until there are no more."""

    def __init__(self, new_saver: Callable[[], BaseCheckpointSaver[str]], channel: object) -> None:
        self._new_saver = new_saver
        self._channel = channel
        self._messages: Dialogue = []

    async def save_all(self, messages: Dialogue) -> Sample:
        self._messages = messages
        graph = self._graph()
        start = perf_counter()
        with _beta():
            await graph.ainvoke({"messages": [], "step": 0, "status": "running"}, _thread())
        seconds = perf_counter() - start
        # As it saves while the next step runs, a put has no latency that anybody waits for.
        return Sample([seconds / len(messages)] * len(messages), seconds)

    async def restore(self) -> float:
        graph = self._graph()
        start = perf_counter()
        with _beta():
            await graph.aget_state(_thread())
        return perf_counter() - start

    async def history(self) -> float:
        graph = self._graph()
        start = perf_counter()
        with _beta():
            async for _ in graph.aget_state_history(_thread()):
                pass
        return perf_counter() - start

    def _graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph  # noqa: PLC0415

        messages = self._messages
        state = TypedDict(  # noqa: UP013 - the annotations of a class would be text
            "state", {"messages": Annotated[list[Any], self._channel], "step": int, "status": str}
        )

        async def work(now: Any) -> dict[str, Any]:
            return {"messages": [messages[now["step"]]], "step": now["step"] + 1}

        def after(now: Any) -> str:
            return "work" if now["step"] < len(messages) else END

        with _beta():
            graph: Any = StateGraph(state)
            graph.add_node("work", work)
            graph.add_edge(START, "work")
            graph.add_conditional_edges("work", after, ["work", END])
            compiled: CompiledStateGraph[Any, Any, Any, Any] = graph.compile(
                checkpointer=self._new_saver()
            )
        return compiled


@contextmanager
def _beta() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*beta")  # DeltaChannel says that it is one
        yield


@asynccontextmanager
async def langgraph_delta(dsn: str) -> AsyncIterator[Saver]:
    """LangGraph's saver under a graph whose messages are a DeltaChannel."""
    from langgraph.channels.delta import DeltaChannel  # noqa: PLC0415

    def extend(state: Sequence[Any], writes: Sequence[Sequence[Any]]) -> list[Any]:
        return [*state, *(item for write in writes for item in write)]

    async with _peer(dsn) as saver:
        yield _InGraph(lambda: saver, DeltaChannel(extend, snapshot_frequency=100))


@asynccontextmanager
async def ours_langgraph(dsn: str) -> AsyncIterator[Saver]:
    """`HaiveSaver` under the same graph, whose messages are an ordinary channel."""
    from haive.core.persistence.integrations.langgraph import HaiveSaver  # noqa: PLC0415

    async with _store(dsn) as store:
        yield _InGraph(lambda: HaiveSaver.from_store(store), operator.add)
