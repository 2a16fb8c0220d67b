"""The telling words of a conversation."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from haive.core.persistence.embedding._common import COMMON
from haive.core.persistence.embedding._words import letters_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:[-'\u2019.][^\W_]+)*")
_SHORTEST = 3


def keywords(turns: Sequence[tuple[str | None, str]], *, most: int = 10) -> list[str]:
    """The words that tell best what a conversation is about, the best first.

    A word counts by how often it comes, damped, and by how few turns it comes in (tf-idf, the
    turns being the documents). What several speakers say counts more, as it is what they speak
    about, and what one of them alone says in most turns is a habit and counts less. Names of the
    speakers themselves, common words and numbers are none. Words are given as they are written
    most often.

    Args:
        turns: Speakers and texts, in order.
        most: How many.
    """
    speakers = {who for who, _ in turns if who}
    named = {part.casefold() for who in speakers for part in _WORD.findall(who)}
    counts: Counter[str] = Counter()
    spread: Counter[str] = Counter()
    said_by: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    written: defaultdict[str, Counter[str]] = defaultdict(Counter)
    of_speaker = Counter(who for who, _ in turns)
    for who, text in turns:
        seen = set()
        for word in _WORD.findall(unicodedata.normalize("NFKC", text)):
            plain = word.casefold()
            if plain in COMMON or plain in named or plain.isdecimal():
                continue
            if letters_of(plain) < _SHORTEST or "'" in plain or "\u2019" in plain:
                continue
            counts[plain] += 1
            written[plain][word] += 1
            seen.add(plain)
        spread.update(seen)
        for plain in seen:
            said_by[plain][who] += 1

    def score(plain: str) -> float:
        rare = math.log(1 + len(turns) / spread[plain])
        shared = 1 + 0.5 * (min(len(said_by[plain]), 3) - 1)
        # In most turns of the only one who says it: "anyway", "basically".
        share = max(n / of_speaker[who] for who, n in said_by[plain].items())
        habit = 0.5 if len(said_by[plain]) == 1 < len(of_speaker) and share > 0.5 else 1.0
        return (1 + math.log(counts[plain])) * rare * shared * habit * min(len(plain), 8)

    best = sorted(counts, key=lambda plain: (-round(score(plain), 6), plain))[:most]
    return [min(written[plain], key=lambda w: (-written[plain][w], w)) for plain in best]


def has_keyword(text: str, keyword: str) -> bool:
    """Whether a text has a keyword as a word."""
    plain = keyword.casefold()
    return any(
        word.casefold() == plain for word in _WORD.findall(unicodedata.normalize("NFKC", text))
    )
