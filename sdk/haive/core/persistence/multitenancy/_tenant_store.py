"""The store that a tenant context yields."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from haive.core.persistence._group_commit import GroupCommit
from haive.core.persistence.errors import (
    PersistenceError,
    SchemaMissingError,
    TenantMovedError,
    TenantMovingError,
    UnsupportedOperationError,
)
from haive.core.persistence.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from pydantic import TypeAdapter

    from haive.core.persistence._hints import Hints
    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence._sealing import Sealer
    from haive.core.persistence._supabase_room import Room
    from haive.core.persistence._transport import Transport
    from haive.core.persistence.models import Message
    from haive.core.persistence.privacy import Redactor

T = TypeVar("T")

# A move takes seconds; writes that meet one wait for it this long, asking this often.
_PATIENCE, _PAUSE = 30.0, 0.1
# A schema is there, and a function that is called is not: of Postgres and of PostgREST.
_NO_FUNCTION = frozenset({"42883", "PGRST202"})


@dataclass
class Place:
    """Where the rows of a tenant are, and what those share who work there."""

    transport: Transport
    #: Seals and opens content, where the tenant's is sealed.
    sealer: Sealer | None = None
    commits: GroupCommit = field(init=False)

    def __post_init__(self) -> None:
        self.commits = GroupCommit(self.transport.append, self.transport.check_loop)


class TenantStore(Store):
    """A store whose every operation is of one tenant, until its context ends.

    It shares the connections of the base store, and statements with all that work in the tenant.
    What the base store does with personal data, it does too.
    """

    def __init__(self, tenant_id: str, place: Place, redactor: Redactor | None) -> None:
        super().__init__()
        self.tenant_id = tenant_id
        self._scope: Transport | None = place.transport
        self._commits = place.commits
        self._sealer = place.sealer
        self._redactor = redactor

    @property
    def _transport(self) -> Transport:
        if self._scope is None:
            raise PersistenceError(
                f"The context of tenant {self.tenant_id} has ended.",
                hint="Work inside `async with manager.tenant_context(...)`.",
            )
        return self._scope

    @property
    def _state(self) -> str:
        return f"tenant={self.tenant_id!r}, {'ended' if self._scope is None else 'open'}"

    async def aclose(self) -> None:
        """End the use of this store; the connections are the base store's."""
        self._scope = None
        self._commits = None


def _behind(error: SchemaMissingError, schema: str) -> SchemaMissingError:
    """What is to be run where a tenant's schema has not what the base's has."""
    return SchemaMissingError(
        f"The schema {schema} is older than this package needs. [{error.sqlstate}]",
        hint="Run `haive migrate`: `supabase db push` does not reach the schemas of tenants.",
        sqlstate=error.sqlstate,
    )


class RoutedTransport:
    """The way to a tenant wherever it is: what meets a move waits, and follows.

    A refused call has done nothing, so all are repeated, safe or not.
    """

    def __init__(
        self, tenant_id: str, place: Transport, find: Callable[[str], Awaitable[Transport]]
    ) -> None:
        self.tenant: str | None = tenant_id
        #: The name that the kit has where the tenant is.
        self.schema = place.schema
        self._tenant_id = tenant_id
        self._place = place
        self._find = find

    async def _following(self, operation: Callable[[Transport], Awaitable[T]]) -> T:
        end = monotonic() + _PATIENCE
        while True:
            place = self._place
            try:
                return await operation(place)
            except (TenantMovedError, SchemaMissingError) as error:
                if monotonic() >= end:
                    raise
                if self._place is place:
                    self._place = await self._find(self._tenant_id)
                    self.schema = self._place.schema
                    if isinstance(error, SchemaMissingError) and self.schema == place.schema:
                        if error.sqlstate in _NO_FUNCTION:
                            raise _behind(error, self.schema) from error
                        raise  # it is nowhere else
            except TenantMovingError:
                if monotonic() >= end:
                    raise
            await asyncio.sleep(_PAUSE)

    async def call(
        self,
        function: str,
        arguments: Mapping[str, object],
        returns: TypeAdapter[T],
        *,
        safe: bool,
        in_tenant: bool = True,
    ) -> T:
        """Call a function; see `Transport.call`."""
        return await self._following(
            lambda to: to.call(function, arguments, returns, safe=safe, in_tenant=in_tenant)
        )

    async def rows(self, function: str, arguments: Mapping[str, object]) -> Sequence[Any] | None:
        """Call a function that answers by column; see `Transport.rows`."""
        return await self._following(lambda to: to.rows(function, arguments))

    async def append(self, rows: Sequence[MessageRow]) -> Sequence[Message | PersistenceError]:
        """Write messages in one statement; see `Transport.append`."""
        return await self._following(lambda to: to.append(rows))

    async def append_many(self, rows: Sequence[MessageRow]) -> list[tuple[int, datetime]]:
        """Write many messages, all or none; see `Transport.append_many`."""
        return await self._following(lambda to: to.append_many(rows))

    async def execute(self, sql: str, arguments: Sequence[object]) -> NoReturn:
        """Refuse: a statement of its own would not be the tenant's alone."""
        raise UnsupportedOperationError(
            "A tenant's store runs no SQL of your own: nothing would keep it in the tenant.",
            hint="Use execute of the base store.",
        )

    def check_loop(self) -> None:
        """Refuse another event loop; see `Transport.check_loop`."""
        self._place.check_loop()

    def hints(self) -> Hints | None:
        """Where hints come from; see `Transport.hints`."""
        return self._place.hints()

    def room(self, name: str, changed: Callable[[], None]) -> Room | None:
        """See `Transport.room`."""
        return self._place.room(name, changed)

    def alone(self, job: str) -> AbstractAsyncContextManager[bool]:
        """Be the only one who does a job; see `Transport.alone`."""
        return self._place.alone(job)

    def scoped(self, *, schema: str | None = None, tenant: str | None = None) -> Self:
        """Refuse: nobody leaves a tenant by its own store."""
        raise UnsupportedOperationError(
            "A tenant's store is not another tenant's.", hint="Use tenant_context of the manager."
        )

    async def aclose(self) -> None:
        """Leave the connections to the base store."""
