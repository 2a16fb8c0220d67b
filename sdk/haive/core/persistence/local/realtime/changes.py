"""Changes of tables for those who may see them: `postgres_changes`."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NoReturn

import asyncpg
import orjson

from haive.core.persistence.local.realtime import bindings, limits
from haive.core.persistence.local.realtime.database import AwayError, act_as
from haive.core.persistence.local.realtime.pgoutput import Relation
from haive.core.persistence.local.realtime.rows import Rows, refused

if TYPE_CHECKING:
    from haive.core.persistence.local.realtime.bindings import Binding, Bound
    from haive.core.persistence.local.realtime.channel import Channel
    from haive.core.persistence.local.realtime.database import Connection, Database
    from haive.core.persistence.local.realtime.pgoutput import Change
    from haive.core.persistence.local.realtime.rows import Seen
    from haive.core.persistence.local.realtime.tokens import Identity

log = logging.getLogger(__name__)

_BATCH = 500
_PAUSE = 0.5
_PUBLISHED = """
select schemaname, tablename
from pg_catalog.pg_publication_tables
where pubname = 'supabase_realtime'
  and ($1 = '*' or schemaname = $1) and ($2 = '*' or tablename = $2)
limit 1
"""
# The log is read before the transaction has left the list of the running ones: a moment later
# everybody sees its rows. Ids in the log come without their epoch.
_VISIBLE = """
with s as (
  select pg_current_snapshot() as snapshot, pg_snapshot_xmax(pg_current_snapshot())::text::numeric
    as next
)
select coalesce(bool_and(pg_visible_in_snapshot(
  (s.next - mod(mod(s.next, 4294967296) - x + 4294967296, 4294967296))::text::xid8, s.snapshot
)), true)
from s cross join unnest($1::bigint[]) as x
"""


class Changes:
    """Takes changed rows from the log, and tells each subscriber of those it may see.

    Args:
        database: Where rows are looked at as the subscribers.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = Rows(database)
        self._channels: dict[Channel, None] = {}
        self._bound: dict[tuple[str, str], Bound] = {}
        self._waiting: list[Change] = []
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    async def bind(self, asked: list[dict[str, Any]], who: Identity) -> list[Binding]:
        """Check what a channel asks for.

        Raises:
            RefusedError: A part of it cannot be had.
        """
        if not asked:
            return []
        if len(asked) > limits.BINDINGS:
            raise bindings.refused({})
        parsed = [bindings.parse(item) for item in asked]
        for item, binding in zip(asked, parsed, strict=True):
            try:
                async with self._database.transaction() as connection:
                    await act_as(connection, who, "")  # in whose name all is asked from here on
                    possible = await self._can_be(connection, binding, who)
            except asyncpg.PostgresError as error:
                log.warning("a binding failed with SQLSTATE %s", error.sqlstate)
                possible = False
            if not possible:
                raise bindings.refused(item)
        return parsed

    async def _can_be(self, connection: Connection, binding: Binding, who: Identity) -> bool:
        found = await connection.fetchrow(_PUBLISHED, binding.schema, binding.table or "*")
        if found is None:
            return False
        if not binding.conditions and binding.select is None:
            return True
        if binding.table in {None, "*"} or binding.schema == "*":
            return False  # whose columns?
        relation = Relation(found["schemaname"], found["tablename"], ())
        return await self._rows.has(connection, relation, binding, who)

    def add(self, channel: Channel) -> None:
        """Tell a channel from now on."""
        if channel.bindings:
            self._channels[channel] = None
            self._bound.clear()

    def remove(self, channel: Channel) -> None:
        """Tell a channel no more."""
        if self._channels.pop(channel, self) is None:
            self._bound.clear()

    def feed(self, change: Change) -> None:
        """Take a changed row, if anybody may want it."""
        if self._channels and self._about(change.relation):
            self._waiting.append(change)
            self._arrived.set()

    async def keep_up(self) -> None:
        """Wait while too many rows wait."""
        while len(self._waiting) >= limits.CHANGES:
            self._taken.clear()
            await self._taken.wait()

    async def run(self) -> NoReturn:
        """Tell subscribers, for ever."""
        while True:
            await self._arrived.wait()
            batch = self._waiting[:_BATCH]
            try:
                await self._tell(batch)
            except AwayError:
                await asyncio.sleep(_PAUSE)
                continue
            except Exception as error:  # noqa: BLE001 - others are still to be told of others
                _lost(batch, error)
            del self._waiting[: len(batch)]
            self._taken.set()
            if not self._waiting:
                self._arrived.clear()

    def _about(self, relation: Relation) -> Bound:
        key = (relation.schema, relation.table)
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bound[key] = [
                (channel, binding)
                for channel in self._channels
                for binding in channel.bindings
                if binding.covers(*key)
            ]
        return bound

    async def _tell(self, batch: list[Change]) -> None:
        await self._await_visible(batch)
        groups: dict[Relation, list[int]] = defaultdict(list)
        for place, change in enumerate(batch):
            groups[change.relation].append(place)
        told: list[tuple[int, Channel, list[int], bytes]] = []
        for relation, places in groups.items():
            by_identity: dict[Identity, Bound] = defaultdict(list)
            for channel, binding in self._about(relation):
                by_identity[channel.identity].append((channel, binding))
            for who, bound in by_identity.items():
                changes = [batch[place] for place in places]
                for place, channel, ids, data in await self._seen_by(who, changes, bound):
                    told.append((places[place], channel, ids, data))
        told.sort(key=lambda one: one[0])
        for _, channel, ids, data in told:
            payload = {"ids": ids, "data": orjson.Fragment(data)}
            channel.socket.send(channel.topic, "postgres_changes", payload)

    async def _seen_by(self, who: Identity, changes: list[Change], bound: Bound) -> Seen:
        """Look at changes as one identity: what fails for it is kept from nobody else."""
        try:
            return await self._rows.seen_by(who, changes, bound)
        except AwayError:
            raise
        except Exception as error:  # noqa: BLE001 - policies fail in all ways
            if len(changes) == 1:
                _lost(changes, error)
                return refused(changes, bound) if isinstance(error, asyncpg.PostgresError) else []
        seen: Seen = []
        for place, change in enumerate(changes):
            for _, channel, ids, data in await self._seen_by(who, [change], bound):
                seen.append((place, channel, ids, data))
        return seen

    async def _await_visible(self, batch: list[Change]) -> None:
        ids = list({change.xid for change in batch})
        async with self._database.transaction() as connection:
            while not await connection.fetchval(_VISIBLE, ids):  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.001)


def _lost(changes: list[Change], error: Exception) -> None:
    code = getattr(error, "sqlstate", type(error).__name__)
    log.warning("%s changes of %s were lost: %s", len(changes), changes[0].relation.table, code)
