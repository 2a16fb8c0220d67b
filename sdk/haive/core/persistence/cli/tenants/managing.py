"""`haive tenants` create, list, show, usage, update, suspend, resume, delete and purge."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haive.core.persistence.cli.connection import manager_of
from haive.core.persistence.cli.output import count, out, plain, print_json
from haive.core.persistence.cli.tenants.opening import AsJson, TenantId, Yes, with_manager

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.multitenancy import ResourceQuota, Tenant, TenantManager


class Status(StrEnum):
    """What `--status` takes."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    MOVING = "moving"
    DELETED = "deleted"


class Audit(StrEnum):
    """What `--audit` takes."""

    OFF = "off"
    WRITES = "writes"
    ALL = "all"


class Compliance(StrEnum):
    """What `--compliance` takes."""

    HIPAA = "HIPAA"
    GDPR = "GDPR"
    SOC2 = "SOC2"


Name = Annotated[str | None, typer.Option(help="Its name, for people.")]
Timezone = Annotated[
    str | None, typer.Option(help="Where its days and months begin: America/New_York.")
]
Days = Annotated[int | None, typer.Option(min=1, help="Delete what is older than so many days.")]
Mode = Annotated[Compliance | None, typer.Option(help="A mode of compliance.")]
HowAudited = Annotated[Audit | None, typer.Option(help="What goes on record.")]
_QUOTA = "Quota"
Conversations = Annotated[
    int | None, typer.Option(min=0, help="Most conversations.", rich_help_panel=_QUOTA)
]
Storage = Annotated[
    float | None, typer.Option(min=0, help="Most storage, in 10⁹ bytes.", rich_help_panel=_QUOTA)
]
Requests = Annotated[
    int | None, typer.Option(min=0, help="Most requests a minute.", rich_help_panel=_QUOTA)
]
Tokens = Annotated[
    int | None, typer.Option(min=0, help="Most tokens a month.", rich_help_panel=_QUOTA)
]


@with_manager
async def create(
    manager: TenantManager,
    tenant: TenantId,
    *,
    name: Name = None,
    timezone: Timezone = None,
    retention_days: Days = None,
    compliance: Mode = None,
    audit: HowAudited = None,
    encrypted: Annotated[
        bool, typer.Option("--encrypted", help="Seal its content. (env: TENANT_MASTER_KEY)")
    ] = False,
    max_conversations: Conversations = None,
    max_storage_gb: Storage = None,
    max_requests_per_minute: Requests = None,
    max_tokens_per_month: Tokens = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant. The same command again finds it made."""
    from haive.core.persistence.multitenancy import AuditMode  # noqa: PLC0415 - slow

    if encrypted:
        manager = manager_of(manager._store, enable_encryption_at_rest=True)
    made = await manager.create_tenant(
        tenant,
        name,
        _settings(timezone, retention_days, compliance),
        _quota(max_conversations, max_storage_gb, max_requests_per_minute, max_tokens_per_month),
        audit=AuditMode(audit) if audit else None,
    )
    _tell(made, as_json=as_json)


@with_manager
async def list_command(
    manager: TenantManager,
    *,
    status: Annotated[Status | None, typer.Option(help="Only those.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show all tenants."""
    from haive.core.persistence.multitenancy import TenantStatus  # noqa: PLC0415 - slow

    wanted = TenantStatus(status) if status else None
    found = [one async for one in manager.list_tenants(status=wanted)]
    if as_json:
        print_json([_document(one) for one in found])
        return
    _table(found)


@with_manager
async def show(manager: TenantManager, tenant: TenantId, *, as_json: AsJson = False) -> None:
    """Show a tenant with its settings and limits, whatever its status."""
    _tell(await manager.get_tenant(tenant), as_json=as_json)


@with_manager
async def update(
    manager: TenantManager,
    tenant: TenantId,
    *,
    name: Name = None,
    timezone: Timezone = None,
    retention_days: Days = None,
    compliance: Mode = None,
    unset: Annotated[
        list[str] | None, typer.Option(help="Take this setting or limit away; may be repeated.")
    ] = None,
    audit: HowAudited = None,
    max_conversations: Conversations = None,
    max_storage_gb: Storage = None,
    max_requests_per_minute: Requests = None,
    max_tokens_per_month: Tokens = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given of a tenant; the rest stays."""
    from haive.core.persistence.multitenancy import AuditMode  # noqa: PLC0415 - slow

    changes = _settings(timezone, retention_days, compliance)
    quota = _quota(max_conversations, max_storage_gb, max_requests_per_minute, max_tokens_per_month)
    settings = None
    if changes or unset:
        there = await manager.get_tenant(tenant)
        settings = {**there.settings, **changes}
        quota = _take_away(unset or (), settings, there.quota, quota)
    changed = await manager.update_tenant(
        tenant,
        name=name,
        settings=settings,
        quota=quota,
        audit=AuditMode(audit) if audit else None,
    )
    _tell(changed, as_json=as_json)


@with_manager
async def suspend(manager: TenantManager, tenant: TenantId, *, as_json: AsJson = False) -> None:
    """Close a tenant at once; its data stays."""
    _tell(await manager.suspend_tenant(tenant), as_json=as_json)


@with_manager
async def resume(manager: TenantManager, tenant: TenantId, *, as_json: AsJson = False) -> None:
    """Open a tenant that is suspended, or deleted and not purged."""
    _tell(await manager.resume_tenant(tenant), as_json=as_json)


@with_manager
async def delete(
    manager: TenantManager, tenant: TenantId, *, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Close a tenant for good; `purge` then removes what it has, `resume` opens it again."""
    there = await manager.get_tenant(tenant)
    if not yes:
        typer.confirm(f"Close the tenant {there.tenant_id} ({plain(there.name)})?", abort=True)
    _tell(await manager.delete_tenant(tenant), as_json=as_json)


@with_manager
async def purge(
    manager: TenantManager,
    tenant: TenantId,
    *,
    database_is_gone: Annotated[
        bool,
        typer.Option(
            "--database-is-gone",
            help="Its own database is no more: take it out of the register, deleted or not.",
        ),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove a deleted tenant with all that it has. This cannot be undone."""
    there = await manager.get_tenant(tenant)
    if not yes:
        what = "the registration" if database_is_gone else "all data"
        typer.confirm(f"Remove {what} of {there.tenant_id} ({plain(there.name)})?", abort=True)
    removed = await manager.purge_tenant(tenant, database_is_gone=database_is_gone)
    if as_json:
        # How many there were, only that database knew.
        print_json({"tenant_id": tenant, "conversations": None if database_is_gone else removed})
        return
    having = "" if database_is_gone else f" with {count(removed, 'conversation')}"
    out.print(f"Removed {plain(tenant)}{having}.", highlight=False)


@with_manager
async def usage(manager: TenantManager, tenant: TenantId, *, as_json: AsJson = False) -> None:
    """Show what a tenant uses of its limits."""
    found = await manager.usage(tenant)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    for name, unit in (
        ("conversations", ""),
        ("storage", " bytes"),
        ("requests", " in the last minute"),
        ("tokens", " this month"),
    ):
        one = getattr(found, name)
        of = "" if one.limit is None else f" of {one.limit:,}"
        share = "" if one.fraction is None else f" ({one.fraction:.0%})"
        out.print(f"{name:<14}{one.used:,}{of}{unit}{share}", highlight=False)


def _settings(
    timezone: str | None, retention_days: int | None, compliance: Compliance | None
) -> dict[str, Any]:
    given = {
        "timezone": timezone,
        "data_retention_days": retention_days,
        "compliance_mode": compliance and compliance.value,
    }
    return {name: value for name, value in given.items() if value is not None}


def _quota(
    conversations: int | None, storage: float | None, requests: int | None, tokens: int | None
) -> ResourceQuota | None:
    from haive.core.persistence.multitenancy import ResourceQuota  # noqa: PLC0415 - slow

    given: dict[str, Any] = {
        "max_conversations": conversations,
        "max_storage_gb": storage,
        "max_requests_per_minute": requests,
        "max_tokens_per_month": tokens,
    }
    wanted = {name: value for name, value in given.items() if value is not None}
    return ResourceQuota(**wanted) if wanted else None


def _take_away(
    names: Sequence[str],
    settings: dict[str, Any],
    limits: ResourceQuota,
    changes: ResourceQuota | None,
) -> ResourceQuota | None:
    """Take away settings, and limits among the changes of them.

    Raises:
        typer.BadParameter: A name is not set.
    """
    from haive.core.persistence.multitenancy import ResourceQuota  # noqa: PLC0415 - slow

    there = [*settings, *limits.model_dump(exclude_none=True)]
    for name in names:
        if name not in there:
            raise typer.BadParameter(
                f"--unset: {name} is not set. Set are: {', '.join(there) or 'none'}."
            )
    for name in names:
        settings.pop(name, None)
    gone = dict.fromkeys(name for name in names if name in ResourceQuota.model_fields)
    if not gone:
        return changes
    return ResourceQuota(**{**(changes.model_dump(exclude_unset=True) if changes else {}), **gone})


def _document(one: Tenant) -> dict[str, Any]:
    document: dict[str, Any] = one.model_dump(mode="json")
    return document


def _tell(one: Tenant, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(one))
        return
    out.print(f"[bold]{plain(one.tenant_id)}[/] {plain(one.name)}", highlight=False)
    facts = {
        "status": one.status.value,
        "isolation": " ".join(filter(None, (one.isolation.value, one.location))),
        "audit": one.audit.value,
        "encrypted": "yes" if one.encrypted else "no",
        **one.settings,
        **{name: value for name, value in one.quota.model_dump().items() if value is not None},
        "created": f"{one.created_at.astimezone():%Y-%m-%d %H:%M}",
    }
    for name, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int | float) else str(value)
        out.print(f"  [dim]{plain(name)}[/] {plain(shown)}", highlight=False)


def _table(found: Sequence[Tenant]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow
    from rich.table import Table  # noqa: PLC0415 - slow

    if not found:
        out.print("No tenants.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for heading in ("id", "name", "status", "isolation", "compliance", "kept", "created"):
        table.add_column(heading, overflow="fold")
    for one in found:
        days = one.settings.get("data_retention_days")
        table.add_row(
            one.tenant_id,
            plain(one.name),
            one.status.value,
            one.isolation.value,
            plain(str(one.settings.get("compliance_mode") or "")),
            f"{days:,} days" if days else "",
            f"{one.created_at.astimezone():%Y-%m-%d %H:%M}",
        )
    console = out if out.is_terminal else Console(width=240)
    console.print(table, soft_wrap=False)
