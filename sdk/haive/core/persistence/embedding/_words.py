"""The words of a text in any script."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\w+")
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_DENSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_RUN = re.compile(f"[{_DENSE}]+|[^{_DENSE}]+")
_SIGN = re.compile(f"[{_DENSE}]")
# A sign of such a script says as much as so many letters.
_LETTERS = 3


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case; of scripts without spaces each two signs that follow.

    Where a text has emoji and signs alone they are its words, and an empty one has the word "".
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    found: list[str] = []
    for word in _WORD.findall(plain):
        if _SIGN.search(word) is None:
            found.append(word)
            continue
        for run in _RUN.findall(word):
            if _SIGN.match(run) is None:
                found.append(run)
            else:
                found += [run[at : at + 2] for at in range(max(len(run) - 1, 1))]
    return found or plain.split() or [""]


def letters_of(word: str) -> int:
    """The length of a word in letters, as if it were written with an alphabet."""
    return len(word) + (_LETTERS - 1) * len(_SIGN.findall(word))
