"""Sessions and their messages for people to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from haive.core.persistence.checkpointer._text import json_text, printable
from haive.core.persistence.cli.checkpoints.rendering import wide
from haive.core.persistence.cli.output import count, out
from haive.core.persistence.cli.rendering import print_message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from haive.core.persistence.session import Session, SessionMessage

COLOURS = {
    "open": "green",
    "closed": "dim",
    "expired": "yellow",
    "merged": "magenta",
    "continued": "blue",
}
_LONGEST = 60


def label_of(session: Session) -> str:
    """What a session is about, in a line: its title, else what its branch began with."""
    text = session.title or ""
    if not text and session.branch_context:
        reason = session.branch_context.get("reason")
        text = reason if isinstance(reason, str) else json_text(session.branch_context, limit=80)
    text = printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def print_table(sessions: Sequence[Session], *, more: bool) -> None:
    """Print a line for each session."""
    from rich.table import Table  # noqa: PLC0415 - slow

    if not sessions:
        out.print("No sessions.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("id", min_width=36)  # never shortened: it is there to be copied
    table.add_column("status")
    table.add_column("messages", justify="right")
    for name in ("about", "owner", "agent"):
        table.add_column(name, max_width=40, overflow="fold")
    table.add_column("branch of")
    table.add_column("last active", min_width=16)
    for one in sessions:
        parent = f"{one.parent_id.hex[-8:]} after {one.branch_index:,}" if one.parent_id else ""
        table.add_row(
            str(one.id),
            Text(one.status, COLOURS[one.status]),
            f"{one.message_count:,}",
            Text(label_of(one)),
            Text(printable(one.user_id or "")),
            Text(printable(one.agent_id)),
            parent,
            time_of(one.active_at),
        )
    wide().print(table, soft_wrap=False)
    if more:
        out.print("[dim]There are more: see --limit and the filters.[/]")


def print_session(session: Session) -> None:
    """Print what is known of a session beside its messages."""
    one = session
    facts = {
        "session": str(one.id),
        "status": _status(one),
        "messages": f"{one.message_count:,}",
        "agent": one.agent_id,
        "owner": one.user_id or "nobody",
        "takes part": "; ".join(
            f"{user}: {', '.join(may)}" for user, may in one.permissions.items()
        ),
        "branch of": f"{one.parent_id}, after its message {one.branch_index:,}"
        if one.parent_id
        else "",
        "continues": str(one.predecessor_id or ""),
        "goes on in": str(one.successor_id or ""),
        "merged into": str(one.merged_into or ""),
        "begun": time_of(one.created_at),
        "tags": ", ".join(one.tags),
        "context": json_text(one.context, limit=1_000) if one.context else "",
        "state": json_text(one.state, limit=1_000) if one.state else "",
        "bound": f"{one.max_messages:,} messages" if one.max_messages else "",
    }
    out.print(Text(label_of(one) or "Without a title", "bold"))
    for name, said in facts.items():
        if said:
            out.print(Text(f"{name:<12}", "dim").append(printable(said)), highlight=False)
    out.print()


def _status(session: Session) -> str:
    since = session.closed_at
    if session.status == "open":
        until = session.expires_at
        return f"open{f' until {time_of(until)}' if until else ''}, idle {span(session.idle)}"
    return f"{session.status}{f' {time_of(since)}' if since else ''}"


def print_placed(message: SessionMessage, session: Session) -> None:
    """Print a message with its index, who wrote it, and where it is from."""
    notes = [] if message.author is None else [f"by {message.author}"]
    if message.conversation_id != session.id:
        notes.append(f"of {message.conversation_id.hex[-8:]}")
    if message.hidden:
        notes.append("hidden")
    print_message(message, place=message.index, notes=notes)


def range_text(first: int, last: int) -> str:
    """Messages by their numbers: "message 4", "messages 4 to 9"."""
    return f"message {first:,}" if first == last else f"messages {first:,} to {last:,}"


def time_of(moment: datetime) -> str:
    """A moment in the zone of who looks."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def span(length: timedelta) -> str:
    """How long, in the largest unit that fits."""
    seconds = max(length.total_seconds(), 0)
    for most, unit_length, unit in ((90, 1, "second"), (90, 60, "minute"), (36, 3600, "hour")):
        if seconds < most * unit_length:
            return count(round(seconds / unit_length), unit)
    return count(round(seconds / 86400), "day")
