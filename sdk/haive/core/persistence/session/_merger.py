"""Merges sessions by plans made here, where content can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import new_id
from haive.core.persistence._rows import message_row
from haive.core.persistence.errors import ConflictError, InvalidInputError
from haive.core.persistence.models import MessageRole
from haive.core.persistence.session._merging import plan_merge
from haive.core.persistence.session.models import ConflictResolution, MergeStrategy

if TYPE_CHECKING:
    from uuid import UUID

    from haive.core.persistence.session._calls import SessionCalls
    from haive.core.persistence.session._documents import TailsDocument
    from haive.core.persistence.session.config import SessionConfig
    from haive.core.persistence.session.models import MergeConflict, MergePlan, MessageRef
    from haive.core.persistence.session.session import Merge

# How often a plan is made anew when somebody wrote to one of the sessions meanwhile.
_ATTEMPTS = 10
# The kinds of conflicts that are put on record by name.
_REASONS = {"numbers", "names", "negation", "yes / no", "different answers"}


class Merger:
    """Merges sessions.

    Args:
        calls: The way to them.
        config: What plans are made with.
    """

    def __init__(self, calls: SessionCalls, config: SessionConfig) -> None:
        self._calls = calls
        self._config = config

    async def merge(
        self,
        primary: UUID,
        secondary: UUID,
        strategy: MergeStrategy,
        resolution: ConflictResolution,
        as_user: str | None,
    ) -> Merge:
        """Merge one session into another, and return the record of it.

        Raises:
            ConflictError: Others kept writing to them.
        """
        merge_id = new_id()
        for attempt in range(_ATTEMPTS):
            tails = await self._calls.tails(primary, secondary, as_user)
            plan = await plan_merge(
                tails.primary,
                tails.secondary,
                strategy=strategy,
                conflict_resolution=resolution,
                embedder=self._config.embedder,
                chat=self._config.chat,
                near_duplicate=self._config.near_duplicate,
                on_model_error=self._config.on_model_error,
            )
            document = _document(merge_id, tails, plan) | {
                "strategy": strategy.value,
                "conflict_resolution": resolution.value,
                "summary": await self._summary(primary, merge_id, plan),
            }
            try:
                return await self._calls.merge(primary, secondary, document, as_user)
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError

    async def _summary(
        self, primary: UUID, merge_id: UUID, plan: MergePlan
    ) -> dict[str, Any] | None:
        """The summary as a message of the primary session."""
        if plan.summary is None:
            return None
        row = message_row(
            primary,
            MessageRole.SYSTEM,
            plan.summary.text,
            {"kind": "merge_summary", "merge_id": merge_id, "by": plan.summary.by},
            None,
            None,
            None,
        )
        sealer = self._calls.store._sealer
        if sealer is not None:
            row = (await sealer.ready()).seal_message(row)
        return row.document()


def _document(merge_id: UUID, tails: TailsDocument, plan: MergePlan) -> dict[str, Any]:
    """A plan as `merge_sessions` takes it: places of messages, and no word of them."""
    return {
        "id": merge_id,
        "segments": tails.segments,
        "counts": tails.counts,
        "entries": _ranges([entry.message for entry in plan.entries]),
        "dropped": [
            {
                **_place(each.message),
                "side": each.side,
                "reason": each.reason,
                "because_of": _place(each.because_of),
                "similarity": each.similarity,
            }
            for each in plan.dropped
        ],
        "conflicts": [
            {
                "primary": [_place(ref) for ref in each.primary],
                "secondary": [_place(ref) for ref in each.secondary],
                "kept": each.kept,
                "reason": _reason(each),
                "by": each.by,
            }
            for each in plan.conflicts
        ],
        "summary_of": [] if plan.summary is None else [_place(ref) for ref in plan.summary.sources],
    }


def _reason(conflict: MergeConflict) -> str:
    """Its kind: what stands behind the colon is content, and so is what a model says."""
    kind = conflict.reason.partition(":")[0]
    return kind if kind in _REASONS else "model"


def _place(ref: MessageRef) -> dict[str, Any]:
    return {"conversation_id": ref.conversation_id, "seq": ref.seq}


def _ranges(refs: list[MessageRef]) -> list[dict[str, Any]]:
    """Messages that follow each other in a conversation, as one range each."""
    ranges: list[dict[str, Any]] = []
    for ref in refs:
        last = ranges[-1] if ranges else None
        if (
            last is not None
            and last["conversation_id"] == ref.conversation_id
            and last["last_seq"] + 1 == ref.seq
        ):
            last["last_seq"] = ref.seq
        else:
            ranges.append(
                {"conversation_id": ref.conversation_id, "first_seq": ref.seq, "last_seq": ref.seq}
            )
    return ranges


def strategies(
    merge_strategy: MergeStrategy | str, conflict_resolution: ConflictResolution | str
) -> tuple[MergeStrategy, ConflictResolution]:
    """The two by their names.

    Raises:
        InvalidInputError: One is unknown.
    """
    try:
        strategy = MergeStrategy(merge_strategy)
    except ValueError:
        raise InvalidInputError(f"merge_strategy is one of {', '.join(MergeStrategy)}.") from None
    try:
        return strategy, ConflictResolution(conflict_resolution)
    except ValueError:
        raise InvalidInputError(
            f"conflict_resolution is one of {', '.join(ConflictResolution)}."
        ) from None
