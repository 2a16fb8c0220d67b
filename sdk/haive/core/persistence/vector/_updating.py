"""Changes a memory in its place, and what was made of it with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import ConflictError, InvalidInputError, NotFoundError
from haive.core.persistence.vector._arguments import checked_flag, checked_time
from haive.core.persistence.vector._common import follow_above
from haive.core.persistence.vector._ending import end_above
from haive.core.persistence.vector._forgetting import change, hand_over
from haive.core.persistence.vector._importance import importance_of
from haive.core.persistence.vector._locks import one_at_a_time
from haive.core.persistence.vector._personal import looked_through, metadata_looked_through
from haive.core.persistence.vector._shelf import checked_text, spoken
from haive.core.persistence.vector._talks import checked_importance, split
from haive.core.persistence.vector.models import CONSOLIDATION, DERIVED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from haive.core.persistence.vector._shelf import Shelf
    from haive.core.persistence.vector.models import Memory

UNSET: Any = object()
# How often it is read again what another process may have superseded.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be otherwise; what is not given stays."""

    text: str | None = None
    metadata: Mapping[str, Any] | None = None
    importance: float | None = None
    valid_to: datetime | None = UNSET
    archived: bool | None = None


async def update(memory_id: str, changes: Changes, shelf: Shelf) -> tuple[Memory, Memory]:
    """Change a memory; what it was and what it is.

    Raises:
        NotFoundError: There is no such memory, or none any more.
        ConflictError: Others go on superseding it.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return await _update(memory_id, changes, shelf)
        except ConflictError:
            # Another process has superseded it since it was read: what it is now is changed.
            continue
    return await _update(memory_id, changes, shelf)


async def _update(memory_id: str, changes: Changes, shelf: Shelf) -> tuple[Memory, Memory]:
    whose = (await _there(memory_id, shelf)).user_id
    async with one_at_a_time(shelf, whose):
        memory = await _there(memory_id, shelf)
        changed = _changed(memory, changes, shelf)
        if changed.valid_to != memory.valid_to:
            await end_above(shelf, changed)
        if changed.user_id != memory.user_id:
            return memory, await hand_over(shelf, memory, changed)
        if spoken(changed) != spoken(memory):
            await change(shelf, changed)
            return memory, changed
        if (changed.metadata, changed.role) != (memory.metadata, memory.role):
            await follow_above(shelf, [changed])
        if not await shelf.rewrite([changed], once=True):
            raise NotFoundError("There is no such memory.")
    return memory, changed


async def _there(memory_id: str, shelf: Shelf) -> Memory:
    found = (await shelf.get([memory_id])).get(memory_id)
    if found is None:
        raise NotFoundError("There is no such memory.")
    return found


def _changed(memory: Memory, changes: Changes, shelf: Shelf) -> Memory:
    over: dict[str, Any] = {"renewed_at": shelf.clock()}
    if changes.metadata is not None:
        fields, rest = split(changes.metadata)
        if "importance" in fields and fields["importance"] is None:
            said = memory.text if changes.text is None else changes.text
            fields["importance"] = importance_of(checked_text(said))
        if rest.get(CONSOLIDATION, made_by := memory.metadata.get(CONSOLIDATION)) != made_by:
            raise InvalidInputError(
                f"metadata has {CONSOLIDATION}, which is not the caller's to say."
            )
        over |= fields
        merged = {**memory.metadata, **rest}
        over["metadata"] = {name: each for name, each in merged.items() if each is not None}
    if changes.importance is not None:
        over["importance"] = checked_importance(changes.importance)
    if changes.valid_to is not UNSET:
        until = changes.valid_to
        over["valid_to"] = None if until is None else checked_time(until, "valid_to")
    if changes.archived is not None:
        over["archived"] = checked_flag(changes.archived, "archived")
    if changes.text is not None:
        over["text"], over["metadata"] = looked_through(
            checked_text(changes.text), over.get("metadata", memory.metadata), shelf.redactor
        )
    elif changes.metadata is not None:
        over["metadata"] = metadata_looked_through(over["metadata"], shelf.redactor)
    changed = replace(memory, **over)
    if changed.user_id != memory.user_id and memory.kind in DERIVED:
        raise InvalidInputError(
            "What was made of memories belongs to whom they belong to.",
            hint="Change the user_id of these.",
        )
    since, until = changed.valid_from, changed.valid_to
    if since is not None and until is not None and until < since:
        raise InvalidInputError("valid_to is before valid_from.")
    return changed
