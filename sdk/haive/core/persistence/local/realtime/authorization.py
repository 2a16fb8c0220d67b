"""Who may join and send to a private channel: the policies on realtime.messages are asked.

Rows are tried and rolled back: selecting one is receiving, inserting one is sending.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from haive.core.persistence.local.realtime.database import act_as

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from haive.core.persistence.local.realtime.database import Database
    from haive.core.persistence.local.realtime.tokens import Identity

log = logging.getLogger(__name__)

BROADCAST: Final = "broadcast"
PRESENCE: Final = "presence"

_Answer = TypeVar("_Answer")


class Authorization:
    """Asks the policies.

    Args:
        database: Where they are.
        make_partitions: Makes the partition of today, where it is missing.
    """

    def __init__(self, database: Database, make_partitions: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._make_partitions = make_partitions

    async def readable(
        self, who: Identity, topic: str, extensions: Iterable[str], headers: str
    ) -> frozenset[str]:
        """Return which of the extensions somebody may receive in a channel.

        Raises:
            RefusedError: Postgres is away, or the token's role is none of the API's.
        """
        probes = {uuid.uuid4(): extension for extension in extensions}

        async def probe() -> frozenset[str]:
            async with self._database.transaction() as connection:
                await connection.execute(
                    "insert into realtime.messages (id, topic, extension)"
                    " select unnest($1::uuid[]), $2, unnest($3::text[])",
                    list(probes),
                    topic,
                    list(probes.values()),
                )
                await act_as(connection, who, topic, headers)
                seen = await connection.fetch(
                    "select id from realtime.messages where topic = $1 and id = any($2)",
                    topic,
                    list(probes),
                )
                return frozenset(probes[row["id"]] for row in seen)

        return await self._ask(probe) or frozenset()

    async def may_send(self, who: Identity, topic: str, extension: str, headers: str) -> bool:
        """Tell whether somebody may send to a channel.

        Raises:
            RefusedError: Postgres is away, or the token's role is none of the API's.
        """

        async def probe() -> bool:
            async with self._database.transaction() as connection:
                await act_as(connection, who, topic, headers)
                await connection.execute(
                    "insert into realtime.messages (topic, extension) values ($1, $2)",
                    topic,
                    extension,
                )
                return True

        return await self._ask(probe) or False

    async def _ask(self, probe: Callable[[], Awaitable[_Answer]]) -> _Answer | None:
        """Return the answer; None, which allows nothing, where a policy fails."""
        try:
            try:
                return await probe()
            except asyncpg.CheckViolationError:  # "no partition of relation found for row"
                await self._make_partitions()
                return await probe()
        except asyncpg.InsufficientPrivilegeError:
            return None
        except asyncpg.PostgresError as error:
            log.warning("a policy on realtime.messages failed with SQLSTATE %s", error.sqlstate)
            return None
