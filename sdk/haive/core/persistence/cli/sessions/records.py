"""Merges for people to look at: what came from where, what was left out and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from rich.text import Text

from haive.core.persistence.checkpointer._text import printable
from haive.core.persistence.cli.output import count, out
from haive.core.persistence.cli.sessions.rendering import range_text, time_of
from haive.core.persistence.errors import PersistenceError

if TYPE_CHECKING:
    from haive.core.persistence.session import Merge, SessionManager

    Place = tuple[str, int]

_WHY = {
    "same_message": "both have it",
    "near_duplicate": "says the same as",
    "conflict": "contradicts",
}
_LONGEST = 72
# So many of what was left out are shown in words.
_SHOWN = 20
_PAGE = 1_000


async def texts(manager: SessionManager, merge: Merge, as_user: str | None) -> dict[Place, str]:
    """What the messages say that a merge left out or kept in their place, as far as one may see."""
    wanted = {
        place for one in merge.dropped[:_SHOWN] for place in (_place(one), _cause(one)) if place
    }
    said: dict[Place, str] = {}
    for session in (merge.session_id, merge.secondary_id):
        if not wanted - said.keys():
            break
        try:
            for message in await manager.messages(session, limit=_PAGE, last=True, as_user=as_user):
                place = (str(message.conversation_id), message.seq)
                if place in wanted:
                    said[place] = message.text
        except PersistenceError:
            continue  # it was deleted, or is not theirs to see: the places tell
    return said


def print_merge(merge: Merge, said: dict[Place, str]) -> None:
    """Print the record of a merge."""
    undone = f", undone {time_of(merge.undone_at)}" if merge.undone_at else ""
    out.print(Text(f"{merge.secondary_id} merged into {merge.session_id}", "bold"), highlight=False)
    out.print(
        f"[dim]{merge.id} · {merge.strategy}, {merge.conflict_resolution} ·"
        f" {time_of(merge.created_at)}{undone}[/]",
        highlight=False,
    )
    out.print(
        f"  the same    {count(merge.root_count, 'message')} at the beginning", highlight=False
    )
    for one in merge.entries:
        side = "primary" if one.conversation_id == merge.session_id else "other"
        if one.conversation_id == merge.secondary_id:
            side = "secondary"
        of = f" of {one.conversation_id.hex[-8:]}" if side == "other" else f" of the {side}"
        out.print(f"  then        {range_text(one.first_seq, one.last_seq)}{of}", highlight=False)
    if merge.summary_seq is not None:
        out.print(
            f"  summary     drawn from {count(len(merge.summary_of), 'message')}", highlight=False
        )
    for dropped in merge.dropped[:_SHOWN]:
        _print_dropped(dropped, said)
    if len(merge.dropped) > _SHOWN:
        out.print(f"  [dim]and {len(merge.dropped) - _SHOWN:,} more left out: see --json[/]")
    for conflict in merge.conflicts:
        out.print(
            f"  [yellow]conflict[/]    {printable(str(conflict['reason']))}: kept"
            f" {conflict['kept']}, found by {printable(str(conflict['by']))}",
            highlight=False,
        )
    out.print()


def _print_dropped(one: dict[str, Any], said: dict[Place, str]) -> None:
    place, cause = _place(one), _cause(one)
    alike = one.get("similarity")
    how = f" ({alike:.2f} alike)" if isinstance(alike, float | int) else ""
    line = Text("  left out    ", "red").append(_quoted(place, said), "default")
    out.print(line, highlight=False)
    why = Text(f"              {_WHY.get(one['reason'], one['reason'])} ", "dim")
    out.print(why.append(_quoted(cause, said)).append(how, "dim"), highlight=False)


def _quoted(place: Place | None, said: dict[Place, str]) -> str:
    if place is None:
        return "something"
    text = said.get(place)
    if text is None:
        return f"message {place[1]:,} of {UUID(place[0]).hex[-8:]}"
    line = printable(" ".join(text.split()))
    return f"“{line if len(line) <= _LONGEST else f'{line[: _LONGEST - 1]}…'}”"


def _place(one: dict[str, Any]) -> Place:
    return str(one["conversation_id"]), int(one["seq"])


def _cause(one: dict[str, Any]) -> Place | None:
    cause = one.get("because_of")
    return None if cause is None else _place(cause)
