"""`haive local`: a stack in the background, for development."""

from __future__ import annotations

import asyncio
import json
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from haive.core.persistence.errors import LocalStackError
from haive.core.persistence.local.machine import check_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haive.core.persistence.local.instances import Instance

app = typer.Typer(
    name="local",
    help="Run Postgres, REST, Auth, Storage and Realtime on this machine, without containers.",
    no_args_is_help=True,
)
_out = Console(soft_wrap=True)
_err = Console(stderr=True, soft_wrap=True)

Name = Annotated[str, typer.Option("--name", "-n", help="Which stack: each has its own data.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Migrate = Annotated[
    bool, typer.Option("--migrate/--no-migrate", help="Install the schema haive, or leave it out.")
]


@app.command()
def start(name: Name = "default", migrate: Migrate = True) -> None:  # noqa: FBT002 - a CLI flag
    """Start a stack in the background and show how to reach it.

    Its data, keys and, where they are free, ports are those of the last time.
    """
    with _instance(name) as instance:
        if not asyncio.run(instance.start(migrate=migrate)):
            _out.print(f"The stack [bold]{name}[/] runs already.")
        _show(instance)


@app.command()
def stop(name: Name = "default") -> None:
    """Stop a stack; its data stays."""
    with _instance(name) as instance:
        stopped = instance.stop()
        _out.print(f"Stopped {name}." if stopped else f"The stack {name} does not run.")


@app.command()
def status(name: Name = "default", as_json: AsJson = False) -> None:  # noqa: FBT002 - a CLI flag
    """Show whether a stack runs, and how to reach it. Exit code 0 if it runs, 3 if not."""
    with _instance(name) as instance:
        facts = instance.status()
        if as_json:
            print(json.dumps(facts, indent=2))  # noqa: T201 - no colours, no wrapping
        elif facts["running"]:
            _show(instance)
        else:
            _out.print(
                f"The stack [bold]{name}[/] does not run. Start it: haive local start --name {name}"
            )
    if not facts["running"]:
        raise typer.Exit(3)


@app.command()
def env(name: Name = "default", as_json: AsJson = False) -> None:  # noqa: FBT002 - a CLI flag
    """Print a running stack's environment variables: eval "$(haive local env)"."""
    with _instance(name) as instance:
        variables = instance.environment()
    if as_json:
        print(json.dumps(variables, indent=2))  # noqa: T201 - no colours, no wrapping
        return
    for variable, value in variables.items():
        print(f"export {variable}={shlex.quote(value)}")  # noqa: T201 - as it goes to the shell


@app.command()
def reset(
    name: Name = "default",
    migrate: Migrate = True,  # noqa: FBT002 - a CLI flag
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,  # noqa: FBT002
) -> None:
    """Remove all of a stack's data. A running one starts again, empty, with the same keys."""
    with _instance(name) as instance:
        if not yes:
            typer.confirm(f"Remove all data in {instance.data_dir}?", abort=True)
        was_running = instance.stop()
        instance.wipe()
        _out.print(f"Removed the data of {name}.")
        if was_running:
            asyncio.run(instance.start(migrate=migrate))
            _show(instance)


@contextmanager
def _instance(name: str) -> Iterator[Instance]:
    """Hand out the stack; an error is a sentence and exit code 1."""
    try:
        check_machine()
        from haive.core.persistence.local.instances import (  # noqa: PLC0415 - after the check
            Instance,
        )

        yield Instance.named(name)
    except LocalStackError as error:
        _err.print(f"[red]Error:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error


def _show(instance: Instance) -> None:
    facts = instance.status()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # never shortened: it is there to be copied
    for label, key in (
        ("API", "url"),
        ("Publishable key", "publishable_key"),
        ("Secret key", "secret_key"),
        ("Database", "database_url"),
        ("Data", "data_dir"),
    ):
        table.add_row(f"[bold]{label}[/]", facts[key])
    services = ", ".join(f"{name} {state}" for name, state in facts["services"].items())
    table.add_row("[bold]Services[/]", services)
    _out.print(Panel(table, title=f"haive local: {instance.name}", expand=False))
    _out.print(f'eval "$(haive local env --name {instance.name})"', style="dim", highlight=False)
