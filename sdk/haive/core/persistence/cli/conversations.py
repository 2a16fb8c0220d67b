"""`haive conversations`: list, show, export."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from haive.core.persistence.cli.connection import (
    DatabaseUrl,
    Key,
    Schema,
    Tenant,
    Url,
    find_target,
)
from haive.core.persistence.cli.export import Format, export_to
from haive.core.persistence.cli.output import print_json

if TYPE_CHECKING:
    from haive.core.persistence.models import Conversation, Message

conversations = typer.Typer(
    name="conversations", help="Look at conversations, and export them.", no_args_is_help=True
)

User = Annotated[str | None, typer.Option(help="Only this user's.")]
Agent = Annotated[str | None, typer.Option(help="Only this agent's.")]
Tag = Annotated[list[str] | None, typer.Option(help="Only with this tag; may be repeated.")]
Text = Annotated[
    str | None, typer.Option(help="Only with this in the title or a message, in any case.")
]
Since = Annotated[
    str | None,
    typer.Option(help="Only those active since: 2026-01-31, 2026-01-31T12:00+02:00, 90m, 12h, 7d."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Id = Annotated[UUID, typer.Argument(help="The conversation's id.", show_default=False)]

_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@conversations.command(name="list")
def list_command(
    *,
    user: User = None,
    agent: Agent = None,
    tag: Tag = None,
    text: Text = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Show conversations, the one with the latest message first."""
    filters = build_filters(user, agent, tag, text, since)
    target = find_target(database_url=database_url, url=url, key=key, schema=schema, tenant=tenant)

    async def run() -> tuple[list[Conversation], bool]:
        found: list[Conversation] = []
        async with target.opened() as store:
            page_after = None
            while len(found) < limit:
                page = await store.query_conversations(
                    limit=min(limit - len(found), 1_000), filters=filters, page_after=page_after
                )
                found += page
                page_after = page.next_page
                if page_after is None:
                    break
            return found, page_after is not None

    found, more = asyncio.run(run())
    if as_json:
        print_json([one.model_dump(mode="json", exclude={"messages"}) for one in found])
        return
    from haive.core.persistence.cli.rendering import print_table  # noqa: PLC0415 - slow

    print_table(found, more=more)


@conversations.command()
def show(
    conversation_id: Id,
    *,
    last: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Only the last so many messages.")
    ] = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Show who said what in a conversation, and what it cost."""
    from haive.core.persistence.cli.rendering import print_head, print_message  # noqa: PLC0415

    target = find_target(database_url=database_url, url=url, key=key, schema=schema, tenant=tenant)

    async def run() -> None:
        async with target.opened() as store:
            conversation = await store.get_conversation(conversation_id)
            kept: list[Message] = []
            if not as_json:
                print_head(conversation)
            # seq has no gaps: the last ones begin where counting tells.
            after = 0 if last is None else max(conversation.message_count - last, 0)
            async for message in store.iter_messages(conversation_id, after=after):
                if as_json:
                    kept.append(message)
                else:
                    print_message(message)
            if as_json:
                record = conversation.model_dump(mode="json")
                messages = [message.model_dump(mode="json") for message in kept]
                print_json({**record, "messages": messages})

    asyncio.run(run())


@conversations.command()
def export(
    conversation_ids: Annotated[
        list[UUID] | None,
        typer.Argument(metavar="ID", help="Which; without any, all that the filters leave."),
    ] = None,
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", help="A file, packed if it ends in .gz; - is stdout.")
    ] = "-",
    file_format: Annotated[
        Format, typer.Option("--format", "-f", help="haive keeps everything, openai the messages.")
    ] = Format.HAIVE,
    user: User = None,
    agent: Agent = None,
    tag: Tag = None,
    text: Text = None,
    since: Since = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Write conversations as JSON lines, one each, oldest first; `haive import` reads them."""
    filters = build_filters(user, agent, tag, text, since)
    if conversation_ids and filters:
        raise typer.BadParameter("Give ids or filters, not both.")
    target = find_target(database_url=database_url, url=url, key=key, schema=schema, tenant=tenant)
    export_to(
        output,
        target,
        file_format=file_format,
        conversation_ids=conversation_ids or (),
        filters=filters,
        quiet=quiet,
    )


def build_filters(
    user: str | None,
    agent: str | None,
    tags: list[str] | None,
    text: str | None,
    since: str | None,
) -> dict[str, Any]:
    """The options as filters of `Store.query_conversations`."""
    filters = {
        "user_id": user,
        "agent_id": agent,
        "tags": tags or None,
        "text": text,
        "active_after": None if since is None else parse_since(since).isoformat(),
    }
    return {name: value for name, value in filters.items() if value is not None}


def parse_span(text: str) -> timedelta | None:
    """How long: 90m, 12h, 7d; None for anything else."""
    found = _SPAN.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def parse_since(text: str) -> datetime:
    """A date, a time, or how long ago; dates and times without a zone are UTC."""
    try:
        if span := parse_span(text):
            return datetime.now(UTC) - span
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"--since: {text!r} is no date (2026-01-31), time or span (90m, 12h, 7d)."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
