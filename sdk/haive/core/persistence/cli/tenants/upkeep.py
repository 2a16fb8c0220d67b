"""`haive tenants` retention, reconcile and scrub."""

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
    from collections.abc import Awaitable, Callable

    from haive.core.persistence.multitenancy import Tenant, TenantManager


OneTenant = Annotated[
    str | None,
    typer.Argument(
        metavar="TENANT", help="Only this tenant; else all of them.", show_default=False
    ),
]
Every = Annotated[
    str | None, typer.Option(help="Do it again after so long, until stopped: 90m, 1h, 1d.")
]


@with_manager
async def retention(
    manager: TenantManager,
    tenant: OneTenant = None,
    *,
    every: Every = None,
    as_json: AsJson = False,
) -> None:
    """Delete what tenants do not keep any longer."""

    async def delete(one: Tenant) -> dict[str, Any] | None:
        done = await manager.apply_retention(one.tenant_id)
        if tenant is None and done.before is None and not done.counts:
            return None
        return {"tenant_id": one.tenant_id, "before": done.before, "counts": dict(done.counts)}

    await _again(manager, tenant, every, delete, print_json if as_json else _tell)


@with_manager
async def reconcile(
    manager: TenantManager,
    tenant: OneTenant = None,
    *,
    every: Every = None,
    as_json: AsJson = False,
) -> None:
    """Count anew what tenants use, and mend what is kept of it."""

    async def count_anew(one: Tenant) -> dict[str, Any] | None:
        if tenant is None and not one.metered:
            return None
        return (await manager.reconcile_usage(one.tenant_id)).model_dump()

    await _again(manager, tenant, every, count_anew, print_json if as_json else _tell_drift)


async def _again(
    manager: TenantManager,
    tenant: str | None,
    every: str | None,
    job: Callable[[Tenant], Awaitable[dict[str, Any] | None]],
    tell: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Do a job in one tenant or in all that are open, and, if asked, again and again."""
    pause = None if every is None else parse_span(every)
    if every is not None and not pause:
        raise typer.BadParameter(f"--every: {every!r} is no span (90m, 1h, 1d).")
    while True:
        try:
            report, failed = await _in_each(manager, tenant, job)
            if pause is not None and tell is not print_json:
                out.print(_now(), end="", highlight=False)
            tell(report)
        except PersistenceError as error:
            if pause is None or not (error.retryable or isinstance(error, ConflictError)):
                raise
            err.print(f"[yellow]{_now()}{plain(str(error))}[/]", highlight=False)
        if pause is None:
            if failed:
                raise typer.Exit(1)
            return
        await asyncio.sleep(pause.total_seconds())


async def _in_each(
    manager: TenantManager,
    tenant: str | None,
    job: Callable[[Tenant], Awaitable[dict[str, Any] | None]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """What a job reports of which tenants, and in which of them it failed."""
    from haive.core.persistence.multitenancy import TenantStatus  # noqa: PLC0415 - slow

    if tenant is not None:
        done = await job(await manager.get_tenant(tenant))
        return ([] if done is None else [done]), []
    report: list[dict[str, Any]] = []
    failed: list[str] = []
    for one in [each async for each in manager.list_tenants(status=TenantStatus.ACTIVE)]:
        try:
            done = await job(one)
        except TenantError:
            continue  # closed since the list was made
        except PersistenceError as error:
            # What is wrong with one keeps nobody else's data.
            failed.append(one.tenant_id)
            err.print(f"[red]{plain(one.tenant_id)}: {plain(str(error))}[/]", highlight=False)
            continue
        if done is not None:
            report.append(done)
    return report, failed


def _tell_drift(report: list[dict[str, Any]]) -> None:
    for one in report:
        out.print(
            f"{plain(one['tenant_id'])}: {count(one['conversations'], 'conversation')}"
            f" ({one['conversations_drift']:+,}), {count(one['storage'], 'byte')}"
            f" ({one['storage_drift']:+,}).",
            highlight=False,
        )
    if not report:
        out.print("No tenant is metered.")


def _tell(report: list[dict[str, Any]]) -> None:
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
