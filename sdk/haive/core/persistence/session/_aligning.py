"""Which turns of two tails are the same turn."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.session._topics import substance
from haive.core.persistence.session._turns import said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.embedding import Calibration, Embedder
    from haive.core.persistence.session._turns import Turn

# A prompt with less substance is read together with what was said before it.
_THIN = 0.1
# What is this much longer than another text is more than a repetition of it.
_LONGER, _AT_LEAST = 1.5, 40


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike the turns of two tails are."""

    prompts: NDArray[np.float32]
    """Of each turn of the first tail with each of the second one, 0 to 1."""
    answers: NDArray[np.float32]


async def likeness(
    first: Sequence[Turn],
    second: Sequence[Turn],
    embedder: Embedder,
    calibration: Calibration,
) -> Likeness:
    """Compare the turns of two tails; all of it in one call of the embedder."""
    asked = [_prompts(turns) for turns in (first, second)]
    told = [[said(turn.answer) for turn in turns] for turns in (first, second)]
    every = chain(*asked, *told)
    texts = list(dict.fromkeys(text for text in every if text))
    vectors = await embedder.embed(texts) if texts else np.zeros((0, 1), np.float32)
    places = {text: place for place, text in enumerate(texts)}
    return Likeness(
        prompts=_compare(asked[0], asked[1], places, vectors, calibration),
        answers=_compare(told[0], told[1], places, vectors, calibration),
    )


def align_turns(prompts: NDArray[np.float32], at_least: float) -> list[tuple[int, int]]:
    """The pairs of turns, rising on both sides, whose prompts are most alike in sum.

    A weighted longest common subsequence (Needleman and Wunsch 1970 without a cost of gaps).
    """
    rows, columns = prompts.shape
    weights = np.where(prompts >= at_least, prompts, 0.0).astype(np.float64)
    best = np.zeros((rows + 1, columns + 1))
    for row in range(rows):
        paired = best[row, :-1] + weights[row]
        best[row + 1, 1:] = np.maximum.accumulate(np.maximum(best[row, 1:], paired))
    pairs: list[tuple[int, int]] = []
    row, column = rows, columns
    while row and column:
        if best[row, column] == best[row - 1, column]:
            row -= 1
        elif best[row, column] == best[row, column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            pairs.append((row, column))
    return pairs[::-1]


def repeats(text: str, kept: str) -> bool:
    """Whether a text is short enough to be a repetition of another one and no more."""
    return len(text) <= max(_LONGER * len(kept), len(kept) + _AT_LEAST)


def _prompts(turns: Sequence[Turn]) -> list[str | None]:
    """What was asked, None for nothing; "yes" says nothing without what it answers."""
    texts: list[str | None] = []
    before = ""
    for turn in turns:
        text = said(turn.prompt) if turn.prompt else None
        if text and before and substance(text) < _THIN:
            text = f"{before}\n{text}"
        texts.append(text)
        before = said(turn.answer[-1:])
    return texts


def _compare(
    first: Sequence[str | None],
    second: Sequence[str | None],
    places: dict[str, int],
    vectors: NDArray[np.float32],
    calibration: Calibration,
) -> NDArray[np.float32]:
    alike = np.zeros((len(first), len(second)), np.float32)
    rows = [row for row, text in enumerate(first) if text]
    columns = [column for column, text in enumerate(second) if text]
    if rows and columns:
        ours = vectors[[places[text] for text in first if text]]
        theirs = vectors[[places[text] for text in second if text]]
        alike[np.ix_(rows, columns)] = calibration.sameness_of(ours @ theirs.T)
    numbers = {text: number for number, text in enumerate(dict.fromkeys([*first, *second]))}
    same = np.equal.outer([numbers[text] for text in first], [numbers[text] for text in second])
    alike[same] = 1.0  # two empty ones too
    return alike
