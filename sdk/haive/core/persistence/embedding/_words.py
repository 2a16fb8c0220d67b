"""The words of a text in any script."""

from __future__ import annotations

import re
import unicodedata

from haive.core.persistence._marks import MARKS

_WORD = re.compile(r"\w+")
_MARKED_WORD = re.compile(rf"[\w{MARKS}]+")
# What says something and is no word: C++ and C#, A+ and A-, -5, currencies, < and > of numbers. A
# word is tried once: from each of its letters on, a long one takes the square of its length.
_SAYING = re.compile(
    r"(?<![^\W_])[^\W_]++(?:[+#]+|-(?![\w-]))|(?<![\w-])-(?=\.?\d)"
    r"|[$\u00a2-\u00a5\u00b0\u00b1\u00d7\u00f7\u20a0-\u20cf\u2200-\u22ff]"
    r"|[<>=]+(?=\s?\d)|(?<=\d)[<>=]+|(?<=\d )[<>=]+"
)
_PICTURES = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_DENSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_RUN = re.compile(f"[{_DENSE}]+|[^{_DENSE}]+")
_SIGN = re.compile(f"[{_DENSE}]")
# A sign of such a script says as much as so many letters.
_LETTERS = 3


def words_of(text: str, *, marks: bool = False) -> list[str]:
    """The words of a text, in lower case; of scripts without spaces each two signs that follow.

    Where a text has emoji and signs alone they are its words, and an empty one has the word "".

    Args:
        text: The text.
        marks: With the marks of letters, which tell words of Hindi apart. `HashingEmbedder` is
            without, so that its vectors stay what they are.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    found: list[str] = []
    for word in (_MARKED_WORD if marks else _WORD).findall(plain):
        if _SIGN.search(word) is None:
            found.append(word)
            continue
        for run in _RUN.findall(word):
            if _SIGN.match(run) is None:
                found.append(run)
            else:
                found += [run[at : at + 2] for at in range(max(len(run) - 1, 1))]
    return found or plain.split() or [""]


def signs_of(text: str) -> list[str]:
    """What a text claims beside its words: signs, some with the word that they stand at."""
    return _SAYING.findall(unicodedata.normalize("NFKC", text).casefold())


def pictures_of(text: str) -> list[str]:
    """The emoji and dingbats of a text, which decorate it as often as they say something."""
    return _PICTURES.findall(text)


def has_marks(word: str) -> bool:
    """Whether a word is written with marks beside its letters."""
    return _WORD.fullmatch(word) is None


def letters_of(word: str) -> int:
    """The length of a word in letters, as if it were written with an alphabet."""
    return len(word) + (_LETTERS - 1) * len(_SIGN.findall(word))
