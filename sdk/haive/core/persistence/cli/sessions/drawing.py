"""Related sessions, drawn: a column for each depth, a branch below the message it left after."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.text import Text

from haive.core.persistence.checkpointer._text import Encodable, printable
from haive.core.persistence.checkpointer._tree import _age
from haive.core.persistence.cli.output import count, out
from haive.core.persistence.cli.sessions.rendering import COLOURS, label_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    from rich.console import Console

    from haive.core.persistence.session import Merge, Session

_RAILS = ("cyan", "magenta", "green", "blue", "yellow", "bright_red")


@dataclass(frozen=True, slots=True)
class _Row:
    rails: list[tuple[str, int]]
    """A sign and the depth that colours it, by column."""
    session: Session | None = None
    note: str = ""


def draw(
    sessions: Sequence[Session],
    merges: Sequence[Merge],
    asked: UUID,
    *,
    console: Console = out,
    now: datetime | None = None,
) -> None:
    """Print sessions that are related.

    Args:
        sessions: All of them, in any order.
        merges: The records of the merges into them.
        asked: The one that is pointed at.
        console: Where it is printed.
        now: What ages are counted from; the clock's time if it is left out.
    """
    known = {one.id: one for one in sorted(sessions, key=lambda one: (one.created_at, one.id))}
    drawing = _Drawing(known, merges)
    rows = [row for root in drawing.roots() for row in drawing.rows(root, [])]
    width = 2 * max((len(row.rails) for row in rows), default=0) + 1
    writer = _Writer(known, asked, width, now or datetime.now(UTC))
    for row in rows:
        line = Encodable(writer.line(row))
        # A terminal cuts a long row; a file and a pipe have it whole.
        if console.is_terminal:
            console.print(line, no_wrap=True, overflow="crop")
        else:
            console.print(line, soft_wrap=True)


class _Drawing:
    def __init__(self, known: Mapping[UUID, Session], merges: Sequence[Merge]) -> None:
        self._known = known
        self._merges = {
            (one.session_id, one.secondary_id): one for one in merges if one.undone_at is None
        }
        self._branches: dict[UUID, list[Session]] = {}
        for one in known.values():
            if one.parent_id is not None and one.parent_id in known:
                self._branches.setdefault(one.parent_id, []).append(one)
        for branches in self._branches.values():
            branches.sort(key=lambda one: (one.branch_index, one.created_at, one.id))

    def roots(self) -> Iterator[Session]:
        for one in self._known.values():
            if one.parent_id not in self._known and one.predecessor_id not in self._known:
                yield one

    def rows(self, session: Session, rails: list[tuple[str, int]]) -> Iterator[_Row]:
        """A session, what left it and what came into it, and what it goes on in."""
        depth = len(rails)
        one: Session | None = session
        # One after the other down the same column, however many successors there are.
        while one is not None:
            following = self._known.get(one.successor_id) if one.successor_id else None
            branches = self._branches.get(one.id, [])
            yield _Row([*rails, ("●" if one.is_open else "○", depth)], one)
            for number, branch in enumerate(branches):
                joins = (one.id, branch.id) in self._merges
                last = number == len(branches) - 1 and following is None and not joins
                yield _Row(
                    [*rails, ("╰" if last else "├", depth), ("╮", depth + 1)],
                    note=f"after {branch.branch_index:,}",
                )
                below = (" ", depth) if last else ("│", depth)
                yield from self.rows(branch, [*rails, below])
                if joins:
                    yield _Row(
                        [*rails, ("├", depth), ("╯", depth + 1)],
                        note=_told(self._merges[one.id, branch.id]),
                    )
            if following is not None:
                yield _Row([*rails, ("┆", depth)], note="goes on in")
            one = following


def _told(merge: Merge) -> str:
    came = sum(
        one.last_seq - one.first_seq + 1
        for one in merge.entries
        if one.conversation_id != merge.session_id
    )
    facts = [f"merged, {merge.strategy}: {count(came, 'message')} came"]
    if merge.dropped:
        facts.append(f"{len(merge.dropped):,} left out")
    if merge.conflicts:
        facts.append(count(len(merge.conflicts), "conflict"))
    if merge.summary_seq is not None:
        facts.append("summary")
    return ", ".join(facts)


class _Writer:
    """Writes rows out, with what belongs together below each other."""

    def __init__(
        self, known: Mapping[UUID, Session], asked: UUID, width: int, now: datetime
    ) -> None:
        self._asked = asked
        self._width = width
        self._now = now
        self._known = known
        self._messages = max(len(count(one.message_count, "message")) for one in known.values())

    def line(self, row: _Row) -> Text:
        """A row as rich prints it."""
        line = Text()
        for place, (sign, depth) in enumerate(row.rails):
            style = _RAILS[depth % len(_RAILS)]
            line.append(sign, f"bold {style}" if row.session and sign in "●○" else style)
            joined = sign in "├╰" and place == len(row.rails) - 2
            line.append("─" if joined and not row.session else " ", style)
        line.append(" " * max(self._width - len(line), 0))
        one = row.session
        if one is None:
            return line.append(row.note, "dim italic")
        line.append(one.id.hex[-8:], "bold yellow" if one.id == self._asked else "yellow")
        line.append(f"  {count(one.message_count, 'message'):>{self._messages}}")
        line.append(f"  {one.status:<9}", COLOURS[one.status])
        line.append(f"  {_age(self._now - one.active_at):>10}", "dim")
        label, owner = label_of(one), printable(one.user_id or "")
        line.append(f"  {label}" if label else "")
        line.append(f"  {owner}" if owner else "", "dim")
        into = one.merged_into
        if into is not None and into != one.parent_id:
            line.append(f"  into {into.hex[-8:]}", "magenta")
        line.append("  ◂" if one.id == self._asked else "", "bold")
        return line
