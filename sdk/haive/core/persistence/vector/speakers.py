"""Whom a query names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORD = re.compile(r"\w+")
# What people are called in a transcript where nobody is called by name.
ROLES = frozenset({"user", "assistant", "system", "tool", "human", "ai", "bot"})
# A shorter first name is a word as often as a name.
_SHORTEST = 3


def named_speakers(query: str, speakers: Iterable[str]) -> set[str]:
    """Those speakers whom a query names, by the whole name or by its first word.

    ``Anna Meier`` is named by "what did Anna say?" and by "anna meier's cat", not by "Annabel".
    Roles as ``user`` are no names.
    """
    said = f" {' '.join(_words(query))} "
    return {
        speaker
        for speaker in speakers
        if (words := _words(speaker))
        and " ".join(words) not in ROLES
        and (
            f" {' '.join(words)} " in said
            or (len(words[0]) >= _SHORTEST and f" {words[0]} " in said)
        )
    }


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
