"""The branches of a thread, drawn: the newest checkpoint on top, a column for each branch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from haive.core.persistence.checkpointer._text import Encodable, printable, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta
    from uuid import UUID

    from rich.console import Console
    from rich.text import Text

# Of a stretch without events, this many are drawn at its newer and at its older end, if at least
# this many lie between them.
_NEWER, _OLDER, _FOLDED = 2, 1, 3
_COLOURS = ("cyan", "magenta", "green", "blue", "yellow", "bright_red")
_LONGEST_LABEL = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A checkpoint of a thread."""

    id: UUID
    #: None for the first one; an id that is not among the nodes was pruned.
    parent_id: UUID | None
    branch: str
    #: 1, 2, 3 … in its thread.
    seq: int
    created_at: datetime
    failed: bool
    tags: tuple[str, ...]
    #: The step or node that made it.
    label: str
    #: Bytes.
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stop:
    """A row of the drawing: a checkpoint, or a stretch of them that is folded."""

    node: Node
    #: What comes below it: for a stretch, the parent of the oldest one.
    parent_id: UUID | None
    #: How many checkpoints are folded; 0 for one that is drawn.
    folded: int = 0


@dataclass(slots=True)
class _Lane:
    """A column that is waiting for a checkpoint."""

    awaited: UUID
    branch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    #: A sign and the branch that it belongs to, by column.
    graph: list[tuple[str, str]]
    stop: _Stop | None = None


def render_tree(
    nodes: Iterable[Node],
    heads: Mapping[str, UUID],
    *,
    console: Console,
    full: bool = False,
    now: datetime | None = None,
) -> None:
    """Print the branches of a thread.

    Args:
        nodes: Its checkpoints, in any order.
        heads: The newest checkpoint of each branch.
        console: Where it is printed.
        full: Long stretches in which nothing happened too, which are folded else.
        now: What ages are counted from; the clock's time if it is left out.
    """
    from rich.text import Text  # noqa: PLC0415 - what draws nothing imports no rich

    known = {node.id: node for node in nodes}
    if not known:
        console.print(Text("No checkpoints."))
        return
    names: dict[UUID, list[str]] = {}
    for branch, head in heads.items():
        names.setdefault(head, []).append(branch)
    stops = _unfolded(known) if full else _folded(known, names)
    trunk = min(known.values(), key=_age_key).branch
    rows = list(_rows(_in_order(stops), trunk))
    writer = _Writer(
        names=names,
        short=_short_length(known),
        lanes=max(len(row.graph) for row in rows),
        narrow=max(len(row.graph) for row in rows) * 4 > console.width,
        now=now or datetime.now(UTC),
    )
    for row in rows:
        # A terminal cuts a long row; a file and a pipe have it whole.
        if console.is_terminal:
            console.print(Encodable(writer.line(row)), no_wrap=True, overflow="crop")
        else:
            console.print(Encodable(writer.line(row)), soft_wrap=True)


def _age_key(node: Node) -> tuple[datetime, int, int]:
    return node.created_at, node.seq, node.id.int


def _short_length(ids: Iterable[UUID]) -> int:
    """Digits from the end of a UUIDv7, its random part, that tell all of them apart."""
    digits = [one.hex for one in ids]
    length = 8
    while length < 32 and len({text[-length:] for text in digits}) < len(digits):
        length += 4
    return length


def _unfolded(known: Mapping[UUID, Node]) -> dict[UUID, _Stop]:
    return {node.id: _Stop(node=node, parent_id=node.parent_id) for node in known.values()}


def _folded(known: Mapping[UUID, Node], names: Mapping[UUID, list[str]]) -> dict[UUID, _Stop]:
    """The rows, with stretches of checkpoints of which nothing is to be said as one row each."""
    stops = _unfolded(known)
    children: dict[UUID, list[Node]] = {}
    for node in known.values():
        if node.parent_id is not None:
            children.setdefault(node.parent_id, []).append(node)

    def is_plain(node: Node) -> bool:
        newer = children.get(node.id, [])
        return (
            not (node.failed or node.tags or node.id in names)
            and node.parent_id in known
            and len(newer) == 1
        )

    for node in known.values():
        if not is_plain(node) or is_plain(children[node.id][0]):
            continue
        stretch: list[Node] = []  # from the newest one down
        one: Node | None = node
        while one is not None and is_plain(one):
            stretch.append(one)
            one = known.get(one.parent_id) if one.parent_id else None
        hidden = stretch[_NEWER : len(stretch) - _OLDER]
        if len(hidden) < _FOLDED:
            continue
        for inside in hidden:
            del stops[inside.id]
        newest, oldest = hidden[0], hidden[-1]
        stops[newest.id] = _Stop(node=newest, parent_id=oldest.parent_id, folded=len(hidden))
    return stops


def _in_order(stops: Mapping[UUID, _Stop]) -> Iterator[_Stop]:
    """The newest first, but never one before its children: clocks can differ."""
    waiting = dict.fromkeys(stops, 0)
    for stop in stops.values():
        if stop.parent_id in waiting:
            waiting[stop.parent_id] += 1
    # The order of the heap is by age; ids are all different.
    ready = [_heap_entry(stop) for stop in stops.values() if not waiting[stop.node.id]]
    heapify(ready)
    while ready:
        stop = heappop(ready)[-1]
        yield stop
        if stop.parent_id in waiting:
            waiting[stop.parent_id] -= 1
            if not waiting[stop.parent_id]:
                heappush(ready, _heap_entry(stops[stop.parent_id]))


def _heap_entry(stop: _Stop) -> tuple[float, int, int, _Stop]:
    node = stop.node
    return -node.created_at.timestamp(), -node.seq, -node.id.int, stop


def _rows(stops: Iterable[_Stop], trunk: str) -> Iterator[_Row]:
    """Lay the rows out: each checkpoint in the column that has waited for it."""
    stops = list(stops)
    present = {stop.node.id for stop in stops}
    lanes: list[_Lane | None] = [None]  # the first one is the trunk's
    for stop in stops:
        node = stop.node
        column = next(
            (at for at, lane in enumerate(lanes) if lane and lane.awaited == node.id), None
        )
        if column and node.branch == trunk and lanes[0] is None:
            # Its newest checkpoint has children, but none in the trunk: that begins here.
            lanes[0] = _Lane(node.id, trunk)
            yield _joined(lanes, 0, column, corner="╭")
            column = 0
        if column is None:
            column = _free(lanes, trunk=node.branch == trunk)
        sign = "⋮" if stop.folded else "✕" if node.failed else "◆" if node.tags else "●"
        graph = _standing(lanes)
        graph += [(" ", "")] * (column + 1 - len(graph))
        graph[column] = (sign, node.branch)
        yield _Row(graph=graph, stop=stop)
        lanes += [None] * (column + 1 - len(lanes))
        parent = stop.parent_id
        if parent is None:
            lanes[column] = None
        elif parent not in present:
            lanes[column] = None
            below = _standing(lanes)
            below += [(" ", "")] * (column + 1 - len(below))
            below[column] = ("┆", node.branch)  # it goes on below, but that was pruned
            yield _Row(graph=below)
        else:
            lanes[column] = _Lane(parent, node.branch)
            other = next(
                (
                    at
                    for at, lane in enumerate(lanes)
                    if lane and lane.awaited == parent and at != column
                ),
                None,
            )
            if other is not None:
                yield _joined(lanes, column, other)
        while len(lanes) > 1 and lanes[-1] is None:
            lanes.pop()


def _free(lanes: list[_Lane | None], *, trunk: bool) -> int:
    if trunk and lanes[0] is None:
        return 0
    return next((at for at in range(1, len(lanes)) if lanes[at] is None), len(lanes))


def _standing(lanes: Sequence[_Lane | None]) -> list[tuple[str, str]]:
    return [("│", lane.branch) if lane else (" ", "") for lane in lanes]


def _joined(lanes: list[_Lane | None], one: int, other: int, *, corner: str = "├") -> _Row:
    """Two columns become one, the left of them, above the checkpoint that both have come from."""
    left, right = sorted((one, other))
    graph = _standing(lanes)
    leaving = graph[right][1]
    for column in range(left + 1, right):
        graph[column] = ("┼", graph[column][1]) if lanes[column] else ("─", leaving)
    graph[left] = (corner, graph[left][1])
    graph[right] = ("╯", leaving)
    lanes[right] = None
    return _Row(graph=graph)


class _Writer:
    """Writes rows out, with what belongs together below each other."""

    def __init__(
        self,
        *,
        names: Mapping[UUID, list[str]],
        short: int,
        lanes: int,
        narrow: bool,
        now: datetime,
    ) -> None:
        self._names = names
        self._short = short
        self._gap = "" if narrow else " "
        self._width = lanes * (1 + len(self._gap)) + 1
        self._now = now
        self._colours: dict[str, str] = {}

    def line(self, row: _Row) -> Text:
        """A row as rich prints it."""
        from rich.text import Text  # noqa: PLC0415 - what draws nothing imports no rich

        line = Text()
        for sign, branch in row.graph:
            style = "bold red" if sign == "✕" else self._colour(branch)
            line.append(sign, style).append(
                "─" * len(self._gap) if sign in "├╭─┼" else self._gap, style
            )
        if row.stop is None:
            line.rstrip()
            return line
        line.append(" " * (self._width - len(line)))
        node = row.stop.node
        if row.stop.folded:
            return line.append(f"{row.stop.folded:,} more", "dim")
        line.append(node.id.hex[-self._short :], "yellow")
        line.append(f"  {_age(self._now - node.created_at):>10}  {size_text(node.size):>7}", "dim")
        label = printable(node.label)
        label = label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
        line.append(f"  {label}" if label else "")
        if node.failed:
            line.append("  failed", "bold red")
        for name in self._names.get(node.id, ()):
            line.append(f"  [{printable(name)}]", f"bold {self._colour(name)}")
        for tag in node.tags:
            line.append(f"  #{printable(tag)}", "italic")
        return line

    def _colour(self, branch: str) -> str:
        return self._colours.setdefault(branch, _COLOURS[len(self._colours) % len(_COLOURS)])


def _age(age: timedelta) -> str:
    seconds = age.total_seconds()
    if seconds < 45:
        return "just now"
    for most, length, unit in ((90, 60, "min"), (36, 3600, "h"), (1000, 86400, "d")):
        if seconds < most * length:
            return f"{max(round(seconds / length), 1)} {unit} ago"
    return f"{seconds / 31_557_600:.0f} y ago"
