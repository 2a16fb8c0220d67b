"""How two sessions that have parted become one again: the plan of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from haive.core.persistence._in_parallel import in_parallel
from haive.core.persistence.errors import InvalidInputError, ModelError
from haive.core.persistence.session._aligning import align_turns, likeness, repeats
from haive.core.persistence.session._asked import Asked
from haive.core.persistence.session._contradictions import contradiction
from haive.core.persistence.session._draft import Draft
from haive.core.persistence.session._judging import judge
from haive.core.persistence.session._summary import summary_of
from haive.core.persistence.session._topics import substance
from haive.core.persistence.session._turns import said, tool_groups, turns_of
from haive.core.persistence.session.models import (
    ConflictResolution,
    MergeConflict,
    MergePlan,
    MergeStrategy,
    MessageRef,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.embedding import Embedder
    from haive.core.persistence.language import ChatModel
    from haive.core.persistence.models import Message
    from haive.core.persistence.session._aligning import Likeness
    from haive.core.persistence.session._turns import Turn
    from haive.core.persistence.session.models import DropReason

    OnModelError = Literal["raise", "go_without"]
    _Grid = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

# Prompts that are this much the same ask the same.
_SAME_PROMPT = 0.75
# A turn with less substance is not dropped for being like one that stands elsewhere.
_SUBSTANTIAL = 0.5
_NEVER = datetime.min.replace(tzinfo=UTC)
# Questions to a language model at once.
_AT_ONCE = 4


async def plan_merge(
    primary: Sequence[Message],
    secondary: Sequence[Message],
    *,
    strategy: MergeStrategy,
    conflict_resolution: ConflictResolution = ConflictResolution.PRIMARY_WINS,
    embedder: Embedder,
    chat: ChatModel | None = None,
    near_duplicate: float = 0.92,
    summary_chars: int = 600,
    on_model_error: OnModelError = "raise",
) -> MergePlan:
    """Plan the merge of what two sessions say after their last common message. Nothing is done yet.

    Each message of both is an entry of the plan, or dropped with a reason; the entries of a side
    keep their order. A message that both have (the same conversation and seq) is kept once. The
    result of a tool stays with its call: nothing comes between them, neither is dropped without
    the other, and of two results of one call one is kept, by ``conflict_resolution``.

    - ``append``: the primary's messages, then the secondary's.
    - ``chronological``: by time of creation, the primary first where it is the same, and no message
      before an earlier one of its own side.
    - ``primary_wins``: turns with the same prompt, word for word or nearly, are paired: one may say
      more, but not each something else, nor of another image. Where the answers differ the
      primary's is kept. What else is new in the secondary follows after all of the primary.
    - ``secondary_wins``: the same, and the secondary's answer is kept, in the primary's place; what
      else is new stands in place, between the same turns as before, the primary's first.
    - ``intelligent``: turns are paired, and what is new stands in place. Answers that say the same
      are kept once, as are turns that say the same elsewhere. Answers that contradict each other
      are resolved by ``conflict_resolution``; other answers are both kept. A summary is added
      unless the secondary has nothing new.

    Whether answers contradict each other is told by ``chat``, and without one by a heuristic:
    numbers, names and negations in sentences that are otherwise alike. The summary is written by
    ``chat``, and without one made of the most telling sentences.

    The same input gives the same plan, as far as ``chat`` does.

    Args:
        primary: The messages of the one after the common ones, in their order.
        secondary: Those of the other one.
        strategy: How.
        conflict_resolution: What stays of a contradiction, for ``intelligent``.
        embedder: Tells what is alike; not asked by ``append`` and ``chronological``.
        chat: Judges and summarises, for ``intelligent``.
        near_duplicate: From here texts say the same, on the scale of `Calibration.sameness`.
        summary_chars: At most so many; 0 for no summary.
        on_model_error: Where ``chat`` fails: ``raise`` its error, so that there is no plan, or
            ``go_without`` it for the whole plan.

    Raises:
        InvalidInputError: A message is twice on one side, or a number is out of its range.
        ModelError: The embedder failed; ``chat`` did, and ``on_model_error`` is ``raise``.
    """
    strategy, resolution = MergeStrategy(strategy), ConflictResolution(conflict_resolution)
    if not 0 < near_duplicate <= 1:
        raise InvalidInputError("near_duplicate is over 0 and at most 1.")
    if summary_chars < 0:
        raise InvalidInputError("summary_chars is 0 or more.")
    if strategy is not MergeStrategy.INTELLIGENT:
        chat = None
        if strategy is not MergeStrategy.CHRONOLOGICAL and strategy is not MergeStrategy.APPEND:
            resolution = ConflictResolution(strategy.value)

    def merge() -> _Merge:
        return _Merge(
            primary,
            secondary,
            strategy=strategy,
            resolution=resolution,
            embedder=embedder,
            near_duplicate=near_duplicate,
        )

    try:
        return await merge().plan(chat, summary_chars)
    except ModelError:
        if chat is None or on_model_error == "raise":
            raise
    # Anew, so that no part of the plan is the model's and another one not.
    return await merge().plan(None, summary_chars)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What becomes of two turns with the same prompt."""

    kept: Literal["same", "primary", "secondary", "both"]
    conflict: str | None = None
    by: str = ""


class _Merge:
    def __init__(
        self,
        primary: Sequence[Message],
        secondary: Sequence[Message],
        *,
        strategy: MergeStrategy,
        resolution: ConflictResolution,
        embedder: Embedder,
        near_duplicate: float,
    ) -> None:
        self._strategy = strategy
        self._resolution = resolution
        self._embedder = embedder
        self._near = near_duplicate
        self._draft = Draft(primary, secondary)
        self._draft.settle_results(secondary_wins=self._wins(primary, secondary) == "secondary")

    async def plan(self, chat: ChatModel | None, summary_chars: int) -> MergePlan:
        draft = self._draft
        draft.keep("secondary", draft.results_of_the_root())
        if self._strategy is MergeStrategy.APPEND:
            draft.keep("primary", draft.primary)
            draft.keep("secondary", draft.secondary)
            return draft.plan()
        if self._strategy is MergeStrategy.CHRONOLOGICAL:
            self._by_time()
            return draft.plan()
        await self._by_turns(chat)
        if (
            self._strategy is MergeStrategy.PRIMARY_WINS
            or self._strategy is MergeStrategy.SECONDARY_WINS
        ):
            return draft.plan()
        summary = None
        if summary_chars and draft.has_new:
            summary = await summary_of(draft.kept_messages(), self._embedder, chat, summary_chars)
        return draft.plan(summary)

    def _by_time(self) -> None:
        draft = self._draft
        ours, theirs = tool_groups(draft.primary), tool_groups(draft.only_secondary())
        while ours or theirs:
            later = not ours or (theirs and theirs[0][0].created_at < ours[0][0].created_at)
            draft.keep(*("secondary", theirs.pop(0)) if later else ("primary", ours.pop(0)))

    async def _by_turns(self, chat: ChatModel | None) -> None:
        draft = self._draft
        ours, theirs = turns_of(draft.primary), turns_of(draft.secondary)
        alike = await likeness(ours, theirs, self._embedder, await self._embedder.calibration())
        comparable = await asyncio.to_thread(_comparable, ours, theirs, alike)
        pairs = align_turns(comparable, _SAME_PROMPT)
        verdicts = await in_parallel(
            [
                partial(self._verdict, ours[i], theirs[j], float(alike.answers[i, j]), chat)
                for i, j in pairs
            ],
            _AT_ONCE,
        )
        both = np.minimum(comparable, alike.answers)
        twins = self._twins(ours, theirs, both, pairs, verdicts)
        draft.secondary_last = self._strategy is MergeStrategy.PRIMARY_WINS
        row = column = 0
        for (i, j), outcome in [
            *zip(pairs, verdicts, strict=True),
            ((len(ours), len(theirs)), None),
        ]:
            for turn in ours[row:i]:
                draft.keep("primary", turn.messages)
            for new in range(column, j):
                if new in twins:
                    self._drop_twin(theirs[new], ours[twins[new]], alike, twins[new], new)
                else:
                    draft.keep("secondary", theirs[new].messages)
            row, column = i + 1, j + 1
            if outcome is None:
                break
            if (
                self._strategy is MergeStrategy.PRIMARY_WINS
                and not ours[i].answer
                and theirs[j].answer
            ):
                # Answered by the secondary alone: new, and so after the primary.
                draft.keep("primary", ours[i].messages)
                draft.keep("secondary", theirs[j].messages)
            else:
                self._pair(ours[i], theirs[j], alike, (i, j), outcome)

    async def _verdict(
        self, ours: Turn, theirs: Turn, sameness: float, chat: ChatModel | None
    ) -> _Verdict:
        """What becomes of two answers to the same prompt."""
        one, other = said(ours.answer), said(theirs.answer)
        if not self._draft.is_new(theirs.answer) or one == other:
            return _Verdict("same")
        if not ours.answer:
            return _Verdict("both")
        against = contradiction(one, other)
        if sameness >= self._near and against is None and repeats(other, one):
            return _Verdict("same")
        by = "heuristic"
        if chat is not None:
            against, by = (
                await judge(chat, said(ours.prompt or theirs.prompt), one, other),
                chat.name,
            )
        if against is None:
            if self._strategy is MergeStrategy.INTELLIGENT:
                return _Verdict("both")
            against = "different answers"
        return _Verdict(self._wins(ours.answer, theirs.answer), against, by)

    def _wins(
        self, ours: Sequence[Message], theirs: Sequence[Message]
    ) -> Literal["primary", "secondary", "both"]:
        match self._resolution:
            case ConflictResolution.PRIMARY_WINS:
                return "primary"
            case ConflictResolution.SECONDARY_WINS:
                return "secondary"
            case ConflictResolution.KEEP_BOTH:
                return "both"
            case ConflictResolution.LATEST:
                return "secondary" if _latest(theirs) > _latest(ours) else "primary"

    def _pair(
        self, ours: Turn, theirs: Turn, alike: Likeness, at: tuple[int, int], verdict: _Verdict
    ) -> None:
        draft = self._draft
        draft.keep("primary", ours.prompt)
        draft.drop(
            "secondary",
            theirs.prompt,
            "near_duplicate",
            ours.prompt,
            min(float(alike.prompts[at]), 1.0),
        )
        told = float(alike.answers[at])
        if verdict.conflict is not None:
            draft.conflicts.append(
                MergeConflict(
                    primary=tuple(map(MessageRef.of, ours.answer)),
                    secondary=tuple(map(MessageRef.of, theirs.answer)),
                    kept="both" if verdict.kept == "same" else verdict.kept,
                    reason=verdict.conflict,
                    by=verdict.by,
                )
            )
        if verdict.kept == "secondary":
            draft.drop("primary", ours.answer, "conflict", theirs.answer, told)
            draft.keep("secondary", theirs.answer)
            return
        draft.keep("primary", ours.answer)
        if verdict.kept == "both":
            draft.keep("secondary", theirs.answer)
        else:
            reason: DropReason = "near_duplicate" if verdict.kept == "same" else "conflict"
            draft.drop("secondary", theirs.answer, reason, ours.answer, told)

    def _twins(
        self,
        ours: Sequence[Turn],
        theirs: Sequence[Turn],
        both: _Grid,
        pairs: Sequence[tuple[int, int]],
        verdicts: Sequence[_Verdict],
    ) -> dict[int, int]:
        """Unpaired turns of the secondary that say what a turn of the primary says elsewhere."""
        if self._strategy is not MergeStrategy.INTELLIGENT:
            return {}
        gone = {
            i
            for (i, _), verdict in zip(pairs, verdicts, strict=True)
            if verdict.kept == "secondary"
        }
        paired = {j for _, j in pairs}
        twins: dict[int, int] = {}
        for j, theirs_turn in enumerate(theirs):
            if j in paired or not theirs_turn.prompt or not theirs_turn.answer:
                continue
            other = said(theirs_turn.messages)
            if substance(other) < _SUBSTANTIAL:
                continue
            for i in np.flatnonzero(both[:, j] >= self._near).tolist():
                one = said(ours[i].messages)
                if i not in gone and repeats(other, one) and contradiction(one, other) is None:
                    twins[j] = i
                    break
        return twins

    def _drop_twin(self, theirs: Turn, ours: Turn, alike: Likeness, i: int, j: int) -> None:
        self._draft.drop(
            "secondary", theirs.prompt, "near_duplicate", ours.prompt, float(alike.prompts[i, j])
        )
        self._draft.drop(
            "secondary", theirs.answer, "near_duplicate", ours.answer, float(alike.answers[i, j])
        )


def _comparable(ours: Sequence[Turn], theirs: Sequence[Turn], alike: Likeness) -> _Grid:
    """How alike prompts are, where they do not ask for different things."""
    prompts = alike.prompts.copy()
    refs = [[set(map(MessageRef.of, turn.prompt)) for turn in side] for side in (ours, theirs)]
    asked = [[Asked.of(turn.prompt) for turn in side] for side in (ours, theirs)]
    for i, j in np.argwhere(prompts >= _SAME_PROMPT).tolist():
        if refs[0][i] & refs[1][j]:
            prompts[i, j] = 2.0  # the same message, not one with the same words
        elif asked[0][i].differs_from(asked[1][j]):
            prompts[i, j] = 0.0  # a table for two, and one for three
    return prompts


def _latest(messages: Sequence[Message]) -> datetime:
    return max((message.created_at for message in messages), default=_NEVER)
