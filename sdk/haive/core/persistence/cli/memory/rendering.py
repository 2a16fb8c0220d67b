"""Memories for people to look at, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from haive.core.persistence.checkpointer._text import Encodable, printable
from haive.core.persistence.cli.output import harmless, out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from haive.core.persistence.vector.models import Memory, MemoryHit

_COLOURS = {
    "words": "green",
    "context": "cyan",
    "vector": "blue",
    "speaker": "magenta",
    "recency": "yellow",
    "importance": "red",
    "rerank": "bright_magenta",
}
_BAR = 30
# Of a memory, which may be 256 KiB; --json has all of it.
_LONGEST = 1_200


def memory_as_dict(memory: Memory) -> dict[str, Any]:
    """A memory for programs: what is known of it and what the caller gave beside, at one level."""
    ours = {"id": memory.id}
    # Before all, and over what a caller calls alike: ids are read from here and forgotten by.
    return {**ours, **memory.to_metadata(), **ours}


def hit_as_dict(hit: MemoryHit) -> dict[str, Any]:
    """A memory that was found, for programs."""
    ours: dict[str, Any] = {"score": hit.score}
    if hit.parts:
        ours["parts"] = dict(hit.parts)
    return {**ours, **memory_as_dict(hit.memory), **ours}


def print_hits(hits: Sequence[MemoryHit]) -> None:
    """Print memories that were found, with who, when, and what they say."""
    if not hits:
        out.print("Nothing is found.")
        return
    best = max(1e-9, *(hit.score for hit in hits))
    width = len(str(len(hits)))
    for place, hit in enumerate(hits, 1):
        head = Text(f"{place:>{width}}  ", "dim").append(f"{hit.score:.3f}  ", "bold green")
        out.print(Encodable(head.append(_about(hit.memory))), highlight=False)
        out.print(_indented(Text(excerpt(hit.text)), width + 2), soft_wrap=False)
        if hit.parts:
            out.print(_indented(_explained(hit.parts, best), width + 2), soft_wrap=False)
        out.print()


def print_memories(memories: Sequence[Memory]) -> None:
    """Print memories with who, when, and what they say."""
    if not memories:
        out.print("Nothing is remembered.")
    for memory in memories:
        out.print(Encodable(_about(memory)), highlight=False)
        out.print(_indented(Text(excerpt(memory.text)), 2), soft_wrap=False)
        out.print()


def _about(memory: Memory) -> Text:
    """Who and when, of which kind, and what became of it."""
    who = memory.speaker or memory.role or memory.user_id
    head = Text(f"{_line(who)}  " if who else "", "bold cyan")
    facts = [memory.kind.value, memory.id]
    if memory.timestamp is not None:
        facts.insert(0, time_of(memory.timestamp))
    if memory.archived:
        facts.append("archived")
    if memory.valid_to is not None:
        facts.append(f"until {time_of(memory.valid_to)}")
    return head.append(" · ".join(facts), "dim")


def excerpt(text: str, longest: int = _LONGEST) -> str:
    """The beginning of a text, for a terminal."""
    text = harmless(text.strip())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _explained(parts: Mapping[str, float], best: float) -> Text:
    """A bar as long as the score, in the colours of its parts, and their numbers."""
    given = [(name, part) for name, part in parts.items() if part > 0]
    bar = Text()
    done, drawn = 0.0, 0
    for name, part in given:
        done += part
        cells = max(round(_BAR * done / best) - drawn, 0)
        bar.append("█" * cells, _colour(name))
        drawn += cells
    bar.append("░" * max(_BAR - drawn, 0), "dim")
    for name, part in sorted(given, key=lambda one: -one[1]):
        bar.append("  ").append(name, _colour(name)).append(f" {part:.3f}")
    return bar


def _colour(name: str) -> str:
    return _COLOURS.get(name, "white")


def _indented(text: Text, by: int) -> Padding:
    return Padding(Encodable(text), (0, 0, 0, by))


def print_counts(kinds: Mapping[str, int]) -> None:
    """Print how many there are of each kind, the most first."""
    if not kinds:
        return
    width = max(len(f"{number:,}") for number in kinds.values())
    for kind, number in sorted(kinds.items(), key=lambda one: (-one[1], one[0])):
        out.print(Text(f"  {number:>{width},}  {kind}"), highlight=False)


def print_facts(facts: Mapping[str, str]) -> None:
    """Print what is known, a line each, without what is empty."""
    for name, said in facts.items():
        if said:
            out.print(Text(f"{name:<12}", "dim").append(printable(said)), highlight=False)


def counted(kinds: Mapping[str, int]) -> str:
    """So many memories, and of which kinds: "3 memories (2 turn, 1 note)"."""
    each = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))
    return f"{memories(sum(kinds.values()))}{f' ({each})' if each else ''}"


def memories(number: int) -> str:
    """So many memories."""
    return "1 memory" if number == 1 else f"{number:,} memories"


def time_of(moment: datetime) -> str:
    """A moment in the zone of who looks."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _line(text: str) -> str:
    return printable(" ".join(text.split()))[:40]
