"""The root group: sub-commands that are imported when they are called, and errors as sentences."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from haive.core.persistence.cli.output import err, plain
from haive.core.persistence.errors import PersistenceError

# Each is a package with a `cli` that has an `app`; one that is not installed is not listed.
_LAZY = {
    "bench": "haive.core.persistence.bench",
    "local": "haive.core.persistence.local",
}
# Where a command says what its exit code is when it fails, if 1 means something else.
EXIT_CODE = "haive.exit_code"


class RootGroup(TyperGroup):
    """The commands of `haive`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        found = (name for name, package in _LAZY.items() if find_spec(package) is not None)
        return sorted({*super().list_commands(ctx), *found})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, imported now if it is one of a package of its own."""
        package = _LAZY.get(cmd_name)
        if package is None or find_spec(package) is None:
            return super().get_command(ctx, cmd_name)
        group = get_group(import_module(f"{package}.cli").app)
        group.name = cmd_name
        return group

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error of ours is a sentence and exit code 1."""
        try:
            return super().invoke(ctx)
        except PersistenceError as error:
            if os.environ.get("HAIVE_DEBUG") == "1":
                raise
            err.print(f"[red]Error:[/] {plain(error.message)}", highlight=False)
            if error.hint:
                err.print(f"[red]{plain(error.hint)}[/]", highlight=False)
            raise typer.Exit(ctx.meta.get(EXIT_CODE, 1)) from error
