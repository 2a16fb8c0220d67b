"""`haive audit`: look at the record of who did what, export it, and prove it unchanged."""

from __future__ import annotations

import asyncio
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from haive.core.persistence.cli.connection import (
    DatabaseUrl,
    Key,
    Schema,
    Tenant,
    Url,
    find_target,
)
from haive.core.persistence.cli.export import opened
from haive.core.persistence.cli.groups import EXIT_CODE
from haive.core.persistence.cli.output import count, err, out, plain, print_json
from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from haive.core.persistence.audit import AuditEntry, AuditHead, Verification
    from haive.core.persistence.cli.connection import Target

audit = typer.Typer(
    name="audit",
    help="Look at the record of who did what, export it, and prove it unchanged.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

# Of the rows that an entry names, as many as fit a line.
_SHOWN = 3


@audit.command()
def tail(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until stopped.")] = False,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Show the last rows of the record, the latest at the end; with --json one a line."""
    target = find_target(database_url=database_url, url=url, key=key, schema=schema, tenant=tenant)

    def show(entry: AuditEntry) -> None:
        if as_json:
            typer.echo(entry.model_dump_json())
        else:
            out.print(_line(entry), highlight=False)

    async def run() -> None:
        from haive.core.persistence.audit import AuditLog  # noqa: PLC0415 - slow

        async with target.logged() as store:
            log = AuditLog(store)
            entries = await log.tail(limit)
            for entry in entries:
                show(entry)
            if not entries and not follow and not as_json:
                out.print("Nothing is on record.")
            if follow:
                async for entry in log.follow(entries[-1].seq if entries else 0):
                    show(entry)

    asyncio.run(run())


@audit.command()
def export(
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", help="A file, packed if it ends in .gz; - for stdout.")
    ] = "-",
    after: Annotated[int, typer.Option(min=0, help="Only what follows this row.")] = 0,
    quiet: Quiet = False,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Write the record as JSON lines, which `haive audit verify FILE` checks anywhere."""
    target = find_target(database_url=database_url, url=url, key=key, schema=schema, tenant=tenant)
    rows = 0

    async def run(write: Callable[[bytes], object], told: Callable[[int], None]) -> None:
        nonlocal rows
        from haive.core.persistence.audit import AuditLog  # noqa: PLC0415 - slow

        async with target.logged() as store:
            rows = -1  # the header
            async for line in AuditLog(store).lines(after):
                write(line)
                rows += 1
                told(rows)

    with opened(output) as file:
        _with_progress(lambda told: asyncio.run(run(file.write, told)), quiet=quiet)
    if not quiet:
        err.print(f"Exported {count(rows, 'row')}.", highlight=False)


@audit.command()
def verify(
    ctx: typer.Context,
    *,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="An export, in place of the database's log."),
    ] = None,
    head: Annotated[
        list[Path] | None,
        typer.Option(help="A head that was kept, of `haive audit head`; may be repeated."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Check the chain of the record; exit code 1, and the first bad row, where it does not hold.

    Exit code 2: it could not be checked.
    """
    ctx.meta[EXIT_CODE] = 2
    from haive.core.persistence.audit import AuditKey, verify_export  # noqa: PLC0415 - slow

    heads = [_read_head(path) for path in head or ()]
    if file is not None:
        found = verify_export(file, heads, key=AuditKey.from_environment())
    else:
        target = find_target(
            database_url=database_url, url=url, key=key, schema=schema, tenant=tenant
        )
        found = _verify_log(target, heads, quiet=quiet)
    if as_json:
        print_json({**found.model_dump(), "finding": found.finding})
    else:
        colour = "green" if found.ok else "red"
        out.print(
            f"[{colour}]{plain(found.tenant)}: {found.finding}.[/] {_measure(found)}",
            highlight=False,
        )
    if not found.ok:
        raise typer.Exit(1)


@audit.command()
def head(
    *,
    sign: Annotated[
        bool, typer.Option("--sign", help="Sign it. (key from env: HAIVE_AUDIT_KEY)")
    ] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="A file; - for stdout.")] = "-",
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Write where the record ends, as JSON: keep it where who writes the database cannot."""
    target = find_target(database_url=database_url, url=url, key=key, schema=schema, tenant=tenant)

    async def run() -> AuditHead:
        from haive.core.persistence.audit import AuditLog  # noqa: PLC0415 - slow

        async with target.logged() as store:
            log = AuditLog(store)
            return await (log.sign_head() if sign else log.head())

    found = asyncio.run(run())
    with opened(output) as file:
        file.write(found.model_dump_json(indent=2, exclude_none=True).encode() + b"\n")


@audit.command(name="key")
def key_command(
    *,
    hmac: Annotated[
        bool, typer.Option("--hmac", help="One key that signs and checks, in place of a pair.")
    ] = False,
) -> None:
    """Print a new key, to sign heads as HAIVE_AUDIT_KEY, and its public part, to check them."""
    from haive.core.persistence.audit import AuditKey  # noqa: PLC0415 - slow

    text = AuditKey.generate("hmac" if hmac else "ed25519")
    typer.echo(text)
    if public := AuditKey(text).public:
        typer.echo(public)


def _verify_log(target: Target, heads: list[AuditHead], *, quiet: bool) -> Verification:
    async def run(told: Callable[[int], None]) -> Verification:
        from haive.core.persistence.audit import AuditLog  # noqa: PLC0415 - slow

        async with target.logged() as store:
            return await AuditLog(store).verify(heads, on_progress=told)

    found: list[Verification] = []
    _with_progress(lambda told: found.append(asyncio.run(run(told))), quiet=quiet)
    return found[0]


def _with_progress(job: Callable[[Callable[[int], None]], object], *, quiet: bool) -> None:
    """Do a job that tells how many rows it has done."""
    from rich.progress import Progress, SpinnerColumn, TextColumn  # noqa: PLC0415 - slow

    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    hidden = quiet or not err.is_terminal
    with Progress(*columns, console=err, transient=True, disable=hidden) as progress:
        task = progress.add_task("")
        job(lambda rows: progress.update(task, description=count(rows, "row")))


def _read_head(path: Path) -> AuditHead:
    from pydantic import ValidationError  # noqa: PLC0415 - slow

    from haive.core.persistence.audit import AuditHead  # noqa: PLC0415 - slow

    try:
        return AuditHead.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError:
        raise InvalidInputError(
            f"{path} is no head of an audit log.", hint="`haive audit head` writes one."
        ) from None


def _measure(found: Verification) -> str:
    if found.heads:
        return f"Held against {count(found.heads, 'head')}."
    return "Held against no head: --head takes one that was kept elsewhere."


def _line(entry: AuditEntry) -> str:
    who = entry.actor or f"{entry.login} as {entry.role}"
    ids = [one for one in entry.rows if one != "more"]
    shown = ", ".join(ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
    where = f" from {entry.address}" if entry.address else ""
    return (
        f"[dim]{entry.seq:>6}  {entry.at:%Y-%m-%d %H:%M:%S}[/]  {plain(who)}{plain(where)}  "
        f"{entry.action} {entry.object} {entry.row_count:,}  [dim]{plain(shown)}[/]"
    )
