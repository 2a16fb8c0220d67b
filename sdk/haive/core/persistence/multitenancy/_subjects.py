"""What is held about a user, to hand out and to erase."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter

from haive.core.persistence._json import json_bytes
from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.checkpointer._cache import forget_everywhere
from haive.core.persistence.checkpointer._text import json_text
from haive.core.persistence.checkpointer._view import view
from haive.core.persistence.importing.formats import haive
from haive.core.persistence.multitenancy._arguments import check_user
from haive.core.persistence.multitenancy._export import archive
from haive.core.persistence.multitenancy._states import StateReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from haive.core.persistence.checkpointer.models import Thread
    from haive.core.persistence.multitenancy._export import Archive
    from haive.core.persistence.store import Store

_VERSION = 1
_PAGE_SIZE = 1_000
_THREADS = 100
_BATCH = 10_000
#: What has no reader of its own, and the file that it is in.
_KINDS = (
    "memberships", "invitations", "participations", "authorships", "memories", "events", "audit",
)  # fmt: skip


class _Rows(BaseModel):
    rows: list[dict[str, Any]]
    next: str | None


class _Progress(BaseModel):
    counts: dict[str, int]
    erased_at: datetime
    finished_at: datetime | None


_ROWS = TypeAdapter(_Rows)
_PROGRESS = TypeAdapter(_Progress)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written about a user."""

    path: Path
    counts: Mapping[str, int]
    """Records by file: conversations, messages, threads, checkpoints, memberships, invitations,
    participations, events and audit."""
    unreadable: int
    """Checkpoints whose state could not be read: their key is missing, or they are damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Erased:
    """What was deleted of a user."""

    counts: Mapping[str, int]
    """Rows by table, of all calls; ``participations`` are conversations of others that named the
    user and stay without the name."""
    erased_at: datetime
    """From when on nothing was stored about the user any more."""
    finished_at: datetime


class Subjects:
    """Exports and erases what the tenant of a store holds about a user.

    Args:
        store: Of a tenant context, or any store that is in the tenant; trusted, or of an
            administrator of the tenant. Users export what is about themselves.
        checkpointer: What the states of an export are read with, if they are sealed or have an
            upcaster.
    """

    def __init__(self, store: Store, checkpointer: Checkpointer | None = None) -> None:
        self._store = store
        self._checkpointer = checkpointer or Checkpointer(store)

    # -- export ------------------------------------------------------------------------------------

    async def export(self, user_id: str, path: Path | str) -> Exported:
        """Write what is held about a user to a zip of JSON lines, in constant memory.

        ``conversations.jsonl`` has the user's conversations with all messages, as `haive import`
        reads them; ``threads.jsonl`` and ``checkpoints.jsonl`` what workflows saved for the user,
        with the states as plain JSON; ``memberships``, ``invitations``, ``events`` and
        ``participations``, which are conversations of others that name the user: by their id and
        title; ``authorships``, the places of what they wrote in sessions of others; ``memories``,
        those with their name. ``audit`` has what the user did and, read by an administrator,
        what was done to their membership.
        ``manifest.json`` counts the records of each file and has its SHA-256. It is read while
        others write: what comes meanwhile may be missing.

        Raises:
            AccessDeniedError: The caller administers nothing here and is not the user.
            InvalidInputError: The file cannot be written.
        """
        user_id = check_user(user_id)
        path = Path(path)
        started = datetime.now(UTC)
        async with archive(path) as packed:
            # First what is refused to strangers, before anything is read.
            for kind in _KINDS:
                await self._rows(packed, user_id, kind)
            messages = await self._conversations(packed, user_id)
            unreadable = await self._threads(packed, user_id)
            counts = {**packed.counts, "messages": messages}
            about = {
                "haive": _VERSION,
                "user_id": user_id,
                "exported_at": started.isoformat(),
                "messages": messages,
                "unreadable_states": unreadable,
            }
            packed.close(about)
        return Exported(path=path, counts=counts, unreadable=unreadable)

    async def _rows(self, packed: Archive, user_id: str, kind: str) -> None:
        after: str | None = None
        async with packed.part(kind) as part:
            while True:
                page = await self._store._transport.call(
                    "export_user",
                    {
                        "user_id": user_id,
                        "kind": kind,
                        "page_size": _PAGE_SIZE,
                        "page_after": after,
                    },
                    _ROWS,
                    safe=True,
                )
                for row in page.rows:
                    await part.record(json_bytes(row))
                after = page.next
                if after is None:
                    return

    async def _conversations(self, packed: Archive, user_id: str) -> int:
        messages = 0
        async with packed.part("conversations") as part:
            async for one in self._store.iter_conversations(
                user_id, order_by="created_at", ascending=True
            ):
                await part.write(haive.head(one))
                comma = b""
                async for message in self._store.iter_messages(one.id):
                    await part.write(comma + haive.message(message))
                    comma = b","
                    messages += 1
                await part.record(haive.TAIL.rstrip(b"\n"))
        return messages

    async def _threads(self, packed: Archive, user_id: str) -> int:
        """Write threads, then their checkpoints; return how many states could not be read."""
        unreadable = 0
        async with packed.part("threads") as part:
            async for thread in self._all_threads(user_id):
                await part.record(json_text(view(thread)).encode())
        reader = StateReader(self._checkpointer)
        async with packed.part("checkpoints") as part:
            async for thread in self._all_threads(user_id):
                async for record in reader.records(thread):
                    unreadable += "unreadable" in record
                    await part.record(json_text(record).encode())
        return unreadable

    async def _all_threads(self, user_id: str) -> AsyncIterator[Thread]:
        after: str | None = None
        while page := await self._checkpointer.list_threads(
            user_id=user_id, limit=_THREADS, after=after
        ):
            for thread in page:
                yield thread
            after = page[-1].thread_id

    # -- erasure -----------------------------------------------------------------------------------

    async def erase(self, user_id: str, *, batch: int = _BATCH) -> Erased:
        """Erase a user, and keep a mark so that nothing is stored about them again.

        Their conversations go with all messages, their threads with all checkpoints, the events
        about both, their membership and invitations, and their name from the participants of
        others' conversations. From the first moment on whatever would be stored with their id is
        refused with `SubjectErasedError`, also of writers who were faster elsewhere. Each batch is
        a transaction of its own: an erasure that was interrupted goes on when it is called again.

        What is in conversations of others stays, without their name as its author; so does their
        name where somebody wrote it into text, titles or metadata. Records of the audit log stay,
        for they are the proof. In the files of the server the bytes stay until they are
        overwritten: see `scrub`.

        Raises:
            AccessDeniedError: The caller may not, or it is the last owner.
        """
        user_id = check_user(user_id)
        # The mark first: after it no thread of theirs begins.
        progress = await self._erase_batch(user_id, batch)
        names = {thread.thread_id async for thread in self._all_threads(user_id)}
        while progress.finished_at is None:
            progress = await self._erase_batch(user_id, batch)
        forget_everywhere(names)
        return Erased(
            counts=progress.counts,
            erased_at=progress.erased_at,
            finished_at=progress.finished_at,
        )

    async def _erase_batch(self, user_id: str, batch: int) -> _Progress:
        return await self._store._transport.call(
            "erase_user", {"user_id": user_id, "batch": batch}, _PROGRESS, safe=True
        )
