"""What was just recalled, so that it is not stored as if it were new."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from haive.core.persistence.embedding._words import words_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haive.core.persistence.vector.models import Memory

# The last ones of a process; an agent recalls tens at a time.
_KEPT = 500
# Fewer words are said again by chance.
_FEWEST = 4
# A text that has no more than this share of words of its own is a recital.
_OWN = 0.2


class Recalled:
    """The memories that searches gave lately.

    An agent puts what it recalls before a model, and what the model makes of it into a
    conversation: stored again, each fact would multiply at every turn.
    """

    def __init__(self) -> None:
        self._said: OrderedDict[str, tuple[str | None, tuple[str, ...]]] = OrderedDict()

    def remember(self, memories: Iterable[Memory]) -> None:
        """Keep memories in mind."""
        for memory in memories:
            self._said.pop(memory.id, None)
            self._said[memory.id] = memory.user_id, tuple(words_of(memory.text))
        while len(self._said) > _KEPT:
            self._said.popitem(last=False)

    def forget(self, ids: Iterable[str]) -> None:
        """Keep them in mind no more."""
        for memory_id in ids:
            self._said.pop(memory_id, None)

    def recited(self, text: str, *, user_id: str | None, own: Iterable[str] = ()) -> str | None:
        """The first memory that a text recites, if it says hardly anything else.

        Args:
            text: What is to be stored.
            user_id: Of whom: what another one's memory says is news of this one.
            own: Memories that the text itself is, stored earlier.
        """
        words = words_of(text)
        if len(words) < _FEWEST:
            return None
        joined = f" {' '.join(words)} "
        passed = set(own)
        covered, first = 0, None
        for memory_id, (whose, said) in reversed(self._said.items()):
            if whose != user_id or memory_id in passed or len(said) < _FEWEST:
                continue
            found = joined.find(f" {' '.join(said)} ")
            if found < 0:
                continue
            covered += len(said)
            first = first or memory_id
            joined = joined.replace(f" {' '.join(said)} ", " ")
        return first if covered >= (1 - _OWN) * len(words) else None
