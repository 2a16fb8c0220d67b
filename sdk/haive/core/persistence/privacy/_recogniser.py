"""A pattern with the check that decides whether what it found is what it looks like."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Span = tuple[int, int]
Check = Callable[[re.Match[str]], Span | None]


class Recogniser(NamedTuple):
    """Finds one entity.

    A pattern does bounded work at each place where it begins, or begins at no place inside of what
    it has read already: a megabyte made to be slow takes as long as any other. The boundary stands
    behind the first character, so that the engine skips to the next one of its kind.
    """

    entity: str
    pattern: re.Pattern[str]
    check: Check
    """Where the finding is; none if the check digits are wrong."""
    needs: str = ""
    """What a text without has no finding; saves the search."""
    score: float = 1.0

    def find(self, text: str) -> Iterator[Span]:
        """Where the entity is in a text."""
        if self.needs not in text:
            return
        position = 0
        while (match := self.pattern.search(text, position)) is not None:
            span = self.check(match)
            if span is None:
                position = match.start() + 1  # what begins inside of it may be one
            else:
                yield span
                position = max(span[1], match.start() + 1)


def whole(match: re.Match[str]) -> Span:
    """The pattern says it all."""
    return match.span()


def value(match: re.Match[str]) -> Span:
    """The group ``value`` is it: a label stands before it."""
    return match.span("value")


def checked(check: Callable[[str], bool], group: str | int = 0) -> Check:
    """A check of letters and digits, whatever separates them."""

    def span(match: re.Match[str]) -> Span | None:
        plain = "".join(filter(str.isalnum, match[group])).upper()
        return match.span(group) if check(plain) else None

    return span
