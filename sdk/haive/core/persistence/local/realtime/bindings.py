"""What a channel asks to hear of the changes of tables."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from haive.core.persistence.local.realtime import filters
from haive.core.persistence.local.realtime.tokens import RefusedError

if TYPE_CHECKING:
    from haive.core.persistence.local.realtime.channel import Channel
    from haive.core.persistence.local.realtime.pgoutput import Change

#: Channels with what they ask for.
Bound = list[tuple["Channel", "Binding"]]
Conditions = tuple[filters.Condition, ...]

_EVENTS = frozenset({"*", "INSERT", "UPDATE", "DELETE"})


@dataclass(frozen=True, slots=True)
class Binding:
    """One of them, checked."""

    id: int
    event: str
    schema: str
    table: str | None
    conditions: Conditions
    select: frozenset[str] | None

    def wants(self, change: Change) -> bool:
        """Whether it is about a change, its conditions aside."""
        return self.event in {"*", change.kind} and self.covers(
            change.relation.schema, change.relation.table
        )

    def covers(self, schema: str, table: str) -> bool:
        """Whether it is about a table."""
        return self.schema in {"*", schema} and self.table in {None, "*", table}


def number(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give what is asked for its ids: the same for the same."""
    return [
        {**item, "id": zlib.crc32(orjson.dumps(item, option=orjson.OPT_SORT_KEYS))}
        for item in asked
    ]


def parse(item: dict[str, Any]) -> Binding:
    """Read one of them.

    Raises:
        RefusedError: It means nothing.
    """
    # As on the platform: all events, of a table in public.
    event, schema, table = item.get("event", "*"), item.get("schema", "public"), item.get("table")
    text, select = item.get("filter"), item.get("select")
    if not isinstance(event, str) or event.upper() not in _EVENTS or not isinstance(schema, str):
        raise refused(item)
    if not isinstance(table, str | None) or not isinstance(text, str | None):
        raise refused(item)
    if select is not None and not (
        isinstance(select, list) and all(isinstance(name, str) for name in select)
    ):
        raise refused(item)
    try:
        conditions = filters.parse(text) if text else ()
    except filters.FilterError as error:
        raise refused(item) from error
    return Binding(
        id=item["id"],
        event=event.upper(),
        schema=schema,
        table=table or None,
        conditions=conditions,
        select=frozenset(select) if select else None,
    )


def refused(item: dict[str, Any]) -> RefusedError:
    """Return the platform's words for what cannot be subscribed to."""
    asked = ", ".join(
        f"{name}: {item[name]}" for name in ("event", "schema", "table", "filter") if name in item
    )
    return RefusedError(
        "RealtimeDisabledForConfiguration",
        "Unable to subscribe to changes with given parameters. Please check Realtime is enabled"
        f" for the given connect parameters: [{asked}]",
    )
