"""`haive migrate`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from haive.core.persistence.cli.connection import DatabaseUrl, Schema, find_target
from haive.core.persistence.cli.output import count, err, out, plain, print_json

if TYPE_CHECKING:
    from haive.core.persistence.multitenancy._migrating import (
        TenantMigration,
        TenantMigrationReport,
    )
    from haive.core.persistence.schema import MigrationReport


def migrate(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be applied, and change nothing.")
    ] = False,
    tenants: Annotated[
        bool, typer.Option("--tenants/--no-tenants", help="The schemas of tenants too.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
) -> None:
    """Install the schema, or bring it to this version, and then those of its tenants.

    Any number of processes may do so at once; what is there stays. A tenant whose schema cannot be
    migrated is named, and stops no other: the same command goes on from there.
    """
    target = find_target(database_url=database_url, schema=schema)
    try:
        report, walked = asyncio.run(
            _migrate(target.dsn(), target.schema, dry_run=dry_run, tenants=tenants, quiet=as_json)
        )
    except KeyboardInterrupt:
        err.print("Interrupted. What was migrated stays: the same command goes on from there.")
        raise typer.Exit(130) from None
    if as_json:
        _print_json(report, walked, dry_run=dry_run)
    else:
        _print(report, walked, dry_run=dry_run)
    if walked is not None and walked.failed:
        raise typer.Exit(1)


async def _migrate(
    dsn: str, schema: str, *, dry_run: bool, tenants: bool, quiet: bool
) -> tuple[MigrationReport, TenantMigrationReport | None]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    from haive.core.persistence import schema as schemas  # noqa: PLC0415 - slow
    from haive.core.persistence.errors import SchemaMissingError  # noqa: PLC0415
    from haive.core.persistence.multitenancy._migrating import migrate_tenants  # noqa: PLC0415

    report = await schemas.migrate(dsn, schema=schema, dry_run=dry_run)
    if not tenants:
        return report, None
    shown = err.is_terminal and not quiet
    columns = TextColumn("schemas of tenants"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=err, transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=None)

        def tell(_: TenantMigration, count: int) -> None:
            progress.update(task, total=count, advance=1)

        try:
            walked = await migrate_tenants(dsn, schema=schema, dry_run=dry_run, on_done=tell)
        except SchemaMissingError:
            if not dry_run:
                raise
            return report, None  # nothing is installed yet, so there are no tenants
    return report, walked


def _print_json(
    report: MigrationReport, walked: TenantMigrationReport | None, *, dry_run: bool
) -> None:
    facts: dict[str, object] = {
        "schema": report.schema,
        "applied": report.applied,
        "version": report.version,
    }
    if walked is not None:
        facts["tenants"] = [
            {"tenant_id": one.tenant_id, "schema": one.schema, "applied": one.applied}
            | ({"error": str(one.error)} if one.error else {})
            for one in walked.tenants
        ]
    print_json({**facts, "dry_run": dry_run})


def _print(report: MigrationReport, walked: TenantMigrationReport | None, *, dry_run: bool) -> None:
    verb = "would apply" if dry_run else "applied"
    for name in report.applied:
        out.print(f"{verb} {name}", highlight=False)
    if not report.applied:
        out.print(f"The schema [bold]{report.schema}[/] is at version {report.version} already.")
    elif not dry_run:
        out.print(f"The schema [bold]{report.schema}[/] is now at version {report.version}.")
    if walked is None or not walked.tenants:
        return
    if dry_run:
        for one in walked.changed:
            out.print(f"{verb} {count(len(one.applied), 'migration')} to {one.schema}")
    behind = len(walked.changed)
    current = len(walked.tenants) - behind - len(walked.failed)
    out.print(
        f"Schemas of tenants: {behind:,} {'behind' if dry_run else 'migrated'}, "
        f"{current:,} at this version already."
    )
    for one in walked.failed:
        err.print(
            f"[bold red]Tenant {one.tenant_id}[/] ({one.schema}): {plain(str(one.error))}",
            highlight=False,
        )
