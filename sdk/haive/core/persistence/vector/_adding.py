"""Adds notes, unless they are remembered already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from haive.core.persistence._encoding import as_uuid, new_id
from haive.core.persistence.errors import ConflictError, InvalidInputError, NotFoundError
from haive.core.persistence.vector._common import contradict, said_by
from haive.core.persistence.vector._duplicates import (
    claim_alike,
    near,
    said_again,
    same_words,
    standing_for,
    words_told,
)
from haive.core.persistence.vector._ending import end_above, ended
from haive.core.persistence.vector._importance import importance_of
from haive.core.persistence.vector._locks import one_at_a_time
from haive.core.persistence.vector._personal import looked_through, tagged
from haive.core.persistence.vector._recalled import may_recite
from haive.core.persistence.vector._shelf import Readings, checked_text
from haive.core.persistence.vector._talks import checked_importance, checked_user, split
from haive.core.persistence.vector.models import Memory, MemoryKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from haive.core.persistence.privacy import Redactor
    from haive.core.persistence.vector._recalled import Recalled
    from haive.core.persistence.vector._shelf import Shelf

# How often it is looked up again what another process may have written.
_ATTEMPTS = 5
# What writes a note of which nobody says who did.
_APPLICATION = "application"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What notes that are added together have in common."""

    metadata: Mapping[str, Any]
    user_id: str | None
    importance: float | None
    ttl: timedelta | float | None
    supersedes: str | None = None
    id: str | None = None


async def add_notes(
    texts: Sequence[str], note: Note, shelf: Shelf, recalled: Recalled
) -> list[str]:
    """Write the texts that are not remembered yet, and return the ids of all.

    Raises:
        InvalidInputError: Something cannot be stored.
        NotFoundError: There is no memory to supersede.
        ConflictError: It is superseded already, or the id is taken by another text.
        ModelError: There are no vectors; nothing was stored.
    """
    made = [noted(checked_text(text), note, shelf.clock(), shelf.redactor) for text in texts]
    if not made:
        return []
    if note.supersedes is not None:
        async with one_at_a_time(shelf, made[0].user_id):
            return [await _supersede(made[0], note, shelf)]
    if note.id is not None and await _is_written(made[0], shelf):
        return [made[0].id]
    read = Readings(shelf)
    if shelf.config.near_duplicate is None:
        await shelf.write(made, read)
        return [memory.id for memory in made]
    there = await same_words(made, shelf)
    new = [memory for memory in made if memory.id not in there]
    await read.of(new)
    for attempt in range(_ATTEMPTS):
        async with one_at_a_time(shelf, made[0].user_id):
            try:
                # At last, whatever there may be that no look-up finds.
                once = attempt < _ATTEMPTS - 1
                return await _Remembering(shelf, note, read, recalled).add(
                    made, new if once else None
                )
            except ConflictError:
                # Another process has written the same since it was looked up.
                if attempt == _ATTEMPTS - 1:
                    raise
    raise AssertionError  # pragma: no cover - the loop returns or raises


async def _is_written(memory: Memory, shelf: Shelf) -> bool:
    """Whether an earlier call wrote it."""
    there = (await shelf.get([memory.id])).get(memory.id)
    if there is not None and there.text != memory.text:
        raise ConflictError("The id is taken by another memory.")
    return there is not None


class _Remembering:
    """Writes what is news."""

    def __init__(self, shelf: Shelf, note: Note, read: Readings, recalled: Recalled) -> None:
        self._shelf = shelf
        self._note = note
        self._read = read
        self._recalled = recalled
        self._fresh: dict[str, Memory] = {}
        self._changed: dict[str, Memory] = {}
        self._by_words: dict[str, str] = {}
        self._vectors: NDArray[np.float32] | None = None

    async def add(self, memories: Sequence[Memory], new: Sequence[Memory] | None) -> list[str]:
        """Write what is news of these, and return the ids of all.

        Args:
            memories: What is said.
            new: Those that nobody had said; None to write whatever others write meanwhile.

        Raises:
            ConflictError: Something was written or superseded meanwhile.
        """
        ids: list[str] = []
        # A database knows words, and not what else they were said with.
        once = new is not None
        told = await words_told(new or (), self._shelf)
        same = await same_words(memories, self._shelf)
        vectors, _ = await self._read.of([m for m in memories if m.id not in same])
        left = iter(() if vectors is None else vectors)
        # What is there under other metadata may be news that was not read.
        self._vectors = (
            None if vectors is None else np.zeros((len(memories), vectors.shape[1]), np.float32)
        )
        for memory in memories:
            vector = None if memory.id in same else next(left, None)
            known = self._among_these(memory, vector)
            if known is None:
                known = await self._known(memory, same.get(memory.id), vector)
            if known is None:
                if vector is not None and self._vectors is not None:
                    self._vectors[len(self._fresh)] = vector
                self._fresh[memory.id] = memory
                self._by_words[memory.words_hash] = memory.id
            ids.append(known or memory.id)
        await self._shelf.rewrite(list(self._changed.values()), once=once)
        checked = self._fresh.keys() - told if once else frozenset[str]()
        await self._shelf.write(list(self._fresh.values()), self._read, once=checked)
        return ids

    def _among_these(self, memory: Memory, vector: NDArray[np.float32] | None) -> str | None:
        """Which one of the same call says the same."""
        again = self._by_words.get(memory.words_hash)
        if again is not None or vector is None or self._vectors is None:
            return again
        cosines = self._vectors[: len(self._fresh)] @ vector
        fresh = list(self._fresh.values())
        threshold = self._shelf.config.near_duplicate or 1.0
        for place in np.flatnonzero(cosines >= threshold):
            other = fresh[place]
            if said_by(other) == said_by(memory) and claim_alike(other.text, memory.text):
                return other.id
        return None

    async def _known(
        self, memory: Memory, same: Memory | None, vector: NDArray[np.float32] | None
    ) -> str | None:
        """Which memory says the same already; it lasts as long as either of them from now on."""
        shelf = self._shelf
        now = shelf.clock()
        recited = self._recalled.recited(
            memory.text, user_id=memory.user_id, own=[memory.id], wholly=True
        )
        if recited and same is None:
            there = (await shelf.get(recited[:1])).get(recited[0])
            if (
                there is not None
                and there.holds_at(now)
                and not there.has_expired_by(now)
                and may_recite(memory, there)
            ):
                same = there
        if same is None:
            same = await near(memory, vector, shelf, shelf.config.near_duplicate or 1.0)
        if same is None:
            return None
        known = self._changed.get(same.id) or await standing_for(same, shelf)
        if known is None or (memory.valid_to is not None and memory.valid_to <= now):
            return None
        if contradict(memory.metadata, known.metadata):
            return None
        given = memory.importance if self._has_importance() else None
        after = said_again(known, memory, now, importance=given)
        if after is not None and after != known:
            self._changed[after.id] = tagged(after, shelf.redactor)
        return None if after is None else after.id

    def _has_importance(self) -> bool:
        note = self._note
        return note.importance is not None or note.metadata.get("importance") is not None


async def _supersede(memory: Memory, note: Note, shelf: Shelf) -> str:
    """Write a memory, and let the one that it supersedes hold until it does."""
    # What a call that was interrupted has written is there; the rest may be undone.
    written = note.id is not None and await _is_written(memory, shelf)
    if written:
        memory = (await shelf.get([memory.id]))[memory.id]
    older = await _superseded(str(note.supersedes), memory, shelf)
    if not written:
        await shelf.write([memory])
    over = replace(ended(older, memory.valid_from or shelf.clock()), superseded_by=memory.id)
    await end_above(shelf, over)
    try:
        await shelf.rewrite([over], once=True)
    except ConflictError:
        await shelf.backend.delete([memory.id])
        raise ConflictError("The memory is superseded already.") from None
    return memory.id


def noted(text: str, note: Note, now: datetime, redactor: Redactor | None = None) -> Memory:
    """The memory that a note is."""
    fields, rest = split(note.metadata)
    text, rest = looked_through(text, rest, redactor)
    given = {name: value for name, value in fields.items() if value is not None}
    given.setdefault("importance", importance_of(text))
    if note.importance is not None:
        given["importance"] = checked_importance(note.importance)
    if note.user_id is not None:
        given["user_id"] = checked_user(note.user_id)
    if note.ttl is not None:
        given["expires_at"] = now + _duration(note.ttl)
    given.setdefault("writer", given.get("speaker") or given.get("role") or _APPLICATION)
    given.setdefault("trust", given.get("role") or _APPLICATION)
    given.setdefault("timestamp", now)
    # A clock that is ahead would hide it until its time comes.
    given.setdefault("valid_from", min(given["timestamp"], now))
    return Memory(
        id=str(new_id() if note.id is None else as_uuid(note.id, "id")),
        text=text,
        kind=MemoryKind.NOTE,
        created_at=now,
        metadata=rest,
        **given,
    )


def _duration(ttl: timedelta | float) -> timedelta:
    if isinstance(ttl, bool):
        raise InvalidInputError("ttl is a number of seconds or a timedelta.")
    try:
        found = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInputError("ttl is a number of seconds or a timedelta.") from None
    if not timedelta(0) < found < timedelta(days=36_525):
        raise InvalidInputError("ttl is more than nothing and less than a hundred years.")
    return found


async def _superseded(memory_id: str, by: Memory, shelf: Shelf) -> Memory:
    found = (await shelf.get([memory_id])).get(memory_id)
    if found is None:
        raise NotFoundError("There is no memory to supersede.")
    if found.user_id != by.user_id:
        raise InvalidInputError("A memory is superseded by one of the same user.")
    if found.superseded_by not in {None, by.id}:
        raise ConflictError(
            "The memory is superseded already.", hint=f"{found.superseded_by} holds in its place."
        )
    if found.valid_from and by.valid_from and by.valid_from < found.valid_from:
        raise InvalidInputError("What supersedes a memory does not hold from before that one on.")
    return found
