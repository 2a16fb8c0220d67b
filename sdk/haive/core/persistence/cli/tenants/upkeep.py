"""`haive tenants` retention and scrub."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haive.core.persistence.cli.connection import DatabaseUrl, Schema, find_target
from haive.core.persistence.cli.conversations import parse_span
from haive.core.persistence.cli.output import count, err, out, plain, print_json
from haive.core.persistence.cli.tenants.opening import AsJson, Yes, with_manager
from haive.core.persistence.errors import ConflictError, PersistenceError, TenantError

if TYPE_CHECKING:
    from haive.core.persistence.multitenancy import TenantManager


@with_manager
async def retention(
    manager: TenantManager,
    tenant: Annotated[
        str | None,
        typer.Argument(
            metavar="TENANT",
            help="Only this tenant; else all of them.",
            show_default=False,
        ),
    ] = None,
    *,
    every: Annotated[
        str | None, typer.Option(help="Do it again after so long, until stopped: 90m, 1h, 1d.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete what tenants do not keep any longer."""
    pause = None if every is None else parse_span(every)
    if every is not None and not pause:
        raise typer.BadParameter(f"--every: {every!r} is no span (90m, 1h, 1d).")
    while True:
        try:
            report, failed = await _apply(manager, tenant)
            if as_json:
                print_json(report)
            else:
                _tell(report, with_time=pause is not None)
        except PersistenceError as error:
            if pause is None or not (error.retryable or isinstance(error, ConflictError)):
                raise
            err.print(f"[yellow]{_now()}{plain(str(error))}[/]", highlight=False)
        if pause is None:
            if failed:
                raise typer.Exit(1)
            return
        await asyncio.sleep(pause.total_seconds())


async def _apply(
    manager: TenantManager, tenant: str | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """What was deleted of which tenants, and which of them failed."""
    from haive.core.persistence.multitenancy import TenantStatus  # noqa: PLC0415 - slow

    if tenant is not None:
        names = [tenant]
    else:
        # Those that keep everything do not keep their events.
        tenants = manager.list_tenants(status=TenantStatus.ACTIVE)
        names = [one.tenant_id async for one in tenants]
    report: list[dict[str, Any]] = []
    failed: list[str] = []
    for name in names:
        try:
            done = await manager.apply_retention(name)
        except TenantError:
            if tenant is not None:
                raise
            continue  # closed since the list was made
        except PersistenceError as error:
            if tenant is not None:
                raise
            # What is wrong with one keeps nobody else's data.
            failed.append(name)
            err.print(f"[red]{plain(name)}: {plain(str(error))}[/]", highlight=False)
            continue
        if tenant is None and done.before is None and not done.counts:
            continue
        report.append({"tenant_id": name, "before": done.before, "counts": dict(done.counts)})
    return report, failed


def _tell(report: list[dict[str, Any]], *, with_time: bool) -> None:
    if with_time:
        out.print(_now(), end="", highlight=False)
    for one in report:
        if one["before"] is None and not one["counts"]:
            out.print(f"{plain(one['tenant_id'])} keeps everything.", highlight=False)
            continue
        gone = ", ".join(
            f"{number:,} {name.replace('_', ' ')}" for name, number in sorted(one["counts"].items())
        )
        out.print(f"{plain(one['tenant_id'])}: {gone or 'nothing to delete'}.", highlight=False)
    if not report:
        out.print("Nothing to delete, and no tenant has data_retention_days.")


def scrub(
    *,
    yes: Yes = False,
    lock_timeout: Annotated[
        str, typer.Option(help="How long a table in use is waited for.")
    ] = "30s",
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
) -> None:
    """Overwrite what deleted rows have left in the server's files.

    Locks each table while it is written anew, and needs a direct connection as their owner; for the
    write-ahead log, as a superuser.
    """
    from haive.core.persistence.multitenancy import scrub as overwrite  # noqa: PLC0415 - slow

    target = find_target(database_url=database_url, schema=schema)
    dsn = target.dsn()
    if not yes:
        typer.confirm(
            f"Write all tables of {target.schema} anew? Each is locked meanwhile.", abort=True
        )
    done = asyncio.run(overwrite(dsn, schema=target.schema, lock_timeout=lock_timeout))
    if as_json:
        print_json(
            {
                "tables": done.tables,
                "columns": done.columns,
                "wal_segments": done.wal_segments,
                "left": done.left,
            }
        )
    else:
        out.print(
            f"{count(done.tables, 'table')} written anew, statistics of"
            f" {count(done.columns, 'column')} forgotten,"
            f" {count(done.wal_segments, 'segment')} of the log run through.",
            highlight=False,
        )
        for one in done.left:
            err.print(f"[yellow]Left: {plain(one)}[/]", highlight=False)
    if done.left:
        raise typer.Exit(1)


def _now() -> str:
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} "
