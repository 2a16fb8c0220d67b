"""`haive memory`: search and list what is remembered, add, forget, tidy up, and draw it."""

from __future__ import annotations

import typer

from haive.core.persistence.cli.memory import adding, forgetting, mapping, searching, upkeep

memory = typer.Typer(
    name="memory",
    help="Search what is remembered, add and forget, tidy up, and draw a map of it.",
    no_args_is_help=True,
)
for command in (
    searching.search,
    searching.list_command,
    adding.add,
    forgetting.forget,
    upkeep.consolidate,
    upkeep.reindex,
    upkeep.stats,
    mapping.map_command,
):
    memory.command(name=command.__name__.removesuffix("_command"))(command)

__all__ = ["memory"]
