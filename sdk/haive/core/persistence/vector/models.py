"""Memories, and what searching, forgetting and consolidating them gives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping  # noqa: TC003 - dataclasses read it
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from haive.core.persistence.embedding._words import pictures_of, signs_of, words_of
from haive.core.persistence.session._contradictions import Claims
from haive.core.persistence.vector.filters import to_json_value


class MemoryKind(StrEnum):
    """What a memory is."""

    TURN = "turn"
    """A message, word for word."""
    CHUNK = "chunk"
    """A piece of a message that is too long for one memory."""
    NOTE = "note"
    """What was added by itself."""
    SUMMARY = "summary"
    """Of a conversation, or of a cluster of memories."""
    KEYWORD = "keyword"
    """The telling words of a conversation."""
    MERGED = "merged"
    """One for several that say the same."""
    CONVERSATION = "conversation"
    """A conversation that has no summary, so that its memories hang together; it is archived from
    the start: reached by its id, and never found by a search."""


#: What was made from other memories, and goes or is made anew when those go.
DERIVED = frozenset(
    {MemoryKind.SUMMARY, MemoryKind.KEYWORD, MemoryKind.MERGED, MemoryKind.CONVERSATION}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A memory."""

    id: str
    """A UUID of version 7, of the time when it was said: what was said later has a higher one. Of a
    turn without a time it is that of 1970."""
    text: str
    kind: MemoryKind = MemoryKind.NOTE
    user_id: str | None = None
    conversation_id: str | None = None
    seq: int | None = None
    """Which message of the conversation it is from, or the first of those."""
    until_seq: int | None = None
    """The last of those."""
    speaker: str | None = None
    """Who said it, by name."""
    role: str | None = None
    context: str | None = None
    """What was said just before: the two turns, a line each."""
    context_ids: tuple[str, ...] = ()
    """The memories that ``context`` is from."""
    timestamp: datetime | None = None
    """When it happened or was said."""
    importance: float = 0.5
    """0 to 1."""
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    """From when on it did not hold any more; None while it holds."""
    superseded_by: str | None = None
    """The memory that holds in its place."""
    sources: tuple[str, ...] = ()
    """The memories that it was made from."""
    keywords: tuple[str, ...] = ()
    trust: str | None = None
    """A label of the writer's, as ``user``, ``tool`` or ``web``."""
    writer: str | None = None
    """What wrote it."""
    archived: bool = False
    """Whether searches pass it over."""
    archived_for: str | None = None
    """The memory that searches find in its place."""
    archived_from: datetime | None = None
    """From when on that one holds: searches ``as_of`` before then find this one."""
    expires_at: datetime | None = None
    created_at: datetime | None = None
    renewed_at: datetime | None = None
    """When it was changed last, or said again on another day; a merged one, when any of it was."""
    copy_of: str | None = None
    """What `VectorMemory.reembed` copied: a collection, and a digest of what it said there."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the caller gave beside."""

    def to_metadata(self) -> dict[str, Any]:
        """What a backend keeps: one flat object, every field of ours in it but the id.

        Raises:
            InvalidInputError: Something in it has no JSON.
        """
        ours = {name: getattr(self, name) for name in FIELDS}
        return to_json_value({**self.metadata, **ours}, "metadata")  # type: ignore[no-any-return]

    @classmethod
    def from_metadata(cls, memory_id: str, metadata: Mapping[str, Any]) -> Self:
        """The memory of an object that `to_metadata` made.

        What is missing has its default, and so has what means nothing: others than this package
        write to collections too, and one of theirs must not make all unreadable.
        """
        read = {name: _read(name, metadata.get(name)) for name in FIELDS}
        known: dict[str, Any] = {name: value for name, value in read.items() if value is not None}
        known.setdefault("text", "")
        rest = {name: value for name, value in metadata.items() if name not in OURS}
        return cls(id=memory_id, metadata=rest, **known)

    @property
    def words_hash(self) -> str:
        """The same for the same words, numbers and signs of the same one, however written."""
        words = words_of(self.text, marks=True)
        numbers = sorted(Claims.of(self.text).numbers)
        signs = signs_of(self.text) + pictures_of(self.text)
        # Without signs and marks as it was before they counted: those stored stay what they are.
        said = "\x1f".join([*words, "", *numbers, *(["", *signs] if signs else [])])
        if self.speaker or self.role:
            said = f"{said}\x1e{self.speaker or ''}\x1e{self.role or ''}"
        return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()[:32]

    def holds_at(self, when: datetime) -> bool:
        """Whether it held then."""
        begun = self.valid_from is None or self.valid_from <= when
        return begun and (self.valid_to is None or when < self.valid_to)

    def has_expired_by(self, when: datetime) -> bool:
        """Whether it is gone by then."""
        return self.expires_at is not None and self.expires_at <= when


#: In the metadata of what a consolidation made: its strategy.
CONSOLIDATION = "consolidation"
#: In the metadata of what keeps a document of LangChain: its id, and what is named as ours.
DOCUMENT = "langchain"
#: Beside the fields of what is added, to find the same words by.
WORDS_HASH = "words_hash"
FIELDS = tuple(f.name for f in fields(Memory) if f.name not in {"id", "metadata"})
#: The names in a backend's metadata that are ours.
OURS = (*FIELDS, WORDS_HASH)
_KINDS = frozenset(MemoryKind)
_TIMES = frozenset(
    {
        "timestamp", "valid_from", "valid_to", "archived_from", "expires_at", "created_at",
        "renewed_at",
    }
)  # fmt: skip


_LISTS = frozenset({"sources", "keywords", "context_ids"})
_NUMBERS = frozenset({"seq", "until_seq"})


def _read(name: str, value: Any) -> Any:  # noqa: PLR0911 - a table
    """What a field of ours says; None where it says nothing that can be meant."""
    if name in _LISTS:
        texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        return tuple(value) if texts else None
    if name in _NUMBERS:
        return value if type(value) is int else None
    if name == "importance":
        number = type(value) in {int, float} and 0 <= value <= 1
        return float(value) if number else None
    if name == "archived":
        return value is True
    if not isinstance(value, str):
        return None
    if name == "kind":
        return MemoryKind(value) if value in _KINDS else None
    return _time(value) if name in _TIMES else value


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def trust_of(memories: Iterable[Memory]) -> str | None:
    """The label of trust of what is made of memories: ``mixed`` where they have several."""
    labels = {memory.trust for memory in memories}
    return labels.pop() if len(labels) == 1 else "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryHit:
    """A memory that a search found."""

    memory: Memory
    score: float
    """Higher is better; scores of different queries are not compared."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What each signal gave, where ``explain`` asked for it: they add up to ``score``."""

    @property
    def id(self) -> str:
        """The memory's id."""
        return self.memory.id

    @property
    def text(self) -> str:
        """The memory's text."""
        return self.memory.text

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller gave beside."""
        return self.memory.metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A stretch of a conversation about one thing."""

    conversation_id: str
    turns: tuple[Memory, ...]
    """In the order in which they were said."""
    score: float
    """(1 - w) x relevance + w x recency, 0 to 1."""
    relevance: float
    """Of its best turn, the best one of all being 1."""
    recency: float
    """1 now, 0.5 after the half-life."""
    hits: tuple[str, ...]
    """The turns that were found, the best first."""

    @property
    def began(self) -> datetime | None:
        """When its first turn was said."""
        return self.turns[0].timestamp

    @property
    def ended(self) -> datetime | None:
        """When its last turn was said."""
        return self.turns[-1].timestamp

    @property
    def text(self) -> str:
        """Its turns, one a line, with who said them."""
        return "\n".join(
            f"{who}: {turn.text}" if (who := turn.speaker or turn.role) else turn.text
            for turn in self.turns
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetResult:
    """What was forgotten."""

    counts: Mapping[str, int]
    """Memories by kind, those that went along included."""
    forgotten: tuple[str, ...]
    """The ones that were asked for and were there."""
    removed: tuple[str, ...]
    """Made from them alone, and gone with them."""
    rebuilt: tuple[str, ...]
    """Made from them and others, and made anew from the others."""

    @property
    def total(self) -> int:
        """All that is gone."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """What a collection has."""

    collection: str
    backend: str
    model: str | None
    """What made its vectors; None without vectors."""
    dimensions: int | None
    total: int
    """All that are there, archived, superseded and expired ones too."""
    kinds: Mapping[str, int]
    archived: int
    superseded: int
    """In whose place a newer one holds."""
    expired: int
    """What searches pass over and ``forget_expired`` removes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationGroup:
    """Memories that become one."""

    id: str
    """Of the memory that is made of them: always the same for the same memories."""
    kind: MemoryKind
    sources: tuple[str, ...]
    archives: tuple[str, ...]
    """Those that searches pass over afterwards."""
    level: int = 1
    """1 above memories, 2 above summaries of level 1, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationPlan:
    """What a consolidation is to do."""

    strategy: str
    considered: int
    """Memories that are in the window."""
    groups: tuple[ConsolidationGroup, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Consolidation:
    """What a consolidation did."""

    plan: ConsolidationPlan
    """What there is to do; with ``dry_run`` nothing else."""
    dry_run: bool
    created: tuple[str, ...] = ()
    """Memories that are made of others, whether an earlier run wrote them or this one."""
    archived: tuple[str, ...] = ()
    """Memories that searches pass over since then."""
    removed: tuple[str, ...] = ()
    """What earlier runs had made of them, where it is made otherwise now."""
