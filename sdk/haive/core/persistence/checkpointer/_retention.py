"""Which checkpoints of a thread may go, and after whom those come that stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime, timedelta
    from uuid import UUID

    from haive.core.persistence.checkpointer._documents import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """What stays.

    Attributes:
        most: At most so many, or None for any number.
        age: Older ones go, or None.
        keep_minimum: The newest so many stay, however old.
        keep_failed: Failed ones stay, and do not count.
    """

    most: int | None
    age: timedelta | None
    keep_minimum: int
    keep_failed: bool


def expired(
    rows: Sequence[Row], heads: AbstractSet[UUID], now: datetime, rule: Retention
) -> set[UUID]:
    """The checkpoints that may go.

    Args:
        rows: All of a thread, newest first.
        heads: The heads of its branches, which stay.
        now: The time by the clock of the database.
        rule: What else stays.
    """
    gone = set()
    place = 0
    for row in rows:
        if row.failed and rule.keep_failed:
            continue
        place += 1
        too_many = rule.most is not None and place > rule.most
        too_old = rule.age is not None and row.created_at < now - rule.age
        if (too_many or (too_old and place > rule.keep_minimum)) and row.id not in heads:
            gone.add(row.id)
    return gone


def adopted(
    parents: Mapping[UUID, UUID | None], gone: AbstractSet[UUID]
) -> dict[UUID, UUID | None]:
    """Those that stay and lose their parent, with the nearest ancestor that stays.

    Args:
        parents: Each checkpoint's parent; None begins a thread.
        gone: The ones that go.
    """
    nearest: dict[UUID, UUID | None] = {}
    orphans: dict[UUID, UUID | None] = {}
    for child, parent in parents.items():
        if child in gone or parent is None or parent not in gone:
            continue
        line: list[UUID] = []
        ancestor: UUID | None = parent
        while ancestor is not None and ancestor in gone and ancestor not in nearest:
            line.append(ancestor)
            ancestor = parents.get(ancestor)
        found = nearest.get(ancestor, ancestor) if ancestor is not None else None
        nearest |= dict.fromkeys(line, found)
        orphans[child] = found
    return orphans


def surviving(
    parents: Mapping[UUID, UUID | None], gone: AbstractSet[UUID], checkpoint_id: UUID | None
) -> UUID | None:
    """The checkpoint itself, or its nearest ancestor that stays.

    Args:
        parents: Each checkpoint's parent; None begins a thread.
        gone: The ones that go.
        checkpoint_id: Where to begin.
    """
    while checkpoint_id is not None and checkpoint_id in gone:
        checkpoint_id = parents.get(checkpoint_id)
    return checkpoint_id
