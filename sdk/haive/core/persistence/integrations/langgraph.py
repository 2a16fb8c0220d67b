"""LangGraph's checkpointer and store over a store; needs ``haive-persistence[langgraph]``."""

from __future__ import annotations

import copy
import random
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from haive.core.persistence.checkpointer._tags import is_stored_by_name
from haive.core.persistence.checkpointer.config import CheckpointConfig
from haive.core.persistence.integrations._bridge import Bridge, loop_in_thread
from haive.core.persistence.integrations._extra import missing
from haive.core.persistence.integrations._open import opened

try:
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from haive.core.persistence.integrations._graphs import Graphs, Listing
    from haive.core.persistence.integrations._item_store import HaiveStore
except ModuleNotFoundError as error:
    raise missing(error, "langgraph") from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )

    from haive.core.persistence.store import Store

__all__ = ["HaiveSaver", "HaiveStore"]


class HaiveSaver(BaseCheckpointSaver[Any]):
    """Saves what LangGraph's graphs do, and resumes them in any process.

    The states are checkpoints as any other: a `Checkpointer` over the same store reads, compares
    and branches them by the ids that LangGraph gives. A checkpoint whose parent is not the head of
    a branch begins a branch, ``fork-…``: so does a run from an older checkpoint, and one of two
    runs at once.

    Objects of the classes of a graph's state come back as such if ``CheckpointConfig.types`` names
    them, else as plain data; messages and LangGraph's own types always do. Nothing that is stored
    is imported or executed.

    Its methods are those of ``BaseCheckpointSaver``. Those without ``await`` work in any thread
    except the one that runs the event loop of the store.
    """

    def __init__(self, graphs: Graphs, bridge: Bridge) -> None:
        super().__init__()
        self._graphs = graphs
        self._bridge = bridge

    @classmethod
    def from_store(cls, store: Store, config: CheckpointConfig | None = None) -> Self:
        """A saver over an open store; to be called where that was opened.

        Args:
            store: An open `PostgresStore` or `SupabaseStore`.
            config: How checkpoints are made and kept; of the strategy there is nothing to choose,
                for a graph says itself when it saves.

        Raises:
            InvalidInputError: No event loop is running.
        """
        return cls(Graphs(store, config or CheckpointConfig()), Bridge.here())

    @classmethod
    @contextmanager
    def from_conn_string(
        cls, url: str, *, config: CheckpointConfig | None = None, **settings: Any
    ) -> Iterator[Self]:
        """A saver with a store of its own, for a program without an event loop.

        Store and loop run in a thread until the block ends.

        Args:
            url: ``postgresql://…`` of a database, or ``https://…`` of a Supabase project.
            config: How checkpoints are made and kept.
            settings: What `PersistenceConfig` or `SupabaseStore` takes beside: ``schema``,
                ``tenant``, ``key`` …
        """
        with loop_in_thread() as loop:
            bridge = Bridge(loop)
            store = bridge.wait("from_store", opened(url, settings))
            try:
                yield cls(Graphs(store, config or CheckpointConfig()), bridge)
            finally:
                bridge.wait("aclose", store.aclose())

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> HaiveSaver:
        """A saver that rebuilds objects of these classes, too.

        LangGraph calls it with the classes in a graph's schemas when it is strict about types
        (``LANGGRAPH_STRICT_MSGPACK=true``).

        Args:
            extra_allowlist: Module and name of classes of this program; nothing is imported.
        """
        found = (_loaded_class(*name) for name in extra_allowlist)
        allowed = [cls for cls in found if cls is not None]
        clone = copy.copy(self)
        clone._graphs = self._graphs.allowing(allowed)
        return clone

    def get_next_version(self, current: Any, channel: None) -> Any:
        """The version of a channel after another: 1, 2, 3 and so on.

        Versions that came from a saver which writes them as text stay text.
        """
        if isinstance(current, str):
            return f"{int(current.partition('.')[0]) + 1:032}.{random.random():016}"  # noqa: S311 # nosec B311
        return 1 if current is None else current + 1

    # -- awaited ---------------------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint after the one that the config points to; one round trip.

        The same checkpoint again changes nothing: its metadata stay those of the first time.

        Raises:
            StateError: A channel holds something that cannot be stored; ``path`` says where.
            ConflictError: The thread has another checkpoint of this id.
        """
        return await self._bridge.run(self._graphs.put(config, checkpoint, metadata))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep what a task wrote after a checkpoint; one round trip.

        Raises:
            StateError: A value holds something that cannot be stored; ``path`` says where.
        """
        await self._bridge.run(self._graphs.put_writes(config, writes, task_id, task_path))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config points to, else the last one saved; one round trip.

        Raises:
            AccessDeniedError: The config names a user, and the thread is another one's.
            CorruptCheckpointError: What is stored is damaged or forged.
            CheckpointKeyError: No key of the ring opens it.
        """
        return await self._bridge.run(self._graphs.get_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, the last saved first, fifty a round trip.

        Args:
            config: Of a thread and, if it names one, a namespace; None for those of all threads.
                With a ``user_id`` the thread must be theirs, or be begun for nobody.
            filter: Metadata that they have.
            before: Only those saved before this one.
            limit: At most so many.
        """
        listing = Listing(self._graphs, config, filter, before, limit)
        while not listing.done:
            for found in await self._bridge.run(listing.page()):
                yield found

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread with everything in it."""
        await self._bridge.run(self._graphs.delete_threads([thread_id]))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of some runs, and their writes, from all threads.

        What came after them stays, and follows what came before. A ``DeltaChannel`` loses what the
        runs wrote to it.

        Raises:
            InvalidInputError: The runs are one text, and no list.
        """
        await self._bridge.run(self._graphs.delete_for_runs(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread, with its namespaces, branches and writes.

        Raises:
            NotFoundError: There is no such thread.
            ConflictError: There is a thread of the new name already.
        """
        await self._bridge.run(self._graphs.copy_thread(source_thread_id, target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove old checkpoints of threads.

        Args:
            thread_ids: Which threads.
            strategy: ``keep_latest`` leaves the last one of each namespace, with those that its
                ``DeltaChannel`` values are replayed from, and nothing of a call of a subgraph that
                was made from one that goes; ``delete`` leaves nothing.

        Raises:
            InvalidInputError: There is no such strategy.
        """
        await self._bridge.run(self._graphs.prune(thread_ids, strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What ``DeltaChannel`` values are replayed from; one round trip for a hundred ancestors.

        It is one more where this process has neither saved nor read the checkpoint.
        """
        return await self._bridge.run(self._graphs.history(config, channels))

    # -- waited for ------------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `aput`."""
        return self._bridge.wait("aput", self._graphs.put(config, checkpoint, metadata))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """See `aput_writes`."""
        self._bridge.wait(
            "aput_writes", self._graphs.put_writes(config, writes, task_id, task_path)
        )

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `aget_tuple`."""
        return self._bridge.wait("aget_tuple", self._graphs.get_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """See `alist`."""
        self._bridge.check("alist")  # now, and not when the first one is taken
        return self._listed(Listing(self._graphs, config, filter, before, limit))

    def delete_thread(self, thread_id: str) -> None:
        """See `adelete_thread`."""
        self._bridge.wait("adelete_thread", self._graphs.delete_threads([thread_id]))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `adelete_for_runs`."""
        self._bridge.wait("adelete_for_runs", self._graphs.delete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `acopy_thread`."""
        self._bridge.wait(
            "acopy_thread", self._graphs.copy_thread(source_thread_id, target_thread_id)
        )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `aprune`."""
        self._bridge.wait("aprune", self._graphs.prune(thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `aget_delta_channel_history`."""
        return self._bridge.wait(
            "aget_delta_channel_history", self._graphs.history(config, channels)
        )

    def _listed(self, listing: Listing) -> Iterator[CheckpointTuple]:
        while not listing.done:
            yield from self._bridge.wait("alist", listing.page())


def _loaded_class(module: str, name: str, *_: str) -> type | None:
    """A class of a module that this program has imported, if objects of it can be stored."""
    cls = getattr(sys.modules.get(module), name, None)
    return cls if isinstance(cls, type) and is_stored_by_name(cls) else None
