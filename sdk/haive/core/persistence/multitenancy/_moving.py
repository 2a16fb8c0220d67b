"""Moving a tenant between shared tables and a schema of its own, while it is in use."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING

from haive.core.persistence.errors import (
    ConflictError,
    LockTimeoutError,
    NotFoundError,
    UnsupportedOperationError,
)
from haive.core.persistence.multitenancy._copying import move_rows
from haive.core.persistence.multitenancy._names import tenant_schema
from haive.core.persistence.multitenancy._schemas import describe, owner, provision
from haive.core.persistence.multitenancy.config import IsolationLevel
from haive.core.persistence.schema import check_schema_name, install

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from haive.core.persistence.schema import Connection

_PAUSE = 0.02


@dataclass(frozen=True, kw_only=True)
class MoveReport:
    """What a move did."""

    tenant_id: str
    isolation: IsolationLevel
    #: The schema where the tenant is now; None where it shares the tables.
    location: str | None
    #: How many rows of each table; empty where the tenant was there already.
    rows: dict[str, int] = field(default_factory=dict)
    #: Seconds in which the tenant took no writes.
    frozen: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Way:
    """From which installation of the kit to which."""

    base: str
    tenant_id: str
    to: IsolationLevel

    @property
    def own(self) -> str:
        return tenant_schema(self.base, self.tenant_id)

    @property
    def source(self) -> str:
        return self.base if self.to is IsolationLevel.SCHEMA else self.own

    @property
    def target(self) -> str:
        return self.own if self.to is IsolationLevel.SCHEMA else self.base

    @property
    def back(self) -> _Way:
        to = IsolationLevel.ROW if self.to is IsolationLevel.SCHEMA else IsolationLevel.SCHEMA
        return replace(self, to=to)

    @property
    def location(self) -> str | None:
        return self.own if self.to is IsolationLevel.SCHEMA else None


async def move(
    dsn: str,
    base: str,
    tenant_id: str,
    to: IsolationLevel,
    *,
    on_ready: Callable[[str], Awaitable[None]] | None = None,
    patience: float = 30.0,
) -> MoveReport:
    """Move a tenant into a schema of its own, or back, while it is in use.

    Reading goes on all the time. Writing stops (`TenantMovingError`) while what was begun ends and
    the rows are copied; then calls to the old place get `TenantMovedError`.
    Rows, registry and removal are one transaction, so at every point the tenant is in one place.
    A move that was ended from outside leaves it readable and waiting: the same call goes on, and
    `stop_moving` gives it up.

    Args:
        dsn: A direct connection as the owner of the schemas.
        base: The schema with the registry.
        tenant_id: The tenant.
        to: SCHEMA or ROW.
        on_ready: Awaited with the name of the new schema before writing stops: to expose it.
        patience: Seconds to wait for transactions that began before.

    Raises:
        NotFoundError: There is no such tenant.
        ConflictError: It is closed, or being moved by somebody else.
        LockTimeoutError: A transaction from before did not end; the tenant is where it was.
        UnsupportedOperationError: It has, or is to get, a database of its own.
    """
    check_schema_name(base)
    if to not in {IsolationLevel.ROW, IsolationLevel.SCHEMA}:
        raise UnsupportedOperationError(
            "A tenant moves between shared tables and schemas of one database.",
            hint="Export it and import it there to give it a database of its own.",
        )
    way = _Way(base=base, tenant_id=tenant_id, to=to)
    async with _alone(dsn, way) as connection:
        status, isolation = await _look(connection, way)
        if isolation is to:
            if status == "moving":  # the other way, and that was ended
                await _mark(connection, way.back, "active")
            return MoveReport(tenant_id=tenant_id, isolation=to, location=way.location)
        if to is IsolationLevel.SCHEMA:
            await provision(dsn, base, tenant_id)
            if on_ready is not None:
                await on_ready(way.own)
        else:
            await install(connection, way.own)
        return await _move(dsn, connection, way, patience)


async def stop_moving(dsn: str, base: str, tenant_id: str) -> bool:
    """Give up a move that was ended from outside: the tenant takes writes where it is.

    Returns:
        Whether it was being moved.

    Raises:
        NotFoundError: There is no such tenant.
        ConflictError: It is being moved now.
    """
    check_schema_name(base)
    way = _Way(base=base, tenant_id=tenant_id, to=IsolationLevel.SCHEMA)
    async with _alone(dsn, way) as connection:
        status, isolation = await _look(connection, way, closed=True)
        if status != "moving":
            return False
        await _mark(connection, way.back if isolation is way.to else way, "active")
    return True


async def _move(dsn: str, connection: Connection, way: _Way, patience: float) -> MoveReport:
    begin = monotonic()
    try:
        await _mark(connection, way, "moving")
        await _await_older(connection, way, patience)
        rows = await _move_all(connection, way)
    except BaseException:
        # Shielded: a cancelled caller must not leave a tenant that takes no writes.
        await asyncio.shield(asyncio.ensure_future(_undo(dsn, way)))
        raise
    return MoveReport(
        tenant_id=way.tenant_id,
        isolation=way.to,
        location=way.location,
        rows=rows,
        frozen=monotonic() - begin,
    )


async def _move_all(connection: Connection, way: _Way) -> dict[str, int]:
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(
            "set local statement_timeout = 0; set local lock_timeout = '10s';"
            "set local idle_in_transaction_session_timeout = 0"
        )
        # Also where writers look: who opens it there before the register says so would let them in.
        for schema in dict.fromkeys((way.base, way.source)):
            status = await connection.fetchval(
                f"select status from {schema}.tenants where tenant_id = $1 for no key update",  # noqa: S608 # nosec B608
                way.tenant_id,
            )
            if status != "moving":
                raise ConflictError(
                    f"Tenant {way.tenant_id} was closed or opened while it was moved.",
                    hint="Move it again when it is open.",
                )
        rows = await move_rows(connection, way.source, way.target, way.tenant_id)
        # Who has begun to read here has not found half of it: enter_tenant holds this one shared.
        await connection.execute(
            "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))",
            f"{way.source}/readers/{way.tenant_id}",
        )
        await connection.execute(
            f"update {way.base}.tenants set isolation = $2, location = $3, status = 'active', "  # noqa: S608 # nosec B608
            "updated_at = now() where tenant_id = $1",
            way.tenant_id,
            way.to.value,
            way.location,
        )
        # A schema that is emptied stays: those who still call it hear that the tenant has moved.
        await describe(connection, way.base, way.own, way.tenant_id)
    return rows


async def _look(
    connection: Connection, way: _Way, *, closed: bool = False
) -> tuple[str, IsolationLevel]:
    row = await connection.fetchrow(
        f"select status, isolation from {way.base}.tenants where tenant_id = $1",  # noqa: S608 # nosec B608
        way.tenant_id,
    )
    if row is None:
        raise NotFoundError(f"no tenant {way.tenant_id[:63]}")
    isolation = IsolationLevel(row["isolation"])
    if isolation is IsolationLevel.DATABASE:
        raise UnsupportedOperationError(f"Tenant {way.tenant_id} has a database of its own.")
    if not closed and row["status"] not in {"active", "moving"}:
        raise ConflictError(
            f"Tenant {way.tenant_id} is {row['status']}.", hint="Open it with resume_tenant."
        )
    return row["status"], isolation


async def _mark(connection: Connection, way: _Way, status: str) -> None:
    """Set the status in the registry and where the rows are, which is where writers look."""
    before = "active" if status == "moving" else "moving"
    async with connection.transaction():
        await connection.execute("select pg_catalog.set_config('persistence.watch', '--', true)")
        for schema in dict.fromkeys((way.base, way.source)):
            await connection.execute(
                f"update {schema}.tenants set status = $2 where tenant_id = $1 and status = $3",  # noqa: S608 # nosec B608
                way.tenant_id,
                status,
                before,
            )


async def _await_older(connection: Connection, way: _Way, patience: float) -> None:
    """Wait for the transactions that may have seen the tenant open.

    Each of them has looked into the table of tenants, and so keeps it locked until it ends. Their
    numbers would not do: a transaction gets one when it first writes, after it has looked.
    """
    holders = (
        "select virtualtransaction from pg_catalog.pg_locks where locktype = 'relation' and granted"
        " and database = (select oid from pg_catalog.pg_database"
        " where datname = current_database())"
        " and relation = $1::text::regclass and pid is distinct from pg_catalog.pg_backend_pid()"
    )
    table = f"{way.source}.tenants"
    older = {row[0] for row in await connection.fetch(holders, table)}
    end = monotonic() + patience
    while older:
        if monotonic() >= end:
            raise LockTimeoutError(
                f"Transactions from before did not end in {patience:g} s.",
                hint="pg_stat_activity shows them; the tenant is where it was.",
            )
        await asyncio.sleep(_PAUSE)
        older &= {row[0] for row in await connection.fetch(holders, table)}


async def _undo(dsn: str, way: _Way) -> None:
    async with owner(dsn) as connection:
        _, isolation = await _look(connection, way, closed=True)
        # Where only the answer to the commit was lost, the move is done.
        if isolation is not way.to:
            await _mark(connection, way, "active")


@asynccontextmanager
async def _alone(dsn: str, way: _Way) -> AsyncIterator[Connection]:
    """A connection that is the only one to move the tenant; the lock ends with its session."""
    async with owner(dsn) as connection:
        if not await connection.fetchval(
            "select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))",
            f"haive move {way.base} {way.tenant_id}",
        ):
            raise ConflictError(f"Tenant {way.tenant_id} is being moved by somebody else.")
        yield connection
