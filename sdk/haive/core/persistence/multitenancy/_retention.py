"""Deletes what a tenant does not keep any longer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING

from pydantic import BaseModel, TypeAdapter

from haive.core.persistence.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haive.core.persistence.store import Store

_BATCH = 10_000


class _Batch(BaseModel):
    before: datetime | None
    done: bool
    counts: dict[str, int]


_ANSWER = TypeAdapter(_Batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expired:
    """What retention has deleted."""

    before: datetime | None
    """What was older has gone; None: the tenant keeps everything."""
    counts: Mapping[str, int]
    """Rows by table."""


async def apply_retention(store: Store, *, batch: int = _BATCH) -> Expired:
    """Delete what is older than the ``data_retention_days`` of the tenant that a store works in.

    Conversations go by their last message, whole; threads by their last checkpoint, whole and with
    all of their namespaces; memories in pgvector by when they were last said or changed, with what
    was made of them; ended invitations by themselves. Events go after the tenant's
    ``event_retention_days``, 7 if not set, whatever else is kept. Records of the audit log stay.
    Each batch is a transaction of its own, so a job that was interrupted may be run again.

    Args:
        store: Of a tenant context, or any store that is in the tenant; trusted, or of an
            administrator of the tenant.
        batch: How many rows go in one transaction, about.

    Raises:
        AccessDeniedError: The caller does not administer the tenant.
        ConflictError: Somebody else does it now.
    """
    counts: Counter[str] = Counter()
    transport = store._transport
    async with transport.alone(f"{transport.schema} {transport.tenant} retention") as is_alone:
        if not is_alone:
            raise ConflictError("Retention is at work in this tenant.", hint="Wait for it to end.")
        while True:
            answer = await transport.call("apply_retention", {"batch": batch}, _ANSWER, safe=True)
            counts.update(answer.counts)
            if answer.done:
                return Expired(before=answer.before, counts=dict(counts))
