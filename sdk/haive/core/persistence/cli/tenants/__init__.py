"""`haive tenants`: make, close and look at tenants, and do what their data is owed."""

from __future__ import annotations

import typer

from haive.core.persistence.cli.tenants import managing, membership, subjects, upkeep

tenants = typer.Typer(
    name="tenants",
    help="Make and close tenants, let people in, and keep, hand out and erase their data.",
    no_args_is_help=True,
)
for command in (
    managing.create,
    managing.list_command,
    managing.show,
    managing.usage,
    managing.update,
    managing.suspend,
    managing.resume,
    managing.delete,
    managing.purge,
    membership.members,
    membership.invite,
    membership.invitations,
    subjects.export_user,
    subjects.erase_user,
    upkeep.retention,
    upkeep.reconcile,
    upkeep.scrub,
):
    name = command.__name__.removesuffix("_command").replace("_", "-")
    tenants.command(name=name)(command)

__all__ = ["tenants"]
