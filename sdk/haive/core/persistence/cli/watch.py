"""`haive watch`: what happens, as it happens."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID  # noqa: TC003 - typer reads the annotations

import typer

from haive.core.persistence.cli.connection import (
    DatabaseUrl,
    Key,
    Schema,
    Tenant,
    Url,
    find_target,
)
from haive.core.persistence.cli.output import err, harmless, out, plain, print_json
from haive.core.persistence.errors import NotFoundError

if TYPE_CHECKING:
    from haive.core.persistence.events import Event
    from haive.core.persistence.models import Message
    from haive.core.persistence.store import Store

# Most messages of an event that are read at once.
_PAGE = 500
_SHOWN = 200


def watch(
    *,
    conversation: Annotated[
        UUID | None, typer.Option(help="Only of this conversation.", show_default=False)
    ] = None,
    session: Annotated[
        UUID | None, typer.Option(help="Only of this session.", show_default=False)
    ] = None,
    thread: Annotated[
        str | None, typer.Option(help="Only checkpoints of this thread.", show_default=False)
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(help="conversations or agent_states; else everything.", show_default=False),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            help="Begin after this cursor; 0 at the oldest that is kept.", metavar="CURSOR"
        ),
    ] = None,
    messages: Annotated[
        bool, typer.Option("--messages", help="Show the messages that were added.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="End after so many events.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, an event a line, for programs.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not say what is heard.")] = False,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Show what happens in a tenant as it happens, until Ctrl-C."""
    wanted = {
        f"conversation:{conversation}": conversation,
        f"session:{session}": session,
        f"thread:{thread}": thread,
        channel or "": channel,
    }
    named = [name for name, value in wanted.items() if value is not None]
    if len(named) > 1:
        raise typer.BadParameter(
            "--conversation, --session, --thread and --channel exclude each other."
        )
    target = find_target(database_url=database_url, url=url, key=key, schema=schema, tenant=tenant)
    heard = named[0] if named else "tenant"

    async def run() -> None:
        async with target.opened(enable_realtime=True) as store:
            tail = asyncio.create_task(_tail(store, heard, after, messages, limit, as_json, quiet))
            loop = asyncio.get_running_loop()
            # Windows has no signal handlers, and no thread but the main one has.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(signal.SIGINT, tail.cancel)
                loop.add_signal_handler(signal.SIGTERM, tail.cancel)
            with suppress(asyncio.CancelledError):
                await tail

    asyncio.run(run())


async def _tail(  # noqa: PLR0917 - as the command has them
    store: Store,
    channel: str,
    after: str | None,
    messages: bool,  # noqa: FBT001 - likewise
    limit: int | None,
    as_json: bool,  # noqa: FBT001 - likewise
    quiet: bool,  # noqa: FBT001 - likewise
) -> None:
    count = 0
    async with store.subscribe(channel, after=after) as events:
        if not quiet:
            err.print(f"Watching {plain(channel)}. Ctrl-C ends.", highlight=False)
        async for event in events:
            said = await _said(store, event) if messages else []
            if as_json:
                print_json(_facts(event, said if messages else None), indent=False)
            else:
                out.print(_line(event), highlight=False)
                for message in said:
                    text = " ".join(message.text.split())
                    more = "…" if len(text) > _SHOWN else ""
                    out.print(
                        f"  [dim]{message.seq}[/] [bold]{plain(message.role)}[/]"
                        f" {plain(text[:_SHOWN])}{more}",
                        highlight=False,
                    )
            count += 1
            if count == limit:
                return


async def _said(store: Store, event: Event) -> list[Message]:
    """The messages that an event tells of; none where they have gone since."""
    if event.kind != "messages.added" or event.first_seq is None or event.last_seq is None:
        return []
    found: list[Message] = []
    after = event.first_seq - 1
    assert event.conversation_id is not None  # noqa: S101 # nosec B101 - of every such event
    while after < event.last_seq:
        try:
            page = await store.get_messages(
                event.conversation_id,
                after=after,
                before=event.last_seq + 1,
                limit=_PAGE,
            )
        except NotFoundError:
            return found
        found += page
        after += _PAGE  # and not by what comes: of a page all may be hidden
    return found


def _facts(event: Event, said: list[Message] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        name: value for name, value in dataclasses.asdict(event).items() if value is not None
    }
    if said is not None:
        facts["messages"] = [message.model_dump(mode="json") for message in said]
    return facts


def _line(event: Event) -> str:
    about = ""
    if event.conversation_id is not None:
        about = str(event.conversation_id)
    elif event.thread is not None:
        about = f"{event.thread}/{event.namespace}" if event.namespace else event.thread
    if event.first_seq is not None:
        places = {event.first_seq, event.last_seq}
        about += " " + "-".join(str(place) for place in sorted(filter(None, places)))
    if event.checkpoint_id is not None:
        about += f" {event.checkpoint_id}"
    when = event.created_at.astimezone().strftime("%H:%M:%S")
    return f"[dim]{when}[/] [cyan]{event.kind:<21}[/] {plain(harmless(about))}"
