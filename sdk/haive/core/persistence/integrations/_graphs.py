"""What LangGraph's graphs save, as checkpoints of a store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import as_uuid
from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.checkpointer._engine import ANY, NewCheckpoint, Place
from haive.core.persistence.checkpointer._search import search_terms
from haive.core.persistence.errors import (
    ConflictError,
    CorruptCheckpointError,
    InvalidInputError,
    NotFoundError,
)
from haive.core.persistence.integrations._langgraph import (
    TYPES,
    Address,
    config_of,
    id_in,
    in_order,
    is_exact,
    numbered,
    put_together,
    searchable,
    taken_apart,
    user_in,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
        PendingWrite,
    )

    from haive.core.persistence.checkpointer._chains import Known
    from haive.core.persistence.checkpointer._documents import Found, Row, Write
    from haive.core.persistence.checkpointer.config import CheckpointConfig
    from haive.core.persistence.store import Store

_log = logging.getLogger("haive.core.persistence.langgraph")

# States that are listed at once, and rows that are looked through at once.
_STATES, _ROWS = 50, 1000
# Ancestors that are read at first to replay a channel; then four times as many.
_ANCESTORS = 100

_Key = tuple["UUID", "UUID"]


class Graphs:
    """The coroutines behind `HaiveSaver`; they run on the event loop of the store.

    Args:
        store: An open store.
        config: How checkpoints are made and kept.
    """

    def __init__(self, store: Store, config: CheckpointConfig) -> None:
        types = tuple(dict.fromkeys((*config.types, *TYPES)))
        self._checkpointer = Checkpointer(store, config.model_copy(update={"types": types}))
        self.engine = self._checkpointer._engine
        self.engine.held -= frozenset(TYPES)
        self.reader = self._checkpointer._reader

    def allowing(self, types: Iterable[type]) -> Graphs:
        """The same, with objects of more classes."""
        config = self.engine.config
        more = Graphs(
            self.engine.store, config.model_copy(update={"types": (*config.types, *types)})
        )
        more.engine.cache = self.engine.cache
        return more

    # -- saving ----------------------------------------------------------------------------------

    async def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> RunnableConfig:
        """Save a checkpoint after the one that the config points to."""
        address = Address.of(config)
        values, beside, plain = taken_apart(config, checkpoint, metadata)
        paths = self.engine.config.search_paths
        new = NewCheckpoint(
            id=as_uuid(checkpoint["id"], "The id of the checkpoint"),
            plain=self.engine.pack(values, beside),
            metadata=plain,
            terms=search_terms(searchable(values) if paths is None else values, paths),
        )
        await self._save(address, new)
        return config_of(address.thread_id, address.namespace, new.id)

    async def _save(self, address: Address, new: NewCheckpoint) -> None:
        parent = await self._parent(address)
        fork = f"fork-{new.id.hex[-12:]}"
        try:
            await self._save_after(parent, address, new, fork)
        except NotFoundError:
            # What is at hand was pruned or deleted by another process.
            self.engine.cache.forget_thread(address.thread_id)
            await self._save_after(await self._parent(address), address, new, fork)
        except ConflictError:
            if not await self._is_saved(parent, address, new):
                # It is the name of the branch that is taken: a longer one is not.
                await self._save_after(parent, address, new, f"fork-{new.id.hex}")

    async def _save_after(
        self, parent: Known | None, address: Address, new: NewCheckpoint, fork: str
    ) -> None:
        branch = parent.branch if parent else "main"
        place = Place(thread_id=address.thread_id, namespace=address.namespace, branch=branch)
        placed = await self.engine.save(
            place, new, parent=parent, fork=fork, user_id=address.user_id
        )
        await self._checkpointer._saver.keep_within(placed, address.thread_id, address.namespace)

    async def _parent(self, address: Address) -> Known | None:
        """The checkpoint that the new one follows; None where there is none, or none any more."""
        if address.checkpoint_id is None:
            return None
        place = Place(thread_id=address.thread_id, namespace=address.namespace)
        try:
            return await self.engine.known(place, address.checkpoint_id)
        except NotFoundError:
            # A run goes on while its thread is pruned: what it does then is not thrown away.
            _log.warning(
                "A checkpoint follows %s, which its thread does not have: it begins a branch.",
                address.checkpoint_id,
            )
            return None

    async def _is_saved(self, parent: Known | None, address: Address, new: NewCheckpoint) -> bool:
        """Whether a checkpoint was saved before, whatever its metadata.

        Raises:
            ConflictError: Its id was, with another content.
        """
        found = await self.engine.find(
            thread_id=address.thread_id,
            namespace=address.namespace,
            checkpoint_id=new.id,
            details=False,
            states=True,
        )
        if not found.checkpoints:
            return False
        row = found.checkpoints[0]
        known = await self.engine.states(found)
        saved = (row.parent_id, known[row.id].plain)
        if saved != (parent.id if parent else None, new.plain):
            raise ConflictError(
                f"The thread has another checkpoint of the id {new.id}.",
                hint="A checkpoint does not change; save this one under an id of its own.",
            )
        return True

    async def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> None:
        """Keep what a task wrote after a checkpoint."""
        address = Address.of(config)
        if address.checkpoint_id is None:
            raise InvalidInputError("The config names no checkpoint that the writes follow.")
        if writes:
            await self.engine.put_writes(
                Place(thread_id=address.thread_id, namespace=address.namespace),
                address.checkpoint_id,
                as_uuid(task_id, "task_id"),
                task_path,
                numbered(writes),
                user_id=address.user_id,
            )

    # -- reading ---------------------------------------------------------------------------------

    async def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config points to, else the last one saved."""
        address = Address.of(config)
        found = await self.engine.find(
            thread_id=address.thread_id,
            namespace=address.namespace,
            checkpoint_id=address.checkpoint_id,
            user_id=address.user_id,
            page_size=1,
            states=True,
            writes=True,
        )
        tuples = await self.tuples(found)
        return tuples[0] if tuples else None

    async def tuples(self, found: Found) -> list[CheckpointTuple]:
        """What was found, of one thread or of many, as LangGraph has it."""
        sealer = await self.engine.sealer()
        known = await self._known(found)
        writes = await self._written(found)
        tuples = []
        for row in found.checkpoints:
            metadata, _, _ = self.engine.open_details(sealer, row)
            place = row.thread_key, row.id
            envelope = self._envelope(known.get(place))
            tuples.append(put_together(row, envelope, metadata, writes.get(place, [])))
        return tuples

    async def _known(self, found: Found) -> dict[_Key, Known]:
        """States by thread and id: the copy of a thread has the same ids."""
        known: dict[_Key, Known] = {}
        for thread in dict.fromkeys(row.thread_key for row in found.checkpoints):
            part = found._replace(
                checkpoints=[row for row in found.checkpoints if row.thread_key == thread],
                frames=[frame for frame in found.frames or [] if frame.thread_key == thread],
            )
            states = await self.engine.states(part)
            known |= {(thread, checkpoint_id): state for checkpoint_id, state in states.items()}
        return known

    async def _written(self, found: Found) -> dict[_Key, list[tuple[Write, Any]]]:
        """Pending writes by thread and checkpoint, in the order in which a run applies them."""
        sealer = await self.engine.sealer()
        rows = {(row.thread_key, row.id): row for row in found.checkpoints}
        written: dict[_Key, list[tuple[Write, Any]]] = {}
        for write in in_order(found.writes or []):
            place = write.thread_key, write.checkpoint_id
            plain = self.engine.packed_write(sealer, rows[place], write)
            value = self.reader.written(write.channel, plain)
            written.setdefault(place, []).append((write, value))
        return written

    def _envelope(self, known: Known | None) -> list[Any]:
        """The state, and what is kept beside it."""
        if known is None:
            raise CorruptCheckpointError("The state of a checkpoint is missing.")
        return self.reader.envelope(known.plain)

    async def history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> dict[str, DeltaChannelHistory]:
        """What channels that are not stored each time are replayed from.

        Going back along the branch, for each channel the writes since its last stored value.
        """
        written: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
        stored: dict[str, Any] = {}
        missing = set(channels)
        if missing:
            async for state, writes in self._ancestors(Address.of(config)):
                for write, value in reversed(writes):
                    if write.channel in missing:
                        pending = (str(write.task_id), write.channel, value)
                        written[write.channel].append(pending)
                stored |= {channel: state[channel] for channel in missing if channel in state}
                missing -= stored.keys()
                if not missing:
                    break
        histories: dict[str, DeltaChannelHistory] = {}
        for channel in channels:
            histories[channel] = {"writes": written[channel][::-1]}
            if channel in stored:
                histories[channel]["seed"] = stored[channel]
        return histories

    async def _ancestors(
        self, address: Address
    ) -> AsyncIterator[tuple[Mapping[str, Any], list[tuple[Write, Any]]]]:
        """States and pending writes of what a checkpoint goes back to, nearest first."""
        where = {
            "thread_id": address.thread_id,
            "namespace": address.namespace,
            "user_id": address.user_id,
        }
        target, branch = await self._line(address, where)
        before: int | None = None
        size = _ANCESTORS
        expected: UUID | None = None
        while target is not None:
            found = await self.engine.find(
                **where,
                branch=branch,
                before_id=target,
                before_seq=before,
                page_size=size,
                details=False,
                states=True,
                writes=True,
            )
            known = await self._known(found)
            writes = await self._written(found)
            for row in found.checkpoints:
                if expected is not None and row.id != expected:
                    raise ConflictError(
                        "The thread was changed while it was read.", hint="Read it again."
                    )
                place = row.thread_key, row.id
                state, _ = self._envelope(known.get(place))
                yield state, writes.get(place, [])
                expected = row.parent_id
                if expected is None:
                    return
            before = found.next_seq
            size = min(4 * size, _ROWS)
            if before is None:
                return

    async def _line(
        self, address: Address, where: Mapping[str, str | None]
    ) -> tuple[UUID | None, str | None]:
        """A checkpoint and the branch that it lies in."""
        if address.checkpoint_id is not None:
            known = self.engine.cache.get(
                address.thread_id, address.namespace, address.checkpoint_id
            )
            if known is not None:
                return known.id, known.branch
        found = await self.engine.find(
            **where, checkpoint_id=address.checkpoint_id, page_size=1, details=False
        )
        if not found.checkpoints:
            return None, None
        return found.checkpoints[0].id, found.checkpoints[0].branch

    # -- removing and copying --------------------------------------------------------------------

    async def delete_threads(self, thread_ids: Iterable[str]) -> None:
        """Delete threads with everything in them."""
        for thread_id in thread_ids:
            await self._checkpointer.delete_thread(str(thread_id))

    async def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of some runs from all threads."""
        if isinstance(run_ids, str):
            raise InvalidInputError("run_ids is a list of runs, and no text.")
        gone: dict[tuple[str, str], set[UUID]] = {}
        for run_id in run_ids:
            wanted = await self.reader.pattern((), None, {"run_id": str(run_id)})
            before: int | None = None
            while True:
                found = await self.engine.find(
                    namespace=ANY,
                    before_seq=before,
                    page_size=_ROWS,
                    details=False,
                    **wanted,
                )
                for row in found.checkpoints:
                    gone.setdefault((row.thread_id, row.namespace), set()).add(row.id)
                before = found.next_seq
                if before is None:
                    break
        for (thread_id, namespace), ids in gone.items():
            await self._remove(thread_id, namespace, ids)

    async def _remove(self, thread_id: str, namespace: str, ids: set[UUID]) -> None:
        def chosen(rows: Sequence[Row], _heads: object, _now: datetime) -> set[UUID]:
            return ids & {row.id for row in rows}

        await self._checkpointer._rewriter.remove(thread_id, namespace, chosen)

    async def copy_thread(self, source: str, target: str) -> None:
        """Copy a thread with everything in it."""
        await self._checkpointer.copy_thread(str(source), str(target))

    async def prune(self, thread_ids: Sequence[str], strategy: str) -> None:
        """Leave the last checkpoint of each namespace that is no call of before it, or nothing."""
        if isinstance(thread_ids, str):
            raise InvalidInputError("thread_ids is a list of threads, and no text.")
        if strategy == "delete":
            await self.delete_threads(thread_ids)
        elif strategy == "keep_latest":
            for thread_id in map(str, thread_ids):
                rewriter = self._checkpointer._rewriter
                for namespace in await rewriter.namespaces(thread_id):
                    await rewriter.remove(thread_id, namespace, _all_but_latest, keep_replayed=True)
                await rewriter.remove_lost_calls(thread_id)
        else:
            raise InvalidInputError(
                f"There is no strategy {strategy!r}.", hint="There are keep_latest and delete."
            )


class Listing:
    """A list of checkpoints on its way.

    Args:
        graphs: What is listed.
        config: Of a thread and, if it names one, a namespace; None for all threads. With a user
            only theirs.
        wanted: Metadata that the checkpoints have.
        before: Only those saved before this one.
        limit: At most so many.
    """

    def __init__(
        self,
        graphs: Graphs,
        config: RunnableConfig | None,
        wanted: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        configurable = (config or {}).get("configurable", {})
        thread_id, namespace = configurable.get("thread_id"), configurable.get("checkpoint_ns")
        self._graphs = graphs
        self._where = {
            "thread_id": None if thread_id is None else str(thread_id),
            "namespace": ANY if namespace is None else namespace,
            "checkpoint_id": id_in(config),
            "before_id": id_in(before),
            "user_id": user_in(config),
        }
        self._wanted = dict(wanted or {})
        self._left = limit
        self._before: int | None = None
        self.done = limit is not None and limit <= 0

    async def page(self) -> list[CheckpointTuple]:
        """The next ones; fewer than there are room for, or none, where the metadata is another."""
        # What is equal is for Python to say; the database takes away most of what is not.
        asked = {
            key: value
            for key, value in self._wanted.items()
            if isinstance(value, str | int | float) and is_exact(key) and is_exact(value)
        }
        most = _STATES if self._left is None or self._wanted else min(_STATES, self._left)
        found = await self._graphs.engine.find(
            **self._where,
            **await self._graphs.reader.pattern((), None, asked),
            before_seq=self._before,
            page_size=most,
            states=True,
            writes=True,
        )
        self._before = found.next_seq
        self.done = self._before is None
        tuples = [
            entry
            for entry in await self._graphs.tuples(found)
            if all(entry.metadata.get(key) == value for key, value in self._wanted.items())
        ]
        if self._left is not None:
            tuples = tuples[: self._left]
            self._left -= len(tuples)
            self.done = self.done or self._left == 0
        return tuples


def _all_but_latest(rows: Sequence[Row], _heads: object, _now: datetime) -> set[UUID]:
    return {row.id for row in rows[1:]}
