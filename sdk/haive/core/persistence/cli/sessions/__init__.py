"""`haive sessions`: look at sessions, branch and merge them, say who may do what, clean up."""

from __future__ import annotations

import typer

from haive.core.persistence.cli.sessions import changing, merging, people, reading, upkeep

sessions = typer.Typer(
    name="sessions",
    help="Look at sessions, branch and merge them, and say who may do what.",
    no_args_is_help=True,
)
for command in (
    reading.list_command,
    reading.show,
    reading.tree,
    changing.create,
    changing.branch,
    merging.merge,
    merging.undo,
    merging.merges,
    changing.close,
    changing.resume,
    changing.delete,
    people.participants,
    people.hide,
    people.show_message,
    upkeep.expire,
):
    name = command.__name__.removesuffix("_command").replace("_", "-")
    sessions.command(name=name)(command)

__all__ = ["sessions"]
