"""Where messages that say no number of their own stand in a conversation that is remembered."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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

    last = max(known)
    best = (0, last)
    for offset, agreeing in _agreeing(turns, known).most_common():
        if agreeing < best[0]:
            break  # none that follows says more of what is stored
        told = sum(turn.seq + offset in known for turn in turns)
        if 0 <= offset <= last:
            best = max(best, (2 * agreeing - told, offset))
    return [replace(turn, seq=turn.seq + best[1]) for turn in turns]


def _agreeing(turns: Sequence[Turn], known: Mapping[int, Sequence[Memory]]) -> Counter[int]:
    """How many turns say what is stored at their place, by how far on they would be placed.

    Looked up by what they say: comparing each turn with each place takes the square of an hour's
    talk at every call, and numbers may be any, as those of a clock.
    """
    saying: defaultdict[str, list[int]] = defaultdict(list)
    in_pieces: list[tuple[int, int]] = []
    for place, pieces in known.items():
        if len(pieces) == 1:
            saying[pieces[0].text.strip()].append(place)
        else:
            in_pieces.append((place, max(len(piece.text.strip()) for piece in pieces)))
    found: Counter[int] = Counter()
    for turn in turns:
        long = [place for place, longest in in_pieces if len(turn.text) >= longest]
        for place in (*saying.get(turn.text.strip(), ()), *long):
            found[place - turn.seq] += _says(turn, known[place])
    return +found


def _says(turn: Turn, pieces: Sequence[Memory]) -> bool:
    """Whether what is stored at a place is this message."""
    return all(
        piece.text.strip() in turn.text
        and (piece.role, piece.speaker) == (turn.role, turn.speaker)
        and (turn.at is None or piece.timestamp is None or turn.at == piece.timestamp)
        for piece in pieces
    ) and (len(pieces) > 1 or pieces[0].text.strip() == turn.text.strip())
