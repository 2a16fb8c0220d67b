"""Texts cut where sentences end, and how long they are in tokens."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from haive.core.persistence.embedding._words import letters_of
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.language.extractive import _END

if TYPE_CHECKING:
    from collections.abc import Sequence

_LINE = re.compile(r"[\r\n]+")
_WORD = re.compile(r"\S+")
# A token has four letters or so of English, and a sign of a script without an alphabet has three
# letters' worth: about one token a Chinese sign, as models count them.
_LETTERS = 4
#: So many turns before one are indexed with it: of LoCoMo's evidence two find .02 more than one,
#: among the first ten, and three no more than two.
CONTEXT = 2
_CONTEXT_TOKENS = 512


def estimate_tokens(text: str) -> int:
    """How many tokens a text has, without a tokenizer: each word a token a four letters begun.

    Within a fifth of what OpenAI's tokenizers count for European prose; code has more.
    """
    return sum(math.ceil(letters_of(word) / _LETTERS) for word in _WORD.findall(text))


def check_sizes(chunk_size: int, chunk_overlap: int) -> None:
    """Refuse sizes that no text can be cut by.

    Raises:
        InvalidInputError: ``chunk_size`` is under 8, or ``chunk_overlap`` under 0.
    """
    for name, value in (("chunk_size", chunk_size), ("chunk_overlap", chunk_overlap)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInputError(f"{name} is a number of tokens.")
    if chunk_size < 8:
        raise InvalidInputError("chunk_size is 8 tokens or more.")
    if chunk_overlap < 0:
        raise InvalidInputError("chunk_overlap is 0 tokens or more.")


def chunks(text: str, *, chunk_size: int = 512, chunk_overlap: int = 50) -> list[str]:
    """A text in pieces of at most ``chunk_size`` tokens; whole where it fits.

    Pieces end where sentences or lines end, and within one only where it is too long itself, then
    between words. Each piece begins again with the last sentences of the one before, as far as
    they have ``chunk_overlap`` tokens, and at most half of a piece.
    """
    if estimate_tokens(text) <= chunk_size:
        return [text] if text.strip() else []
    pieces: list[str] = []
    held: list[tuple[str, int]] = []
    fresh = False
    for part, size in _parts(text, chunk_size):
        if held and sum(each for _, each in held) + size > chunk_size:
            if fresh:
                pieces.append("".join(kept for kept, _ in held).strip())
            held = _end(held, min(chunk_overlap, chunk_size // 2, chunk_size - size))
            fresh = False
        held.append((part, size))
        fresh = fresh or bool(part.strip())
    if fresh:
        pieces.append("".join(kept for kept, _ in held).strip())
    return pieces


def ending(text: str, tokens: int) -> str:
    """The last sentences of a text, as far as they have so many tokens; words, if one is longer."""
    if estimate_tokens(text) <= tokens:
        return text.strip()
    kept = _end(_parts(text, max(tokens, 1)), tokens)
    return "".join(part for part, _ in kept).strip()


def context_of(texts: Sequence[str]) -> str | None:
    """What is indexed beside a text of those that stand before it: their end, a line each."""
    return ending("\n".join(texts), _CONTEXT_TOKENS) or None


def _end(parts: list[tuple[str, int]], room: int) -> list[tuple[str, int]]:
    """The last parts that have room."""
    kept: list[tuple[str, int]] = []
    for part, size in reversed(parts):
        if size > room:
            break
        room -= size
        kept.append((part, size))
    return kept[::-1]


def _parts(text: str, most: int) -> list[tuple[str, int]]:
    """The text in sentences, with what stands between them, and the tokens of each."""
    cuts = sorted({m.end() for m in _END.finditer(text)} | {m.end() for m in _LINE.finditer(text)})
    found: list[tuple[str, int]] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece = text[start:end]
        if not piece:
            continue
        size = estimate_tokens(piece)
        found += [(piece, size)] if size <= most else _words(piece, most)
    return found


def _words(sentence: str, most: int) -> list[tuple[str, int]]:
    """A sentence between words, and a word of any length between letters."""
    found: list[tuple[str, int]] = []
    for word in re.findall(r"\s*\S+|\s+\Z", sentence):
        size = estimate_tokens(word)
        if size <= most:
            found.append((word, size))
            continue
        # A sign may be three letters' worth, so this many are never over.
        step = max(most * _LETTERS // 3 - 1, 1)
        pieces = [word[at : at + step] for at in range(0, len(word), step)]
        found += [(piece, estimate_tokens(piece)) for piece in pieces]
    return found
