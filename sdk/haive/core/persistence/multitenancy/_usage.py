"""What a tenant uses of its limits."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads the annotations

from pydantic import BaseModel, ConfigDict


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ResourceUse(_Row):
    """The use of one resource."""

    used: int
    limit: int | None
    """None: there is none."""
    fraction: float | None
    """Of the limit; from 0.8 on an event of the kind ``quota.warning`` has told so."""
    resets_at: datetime | None = None
    """When the month of tokens ends."""


class TenantUsage(_Row):
    """What a tenant uses now."""

    tenant_id: str
    metered: bool
    """Whether use is kept; if not, rows were counted for this."""
    timezone: str
    """Where its days and months begin."""
    conversations: ResourceUse
    storage: ResourceUse
    """In bytes: text, JSON and payloads before the server compresses, and about 100 a row."""
    requests: ResourceUse
    """Of the last minute; only counted where there is a limit."""
    tokens: ResourceUse
    """Of the month."""


class Reconciliation(_Row):
    """What counting the rows of a tenant has found."""

    tenant_id: str
    conversations: int
    conversations_drift: int
    """How many more there were than the meters said."""
    storage: int
    """Bytes."""
    storage_drift: int
    """How many more bytes there were than the meters said."""
