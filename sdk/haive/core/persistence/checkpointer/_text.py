"""Values as text for people: printable on any terminal, bounded, in one notation."""

from __future__ import annotations

import json
from math import isfinite, isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

# Joiners print nothing, but an emoji or a word of some scripts falls apart without them.
_JOINERS = "\u200c\u200d"
# What stands for our own signs where a terminal's encoding has them not.
_STANDS_FOR = str.maketrans(
    {
        "→": "->", "…": "...", "·": "-", "●": "*", "◆": "#", "✕": "x", "⋮": ":", "┆": ":", "│": "|",
        "├": "+", "╭": ".", "╮": ".", "╰": "'", "╯": "'", "─": "-", "┼": "+", "○": "o", "◂": "<",
    }
)  # fmt: skip


def printable(text: str) -> str:
    """Text without what would command a terminal or turn its direction: escapes stand for it."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode() for c in text
    )


def quoted(text: str) -> str:
    """Text as JSON that is printable and is valid JSON still."""
    written = json.dumps(text, ensure_ascii=False)
    if written.isprintable():
        return written
    return "".join(c if c.isprintable() or c in _JOINERS else json.dumps(c)[1:-1] for c in written)


def json_text(tree: object, *, limit: int | None = None, sort_keys: bool = False) -> str:
    """A tree as printable JSON on one line.

    Written without recursion, for states may be nested as deeply as they like.

    Args:
        tree: What `view` returns.
        limit: Characters after which writing stops, somewhere in the middle.
        sort_keys: The keys of mappings by name, so that equal trees have equal texts.
    """
    parts: list[str] = []
    length = 0
    todo: list[tuple[bool, object]] = [(False, tree)]  # whether it is written already, and it
    while todo and (limit is None or length <= limit):
        written, value = todo.pop()
        if written:
            part = str(value)
        elif isinstance(value, dict):
            part = "{"
            todo.append((True, "}"))
            keys = sorted(value) if sort_keys else list(value)
            for place in range(len(keys) - 1, -1, -1):
                todo += [(False, value[keys[place]]), (True, f"{quoted(keys[place])}: ")]
                if place:
                    todo.append((True, ", "))
        elif isinstance(value, list):
            part = "["
            todo.append((True, "]"))
            for place in range(len(value) - 1, -1, -1):
                todo.append((False, value[place]))
                if place:
                    todo.append((True, ", "))
        else:
            part = _scalar_text(value, limit)
        parts.append(part)
        length += len(part)
    return "".join(parts)


def _scalar_text(value: object, limit: int | None) -> str:
    if isinstance(value, str):
        return quoted(value if limit is None else value[: limit + 1])
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and not isinstance(value, bool):
        # Python refuses to write more than 4,300 digits.
        return str(value) if value.bit_length() < 10_000 else hex(value)
    return json.dumps(value)


def size_text(size: int) -> str:
    """A number of bytes: "812 B", "4.1 KB", "12 MB"."""
    if size < 1000:
        return f"{size} B"
    length, unit = next(
        (length, unit)
        for length, unit in ((1e3, "KB"), (1e6, "MB"), (1e9, "GB"))
        if size < length * 999.5 or unit == "GB"
    )
    figure = size / length
    return f"{figure:.1f} {unit}" if figure < 9.95 else f"{figure:.0f} {unit}"


class Encodable:
    """What rich draws, with stand-ins for what the encoding of its console has not."""

    def __init__(self, drawing: RenderableType) -> None:
        self._drawing = drawing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.segment import Segment  # noqa: PLC0415 - what draws nothing imports no rich

        encoding = console.encoding
        for segment in console.render(self._drawing, options):
            yield Segment(_in_encoding(segment.text, encoding), segment.style, segment.control)


def _in_encoding(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        known = text.translate(_STANDS_FOR)
        return known.encode(encoding, "backslashreplace").decode(encoding)
    return text
