"""`haive memory` search and list."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from haive.core.persistence.cli.memory.opening import (
    AsJson,
    FilterText,
    Opened,
    User,
    filters_of,
    with_memory,
)
from haive.core.persistence.cli.output import out, safe_json


@with_memory
async def search(
    opened: Opened,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="In any words.", show_default=False)
    ],
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000, help="How many.")] = 10,
    filter_text: FilterText = None,
    user: User = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Read the best ones again: better, and slower.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what each signal gave to a score.")
    ] = False,
    as_of: Annotated[
        str | None, typer.Option(help="What held then: 2026-01-31, 2026-01-31T12:00+02:00.")
    ] = None,
    archived: Annotated[
        bool, typer.Option("--archived", help="Archived memories too; else they are passed over.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the memories that answer a query best, the best first."""
    from haive.core.persistence.cli.memory import rendering  # noqa: PLC0415 - slow

    filters, when = filters_of(filter_text, user), _moment(as_of)
    async with opened.memory() as memory:
        hits = await memory.search(
            query,
            limit,
            filters,
            rerank=rerank,
            explain=explain,
            as_of=when,
            include_archived=archived,
        )
    if as_json:
        typer.echo(safe_json([rendering.hit_as_dict(hit) for hit in hits]))
    else:
        rendering.print_hits(hits)


@with_memory
async def list_command(
    opened: Opened,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000, help="How many.")] = 100,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what comes after this one.")
    ] = None,
    filter_text: FilterText = None,
    user: User = None,
    as_json: AsJson = False,
) -> None:
    """Show all that is remembered, what was said first first."""
    from haive.core.persistence.cli.memory import rendering  # noqa: PLC0415 - slow

    filters = filters_of(filter_text, user)
    async with opened.reading() as (memory, _):
        found = await memory.list_memories(filters=filters, limit=limit, after=after)
    if as_json:
        typer.echo(safe_json([rendering.memory_as_dict(each) for each in found]))
        return
    rendering.print_memories(found)
    if len(found) == limit:
        out.print(f"There may be more: --after {found[-1].id}", style="dim", highlight=False)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"--as-of: {text!r} is no date nor time.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
