"""`haive checkpoints`: look at what workflows saved, go back, clean up."""

from __future__ import annotations

import typer

from haive.core.persistence.cli.checkpoints import changing, reading, upkeep

checkpoints = typer.Typer(
    name="checkpoints",
    help="Look at checkpoints, compare, branch and restore them, and clean up.",
    no_args_is_help=True,
)
for command in (
    reading.threads,
    reading.list_command,
    reading.tree,
    reading.show,
    reading.diff,
    reading.restore,
    changing.branch,
    changing.tag,
    changing.untag,
    changing.fail,
    changing.copy,
    changing.delete,
    upkeep.prune,
    upkeep.rotate,
    upkeep.key,
):
    checkpoints.command(name=command.__name__.removesuffix("_command"))(command)

__all__ = ["checkpoints"]
