"""The telling sentences of texts, without a language model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.embedding._words import letters_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.embedding import Embedder

# An end of a sentence, with what closes it: before a space, or anywhere where the sign is one of a
# script that puts no space after it.
_CLOSING = "\"'\u2019\u201d\u00bb)\\]\u300d\u300f\uff09"
_END = re.compile(
    rf"[.!?\u2026]+[{_CLOSING}]*(?=\s)|[\u3002\uff01\uff1f\u0964\u061f\u06d4]+[{_CLOSING}]*"
)
_LINE = re.compile(r"[\r\n]+")
_QUESTION = re.compile(r"[?\uff1f\u061f\u037e\u055e\u1367]\W*\Z")
_WORD = re.compile(r"\w")
# A sentence loses as much as this by standing last, as it gains by being at the centre.
_POSITION = 0.15
# A question says less than its answer, and is as near to the centre.
_ASKING = 0.15
# What is as alike as this to a sentence that was taken says nothing new.
_REPEATED = 0.75
# What is less than this share of the best one is about something else.
_WORTH = 0.4
# The vectors of more would be computed for nothing: those of the longest are.
_MOST = 2_000
_SHORTEST, _LONGEST = 12, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """Sentences of texts, as they stand there, in their order."""

    text: str
    """One sentence a line."""
    sources: tuple[int, ...]
    """Places of the texts that they are from, rising, each once."""


def sentences(text: str) -> list[str]:
    """The sentences of a text in any language, trimmed; what has no letter or digit is none."""
    cut = _LINE.split(_END.sub(r"\g<0>\n", text))
    return [part for piece in cut if (part := piece.strip()) and _WORD.search(part)]


def asks(text: str) -> bool:
    """Whether a text ends in a question."""
    return _QUESTION.search(text) is not None


async def extract(texts: Sequence[str], embedder: Embedder, *, max_chars: int = 600) -> Extract:
    """Choose the sentences that say most of what all of them say.

    A sentence counts by how near it is to the centre of all sentences (Radev et al. 2004, the
    centroid of MEAD), by how early its text begins with it, and by stating something. The best
    ones are taken until ``max_chars`` are full, without those that repeat one that was taken or are
    far from the centre; nothing is reworded, and it does for any language that the embedder does
    for.

    Args:
        texts: In their order.
        embedder: Of the sentences.
        max_chars: Of the result; at least one sentence is given, cut off there if need be.
    """
    found = [
        (place, order, sentence)
        for place, text in enumerate(texts)
        for order, sentence in enumerate(sentences(text))
    ]
    kept = [
        item for item in found if letters_of(item[2]) >= _SHORTEST and len(item[2]) <= _LONGEST
    ] or found
    if len(kept) > _MOST:
        longest = sorted(range(len(kept)), key=lambda i: (-len(kept[i][2]), i))[:_MOST]
        kept = [kept[i] for i in sorted(longest)]
    if not kept or max_chars < 1:
        return Extract(text="", sources=())
    vectors = await embedder.embed([sentence for _, _, sentence in kept])
    centre = vectors.mean(axis=0)
    scores = vectors @ (centre / max(float(np.linalg.norm(centre)), 1e-9))
    scores = scores - _POSITION * np.array([order / (order + 3) for _, order, _ in kept])
    scores -= _ASKING * np.array([asks(sentence) for _, _, sentence in kept])
    chosen: list[int] = []
    room = max_chars
    # Rounded, so that the last bits of a sum decide nothing.
    for index in np.lexsort((np.arange(len(kept)), -np.round(scores, 5))).tolist():
        if chosen and scores[index] < _WORTH * scores[chosen[0]]:
            break
        size = len(kept[index][2]) + (1 if chosen else 0)
        if size > room and chosen:
            continue
        if any(float(vectors[index] @ vectors[other]) > _REPEATED for other in chosen):
            continue
        chosen.append(index)
        room -= size
        if room <= 0:
            break
    chosen.sort()
    text = "\n".join(kept[index][2] for index in chosen)
    return Extract(
        text=text if len(text) <= max_chars else f"{text[: max_chars - 1].rstrip()}…",
        sources=tuple(sorted({kept[index][0] for index in chosen})),
    )
