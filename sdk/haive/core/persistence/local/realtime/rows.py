"""Changed rows as a subscriber may see them: its role, its policies, its columns, its filters."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from haive.core.persistence.local.realtime import limits
from haive.core.persistence.local.realtime.database import act_as
from haive.core.persistence.local.realtime.filters import identifier, literal
from haive.core.persistence.local.realtime.pgoutput import Relation, Unchanged
from haive.core.persistence.local.realtime.tables import find_table
from haive.core.persistence.local.realtime.tokens import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haive.core.persistence.local.realtime.bindings import Binding, Bound, Conditions
    from haive.core.persistence.local.realtime.channel import Channel
    from haive.core.persistence.local.realtime.database import Connection, Database
    from haive.core.persistence.local.realtime.filters import Condition
    from haive.core.persistence.local.realtime.pgoutput import Change, Values
    from haive.core.persistence.local.realtime.tables import Column, Table
    from haive.core.persistence.local.realtime.tokens import Identity

# Of a row that is too large, values up to this length are sent.
_SHORT = 64
_UNAUTHORIZED = ["Error 401: Unauthorized"]
_NO_KEY = ["Error 400: Bad Request, no primary key"]
_TOO_LARGE = ["Error 413: Payload Too Large"]
# Numbers stay text: they may be longer than any of Python's.
_JSON: Final = json.JSONDecoder(parse_int=str, parse_float=str)

Seen = list[tuple[int, "Channel", list[int], bytes]]


class Rows:
    """Looks at changed rows as their subscribers.

    Args:
        database: Where the rows are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def has(
        self, connection: Connection, relation: Relation, binding: Binding, who: Identity
    ) -> bool:
        """Tell whether a binding's conditions and choice fit a table and the role's columns."""
        table = await find_table(connection, relation, who.role)
        names = {column.name for column in table.selectable}
        asked = {condition.column for condition in binding.conditions} | (binding.select or set())
        if not asked <= names:
            return False
        try:
            await connection.execute(
                f"select from (select (null::{table.name}).*) as r"  # nosec B608 - quoted
                f" where {_all(binding.conditions, 'r')}"
            )
        except (asyncpg.DataError, asyncpg.SyntaxOrAccessError):
            return False
        return True

    async def seen_by(self, who: Identity, changes: list[Change], bound: Bound) -> Seen:
        """Return what subscribers of one identity get of changes of one table.

        Args:
            who: The identity.
            changes: The changes, all of one relation.
            bound: The subscribers and what they ask for.

        Returns:
            The place of the change, the channel, the ids of its bindings, and the data as JSON.
        """
        relation = changes[0].relation
        async with self._database.transaction() as connection:
            table = await find_table(connection, relation, who.role)
            if not table.columns:
                return []  # it is gone
            if not table.selectable:
                return refused(changes, bound)
            if table.is_secured and not table.keys:
                return refused(changes, bound, _NO_KEY)
            fills = await _fill(connection, table, changes)
            items = _items(table, changes, fills)
            asked = list(dict.fromkeys(binding.conditions for _, binding in bound))
            try:
                await act_as(connection, who, "")
                found = await connection.fetch(
                    _query(table, relation, asked, items), orjson.dumps(items).decode()
                )
            except (asyncpg.InsufficientPrivilegeError, RefusedError):
                return refused(changes, bound)
        seen: Seen = []
        for row in found:
            met = {one for one, is_met in zip(asked, row["met"], strict=True) if is_met}
            matching = [one for one in bound if one[1].conditions in met]
            seen += _told(row["place"], changes[row["place"]], row, matching, table)
        return seen


def _query(
    table: Table, relation: Relation, asked: list[Conditions], items: list[dict[str, Any]]
) -> str:
    """Return the query that decodes, checks and filters changed rows, as the subscriber."""
    known = {column.name for column in table.selectable} & set(relation.columns)
    hidden = [column.name for column in table.columns if column.name not in known]
    without = f" - array[{', '.join(map(literal, hidden))}]::text[]" if hidden else ""
    names = {name for item in items for name in item.get("old", ())}
    # In an array: a query has 1,664 columns at most.
    met = ", ".join(
        "case when x.item -> 'new' is not null"
        f" then coalesce({_all(conditions, 'r')}, false)"
        # Of a deleted row not all is known: what is not keeps nobody from hearing of it.
        f" else coalesce({_all([one for one in conditions if one.column in names], 'o')}, true)"
        " end"
        for conditions in asked
    )
    new, old = "x.item -> 'new'", "x.item -> 'old'"
    visible = "true"
    if table.is_secured:
        same = " and ".join(f"t.{key} = r.{key}" for key in map(identifier, table.keys))
        # A deleted row cannot be looked at any more: as on the platform, all hear of its key.
        visible = f"x.item -> 'new' is null or exists (select from {table.name} as t where {same})"  # nosec B608 - quoted
    return (
        f"select (x.number - 1)::integer as place, (to_jsonb(r){without})::text as new,"  # noqa: S608 # nosec B608 - quoted
        " (select jsonb_object_agg(name, to_jsonb(o) -> name)"
        f"  from jsonb_object_keys(({old}){without}) as name)::text as old,"
        f" array[{met}] as met"
        " from jsonb_array_elements($1::jsonb) with ordinality as x (item, number)"
        f" cross join lateral {_record(table, new)} as r"
        f" cross join lateral {_record(table, old)} as o"
        f" where {visible}"
    )


def _record(table: Table, item: str) -> str:
    """Return the record of what is known of a row; all else in it is null.

    No column's type is named, which its schema may forbid to the subscriber. And into a record
    that is there, no value is put that is not known: some may not be null, those of domains.
    """
    return f"jsonb_populate_record(row((null::{table.name}).*)::{table.name}, {item})"


def _all(conditions: Iterable[Condition], row: str) -> str:
    return " and ".join(condition.sql(row) for condition in conditions) or "true"


def _items(
    table: Table, changes: list[Change], fills: dict[int, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return changed rows for JSON, which Postgres turns into records of the table's types."""
    items = []
    for place, change in enumerate(changes):
        item: dict[str, Any] = {}
        if change.new is not None:
            item["new"] = _object(table, change.relation, change.new) | fills.get(place, {})
        old = _old(table, change)
        if old is not None:
            item["old"] = old
        items.append(item)
    return items


def _old(table: Table, change: Change) -> dict[str, Any] | None:
    """Return what is told of the row as it was: its key, or all of it by its replica identity."""
    if change.kind == "INSERT":
        return None
    if change.old is None:  # an update that has left the key as it was
        new = _object(table, change.relation, change.new or [])
        return {name: new[name] for name in table.keys if name in new}
    old = _object(table, change.relation, change.old)
    if not change.old_is_whole:
        old = {name: value for name, value in old.items() if value is not None}
    if change.kind == "DELETE" and table.is_secured:
        old = {name: value for name, value in old.items() if name in table.keys}
    return old


def _object(table: Table, relation: Relation, values: Values) -> dict[str, Any]:
    """Return a row by its columns. All values are text, but JSON, which would become a string."""
    json = {column.name for column in table.columns if column.is_json}
    row: dict[str, Any] = {}
    for name, value in zip(relation.columns, values, strict=False):
        if isinstance(value, bytes):
            row[name] = orjson.Fragment(value) if name in json else value.decode()
        elif value is None:
            row[name] = None
    return row


async def _fill(
    connection: Connection, table: Table, changes: list[Change]
) -> dict[int, dict[str, Any]]:
    """Return, by place, the wide values that the log does not repeat: from the table."""
    fills: dict[int, dict[str, Any]] = {}
    for place, change in enumerate(changes):
        missing = [
            name
            for name, value in zip(change.relation.columns, change.new or [], strict=False)
            if isinstance(value, Unchanged)
        ]
        if not missing or not table.keys:
            continue
        key = orjson.dumps(_object(table, change.relation, change.new or [])).decode()
        same = " and ".join(f"t.{name} = o.{name}" for name in map(identifier, table.keys))
        row = await connection.fetchval(
            f"select to_jsonb(t)::text from {table.name} as t,"  # noqa: S608 # nosec B608 - quoted
            f" {_record(table, '$1::jsonb')} as o where {same}",
            key,
        )
        if row is not None:
            current = _values(row)
            fills[place] = {
                name: orjson.Fragment(current[name]) for name in missing if name in current
            }
    return fills


def _values(text: str) -> dict[str, str]:
    """Return the values of an object that Postgres has written, each as its text.

    So numbers keep their digits, and no value is nested too deeply to be sent on.
    """
    values = {}
    at = 1
    while at < len(text) - 1:
        name, at = _JSON.raw_decode(text, at)
        begin = at + len(": ")
        _, at = _JSON.raw_decode(text, begin)
        values[name] = text[begin:at]
        at += len(", ")
    return values


def _told(place: int, change: Change, row: Any, bound: Bound, table: Table) -> Seen:
    """Return what each channel gets of one row."""
    ids: dict[tuple[Channel, frozenset[str] | None], list[int]] = {}
    for channel, binding in bound:
        if binding.wants(change):
            ids.setdefault((channel, binding.select), []).append(binding.id)
    encoded: dict[frozenset[str] | None, bytes] = {}
    for _, select in ids:
        if select not in encoded:
            encoded[select] = _data(change, row["new"], row["old"], table, select)
    return [(place, channel, found, encoded[select]) for (channel, select), found in ids.items()]


def _data(
    change: Change, new: str | None, old: str | None, table: Table, select: frozenset[str] | None
) -> bytes:
    """Return the data of a change as JSON."""
    data = _about(change, table.selectable)
    if change.new is not None:
        data["record"] = orjson.Fragment(new or "{}")
    if change.kind != "INSERT":
        data["old_record"] = orjson.Fragment(old or "{}")
    too_large = len(new or "") + len(old or "") > limits.ROW_BYTES
    if too_large or select is not None:
        for name in ("record", "old_record"):
            if name in data:
                text = (new if name == "record" else old) or "{}"
                data[name] = _part(_values(text), select, short=too_large)
    if too_large:
        data["errors"] = _TOO_LARGE
    return orjson.dumps(data)


def _part(values: dict[str, str], select: frozenset[str] | None, *, short: bool) -> dict[str, Any]:
    return {
        name: orjson.Fragment(value)
        for name, value in values.items()
        if (select is None or name in select) and (not short or len(value.encode()) <= _SHORT)
    }


def refused(changes: list[Change], bound: Bound, errors: list[str] = _UNAUTHORIZED) -> Seen:
    """Return that something has changed, and why no more is told."""
    told: Seen = []
    for place, change in enumerate(changes):
        ids: dict[Channel, list[int]] = {}
        for channel, binding in bound:
            if binding.wants(change):
                ids.setdefault(channel, []).append(binding.id)
        data = _about(change, ()) | {"errors": errors}
        if change.new is not None:
            data["record"] = {}
        if change.kind != "INSERT":
            data["old_record"] = {}
        told += [(place, channel, found, orjson.dumps(data)) for channel, found in ids.items()]
    return told


def _about(change: Change, columns: Iterable[Column]) -> dict[str, Any]:
    moment = dt.datetime.fromtimestamp(change.committed_at / 1e6, dt.UTC)
    return {
        "schema": change.relation.schema,
        "table": change.relation.table,
        "commit_timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "type": change.kind,
        "columns": [{"name": column.name, "type": column.type} for column in columns],
        "errors": None,
    }
