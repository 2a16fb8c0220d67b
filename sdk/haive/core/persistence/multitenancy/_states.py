"""Checkpoints as JSON records, with their states where they can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence.checkpointer._view import view
from haive.core.persistence.errors import CheckpointError, StateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haive.core.persistence.checkpointer import Checkpointer
    from haive.core.persistence.checkpointer._documents import Row
    from haive.core.persistence.checkpointer.models import Thread

_PAGE_SIZE = 1_000


class StateReader:
    """Reads the checkpoints of whole threads, one state at a time."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self._engine = checkpointer._engine
        self._reader = checkpointer._reader

    async def records(self, thread: Thread) -> AsyncIterator[dict[str, Any]]:
        """All checkpoints of a thread, of all its namespaces, newest first."""
        for namespace in thread.namespaces:
            before: int | None = None
            while True:
                found = await self._engine.find(
                    thread_id=thread.thread_id,
                    namespace=namespace,
                    before_seq=before,
                    page_size=_PAGE_SIZE,
                    details=False,
                )
                for row in found.checkpoints:
                    yield await self._record(row)
                before = found.next_seq
                if before is None:
                    break

    async def _record(self, row: Row) -> dict[str, Any]:
        try:
            found = await self._reader.one(
                row.id, row.thread_id, row.namespace, states=True, writes=True
            )
            (one,) = await self._reader.checkpoints(found)
            sealer = await self._engine.sealer()
            writes = [
                {
                    "task_id": str(write.task_id),
                    "channel": write.channel,
                    "value": self._engine.open_write(sealer, row, write),
                }
                for write in found.writes or []
            ]
            record: dict[str, Any] = view(one)
            return {**record, "writes": view(writes)}
        except (CheckpointError, StateError) as error:
            about = {
                "id": str(row.id),
                "thread_id": row.thread_id,
                "namespace": row.namespace,
                "branch": row.branch,
                "seq": row.seq,
                "parent_id": None if row.parent_id is None else str(row.parent_id),
                "size": row.size,
            }
            created_at = row.created_at.isoformat()
            return {
                **about,
                "created_at": created_at,
                "state": None,
                "unreadable": type(error).__name__,
            }
