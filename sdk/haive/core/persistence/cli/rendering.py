"""Conversations for people to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from haive.core.persistence._json import json_bytes
from haive.core.persistence.cli.output import harmless, out, plain
from haive.core.persistence.models import ImagePart, TextPart, ToolCallPart, ToolResultPart

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal

    from haive.core.persistence.models import ContentPart, Conversation, Message

_COLOURS = {"system": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow"}
_MANY = 2_000


def print_table(conversations: Sequence[Conversation], *, more: bool) -> None:
    """Print a line for each conversation."""
    if not conversations:
        out.print("No conversations.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("id", min_width=36)  # never shortened: it is there to be copied
    for name in ("title", "user", "agent"):
        table.add_column(name, max_width=40, overflow="fold")
    for name in ("messages", "tokens", "cost"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("last message", min_width=16)
    for one in conversations:
        table.add_row(
            str(one.id),
            _line(one.metadata.title),
            _line(one.user_id),
            _line(one.agent_id),
            f"{one.message_count:,}",
            f"{one.total_tokens:,}",
            _cost(one.cost),
            _time(one.last_message_at),
        )
    # A pipe has no width of its own.
    console = out if out.is_terminal else Console(width=240)
    console.print(table, soft_wrap=False)
    if more:
        out.print("[dim]There are more: see --limit and the filters.[/]")


def print_head(conversation: Conversation) -> None:
    """Print what is known of a conversation beside its messages."""
    about = conversation.metadata
    out.print(f"[bold]{plain(about.title or 'Without a title')}[/]", highlight=False)
    facts = [
        str(conversation.id),
        f"agent {conversation.agent_id}",
        f"user {conversation.user_id}" if conversation.user_id else "no user",
        f"{conversation.message_count:,} messages",
        f"{conversation.total_tokens:,} tokens",
        f"begun {_time(conversation.created_at)}",
    ]
    if conversation.cost:
        facts.append(f"cost {_cost(conversation.cost)}")
    if about.tags:
        facts.append(f"tags {', '.join(about.tags)}")
    out.print(f"[dim]{plain(' · '.join(facts))}[/]\n", highlight=False)


def print_message(message: Message, *, place: int | None = None, notes: Sequence[str] = ()) -> None:
    """Print who said what, and what it took.

    Args:
        message: What was said.
        place: Its number, if not its ``seq``.
        notes: What else is known of it.
    """
    colour = _COLOURS[message.role]
    facts = [*notes, _time(message.created_at)]
    if usage := message.token_usage:
        facts.append(f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens")
        facts += [usage.model] if usage.model else []
        facts += [_cost(usage.cost)] if usage.cost is not None else []
    out.print(
        f"[bold {colour}]{message.role}[/]"
        f" [dim]#{place or message.seq} · {plain(' · '.join(facts))}[/]",
        highlight=False,
    )
    parts = [message.content] if isinstance(message.content, str) else message.content
    for part in parts:
        out.print(_part(part), highlight=False)
    out.print()


def _part(part: str | ContentPart) -> Text:
    if isinstance(part, str):
        return Text(harmless(part))
    if isinstance(part, TextPart):
        return Text(harmless(part.text))
    if isinstance(part, ImagePart):
        where = part.url or f"{len(part.data or ''):,} characters of base64"
        return Text.from_markup(f"[dim]image[/] {plain(where)}")
    if isinstance(part, ToolCallPart):
        return Text.from_markup(f"[dim]calls[/] {plain(part.name)}({_json(part.arguments)})")
    assert isinstance(part, ToolResultPart)  # the union has no other # noqa: S101 # nosec B101
    word = "failed" if part.is_error else "answers"
    said = plain(part.content) if isinstance(part.content, str) else _json(part.content)
    return Text.from_markup(f"[dim]{word} {plain(part.tool_call_id)}:[/] {said}")


def _json(value: Any) -> str:
    text = harmless(json_bytes(value).decode())
    return escape(text if len(text) <= _MANY else f"{text[:_MANY]}…")


def _line(text: str | None) -> str:
    return plain(" ".join((text or "").split()))


def _cost(cost: Decimal | None) -> str:
    return "" if not cost else f"{cost:f}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
