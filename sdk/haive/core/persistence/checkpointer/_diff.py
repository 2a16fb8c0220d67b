"""What differs between two states."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from haive.core.persistence.checkpointer._alignment import align
from haive.core.persistence.checkpointer._content import Contents
from haive.core.persistence.checkpointer._paths import child, parse
from haive.core.persistence.checkpointer._text import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from rich.console import Console, RenderableType

    # Two parts that differ, with the path of each in its own tree.
    Parts = tuple[str, str, object, object]

# What a sentence names: more places than this are counted.
_NAMED = 3
_SHORT = 40


class ChangeKind(StrEnum):
    """How a place differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    MOVED = "moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference.

    ``path`` is a JSON path: of a removed value in the first tree, else in the second one.
    ``before`` and ``after`` are the values, with None for the side that has none; of what moved,
    they are its two paths.
    """

    path: str
    kind: ChangeKind
    before: Any
    after: Any


def compare_trees(a: object, b: object) -> list[Change]:
    """What has to be done to the first tree to make it the second one, in the order of reading.

    Mappings are compared by key, whatever the order. Lists are compared by content: what was put in
    is one addition, wherever it stands, and what stands elsewhere is moved. Items that are mappings
    with an id, tool_call_id, key or name of their own are the same item and compared inside. 1 and
    1.0 are equal, 1 and True are not.

    Args:
        a: What `view` returned for the first state.
        b: The same for the second one.
    """
    contents = Contents()
    changes: list[Change] = []
    todo: list[Change | Parts] = [("$", "$", a, b)]
    while todo:
        item = todo.pop()
        if isinstance(item, Change):
            changes.append(item)
            continue
        path_a, path, before, after = item
        if contents.of(before) == contents.of(after):
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            inside = _mappings(path_a, path, before, after, contents)
        elif isinstance(before, list) and isinstance(after, list):
            inside = _lists(path_a, path, before, after, contents)
        else:
            changes.append(Change(path=path, kind=ChangeKind.CHANGED, before=before, after=after))
            continue
        todo += reversed(list(inside))
    return changes


def _added(path: str, value: object) -> Change:
    return Change(path=path, kind=ChangeKind.ADDED, before=None, after=value)


def _removed(path: str, value: object) -> Change:
    return Change(path=path, kind=ChangeKind.REMOVED, before=value, after=None)


def _mappings(
    path_a: str, path: str, before: dict[str, object], after: dict[str, object], contents: Contents
) -> Iterator[Change | Parts]:
    for key, value in before.items():
        if key not in after:
            yield _removed(child(path_a, key), value)
        elif contents.of(value) != contents.of(after[key]):
            yield child(path_a, key), child(path, key), value, after[key]
    for key, value in after.items():
        if key not in before:
            yield _added(child(path, key), value)


def _lists(
    path_a: str, path: str, before: list[object], after: list[object], contents: Contents
) -> Iterator[Change | Parts]:
    alignment = align(before, after, contents)
    came_from = {j: i for i, j in alignment.moved}
    went = set(came_from.values())
    i = j = 0
    for next_i, next_j in [*alignment.kept, (len(before), len(after))]:
        for row in range(i, next_i):
            if row not in went:
                yield _removed(child(path_a, row), before[row])
        for column in range(j, next_j):
            here = child(path, column)
            if column not in came_from:
                yield _added(here, after[column])
                continue
            row = came_from[column]
            there = child(path_a, row)
            yield Change(path=here, kind=ChangeKind.MOVED, before=there, after=here)
            yield there, here, before[row], after[column]
        if next_i < len(before) and contents.of(before[next_i]) != contents.of(after[next_j]):
            yield child(path_a, next_i), child(path, next_j), before[next_i], after[next_j]
        i, j = next_i + 1, next_j + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How one checkpoint differs from another one; true if it does.

    `print` gives the summary, `rich.print` all of it.
    """

    a: UUID
    b: UUID
    added: int
    removed: int
    changed: int
    moved: int
    #: Every single one; empty when they were not asked for.
    changes: tuple[Change, ...]
    #: A sentence: ``2 added, 1 changed: status "running" -> "completed"; messages +2``.
    summary: str
    #: Bytes of the two states.
    bytes_a: int
    bytes_b: int

    @classmethod
    def between(
        cls,
        *,
        a: UUID,
        b: UUID,
        tree_a: object,
        tree_b: object,
        bytes_a: int,
        bytes_b: int,
        include_details: bool = True,
    ) -> Difference:
        """Compare two trees that `view` returned."""
        changes = compare_trees(tree_a, tree_b)
        counts = Counter(change.kind for change in changes)
        return cls(
            a=a,
            b=b,
            added=counts[ChangeKind.ADDED],
            removed=counts[ChangeKind.REMOVED],
            changed=counts[ChangeKind.CHANGED],
            moved=counts[ChangeKind.MOVED],
            changes=tuple(changes) if include_details else (),
            summary=_summary(changes, counts),
            bytes_a=bytes_a,
            bytes_b=bytes_b,
        )

    @property
    def identical(self) -> bool:
        """Whether the two states are the same."""
        return not self.added + self.removed + self.changed + self.moved

    def __bool__(self) -> bool:
        return not self.identical

    def __str__(self) -> str:
        return self.summary

    def as_dict(self) -> dict[str, Any]:
        """The difference as JSON; a change has ``before`` and ``after`` if it has such a side."""
        return {
            "a": str(self.a),
            "b": str(self.b),
            "identical": self.identical,
            "summary": self.summary,
            "added": self.added,
            "removed": self.removed,
            "changed": self.changed,
            "moved": self.moved,
            "bytes_a": self.bytes_a,
            "bytes_b": self.bytes_b,
            "changes": [_change_as_dict(change) for change in self.changes],
        }

    def render(
        self, console: Console | None = None, *, width: int | None = None, full: bool = False
    ) -> str:
        """Draw the difference: on the console, if one is given, and as plain text to return.

        Args:
            console: Where it is printed.
            width: Columns; those of the console if it is left out, else 100.
            full: Every change, however many there are.
        """
        from haive.core.persistence.checkpointer._diff_drawing import draw  # noqa: PLC0415 - rich

        return draw(self, console, width=width, full=full)

    def __rich__(self) -> RenderableType:
        from haive.core.persistence.checkpointer._diff_drawing import drawing  # noqa: PLC0415 - rich

        return drawing(self)


def _change_as_dict(change: Change) -> dict[str, Any]:
    shown: dict[str, Any] = {"path": change.path, "kind": change.kind.value}
    if change.kind is not ChangeKind.ADDED:
        shown["before"] = change.before
    if change.kind is not ChangeKind.REMOVED:
        shown["after"] = change.after
    return shown


def shown_path(path: str) -> str:
    """A path for people: without the ``$.`` that all of them begin with."""
    return "state" if path == "$" else path.removeprefix("$").removeprefix(".")


def _summary(changes: list[Change], counts: Counter[ChangeKind]) -> str:
    if not changes:
        return "No difference."
    kinds = ", ".join(f"{counts[kind]:,} {kind.value}" for kind in ChangeKind if counts[kind])
    places: dict[str, Counter[str]] = {}
    for change in changes:
        place, what = _place(change)
        places.setdefault(place, Counter())[what] += 1
    # The most telling first: what lies near the top, in the order of the state.
    first = sorted(places, key=lambda place: len(parse(place)))[:_NAMED]
    said = [f"{shown_path(place)} {_said(places[place])}".strip() for place in first]
    if len(places) > len(first):
        said.append(f"{len(places) - len(first):,} more")
    return f"{kinds}: {'; '.join(said)}"


def _place(change: Change) -> tuple[str, str]:
    """The place that a change is told of, and what is told: items are told of their list."""
    path, kind = change.path, change.kind
    if kind is ChangeKind.CHANGED:
        before, after = (json_text(side, limit=_SHORT) for side in (change.before, change.after))
        is_short = len(before) <= _SHORT and len(after) <= _SHORT
        return path, f"{before} -> {after}" if is_short else "changed"
    if not path.endswith("]") or path.endswith('"]'):
        return path, kind.value
    return path[: path.rindex("[")], {"added": "+", "removed": "-"}.get(kind.value, kind.value)


def _said(whats: Counter[str]) -> str:
    return " ".join(
        f"{what}{count:,}" if what in "+-" else what if count == 1 else f"{count:,} {what}"
        for what, count in whats.items()
    )
