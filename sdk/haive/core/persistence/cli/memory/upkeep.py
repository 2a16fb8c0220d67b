"""`haive memory` consolidate, reindex and stats."""

from __future__ import annotations

import re
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haive.core.persistence.cli.conversations import parse_span
from haive.core.persistence.cli.jobs import alone, repeat
from haive.core.persistence.cli.memory.opening import (
    AsJson,
    FilterText,
    Opened,
    User,
    filters_of,
    with_memory,
)
from haive.core.persistence.cli.output import count, err, out, safe_json
from haive.core.persistence.errors import ConflictError

if TYPE_CHECKING:
    from datetime import timedelta

    from haive.core.persistence.vector.memory import VectorMemory
    from haive.core.persistence.vector.models import Consolidation

# Groups that a dry run shows, and of each the memories.
_GROUPS = 50
_MEMBERS = 5
_LONGEST = 90
# As Postgres takes it.
_SIZE = re.compile(r"[1-9][0-9]{0,9} ?(kB|MB|GB|TB)", re.ASCII)


class StrategyName(StrEnum):
    """What `--strategy` takes."""

    HIERARCHICAL = "hierarchical"
    DEDUPE = "dedupe"
    SUMMARIZE = "summarize"


@with_memory
async def consolidate(
    opened: Opened,
    *,
    window: Annotated[
        str | None, typer.Option(help="Only what happened in the last 12h, 7d; all if not given.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="How alike memories are that belong together.")
    ] = 0.85,
    strategy: Annotated[
        StrategyName,
        typer.Option(
            help="hierarchical writes summaries above clusters, dedupe one for several that say the"
            " same, summarize one of each conversation and day."
        ),
    ] = StrategyName.HIERARCHICAL,
    archive: Annotated[
        bool,
        typer.Option("--archive", help="Searches find a summary in place of what it is made of."),
    ] = False,
    archive_important: Annotated[
        bool, typer.Option("--archive-important", help="Important ones (0.7) too; else they stay.")
    ] = False,
    filter_text: FilterText = None,
    user: User = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be put together, and write nothing.")
    ] = False,
    every: Annotated[
        str | None, typer.Option(help="Do it again after so long, until stopped: 90m, 1h, 1d.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make one memory of several that belong together.

    Memories of different users are never put together. Stopped, it goes on when it is called again.
    """
    filters, span = filters_of(filter_text, user), _window(window)
    async with opened.memory() as memory:

        async def once() -> str:
            async with alone(opened.store, f"consolidate {opened.collection}") as is_alone:
                if not (is_alone or dry_run):
                    raise ConflictError(
                        "Another consolidate is at work in this collection.",
                        hint="Wait for it to end.",
                    )
                done = await memory.consolidate_memories(
                    span,
                    similarity_threshold=threshold,
                    consolidation_strategy=strategy.value,
                    preserve_important=not archive_important,
                    archive_originals=archive,
                    filters=filters,
                    dry_run=dry_run,
                )
            if as_json:
                return safe_json(asdict(done))
            shown = [*await _planned(memory, done)] if dry_run else []
            return "\n".join([*shown, _told(done)])

        await repeat(once, every)


def _told(done: Consolidation) -> str:
    from haive.core.persistence.cli.memory.rendering import memories  # noqa: PLC0415 - slow

    sources = sum(len(group.sources) for group in done.plan.groups)
    considered = f"Of {memories(done.plan.considered)}"
    if done.dry_run:
        archived = sum(len(group.archives) for group in done.plan.groups)
        return (
            f"{considered}, {sources:,} would go into {memories(len(done.plan.groups))},"
            f" {archived:,} archived."
        )
    removed = f", {len(done.removed):,} earlier replaced" if done.removed else ""
    return (
        f"{considered}, {sources:,} are in {memories(len(done.created))}"
        f" that stand for several, {len(done.archived):,} archived{removed}."
    )


async def _planned(memory: VectorMemory, done: Consolidation) -> list[str]:
    """The groups with the beginnings of what is in them."""
    shelf = await memory._open()
    lines: list[str] = []
    for group in done.plan.groups[:_GROUPS]:
        above = f", level {group.level}" if group.level > 1 else ""
        lines.append(f"{group.kind.value} of {len(group.sources):,}{above}")
        texts = await shelf.get(group.sources[:_MEMBERS])
        # Summaries of summaries are made of what a dry run has not written.
        lines += [f"  - {_line(one.text)}" for one in texts.values()]
        more = len(group.sources) - len(texts)
        lines += [f"  … {more:,} more"] if more else []
    more = len(done.plan.groups) - _GROUPS
    return [*lines, *([f"… {count(more, 'group')} more"] if more > 0 else []), ""]


def _line(text: str) -> str:
    from haive.core.persistence.checkpointer._text import printable  # noqa: PLC0415 - slow

    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _window(text: str | None) -> timedelta | None:
    span = None if text is None else parse_span(text)
    if text is not None and not span:
        raise typer.BadParameter(f"--window: {text!r} is no span (12h, 7d, 4w).")
    return span


@with_memory
async def reindex(
    opened: Opened,
    *,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="What Postgres may take for it: 512MB, 4GB.")
    ] = "1GB",
    as_json: AsJson = False,
) -> None:
    """Build the indexes that are missing, while others read and write.

    It needs a direct connection as the owner of the tables.
    """
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - slow

    if _SIZE.fullmatch(memory) is None:
        raise typer.BadParameter(f"--memory: {memory!r} is no size (512MB, 4GB).")
    dsn = opened.dsn()
    async with opened.reading() as (_, backend):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
        )
        with Progress(
            *columns, console=err, transient=True, disable=not err.is_terminal
        ) as progress:
            tasks: dict[str, Any] = {}

            def tell(name: str, share: float) -> None:
                if name not in tasks:
                    tasks[name] = progress.add_task(name, total=1.0)
                progress.update(tasks[name], completed=share)

            built = await backend.reindex(connection_string=dsn, memory=memory, progress=tell)
    if as_json:
        typer.echo(safe_json({"built": built}))
    elif built:
        out.print(f"Built: {', '.join(built)}.", highlight=False)
    else:
        out.print("All indexes are there.")


@with_memory
async def stats(opened: Opened, *, as_json: AsJson = False) -> None:
    """Show what a collection has, of which kinds, and how large it is."""
    from haive.core.persistence.checkpointer._text import size_text  # noqa: PLC0415 - slow
    from haive.core.persistence.cli.memory import rendering  # noqa: PLC0415 - slow

    async with opened.reading() as (memory, backend):
        found = await memory.stats()
        size = await backend.stats()
    indexes = {one["name"]: one["bytes"] for one in size["indexes"] if one["valid"]}
    if as_json:
        names = ("words", "different_words", "bytes", "indexes")
        facts = {**asdict(found), **{name: size[name] for name in names}}
        facts["kinds"] = dict(found.kinds)
        typer.echo(safe_json(facts))
        return
    model = "none: found by words" if found.model is None else found.model
    out.print(f"[bold]{found.collection}[/]  {rendering.memories(found.total)}", highlight=False)
    rendering.print_counts(found.kinds)
    said = {
        "vectors": model,
        "width": "" if found.dimensions is None else f"{found.dimensions:,}",
        "archived": f"{found.archived:,}" if found.archived else "",
        "superseded": f"{found.superseded:,}" if found.superseded else "",
        "expired": f"{found.expired:,}" if found.expired else "",
        "words": f"{size['words']:,}, {size['different_words']:,} different",
        "index": "; ".join(f"{name}, {size_text(bytes_)}" for name, bytes_ in indexes.items()),
        "on disk": f"{size_text(size['bytes'])}, all tenants",
    }
    rendering.print_facts(said)
