"""What was just recalled, so that it is not stored as if it were new."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from haive.core.persistence.embedding._words import letters_of, pictures_of, signs_of, words_of
from haive.core.persistence.models import MessageRole
from haive.core.persistence.session._contradictions import Claims, denies

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haive.core.persistence.vector.models import Memory

# The last ones of a process; an agent recalls tens at a time.
_KEPT = 500
# Letters of all of them together: a memory may have 256 KiB.
_MOST = 2 * 1024 * 1024
# Fewer words are said again by chance.
_FEWEST = 4
# A text that has no more than this share of words of its own is a recital.
_OWN = 0.2
#: The roles of who recites what was recalled: people say what they mean.
AGENTS = frozenset({MessageRole.ASSISTANT, MessageRole.SYSTEM, MessageRole.TOOL})
# What a recital may begin with and still have the same words.
_OPENING = frozenset(["so", "well", "ok", "okay", "yes", "right", "and", "also"])
_CONTRACTED = re.compile(r"n t ")


class _Signs(NamedTuple):
    signs: frozenset[str]
    pictures: frozenset[str]


class _Said(NamedTuple):
    """What is kept in mind of a memory."""

    user_id: str | None
    words: str
    signs: _Signs


class Recalled:
    """The memories that searches gave lately.

    An agent puts what it recalls before a model, and what the model makes of it into a
    conversation: stored again, each fact would multiply at every turn.
    """

    def __init__(self) -> None:
        self._said: OrderedDict[str, _Said] = OrderedDict()
        self._size = 0

    def remember(self, memories: Iterable[Memory]) -> None:
        """Keep memories in mind."""
        for memory in memories:
            self._drop(memory.id)
            words = words_of(memory.text, marks=True)
            if len(words) < _FEWEST:
                continue
            said = f" {' '.join(words)} "
            self._said[memory.id] = _Said(memory.user_id, said, _signs(memory.text))
            self._size += len(said)
        while len(self._said) > _KEPT or self._size > _MOST:
            self._drop(next(iter(self._said)))

    def forget(self, ids: Iterable[str]) -> None:
        """Keep them in mind no more."""
        for memory_id in ids:
            self._drop(memory_id)

    def _drop(self, memory_id: str) -> None:
        if memory_id in self._said:
            self._size -= len(self._said.pop(memory_id).words)

    def recited(
        self, text: str, *, user_id: str | None, own: Iterable[str] = (), wholly: bool = False
    ) -> list[str]:
        """The memories that a text recites, if it says hardly anything else.

        What the text says beside is up to a fifth of its words, without a number, a name or a
        word that denies: "Anna lives in Berlin no longer" is news to one who recalled that she
        does.

        Args:
            text: What is to be stored.
            user_id: Of whom: what another one's memory says is news of this one.
            own: Memories that the text itself is, stored earlier.
            wholly: Whether it may say nothing beside at all, but for a word such as "so".
        """
        words = words_of(text, marks=True)
        if len(words) < _FEWEST:
            return []
        left = f" {' '.join(words)} "
        passed = set(own)
        found: list[str] = []
        signs, pictures = set[str](), set[str]()
        for memory_id, said in reversed(self._said.items()):
            if said.user_id != user_id or memory_id in passed or said.words not in left:
                continue
            left = left.replace(said.words, " ")
            found.append(memory_id)
            signs |= said.signs.signs
            pictures |= said.signs.pictures
        # "It is -5 degrees" has the words of one who said 5. A model decorates what it says.
        here = _signs(text)
        if signs != here.signs or (wholly and pictures != here.pictures):
            return []
        beside = left.split()
        if wholly:
            return found if len(beside) <= 1 and _OPENING.issuperset(beside) else []
        if len(beside) > _OWN * len(words) or _is_news(left, text):
            return []
        return found


def may_recite(by: Memory, of: Memory) -> bool:
    """Whether who says it may only recite: an agent, or the one who said it first."""
    if by.role in AGENTS:
        return True
    return by.speaker in {None, of.speaker} and by.role in {None, of.role}


def _signs(text: str) -> _Signs:
    return _Signs(frozenset(signs_of(text)), frozenset(pictures_of(text)))


def _is_news(left: str, text: str) -> bool:
    """Whether words of a text that no recalled memory has say something that counts."""
    beside = left.split()
    named = {word for name in Claims.of(text).names for word in words_of(name, marks=True)}
    return (
        denies(beside)
        or _CONTRACTED.search(left) is not None
        or not named.isdisjoint(beside)
        # Where no spaces are between words a single sign may deny, too.
        or any(letters_of(word) > len(word) or not word.isalpha() for word in beside)
    )
