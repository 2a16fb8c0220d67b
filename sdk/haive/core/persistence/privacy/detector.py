"""What finds personal data in a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data at a place of a text: ``text[start:end]``, counted in code points."""

    entity: str
    """What it is: ``EMAIL``, ``IBAN``, …"""
    start: int
    end: int
    score: float = 1.0
    """How sure the detector is, 0 to 1."""


@runtime_checkable
class Detector(Protocol):
    """Finds personal data.

    The same text must give the same findings: a message that is repeated by its id is masked
    again, and is taken for the same one only if it comes out the same.
    """

    @property
    def entities(self) -> frozenset[str]:
        """All that it can find, in the letters of a placeholder: ``A`` to ``Z``, 0 to 9, ``_``."""

    def find(self, text: str) -> list[Finding]:
        """What is in a text, in any order; findings may overlap."""
