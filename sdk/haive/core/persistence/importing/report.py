"""What an import did."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haive.core.persistence.importing.records import Skipped

_EXAMPLES = 3


@dataclass(slots=True, kw_only=True)
class SkipCount:
    """How often something was left out for one reason, and where first."""

    what: str
    reason: str
    expected: bool
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What an import did; while it runs, what it has done so far."""

    format: str = ""
    dry_run: bool = False
    conversations: int = 0
    """New ones; in a dry run all that could be imported."""
    grown_conversations: int = 0
    """Those that were there and got more messages."""
    tagged_conversations: int = 0
    """Those that were there and got a tag of the caller's."""
    messages: int = 0
    """New ones; in a dry run all that could be imported."""
    conversations_already_there: int = 0
    messages_already_there: int = 0
    skipped: list[SkipCount] = field(default_factory=list)
    bytes_read: int = 0
    bytes_total: int | None = None
    seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def usable(self) -> bool:
        """Whether there was anything in the file that is stored now, or was before."""
        return bool(
            self.conversations
            or self.messages
            or self.conversations_already_there
            or self.messages_already_there
        )

    @property
    def messages_per_second(self) -> float:
        """New messages a second."""
        return self.messages / self.seconds if self.seconds else 0.0

    def note(self, skipped: Skipped) -> None:
        """Count something that was left out."""
        for entry in self.skipped:
            if (entry.what, entry.reason) == (skipped.what, skipped.reason):
                break
        else:
            entry = SkipCount(what=skipped.what, reason=skipped.reason, expected=skipped.expected)
            self.skipped.append(entry)
        entry.count += 1
        if len(entry.examples) < _EXAMPLES:
            entry.examples.append(skipped.place)

    def tick(self, bytes_read: int, bytes_total: int | None) -> None:
        """Bring time and bytes up to date."""
        self.seconds = time.perf_counter() - self._started
        self.bytes_read, self.bytes_total = bytes_read, bytes_total

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "format": self.format,
            "dry_run": self.dry_run,
            "conversations": self.conversations,
            "grown_conversations": self.grown_conversations,
            "tagged_conversations": self.tagged_conversations,
            "messages": self.messages,
            "already_there": {
                "conversations": self.conversations_already_there,
                "messages": self.messages_already_there,
            },
            "skipped": [
                {
                    "what": entry.what,
                    "reason": entry.reason,
                    "expected": entry.expected,
                    "count": entry.count,
                    "examples": entry.examples,
                }
                for entry in self.skipped
            ],
            "bytes": self.bytes_read,
            "seconds": round(self.seconds, 3),
            "messages_per_second": round(self.messages_per_second),
        }
