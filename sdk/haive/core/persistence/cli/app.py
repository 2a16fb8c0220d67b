"""The root of the command line; each command imports what it needs when it runs."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from haive.core.persistence.cli.audit import audit
from haive.core.persistence.cli.checkpoints import checkpoints
from haive.core.persistence.cli.conversations import conversations
from haive.core.persistence.cli.groups import RootGroup
from haive.core.persistence.cli.import_command import import_command
from haive.core.persistence.cli.memory import memory
from haive.core.persistence.cli.migrate import migrate
from haive.core.persistence.cli.sessions import sessions
from haive.core.persistence.cli.tenants import tenants
from haive.core.persistence.cli.watch import watch

app = typer.Typer(
    name="haive",
    cls=RootGroup,
    help="Durable conversations for AI agents, on Postgres and Supabase.",
    no_args_is_help=True,
    # Its tracebacks show local variables, and those are keys and messages.
    pretty_exceptions_enable=False,
)
app.command(name="import")(import_command)
app.add_typer(conversations)
app.add_typer(checkpoints)
app.add_typer(sessions)
app.add_typer(memory)
app.add_typer(audit)
app.add_typer(tenants)
app.command()(watch)
app.command()(migrate)


def _print_version(value: bool) -> None:  # noqa: FBT001 - called by typer
    if not value:
        return
    try:
        typer.echo(f"haive {importlib.metadata.version('haive-persistence')}")
    except importlib.metadata.PackageNotFoundError:
        typer.echo("haive, from a checkout that is not installed")
    raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    import dotenv  # noqa: PLC0415 - not for --help and --version

    # What the environment has stays as it is.
    dotenv.load_dotenv(dotenv.find_dotenv(usecwd=True))
