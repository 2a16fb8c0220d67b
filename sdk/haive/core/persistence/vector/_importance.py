"""How much a memory matters, and how that fades."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from haive.core.persistence.embedding._common import COMMON
from haive.core.persistence.embedding._words import letters_of, words_of
from haive.core.persistence.language.extractive import asks

if TYPE_CHECKING:
    from datetime import datetime

# From here on a memory is important: `consolidate_memories` leaves it as it is.
IMPORTANT = 0.7
_NUMBER = re.compile(r"\d")
_NAME = re.compile(r"(?<=[\w,;:]\s)[^\W\d_a-z]\w+")
# What people say of themselves and of what is to be kept in mind, in seven languages.
_OWN_WORDS = """
i my mine we our us ich mein meine wir unser je mon ma mes nous notre yo mi mis nosotros io mio mia
noi eu meu minha nós ik mijn ons
"""
_KEEP_WORDS = """
remember important always never prefer prefers allergic must deadline birthday merke wichtig immer
nie toujours jamais recuerda importante siempre nunca ricorda sempre mai lembre onthoud belangrijk
altijd nooit
"""
_OWN, _KEEP = frozenset(_OWN_WORDS.split()), frozenset(_KEEP_WORDS.split())
_DAY = 86_400.0


def importance_of(text: str) -> float:
    """How much a text seems to matter, 0.1 to 0.9: a heuristic, without a model.

    It begins at 0.1 and gains up to 0.4 by how much it says (the letters of its uncommon words,
    half of it at 30), 0.1 each by a number, by a name within a sentence and by speaking of oneself,
    and 0.15 by a word such as "remember", "always" or "allergic"; a question loses 0.1.
    """
    words = set(words_of(text))
    letters = sum(letters_of(word) for word in words if word not in COMMON)
    score = 0.1 + 0.4 * letters / (letters + 30)
    score += 0.1 * bool(_NUMBER.search(text)) + 0.1 * bool(_NAME.search(text))
    score += 0.1 * bool(words & _OWN) + 0.15 * bool(words & _KEEP)
    score -= 0.1 * asks(text)
    return round(min(max(score, 0.1), 0.9), 3)


def decay(then: datetime | None, now: datetime, half_life: float) -> float:
    """What is left of something after its age: 1 at first, 0.5 after ``half_life`` days.

    What has no time is as old as can be: 0.
    """
    if then is None:
        return 0.0
    days = max((now - then).total_seconds(), 0.0) / _DAY
    return math.exp2(-days / half_life)
