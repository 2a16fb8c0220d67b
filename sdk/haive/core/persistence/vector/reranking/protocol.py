"""What orders the candidates of a search anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A memory that a search found."""

    id: str
    text: str
    tokens: bytes | None
    """What `Reranker.prepare` made of its text when it was written, if anything did."""


@runtime_checkable
class Reranker(Protocol):
    """Reads a query beside each candidate, and says how well they fit."""

    @property
    def name(self) -> str:
        """What ranked."""

    async def prepare(self, texts: Sequence[str]) -> list[bytes] | None:
        """What is kept beside each text to rank it quickly later; None where nothing is.

        Raises:
            ModelError: There is nothing; nothing is answered in part.
        """

    async def rank(self, query: str, candidates: Sequence[Candidate]) -> list[float]:
        """A score for each candidate, in their order: the higher, the better it fits.

        Raises:
            ModelError: There are no scores.
        """
