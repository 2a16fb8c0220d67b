"""A plan of a merge while it is made: each message is kept or dropped once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.session._turns import call_ids, result_ids, said
from haive.core.persistence.session.models import (
    DroppedMessage,
    MergeConflict,
    MergeEntry,
    MergePlan,
    MessageRef,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.models import Message
    from haive.core.persistence.session.models import DropReason, MergeSummary, Side


class Draft:
    """Keeps and drops messages; what both sides have is kept from the primary alone."""

    def __init__(self, primary: Sequence[Message], secondary: Sequence[Message]) -> None:
        self.primary = list(primary)
        self.secondary = list(secondary)
        self.conflicts: list[MergeConflict] = []
        self._kept: list[tuple[Side, Message]] = []
        self._dropped: list[DroppedMessage] = []
        refs = [[MessageRef.of(message) for message in side] for side in (primary, secondary)]
        if any(len(set(side)) != len(side) for side in refs):
            raise InvalidInputError("A message is twice on one side of a merge.")
        self._shared = set(refs[0]) & set(refs[1])
        self._settled: set[tuple[Side, MessageRef]] = set()
        # What is kept of the secondary from here on comes after all of the primary.
        self.secondary_last = False
        self._last: list[tuple[Side, Message]] = []
        for ref in refs[1]:
            if ref in self._shared:
                self._drop("secondary", ref, "same_message", ref, 1.0)

    @property
    def has_new(self) -> bool:
        """Whether anything of the secondary is kept."""
        return any(side == "secondary" for side, _ in (*self._kept, *self._last))

    def is_new(self, messages: Sequence[Message]) -> bool:
        """Whether the secondary has any of these alone."""
        return any(MessageRef.of(message) not in self._shared for message in messages)

    def only_secondary(self) -> list[Message]:
        """What the secondary has and nothing was decided of yet."""
        return [m for m in self.secondary if ("secondary", MessageRef.of(m)) not in self._settled]

    def settle_results(self, *, secondary_wins: bool) -> None:
        """Of two results of one call keep one: the call stands before both, where they part."""
        theirs = self.only_secondary()
        called = {id_ for message in theirs for id_ in call_ids(message)}
        ours = {id_: message for message in self.primary for id_ in result_ids(message)}
        for message in theirs:
            ids = result_ids(message)
            if not ids or any(id_ in called or id_ not in ours for id_ in ids):
                continue
            one, other = ours[ids[0]], message
            reason: DropReason = "near_duplicate" if said([one]) == said([other]) else "conflict"
            likeness = 1.0 if reason == "near_duplicate" else None
            movable = MessageRef.of(one) not in self._shared and set(result_ids(one)) == set(ids)
            if secondary_wins and reason == "conflict" and movable:
                self._drop("primary", MessageRef.of(one), reason, MessageRef.of(other), likeness)
                self.primary.remove(one)
            else:
                self._drop("secondary", MessageRef.of(other), reason, MessageRef.of(one), likeness)
                self.secondary.remove(other)

    def results_of_the_root(self) -> list[Message]:
        """What the secondary begins with that answers a call before the parting: it comes first."""
        found: list[Message] = []
        for message in self.only_secondary():
            if not result_ids(message):
                break
            found.append(message)
        return found

    def keep(self, side: Side, messages: Sequence[Message]) -> None:
        """Keep messages, next in order; what was decided of before stays so."""
        for message in messages:
            ref = MessageRef.of(message)
            if (side, ref) not in self._settled:
                self._settled.add((side, ref))
                later = self.secondary_last and side == "secondary"
                (self._last if later else self._kept).append((side, message))

    def drop(
        self,
        side: Side,
        messages: Sequence[Message],
        reason: DropReason,
        because_of: Sequence[Message],
        similarity: float,
    ) -> None:
        """Drop messages for others that stand in their place, one for one and then the last.

        What both sides have stays, and so does a result whose call is not dropped with it.
        """
        called = {
            id_
            for message in messages
            if side == "secondary" or MessageRef.of(message) not in self._shared
            for id_ in call_ids(message)
        }
        for place, message in enumerate(messages):
            ref = MessageRef.of(message)
            if (side, ref) in self._settled:
                continue
            stays = ref in self._shared or any(id_ not in called for id_ in result_ids(message))
            if stays or not because_of:
                self.keep(side, [message])
            else:
                instead = because_of[min(place, len(because_of) - 1)]
                self._drop(side, ref, reason, MessageRef.of(instead), similarity)

    def kept_messages(self) -> list[Message]:
        """What is kept, in order."""
        return [message for _, message in (*self._kept, *self._last)]

    def plan(self, summary: MergeSummary | None = None) -> MergePlan:
        """The plan."""
        return MergePlan(
            entries=tuple(
                MergeEntry(message=MessageRef.of(message), side=side)
                for side, message in (*self._kept, *self._last)
            ),
            dropped=tuple(self._dropped),
            conflicts=tuple(self.conflicts),
            summary=summary,
        )

    def _drop(
        self,
        side: Side,
        ref: MessageRef,
        reason: DropReason,
        because_of: MessageRef,
        similarity: float | None,
    ) -> None:
        self._settled.add((side, ref))
        self._dropped.append(
            DroppedMessage(
                message=ref, side=side, reason=reason, because_of=because_of, similarity=similarity
            )
        )
