"""`haive tenants` export-user and erase-user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from haive.core.persistence.cli.checkpoints.opening import KeyFile, read_ring
from haive.core.persistence.cli.output import count, harmless, out, plain, print_json
from haive.core.persistence.cli.tenants.opening import (
    AsJson,
    TenantId,
    UserId,
    Yes,
    with_manager,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haive.core.persistence.multitenancy import TenantManager


@with_manager
async def export_user(
    manager: TenantManager,
    tenant: TenantId,
    user: UserId,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The zip; if not given, user-export.zip here."),
    ] = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Write what a tenant holds about a user to a zip of JSON lines."""
    from haive.core.persistence.checkpointer import (  # noqa: PLC0415 - slow
        CheckpointConfig,
        Checkpointer,
    )
    from haive.core.persistence.multitenancy import Subjects  # noqa: PLC0415 - slow

    config = CheckpointConfig(encryption_key=read_ring(key_file))
    async with manager.tenant_context(tenant) as store:
        subjects = Subjects(store, Checkpointer(store, config))
        done = await subjects.export(user, output or Path("user-export.zip"))
    if as_json:
        facts = {"counts": dict(done.counts), "unreadable": done.unreadable}
        print_json({"path": str(done.path), **facts})
        return
    _tell(done.counts)
    if done.unreadable:
        out.print(
            f"{count(done.unreadable, 'state')} could not be read: see --key-file.",
            highlight=False,
        )
    out.print(f"Written to {plain(str(done.path))}.", highlight=False)


@with_manager
async def erase_user(
    manager: TenantManager,
    tenant: TenantId,
    user: UserId,
    *,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Erase a user from a tenant, and refuse to store anything about them again.

    Run it again where it was interrupted. What deleted rows leave in the server's files stays until
    `haive tenants scrub`.
    """
    from haive.core.persistence.multitenancy import Subjects  # noqa: PLC0415 - slow

    async with manager.tenant_context(tenant) as store:
        if not yes:
            typer.confirm(
                f"Erase all that {tenant} holds about {harmless(user)}? This cannot be undone.",
                abort=True,
            )
        done = await Subjects(store).erase(user)
    if as_json:
        print_json(
            {
                "counts": dict(done.counts),
                "erased_at": done.erased_at,
                "finished_at": done.finished_at,
            }
        )
        return
    _tell(done.counts)
    out.print("Nothing is stored about them any more.")


def _tell(counts: Mapping[str, int]) -> None:
    for name, number in sorted(counts.items()):
        out.print(f"{number:>9,} {name.replace('_', ' ')}", highlight=False)
