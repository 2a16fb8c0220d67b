"""A tenant as it is stored."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from haive.core.persistence.multitenancy.config import AuditMode, IsolationLevel, ResourceQuota

if TYPE_CHECKING:
    from collections.abc import Mapping


class TenantStatus(StrEnum):
    """Whether a tenant is open."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    """Closed to everybody; its data stays."""
    MOVING = "moving"
    """Read only, while its rows go to another place."""
    DELETED = "deleted"
    """Closed; `purge_tenant` removes what it has, `resume_tenant` opens it again."""


def _quota(limits: Mapping[str, int | None]) -> ResourceQuota:
    return ResourceQuota.from_limits(limits)


class Tenant(BaseModel):
    """A tenant: whose data it is, where it is, and what it may use."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    tenant_id: str
    name: str
    status: TenantStatus
    isolation: IsolationLevel
    location: str | None
    """The name of its schema or of its database; None where it shares the tables."""
    settings: dict[str, Any]
    quota: Annotated[ResourceQuota, BeforeValidator(_quota)]
    audit: AuditMode
    encrypted: bool
    metered: bool
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
