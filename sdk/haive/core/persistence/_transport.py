"""What a store needs of the way to the database; everything else is written once, above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from pydantic import TypeAdapter

    from haive.core.persistence._hints import Hints
    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence._supabase_room import Room
    from haive.core.persistence.errors import PersistenceError
    from haive.core.persistence.models import Message

T = TypeVar("T")


class Transport(Protocol):
    """A way to call the functions of the schema."""

    schema: str
    tenant: str | None

    async def call(
        self,
        function: str,
        arguments: Mapping[str, object],
        returns: TypeAdapter[T],
        *,
        safe: bool,
        in_tenant: bool = True,
    ) -> T:
        """Call a function by name and decode the JSON that it returns.

        Args:
            function: A function of the schema, unqualified; one of ours and never of a caller's.
            arguments: By name. Values are JSON or have a JSON form that Postgres reads.
            returns: What the answer is.
            safe: Whether repeating the call changes nothing: then a lost server is waited for.
            in_tenant: Whether the function works in a tenant, and takes its name.
        """

    async def rows(self, function: str, arguments: Mapping[str, object]) -> Sequence[Any] | None:
        """Call the inner half of a function that only reads, which answers by column.

        Args:
            function: As in `call`.
            arguments: By name, the tenant left out.

        Returns:
            Records of the driver; None where nothing but JSON passes.
        """

    async def append(self, rows: Sequence[MessageRow]) -> Sequence[Message | PersistenceError]:
        """Write messages in one statement; each has its own outcome."""

    async def append_many(self, rows: Sequence[MessageRow]) -> list[tuple[int, datetime]]:
        """Write many messages, all or none, by the fastest way there is.

        Returns the ``seq`` and time of each: an import reads no messages, and making them is a
        sixth of its time.
        """

    async def execute(self, sql: str, arguments: Sequence[object]) -> list[dict[str, object]]:
        """Run a statement as the owner of the schema."""

    def check_loop(self) -> None:
        """Refuse another event loop than that of the connections."""

    def hints(self) -> Hints | None:
        """Where hints of new events come from; None where there are none, and one has to look."""

    def alone(self, job: str) -> AbstractAsyncContextManager[bool]:
        """Be the only one who does a job while the block runs.

        Args:
            job: Its name in the database.

        Returns:
            False where somebody else is at it. Where there is no session that could hold a lock,
            always true.
        """

    def scoped(self, *, schema: str | None = None, tenant: str | None = None) -> Self:
        """The same way to the database, for another tenant or installation in it."""

    def room(self, name: str, changed: Callable[[], None]) -> Room | None:
        """A realtime topic to be seen on, not entered yet; None where there is no Realtime.

        Args:
            name: The name to be seen under.
            changed: Called when somebody came, went or changed.
        """

    async def aclose(self) -> None:
        """Give everything back."""
