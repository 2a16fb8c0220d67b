"""What has to be known of a table to tell a role of its changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from haive.core.persistence.local.realtime.filters import identifier

if TYPE_CHECKING:
    from haive.core.persistence.local.realtime.database import Connection
    from haive.core.persistence.local.realtime.pgoutput import Relation

# Asked for each batch: grants and policies change without a word in the log.
_QUERY = """
select
  a.attname as name,
  t.typname as type,
  coalesce(b.typname, t.typname) in ('json', 'jsonb') as is_json,
  coalesce(a.attnum = any (i.indkey), false) as is_key,
  has_column_privilege($3, c.oid, a.attnum, 'select') as selectable,
  c.relrowsecurity and not r.rolbypassrls and not r.rolsuper as is_secured
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_attribute as a on a.attrelid = c.oid
join pg_catalog.pg_type as t on t.oid = a.atttypid
left join pg_catalog.pg_type as b on b.oid = t.typbasetype
left join pg_catalog.pg_index as i on i.indrelid = c.oid and i.indisprimary
join pg_catalog.pg_roles as r on r.rolname = $3
where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column, and whether the role may select it."""

    name: str
    type: str
    is_json: bool
    is_key: bool
    selectable: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table as one role sees it."""

    name: str
    """The qualified name, quoted."""
    columns: tuple[Column, ...]
    is_secured: bool
    """Whether row level security applies to the role."""

    @property
    def keys(self) -> list[str]:
        """The columns of the primary key."""
        return [column.name for column in self.columns if column.is_key]

    @property
    def selectable(self) -> list[Column]:
        """The columns that the role may select."""
        return [column for column in self.columns if column.selectable]


async def find_table(connection: Connection, relation: Relation, role: str) -> Table:
    """Return a table as a role sees it now; one that is gone has no columns."""
    rows = await connection.fetch(_QUERY, relation.schema, relation.table, role)
    return Table(
        name=f"{identifier(relation.schema)}.{identifier(relation.table)}",
        columns=tuple(
            Column(
                name=row["name"],
                type=row["type"],
                is_json=row["is_json"],
                is_key=row["is_key"],
                selectable=row["selectable"],
            )
            for row in rows
        ),
        is_secured=bool(rows) and rows[0]["is_secured"],
    )
