"""The rows of one tenant, from one installation of the kit to another in the same database."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from haive.core.persistence.errors import PersistenceError
from haive.core.persistence.multitenancy._memories import move_memories
from haive.core.persistence.schema import check_schema_name

if TYPE_CHECKING:
    from haive.core.persistence.schema import Connection

# What stays where it is. What was put on record is never removed, and a chain cannot be joined to
# another one: each place has the log of what was done in it, and the registry's tells of the move.
# Requests that were made are forgotten: they were of the last minute; and what is watched is told
# anew. The words of memories are counted as these arrive. Keys are in the registry, for whoever
# opens a tenant asks for them there, wherever its rows are.
_STAYING = (
    "audit_heads", "audit_log", "audit_queue", "memory_sizes", "memory_words", "request_buckets",
    "tenant_keys", "watches",
)  # fmt: skip

# Of both schemas of an installation, what has rows of tenants; not the registry, whose rows stay.
_TABLES = """
select
  c.oid,
  quote_ident(c.relname) as name,
  n.nspname = $1 || '_private' as private,
  array_agg(quote_ident(a.attname) order by a.attnum) filter (where a.attgenerated = '') as columns,
  array_agg(distinct f.confrelid) filter (where f.confrelid <> c.oid) as refers_to,
  min(pg_get_serial_sequence(c.oid::regclass::text, a.attname)) as sequence
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_catalog.pg_constraint as f on f.conrelid = c.oid and f.contype = 'f'
where
  n.nspname in ($1, $1 || '_private') and c.relkind in ('r', 'p') and not c.relispartition
  and c.relname <> all($2)
group by c.oid, c.relname, n.nspname
having bool_or(a.attname = 'tenant_id')
order by c.relname
"""


@dataclass(frozen=True, kw_only=True)
class TenantTable:
    """A table with rows of tenants; its name and those of its columns are quoted."""

    name: str
    private: bool
    columns: tuple[str, ...]
    #: Its sequence in the installation that was looked at.
    sequence: str | None

    def of(self, schema: str) -> str:
        """The table in an installation."""
        return f"{schema}_private.{self.name}" if self.private else f"{schema}.{self.name}"


async def tenant_tables(connection: Connection, schema: str) -> list[TenantTable]:
    """The tables with rows of tenants, each after those that it refers to."""
    rows = await connection.fetch(_TABLES, check_schema_name(schema), ["tenants", *_STAYING])
    found = {row["oid"]: row for row in rows}
    order = TopologicalSorter(
        {oid: set(row["refers_to"] or ()) & found.keys() for oid, row in found.items()}
    )
    tables = []
    for row in (found[oid] for oid in order.static_order()):
        # Once for each foreign key that a table has.
        columns = tuple(dict.fromkeys(row["columns"]))
        tables.append(
            TenantTable(
                name=row["name"],
                private=row["private"],
                columns=columns,
                sequence=row["sequence"],
            )
        )
    return tables


async def move_rows(
    connection: Connection, source: str, target: str, tenant_id: str
) -> dict[str, int]:
    """Put all rows of a tenant from one installation into another, in the caller's transaction.

    They are copied as they are: what triggers have counted of them comes along, and is neither
    counted nor put on record once more.

    Returns:
        How many rows each table had.

    Raises:
        PersistenceError: What was copied is not what was removed; roll back.
    """
    check_schema_name(source), check_schema_name(target)
    # What meters and records looks at this setting first: neither. An owner whom policies bind
    # would see, and so move, nothing: then each of these statements fails.
    await connection.execute(
        "select pg_catalog.set_config('persistence.watch', '--', true), "
        "pg_catalog.set_config('row_security', 'off', true)"
    )
    # Erasures last: where one is not done, rows of the user are to be moved yet, which it refuses.
    tables = sorted(await tenant_tables(connection, target), key=lambda t: t.name == "erasures")
    sources = {table.of(""): table for table in await tenant_tables(connection, source)}
    if {name: set(table.columns) for name, table in sources.items()} != {
        table.of(""): set(table.columns) for table in tables
    }:
        raise PersistenceError(
            f"The tables of {source} and {target} differ.", hint="Run `haive migrate`."
        )
    # A target that had the tenant before, or a part of it: the source is the truth.
    for table in reversed(tables):
        await connection.execute(_delete(table, target), tenant_id)
    copied = {}
    for table in tables:
        columns = ", ".join(table.columns)
        done = await connection.execute(
            f"insert into {table.of(target)} ({columns}) overriding system value "  # noqa: S608 # nosec B608
            f"select {columns} from {table.of(source)} where tenant_id = $1 "
            "for update",  # who would change a copied row waits, and finds it gone
            tenant_id,
        )
        copied[table.of("")] = _count(done)
    for table in reversed(tables):
        removed = _count(await connection.execute(_delete(table, source), tenant_id))
        if removed != copied[table.of("")]:
            raise PersistenceError(
                f"Of {table.name}, {copied[table.of('')]} rows were copied and {removed} removed."
            )
    # Definer functions, which the registry's triggers call, are bound by policies, and must be.
    await connection.execute("select pg_catalog.set_config('row_security', 'on', true)")
    for table in tables:
        await _continue_sequence(connection, sources[table.of("")].sequence, table.sequence)
    memories = await move_memories(connection, source, target, tenant_id)
    return {table.name: copied[table.of("")] for table in tables} | {
        f"memories in {name}": count for name, count in memories.items()
    }


async def _continue_sequence(
    connection: Connection, source: str | None, target: str | None
) -> None:
    """Let a sequence go on where the other one is, so that later rows come after those copied."""
    if source is None or target is None:
        return
    query = "select last_value + is_called::int from {}"
    ahead, behind = [await connection.fetchval(query.format(name)) for name in (source, target)]
    if behind < ahead:
        # Not setval: of a sequence in use, somebody could have drawn a number beyond it meanwhile.
        await connection.execute(f"alter sequence {target} restart with {int(ahead)}")


def _delete(table: TenantTable, schema: str) -> str:
    return f"delete from {table.of(schema)} where tenant_id = $1"  # noqa: S608 # nosec B608


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
