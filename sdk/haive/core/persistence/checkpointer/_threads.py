"""The threads of a tenant, and what is done to whole ones."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from haive.core.persistence.checkpointer._arguments import check_name
from haive.core.persistence.checkpointer._calls import is_call
from haive.core.persistence.checkpointer._documents import COUNT, THREADS
from haive.core.persistence.checkpointer._engine import ANY
from haive.core.persistence.checkpointer._failures import Failures
from haive.core.persistence.checkpointer.models import Pruned, Thread
from haive.core.persistence.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PersistenceError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haive.core.persistence.checkpointer._documents import ThreadRow
    from haive.core.persistence.checkpointer._engine import Engine
    from haive.core.persistence.checkpointer._rewriting import Rewriter

_PAGE = 1000


class Threads:
    """What `Checkpointer` works on whole threads with."""

    def __init__(self, engine: Engine, rewriter: Rewriter) -> None:
        self._engine = engine
        self._rewriter = rewriter

    async def page(
        self, *, user_id: str | None = None, limit: int = _PAGE, after: str | None = None
    ) -> list[Thread]:
        """Some threads, by name."""
        rows = await self._engine.call(
            "list_threads",
            {"user_id": user_id, "page_size": limit, "page_after": after},
            THREADS,
            safe=True,
        )
        return [_thread(row) for row in rows]

    async def one(self, thread_id: str) -> Thread:
        """One thread."""
        rows = await self._engine.call("list_threads", {"thread_id": thread_id}, THREADS, safe=True)
        if not rows:
            raise NotFoundError(
                "There is no such thread.",
                hint="It was deleted, belongs to another tenant, or is not the caller's to see.",
            )
        return _thread(rows[0])

    async def copy(self, thread_id: str, new_thread_id: str) -> int:
        """Copy a thread; return how many checkpoints it has."""
        check_name(thread_id, "thread_id")
        check_name(new_thread_id, "new_thread_id")
        namespaces = (await self.one(thread_id)).namespaces
        if await self._rewriter.namespaces(new_thread_id):
            raise ConflictError(
                "There is a thread of the new name already.",
                hint="Choose another name, or delete that thread first.",
            )
        count = parts = 0
        try:
            for part in namespaces:
                count += await self._rewriter.copy(thread_id, part, new_thread_id)
                parts += 1
        except BaseException as error:
            # What another call made first, of the same name, is not for this one to delete.
            if parts or not isinstance(error, ConflictError):
                with suppress(PersistenceError):
                    await self._delete_copy(thread_id, new_thread_id)
            raise
        return count

    async def _delete_copy(self, thread_id: str, new_thread_id: str) -> None:
        """Delete a copy that was left unfinished, unless somebody has saved to it since."""
        find = self._engine.find
        last = (
            await find(thread_id=new_thread_id, namespace=ANY, page_size=1, details=False)
        ).checkpoints
        if not last:
            return
        copied = await find(
            thread_id=thread_id, namespace=ANY, checkpoint_id=last[0].id, details=False
        )
        if copied.checkpoints:
            await self.delete(new_thread_id)

    async def delete(self, thread_id: str) -> int:
        """Delete a thread; return how many checkpoints it had."""
        check_name(thread_id, "thread_id")
        count: int = await self._engine.call(
            "delete_thread", {"thread_id": thread_id}, COUNT, safe=False
        )
        self._engine.cache.forget_thread(thread_id)
        return count

    async def prune(self, thread_id: str | None, *, dry_run: bool) -> Pruned:
        """Apply the retention of the configuration to a thread, or to all.

        What goes takes the calls of subgraphs that were made from it with it; a dry run does not
        count those.
        """
        most = self._engine.config.max_checkpoints_per_thread
        threads = removed = rewritten = 0
        failures = Failures()
        async for name, namespaces in self._every(thread_id):
            gone = 0
            for namespace in namespaces:
                with failures.of(name):
                    done = await self._rewriter.prune(name, namespace, most=most, dry_run=dry_run)
                    gone += done.removed
                    rewritten += done.rewritten
            # What was spared goes at a later prune, also of a thread where nobody saved since.
            if not dry_run and (gone or any(map(is_call, namespaces))):
                with failures.of(name):
                    gone += await self._rewriter.remove_lost_calls(name)
            threads += gone > 0
            removed += gone
        failures.check(one=thread_id is not None)
        return Pruned(threads=threads, removed=removed, rewritten=rewritten)

    async def rotate(self, thread_id: str | None, *, seal_plain: bool) -> int:
        """Seal a thread, or all, with the writing key; return how many checkpoints were."""
        if (await self._engine.sealer()).keys is None:
            raise InvalidInputError("There is no key to seal with; set encryption_key.")
        total = 0
        failures = Failures()
        async for name, namespaces in self._every(thread_id):
            for namespace in namespaces:
                with failures.of(name):
                    total += await self._rewriter.rotate(name, namespace, seal_plain=seal_plain)
        failures.check(one=thread_id is not None)
        return total

    async def _every(self, thread_id: str | None) -> AsyncIterator[tuple[str, tuple[str, ...]]]:
        """One thread, or all, with its namespaces."""
        if thread_id is not None:
            yield thread_id, await self._rewriter.namespaces(thread_id)
            return
        after = None
        while page := await self.page(after=after):
            for thread in page:
                yield thread.thread_id, thread.namespaces
            after = page[-1].thread_id


def _thread(row: ThreadRow) -> Thread:
    return Thread(
        thread_id=row.thread_id,
        user_id=row.user_id,
        namespaces=tuple(row.namespaces),
        branches=row.branches,
        checkpoints=row.checkpoints,
        stored_bytes=row.bytes,
        created_at=row.created_at,
        updated_at=row.updated_at or row.created_at,
    )
