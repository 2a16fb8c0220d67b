"""`haive import`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from haive.core.persistence.cli.connection import (
    DatabaseUrl,
    Key,
    Schema,
    Target,
    Tenant,
    Url,
    find_target,
)
from haive.core.persistence.cli.output import count, err, out, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress, TaskID

    from haive.core.persistence.importing import ImportReport


class Format(StrEnum):
    """What `--format` takes."""

    AUTO = "auto"
    HAIVE = "haive"
    OPENAI = "openai"
    CHATGPT = "chatgpt"
    DIALOGUES = "dialogues"


def import_command(
    file: Annotated[str, typer.Argument(help="The file, packed or not; - for standard input.")],
    *,
    file_format: Annotated[
        Format, typer.Option("--format", "-f", help="Told by the content if not given.")
    ] = Format.AUTO,
    agent: Annotated[
        str | None,
        typer.Option(help="The agent of all conversations; else the source's agent or model."),
    ] = None,
    user: Annotated[str | None, typer.Option(help="The user of all conversations.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Add a tag; may be repeated.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="A name for what the file is a copy of: sources with the same ids."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and report, and write nothing.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first record that cannot be imported.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Messages written at once.")] = 5_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Import conversations: our exports, OpenAI message lists, ChatGPT's export, dialogues.

    Importing twice makes no duplicates: run it again after an interruption, or when the source
    has grown.
    """
    target = None
    if not dry_run:
        target = find_target(
            database_url=database_url, url=url, key=key, schema=schema, tenant=tenant
        )

    async def run(target: Target | None, tell: Callable[[ImportReport], None]) -> ImportReport:
        from haive.core.persistence.importing import import_file  # noqa: PLC0415 - slow

        async with AsyncExitStack() as opened:
            store = None if target is None else await opened.enter_async_context(target.opened())
            return await import_file(
                file,
                store,
                format=file_format.value,
                agent=agent,
                user=user,
                tags=tag or (),
                source=source,
                dry_run=dry_run,
                strict=strict,
                batch_size=batch_size,
                on_progress=tell,
            )

    try:
        with _progress(shown=not (quiet or as_json)) as progress:
            task = progress.add_task("", total=None, conversations=0, messages=0, speed=0)
            report = asyncio.run(run(target, lambda report: _tell(progress, task, report)))
    except KeyboardInterrupt:
        err.print("Interrupted. What was written stays: run the same command again to go on.")
        raise typer.Exit(130) from None
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)
    if not report.usable:
        raise typer.Exit(1)


def _progress(*, shown: bool) -> Progress:
    from rich.progress import (  # noqa: PLC0415 - slow
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[conversations]:,} conversations"),
        TextColumn("{task.fields[messages]:,} messages"),
        TextColumn("{task.fields[speed]:,.0f}/s"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not (shown and err.is_terminal),
    )


def _tell(progress: Progress, task: TaskID, report: ImportReport) -> None:
    messages = report.messages + report.messages_already_there
    progress.update(
        task,
        completed=report.bytes_read,
        total=report.bytes_total,
        conversations=report.conversations
        + report.grown_conversations
        + report.conversations_already_there,
        messages=messages,
        speed=messages / report.seconds if report.seconds else 0,
    )


def _show(report: ImportReport) -> None:
    did = "Found" if report.dry_run else "Imported"
    out.print(
        f"{did} [bold]{count(report.conversations, 'conversation')}[/],"
        f" [bold]{count(report.messages, 'message')}[/] in {report.seconds:.1f} s"
        f" ({report.messages_per_second:,.0f} messages/s), format {report.format}.",
        highlight=False,
    )
    if report.grown_conversations:
        out.print(
            f"{count(report.grown_conversations, 'conversation')} had grown.", highlight=False
        )
    if report.messages_already_there or report.conversations_already_there:
        out.print(
            f"Already there: {count(report.conversations_already_there, 'conversation')},"
            f" {count(report.messages_already_there, 'message')}.",
            highlight=False,
        )
    if report.tagged_conversations:
        out.print(
            f"Tagged {count(report.tagged_conversations, 'conversation')} that had been there.",
            highlight=False,
        )
    for entry in report.skipped:
        style = "dim" if entry.expected else "yellow"
        where = ", ".join(entry.examples) + (", …" if entry.count > len(entry.examples) else "")
        out.print(
            f"[{style}]Skipped {entry.count:,} ({entry.what}): {plain(entry.reason)}[/]"
            f" [dim]({plain(where)})[/]",
            highlight=False,
        )
    if not report.usable:
        err.print("[red]Nothing in the file could be imported.[/]", highlight=False)
