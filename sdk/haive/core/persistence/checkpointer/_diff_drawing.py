"""A difference on a terminal.

Everything that is somebody's is put in as escaped text and never as markup. Signs and words say
what colours say.
"""

from __future__ import annotations

import re
from io import StringIO
from itertools import accumulate, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, cast

from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from haive.core.persistence.checkpointer._alignment import align
from haive.core.persistence.checkpointer._content import Contents
from haive.core.persistence.checkpointer._diff import ChangeKind, shown_path
from haive.core.persistence.checkpointer._paths import child, parse
from haive.core.persistence.checkpointer._text import (
    Encodable,
    json_text,
    printable,
    size_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import ConsoleOptions, RenderableType

    from haive.core.persistence.checkpointer._diff import Change, Difference

_SIGNS = {
    ChangeKind.ADDED: ("+", "green"),
    ChangeKind.REMOVED: ("-", "red"),
    ChangeKind.CHANGED: ("~", "yellow"),
    ChangeKind.MOVED: (">", "cyan"),
}
# What a reader is shown before "… 480 more": of one part of the state, and parts.
_FEW, _PARTS = 20, 50
_COLOURS = {"+": "green", "-": "red"}
# Lines of one changed text, characters around a changed word, and of one changed stretch.
_LINES, _AROUND, _MOST_SAID = 16, 24, 200
# A script without spaces is compared by characters.
_WORD = re.compile(r"[^\W\u2e80-\u9fff\uac00-\ud7af]+|\s+|.")
_WIDTH = 100


def drawing(difference: Difference, *, full: bool = False) -> RenderableType:
    """What rich draws of a difference."""
    return Encodable(_Drawing(difference, full=full))


def draw(difference: Difference, console: Console | None, *, width: int | None, full: bool) -> str:
    """Print a difference, if there is a console, and return it as plain text."""
    shown = drawing(difference, full=full)
    if console is not None:
        console.print(shown, width=width)
    width = width or (console.width if console is not None else _WIDTH)
    plain = Console(file=StringIO(), width=width, color_system=None)
    with plain.capture() as caught:
        plain.print(shown)
    return "\n".join(line.rstrip() for line in caught.get().splitlines()) + "\n"


class _Drawing:
    def __init__(self, difference: Difference, *, full: bool) -> None:
        self._difference = difference
        self._full = full
        self._width = _WIDTH

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        self._width = max(options.max_width, 20)
        yield self._head()
        yield _line(self._difference.summary, "bold")
        groups = list(_groups(self._difference.changes).items())
        shown = groups if self._full else groups[:_PARTS]
        if shown:
            yield Text()
        for name, changes in shown:
            yield from self._group(name, changes)
        if len(groups) > len(shown):
            hidden = sum(len(changes) for _, changes in groups[len(shown) :])
            yield _line(f"… {hidden:,} more changes", "dim")

    def _head(self) -> Text:
        one = self._difference
        sizes = f"{size_text(one.bytes_a)} → {size_text(one.bytes_b)}"
        return _line(f"{one.a} → {one.b} · {sizes}", "dim")

    def _group(self, name: str, changes: Sequence[Change]) -> Iterator[RenderableType]:
        if len(changes) == 1:
            yield from self._change(changes[0], shown_path(changes[0].path), "", 0)
            return
        inside = name != "$"
        if inside:
            yield _line(shown_path(name), "bold")
        shown = changes if self._full else changes[:_FEW]
        for change in shown:
            base = name if inside else ""
            yield from self._change(change, _below(change.path, base), base, 2 if inside else 0)
        if len(changes) > len(shown):
            yield _line(f"  … {len(changes) - len(shown):,} more", "dim")

    def _change(
        self, change: Change, path: str, base: str, indent: int
    ) -> Iterator[RenderableType]:
        sign, colour = _SIGNS[change.kind]
        head = Text(" " * indent)
        head.append(f"{sign} ", f"bold {colour}")
        room = self._width - indent - 2 - len(path) - 2
        if change.kind is ChangeKind.MOVED:
            there = _below(change.before, base) if base else shown_path(change.before)
            head.append(f"{there} → {path}", colour)
        elif change.kind is ChangeKind.CHANGED:
            head.append(path)
            before, after = _value(change.before, room), _value(change.after, room)
            if len(before) + len(after) + 3 > room or _has_lines(change):
                yield _fold(head)
                yield Padding(Group(*self._sides(change, indent)), (0, 0, 0, indent + 4))
                return
            head.append("  ").append(before, "red").append(" → ").append(after, "green")
        else:
            value = change.after if change.kind is ChangeKind.ADDED else change.before
            head.append(path).append("  ").append(_value(value, max(room, 20)), colour)
        yield _fold(head)

    def _sides(self, change: Change, indent: int) -> Iterator[Text]:
        """Two values that do not stand beside each other."""
        before, after = change.before, change.after
        room = max(self._width - indent - 6, 20)
        if isinstance(before, str) and isinstance(after, str):
            shown = list(_lines(before, after, room))
            kept = shown if self._full or len(shown) <= _LINES else shown[: _LINES - 1]
            yield from kept
            if len(shown) > len(kept):
                yield _line(f"… {len(shown) - len(kept):,} more lines", "dim")
        else:
            yield _line(f"- {_value(before, room)}", "red")
            yield _line(f"+ {_value(after, room)}", "green")


def _has_lines(change: Change) -> bool:
    sides = (change.before, change.after)
    return all(isinstance(side, str) for side in sides) and any("\n" in side for side in sides)


def _groups(changes: Sequence[Change]) -> dict[str, list[Change]]:
    """Changes by the part of the state, its top-level key, that they are in."""
    groups: dict[str, list[Change]] = {}
    for change in changes:
        first = parse(change.path)[:1]
        name = child("$", first[0]) if first and isinstance(first[0], str) else "$"
        groups.setdefault(name, []).append(change)
    return groups


def _below(path: str, base: str) -> str:
    if not base:
        return shown_path(path)
    return path.removeprefix(base).removeprefix(".") or "(itself)"


def _line(text: str, style: str = "") -> Text:
    return _fold(Text(text, style))


def _fold(text: Text) -> Text:
    text.overflow = "fold"
    return text


def _value(value: object, room: int) -> str:
    """A value on one line, shortened to the room there is, with what it is of in full."""
    text = json_text(value, limit=max(room, 12))
    if len(text) <= room:
        return text
    if isinstance(value, str):
        length = f" ({len(value):,} characters)"
    elif isinstance(value, list):
        length = f" ({len(value):,} items)"
    elif isinstance(value, dict):
        length = f" ({len(value):,} keys)"
    else:
        length = ""
    return f"{text[: max(room - len(length) - 1, 8)]}…{length}"


def _lines(before: str, after: str, room: int) -> Iterator[Text]:
    """What changed in a text: by lines, each with the one above and below; a long line by words."""
    runs = _edits(before.split("\n"), after.split("\n"))
    last = len(runs) - 1
    replaced: list[str] = []
    for at, (sign, lines) in enumerate(runs):
        if sign == " ":
            around = lines[:1] * (at > 0) + lines[-1:] * (at < last and (at == 0 or len(lines) > 1))
            for place, line in enumerate(around):
                if place and len(lines) > 2:
                    yield _line("  …", "dim")
                yield _line(f"  {_cut(line, room)}", "dim")
        elif sign == "-" and at < last and runs[at + 1][0] == "+":
            replaced = lines
        elif len(lines) == len(replaced) and any(len(line) > room - 2 for line in lines + replaced):
            for old, new in zip(replaced, lines, strict=True):
                yield from _words(old, new, room)
            replaced = []
        else:
            for line in replaced if sign == "+" else ():
                yield _line(f"- {_cut(line, room)}", "red")
            for line in lines:
                yield _line(f"{sign} {_cut(line, room)}", _COLOURS[sign])
            replaced = []


def _words(before: str, after: str, room: int) -> Iterator[Text]:
    """A line with what was taken out in [-…-] and what was put in in {+…+}."""
    runs = _edits(_WORD.findall(before), _WORD.findall(after))
    same = sum(len(piece) for sign, pieces in runs if sign == " " for piece in pieces)
    if same * 3 < max(len(before), len(after)):  # little is left of it: two lines read better
        # Both begin where they begin to differ.
        pairs = enumerate(zip(before, after, strict=False))
        start = max(next((at for at, (a, b) in pairs if a != b), 0) - _AROUND, 0)
        yield _line(f"- {_cut(before[start:], room)}", "red")
        yield _line(f"+ {_cut(after[start:], room)}", "green")
        return
    text = Text("~ ", overflow="fold")
    for at, (sign, pieces) in enumerate(runs):
        piece = "".join(pieces)
        if sign == " ":
            begin = "".join(_near(pieces)) if at else ""
            end = "".join(_near(pieces[::-1])[::-1]) if at < len(runs) - 1 else ""
            whole = len(piece) <= len(begin) + len(end)
            text.append(printable(piece if whole else f"{begin}…{end}"), "dim")
        else:
            opening, closing = ("[-", "-]") if sign == "-" else ("{+", "+}")
            text.append(f"{opening}{_cut(piece, _MOST_SAID)}{closing}", _COLOURS[sign])
    yield text


def _near(pieces: list[str]) -> list[str]:
    """The first pieces, as many as stand around a change."""
    ends = accumulate(len(piece) for piece in pieces)
    return [piece for piece, end in zip(pieces, ends, strict=True) if end <= _AROUND]


def _edits(old: list[str], new: list[str]) -> list[tuple[str, list[str]]]:
    """Runs of pieces that both texts have (" "), the first one ("-") or the second one ("+")."""
    before, after = cast("list[object]", old), cast("list[object]", new)
    kept = align(before, after, Contents()).kept
    pieces: list[tuple[str, str]] = []
    i = j = 0
    for next_i, next_j in [pair for pair in kept if old[pair[0]] == new[pair[1]]]:
        pieces += [("-", piece) for piece in old[i:next_i]]
        pieces += [("+", piece) for piece in new[j:next_j]]
        pieces.append((" ", old[next_i]))
        i, j = next_i + 1, next_j + 1
    pieces += [("-", piece) for piece in old[i:]] + [("+", piece) for piece in new[j:]]
    return [(sign, [piece for _, piece in run]) for sign, run in groupby(pieces, key=itemgetter(0))]


def _cut(line: str, room: int) -> str:
    shown = printable(line)
    return shown if len(shown) <= room - 2 else f"{shown[: room - 3]}…"
