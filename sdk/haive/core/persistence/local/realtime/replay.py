"""Broadcasts of the past, which a client of a private channel asks for when it joins."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from haive.core.persistence.local.realtime.tokens import RefusedError
from haive.core.persistence.local.realtime.wire import Outgoing, OutgoingBlob

if TYPE_CHECKING:
    from haive.core.persistence.local.realtime.database import Database

_LIMIT = 25
_QUERY = """
select id::text, event, payload::text, binary_payload
from realtime.messages
where topic = $1 and extension = 'broadcast' and private and inserted_at >= $2
  and event is not null and (payload is not null or binary_payload is not null)
order by inserted_at desc
limit $3
"""


@dataclass(frozen=True, slots=True)
class Replay:
    """From when on, and how many: the latest of them."""

    since: dt.datetime
    limit: int

    @classmethod
    def of(cls, asked: object, *, private: bool) -> Replay:
        """Read what a client asks for: `since` in milliseconds since 1970, `limit` up to 25.

        Raises:
            RefusedError: It cannot be.
        """
        if not private:
            raise RefusedError(
                "UnableToReplayMessages", "Replay is not allowed for public channels"
            )
        try:
            since, limit = asked["since"], asked.get("limit", _LIMIT)  # type: ignore[index,attr-defined]
            moment = dt.datetime.fromtimestamp(since / 1000, dt.UTC).replace(tzinfo=None)
            if not isinstance(limit, int) or not 1 <= limit <= _LIMIT:
                raise ValueError  # noqa: TRY301 - told below, as the others
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError, OSError) as error:
            raise RefusedError("UnableToReplayMessages", "Replay params are not valid") from error
        return cls(moment, limit)

    async def messages(self, database: Database, topic: str, name: str) -> list[Outgoing]:
        """Return the broadcasts from the database, the oldest first."""
        async with database.transaction() as connection:
            rows = await connection.fetch(_QUERY, name, self.since, self.limit)
        return [_outgoing(topic, row) for row in reversed(rows)]


def _outgoing(topic: str, row: Any) -> Outgoing:
    meta = {"id": row["id"], "replayed": True}
    if row["payload"] is None:
        return OutgoingBlob(topic, row["event"], row["binary_payload"], meta)
    payload = {
        "type": "broadcast",
        "event": row["event"],
        "payload": orjson.Fragment(row["payload"]),
        "meta": meta,
    }
    return Outgoing(topic, "broadcast", payload)
