"""What tenants did, for those who run the platform."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from haive.core.persistence.errors import InvalidInputError, PersistenceError
from haive.core.persistence.multitenancy.config import IsolationLevel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haive.core.persistence._transport import Transport

METRICS = (
    "conversation_count",
    "message_count",
    "token_usage",
    "storage_used",
    "active_users",
)

TimeRange = str | tuple[datetime, datetime]

# How many schemas and databases of tenants are asked at once.
_AT_ONCE = 8
_LAST = re.compile(r"last_([1-9][0-9]{0,4})_(hour|day)s?")


class TokenSums(BaseModel):
    """Tokens and money."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost: Decimal = Decimal(0)


class TenantMetrics(BaseModel):
    """What one tenant did; None is what was not asked for, or what an unknown tenant has."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    tenant_id: str
    known: bool
    """Whether there is such a tenant."""
    isolation: str | None = None
    unreached: str | None = None
    """Why a tenant has no numbers that is kept elsewhere: its schema or database did not answer."""
    conversation_count: int | None = None
    """Conversations begun in the time."""
    message_count: int | None = None
    """Messages added in the time."""
    token_usage: TokenSums | None = None
    """Of those messages."""
    storage_used: int | None = None
    """Bytes stored now, whatever the time."""
    active_users: int | None = None
    """Users with a conversation that had messages in the time."""


class Analytics(Mapping[str, TenantMetrics]):
    """The metrics of some tenants by their ids, and their sums.

    Attributes:
        metrics: What was asked for.
        time_range: The time, as it was asked for.
    """

    def __init__(
        self, rows: Sequence[TenantMetrics], metrics: Sequence[str], time_range: TimeRange
    ) -> None:
        self._rows = {row.tenant_id: row for row in rows}
        self.metrics = tuple(metrics)
        self.time_range = time_range

    def __getitem__(self, tenant_id: str) -> TenantMetrics:
        return self._rows[tenant_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Analytics({list(self._rows.values())!r})"

    @property
    def unknown(self) -> tuple[str, ...]:
        """Tenants that were asked for and do not exist."""
        return tuple(row.tenant_id for row in self._rows.values() if not row.known)

    @property
    def unreached(self) -> dict[str, str]:
        """Tenants whose schema or database did not answer, and why; the totals are without them."""
        return {
            row.tenant_id: row.unreached for row in self._rows.values() if row.unreached is not None
        }

    @property
    def totals(self) -> TenantMetrics:
        """The sums over all tenants; a user of two tenants is counted in both."""
        rows = [row for row in self._rows.values() if row.known and row.unreached is None]

        def total(metric: str) -> int | None:
            if metric not in self.metrics:
                return None
            return sum(getattr(row, metric) or 0 for row in rows)

        tokens = [row.token_usage for row in rows if row.token_usage is not None]
        return TenantMetrics(
            tenant_id="",
            known=True,
            conversation_count=total("conversation_count"),
            message_count=total("message_count"),
            token_usage=TokenSums(
                input_tokens=sum(one.input_tokens for one in tokens),
                output_tokens=sum(one.output_tokens for one in tokens),
                total_tokens=sum(one.total_tokens for one in tokens),
                cost=sum((one.cost for one in tokens), Decimal(0)),
            )
            if "token_usage" in self.metrics
            else None,
            storage_used=total("storage_used"),
            active_users=total("active_users"),
        )


ROWS = TypeAdapter(list[TenantMetrics])


def arguments(
    include_tenants: Sequence[str] | None, metrics: Sequence[str], time_range: TimeRange
) -> dict[str, Any]:
    """The arguments of ``tenant_analytics`` for what a caller asks for.

    Raises:
        InvalidInputError: A metric or a range is unknown.
    """
    if isinstance(include_tenants, str) or not isinstance(metrics, list | tuple):
        raise InvalidInputError("include_tenants and metrics are lists of names.")
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise InvalidInputError(
            f"Unknown metrics: {', '.join(unknown)}.", hint=f"There are {', '.join(METRICS)}."
        )
    if not metrics:
        raise InvalidInputError("No metrics are named.", hint=f"There are {', '.join(METRICS)}.")
    return {
        "tenant_ids": None if include_tenants is None else list(include_tenants),
        "metrics": list(metrics),
        **_time(time_range),
    }


async def counted(
    rows: Sequence[TenantMetrics],
    asked: Mapping[str, Any],
    find: Callable[[str], Awaitable[Transport]],
) -> list[TenantMetrics]:
    """The metrics of tenants, with those of the ones whose rows are elsewhere asked for there.

    Args:
        rows: What the shared tables know of each.
        asked: The arguments of ``tenant_analytics``.
        find: The way to a tenant, wherever it is.
    """
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def one(row: TenantMetrics) -> TenantMetrics:
        if row.isolation in {None, IsolationLevel.ROW}:
            return row
        async with at_once:  # where its rows are, only its own tables know of it
            try:
                place = await find(row.tenant_id)
                (found,) = await place.call(
                    "tenant_analytics",
                    {**asked, "tenant_ids": [row.tenant_id]},
                    ROWS,
                    safe=True,
                    in_tenant=False,
                )
            except PersistenceError as error:
                # What the others did is worth knowing, whatever has become of this one.
                return TenantMetrics(
                    tenant_id=row.tenant_id,
                    known=True,
                    isolation=row.isolation,
                    unreached=error.message,
                )
        return found.model_copy(update={"isolation": row.isolation})

    return await asyncio.gather(*map(one, rows))


def _time(time_range: object) -> dict[str, Any]:
    if isinstance(time_range, str):
        if time_range == "all":
            return {}
        if time_range == "today":
            return {"days": 1}
        if time_range == "this_month":
            return {"days": 0}
        if found := _LAST.fullmatch(time_range):
            count, unit = int(found[1]), found[2]
            if unit == "day" and count <= 36_500:
                return {"days": count}
            if unit == "hour":
                return {"since": datetime.now(UTC) - timedelta(hours=count)}
    elif (
        isinstance(time_range, list | tuple)
        and len(time_range) == 2
        and all(isinstance(end, datetime) for end in time_range)
    ):
        since, until = time_range
        if since.tzinfo is None or until.tzinfo is None:
            raise InvalidInputError("The ends of a time_range name their time zones.")
        if since < until:
            return {"since": since, "until": until}
    raise InvalidInputError(
        "time_range does not mean anything.",
        hint="last_30_days, last_24_hours, today, this_month, all, or (start, end) as datetimes.",
    )
