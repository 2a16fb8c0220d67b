"""`haive checkpoints` prune, rotate and key."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haive.core.persistence.cli.checkpoints.opening import (
    AsJson,
    Session,
    find_thread,
    with_session,
)
from haive.core.persistence.cli.conversations import parse_span
from haive.core.persistence.cli.output import count, err, out, plain, safe_json
from haive.core.persistence.errors import (
    CheckpointError,
    ConfigurationError,
    ConflictError,
    PersistenceError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from haive.core.persistence.checkpointer import Checkpointer
    from haive.core.persistence.checkpointer._failures import Failures

_PAGE = 1_000
_MOST_DAYS = 365_000

OneThread = Annotated[
    str | None, typer.Argument(metavar="THREAD", help="Only this thread.", show_default=False)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@dataclass(frozen=True, kw_only=True)
class _Report:
    """What one round of pruning did, or would do, thread by thread."""

    dry_run: bool
    failures: Failures
    threads: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "dry_run": self.dry_run,
            "removed": self.total("removed"),
            "rewritten": self.total("rewritten"),
            "threads": self.threads,
        }

    def total(self, what: str) -> int:
        return sum(one[what] for one in self.threads)

    def show(self) -> None:
        verb = "would go" if self.dry_run else "went"
        if self.dry_run:
            for one in self.threads:
                out.print(
                    f"{plain(one['thread_id'])}: {count(one['removed'], 'checkpoint')}",
                    highlight=False,
                )
        out.print(
            f"{count(self.total('removed'), 'checkpoint')} of"
            f" {count(len(self.threads), 'thread')} {verb},"
            f" {count(self.total('rewritten'), 'checkpoint')} stored anew.",
            highlight=False,
        )


@with_session
async def prune(
    session: Session,
    thread: OneThread = None,
    *,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Keep the newest so many of each thread.")
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="Remove what is older than so many days.")
    ] = None,
    keep_minimum: Annotated[
        int, typer.Option(min=0, help="The newest so many stay, however old.")
    ] = 1,
    failed: Annotated[
        bool, typer.Option("--failed", help="Failed ones too; else they stay.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go, and remove nothing.")
    ] = False,
    every: Annotated[
        str | None, typer.Option(help="Do it again after so long, until stopped: 90m, 1h, 1d.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Remove old checkpoints; what stays is stored anew where it has to be.

    The head of each branch always stays.
    """
    if keep is None and days is None:
        raise typer.BadParameter("Say what shall go: --keep, --days, or both.")
    if days is not None and not 0 < days <= _MOST_DAYS:
        raise typer.BadParameter(f"--days is a number above 0, up to {_MOST_DAYS:,}.")
    if keep is not None and keep_minimum > keep:
        raise typer.BadParameter("--keep-minimum is more than --keep.")
    pause = None if every is None else _pause(every)
    checkpointer = session.checkpointer(
        max_checkpoints_per_thread=keep,
        retention_days=days,
        keep_failed_states=not failed,
        keep_minimum=keep_minimum,
    )
    while True:
        try:
            report = await _prune_once(session, checkpointer, thread, dry_run=dry_run, quiet=quiet)
            if pause is not None and not as_json:
                out.print(_now(), end="", highlight=False)
            if as_json:
                typer.echo(safe_json(report.as_dict()))
            else:
                report.show()
            report.failures.check(one=thread is not None)
        except PersistenceError as error:
            passing = error.retryable or isinstance(error, ConflictError | CheckpointError)
            if pause is None or not passing:
                raise
            err.print(f"[yellow]{_now()}{plain(str(error))}[/]", highlight=False)
        if pause is None:
            return
        await asyncio.sleep(pause.total_seconds())


async def _prune_once(
    session: Session, checkpointer: Checkpointer, thread: str | None, *, dry_run: bool, quiet: bool
) -> _Report:
    from haive.core.persistence.checkpointer._failures import Failures  # noqa: PLC0415 - slow

    report = _Report(dry_run=dry_run, failures=Failures())
    names = await _names(checkpointer, thread)
    async with session.alone("prune") as is_alone:
        if not (is_alone or dry_run):
            raise ConflictError(
                "Another prune is at work in this tenant.", hint="Wait for it to end."
            )
        with _progress(len(names), quiet=quiet) as tell:
            for name in names:
                with report.failures.of(name):
                    done = await checkpointer.prune(name, dry_run=dry_run)
                    if done.removed:
                        facts = {"removed": done.removed, "rewritten": done.rewritten}
                        report.threads.append({"thread_id": name, **facts})
                tell()
    return report


@with_session
async def rotate(
    session: Session,
    thread: OneThread = None,
    *,
    seal_plain: Annotated[
        bool, typer.Option("--seal-plain", help="What was saved before there was a key, too.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Seal checkpoints with the first key of the ring; it may be repeated at any time."""
    if session.ring is None:
        raise ConfigurationError(
            "There is no key to seal with.",
            hint="Set CHECKPOINT_KEY to the new key and the old ones, separated by commas.",
        )
    from haive.core.persistence.checkpointer._failures import Failures  # noqa: PLC0415 - slow

    checkpointer = session.checkpointer()
    names = await _names(checkpointer, thread)
    sealed = 0
    failures = Failures()
    with _progress(len(names), quiet=quiet) as tell:
        for name in names:
            with failures.of(name):
                sealed += await checkpointer.rotate_keys(name, seal_plain=seal_plain)
            tell()
    if as_json:
        typer.echo(safe_json({"threads": len(names), "sealed": sealed}))
    else:
        out.print(
            f"{count(sealed, 'checkpoint')} of {count(len(names), 'thread')} sealed anew.",
            highlight=False,
        )
    failures.check(one=thread is not None)


def key() -> None:
    """Print a new encryption key."""
    from haive.core.persistence.checkpointer import KeyRing  # noqa: PLC0415 - slow

    typer.echo(KeyRing.generate())


async def _names(checkpointer: Checkpointer, thread: str | None) -> list[str]:
    """The threads that a command works on."""
    if thread is not None:
        return [(await find_thread(checkpointer, thread, None)).thread_id]
    names: list[str] = []
    while page := await checkpointer.list_threads(limit=_PAGE, after=names[-1] if names else None):
        names += [one.thread_id for one in page]
    return names


def _pause(text: str) -> timedelta:
    span = parse_span(text)
    if not span:
        raise typer.BadParameter(f"--every: {text!r} is no span (90m, 1h, 1d).")
    return span


def _now() -> str:
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} "


@contextmanager
def _progress(threads: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar over the threads, and how to tell that one is done."""
    from rich.progress import (  # noqa: PLC0415 - slow
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("threads"), TimeRemainingColumn())
    hidden = quiet or not err.is_terminal
    with Progress(*columns, console=err, transient=True, disable=hidden) as progress:
        task = progress.add_task("", total=threads)
        yield lambda: progress.advance(task)
