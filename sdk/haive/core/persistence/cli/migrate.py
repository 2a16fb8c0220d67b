"""`haive migrate`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from haive.core.persistence.cli.connection import DatabaseUrl, Schema, find_target
from haive.core.persistence.cli.output import out, print_json


def migrate(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be applied, and change nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
) -> None:
    """Install the schema, or bring it to this version.

    Any number of processes may do so at once; what is there stays.
    """
    from haive.core.persistence import schema as schemas  # noqa: PLC0415 - slow

    target = find_target(database_url=database_url, schema=schema)
    report = asyncio.run(schemas.migrate(target.dsn(), schema=target.schema, dry_run=dry_run))
    if as_json:
        facts = {"schema": report.schema, "applied": report.applied, "version": report.version}
        print_json({**facts, "dry_run": dry_run})
        return
    for name in report.applied:
        out.print(f"{'would apply' if dry_run else 'applied'} {name}", highlight=False)
    if not report.applied:
        out.print(f"The schema [bold]{report.schema}[/] is at version {report.version} already.")
    elif not dry_run:
        out.print(f"The schema [bold]{report.schema}[/] is now at version {report.version}.")
