"""Adds notes, unless they are remembered already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import as_uuid, new_id
from haive.core.persistence.errors import ConflictError, InvalidInputError, NotFoundError
from haive.core.persistence.vector._duplicates import duplicate_of
from haive.core.persistence.vector._ending import end_above, ended
from haive.core.persistence.vector._importance import importance_of
from haive.core.persistence.vector._shelf import checked_text
from haive.core.persistence.vector._talks import checked_importance, split
from haive.core.persistence.vector.models import Memory, MemoryKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from haive.core.persistence.vector._recalled import Recalled
    from haive.core.persistence.vector._shelf import Shelf


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
    made = [noted(checked_text(text), note, shelf.clock()) for text in texts]
    if note.id is not None and (there := (await shelf.get([made[0].id])).get(made[0].id)):
        if there.text != made[0].text:
            raise ConflictError("The id is taken by another memory.")
        if note.supersedes is not None:  # what a call that was interrupted may have left undone
            await _end(await _superseded(note.supersedes, there, shelf), there, shelf)
        return [there.id]
    older = None if note.supersedes is None else await _superseded(note.supersedes, made[0], shelf)
    ids: list[str] = []
    fresh: dict[str, Memory] = {}
    for memory in made:
        known = None if older is not None else await _known(memory, fresh, shelf, recalled)
        ids.append(memory.id if known is None else known)
        if known is None:
            fresh[memory.id] = memory
    await shelf.write(list(fresh.values()))
    if older is not None:
        await _end(older, made[0], shelf)
    return ids


async def _end(older: Memory, by: Memory, shelf: Shelf) -> None:
    """Let the older memory, and what was made of it, hold until the newer one does."""
    over = replace(ended(older, by.valid_from or shelf.clock()), superseded_by=by.id)
    await end_above(shelf, over)
    await shelf.rewrite([over])


def noted(text: str, note: Note, now: datetime) -> Memory:
    """The memory that a note is."""
    fields, rest = split(note.metadata)
    given = {name: value for name, value in fields.items() if value is not None}
    given.setdefault("importance", importance_of(text))
    if note.importance is not None:
        given["importance"] = checked_importance(note.importance)
    if note.user_id is not None:
        given["user_id"] = note.user_id
    if note.ttl is not None:
        given["expires_at"] = now + _duration(note.ttl)
    given.setdefault("timestamp", now)
    given.setdefault("valid_from", given["timestamp"])
    return Memory(
        id=str(new_id() if note.id is None else as_uuid(note.id, "id")),
        text=text,
        kind=MemoryKind.NOTE,
        created_at=now,
        metadata=rest,
        **given,
    )


def _duration(ttl: timedelta | float) -> timedelta:
    try:
        found = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInputError("ttl is a number of seconds or a timedelta.") from None
    if not timedelta(0) < found < timedelta(days=36_525):
        raise InvalidInputError("ttl is more than nothing and less than a hundred years.")
    return found


async def _known(
    memory: Memory, fresh: Mapping[str, Memory], shelf: Shelf, recalled: Recalled
) -> str | None:
    """The memory that says the same already."""
    threshold = shelf.config.near_duplicate
    if threshold is None:
        return None
    again = next((m.id for m in fresh.values() if m.text == memory.text), None)
    if again is not None:
        return again
    recited = recalled.recited(memory.text, user_id=memory.user_id, own=[memory.id], wholly=True)
    if recited is not None:
        there = (await shelf.get([recited])).get(recited)
        if there is not None and there.holds_at(shelf.clock()):
            return recited
    found = await duplicate_of(memory, shelf, threshold)
    return None if found is None else found.id


async def _superseded(memory_id: str, by: Memory, shelf: Shelf) -> Memory:
    found = (await shelf.get([memory_id])).get(memory_id)
    if found is None:
        raise NotFoundError("There is no memory to supersede.")
    if found.superseded_by not in {None, by.id}:
        raise ConflictError(
            "The memory is superseded already.", hint=f"{found.superseded_by} holds in its place."
        )
    if found.valid_from and by.valid_from and by.valid_from < found.valid_from:
        raise InvalidInputError("What supersedes a memory does not hold from before that one on.")
    return found
