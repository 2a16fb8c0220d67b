"""`haive tenants` members, invite and invitations."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, cast
from uuid import UUID  # noqa: TC003 - typer reads the annotations

import typer

from haive.core.persistence.cli.output import out, plain, print_json
from haive.core.persistence.cli.tenants.opening import AsJson, TenantId, with_manager

if TYPE_CHECKING:
    from haive.core.persistence.multitenancy import TenantManager
    from haive.core.persistence.store import Role


class RoleName(StrEnum):
    """What `--role` takes."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    READER = "reader"


@with_manager
async def members(
    manager: TenantManager,
    tenant: TenantId,
    *,
    set_roles: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="USER=ROLE", help="Add a user, or change the role; may be repeated."
        ),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="USER", help="Remove a user; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show who belongs to a tenant, after adding, changing and removing."""
    from haive.core.persistence.multitenancy import Members  # noqa: PLC0415 - slow

    wanted = [_pair(text) for text in set_roles or ()]
    async with manager.tenant_context(tenant) as store:
        team = Members(store)
        for user, role in wanted:
            await team.set_role(user, role)
        for user in remove or ():
            await team.remove(user)
        found = await team.list()
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    for one in found:
        out.print(f"{one.role:<7} {plain(one.user_id)}", highlight=False)
    if not found:
        out.print("No members.")


@with_manager
async def invite(
    manager: TenantManager,
    tenant: TenantId,
    *,
    role: Annotated[RoleName, typer.Option(help="What they become.")] = RoleName.MEMBER,
    label: Annotated[str | None, typer.Option(help="Whom it is for: an address, a name.")] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="For how long it can be accepted.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Invite somebody to a tenant, and print the token to accept it with: it is shown this once."""
    from haive.core.persistence.multitenancy import Members  # noqa: PLC0415 - slow

    async with manager.tenant_context(tenant) as store:
        made = await Members(store).invite(role.value, label=label, expires_in=timedelta(days=days))
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    until = f"{made.expires_at.astimezone():%Y-%m-%d %H:%M}"
    out.print(f"Until {until}, whoever is signed in becomes a {role.value} with:", highlight=False)
    typer.echo(made.token)


@with_manager
async def invitations(
    manager: TenantManager,
    tenant: TenantId,
    *,
    revoke: Annotated[
        list[UUID] | None, typer.Option(metavar="ID", help="Take it back; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the invitations to a tenant, after taking some back."""
    from haive.core.persistence.multitenancy import Members  # noqa: PLC0415 - slow

    async with manager.tenant_context(tenant) as store:
        team = Members(store)
        for unwanted in revoke or ():
            await team.revoke(unwanted)
        found = await team.invitations()
    if as_json:
        print_json([one.model_dump(mode="json", exclude={"token"}) for one in found])
        return
    for one in found:
        label = plain(one.label or one.accepted_by or "")
        out.print(f"{one.id} {one.status:<8} {one.role:<7} {label}", highlight=False)
    if not found:
        out.print("No invitations.")


def _pair(text: str) -> tuple[str, Role]:
    user, _, role = text.rpartition("=")
    if not user or role not in {one.value for one in RoleName}:
        raise typer.BadParameter(
            f"--set: {text!r} is not USER=ROLE, with owner, admin, member or reader."
        )
    return user, cast("Role", role)
