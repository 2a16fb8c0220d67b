"""Where messages that say no number of their own stand in a conversation that is remembered."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from haive.core.persistence.vector._conversations import Turn
    from haive.core.persistence.vector.models import Memory


def placed(turns: Sequence[Turn], stored: Iterable[Memory]) -> list[Turn]:
    """Turns with the numbers that they have in the conversation.

    An agent gives all messages so far, or the last few of them, or only the new ones. Of all places
    the one is taken where more of them say what is stored there, less those that say something
    else; and where none agrees, they follow what is stored.

    Args:
        turns: In order, from 1 on; where one was given a number, all keep theirs.
        stored: The memories of the conversation's messages, in whole or in pieces.
    """
    known: defaultdict[int, list[Memory]] = defaultdict(list)
    for memory in stored:
        if memory.seq is not None:
            known[memory.seq].append(memory)
    if not known or any(turn.numbered for turn in turns):
        return list(turns)

    def agreeing(offset: int) -> int:
        votes = [_says(turn, known[at]) for turn in turns if (at := turn.seq + offset) in known]
        return sum(1 if vote else -1 for vote in votes)

    offset = max(range(max(known) + 1), key=lambda each: (agreeing(each), each))
    return [replace(turn, seq=turn.seq + offset) for turn in turns]


def _says(turn: Turn, pieces: Sequence[Memory]) -> bool:
    """Whether what is stored at a place is this message."""
    return all(
        piece.text.strip() in turn.text
        and (piece.role, piece.speaker) == (turn.role, turn.speaker)
        and (turn.at is None or piece.timestamp is None or turn.at == piece.timestamp)
        for piece in pieces
    ) and (len(pieces) > 1 or pieces[0].text.strip() == turn.text.strip())
