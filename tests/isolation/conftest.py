"""Two tenants with a canary each, in shared tables and in schemas of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg
import pytest

from haive.core.persistence.multitenancy import _copying as copying
from haive.core.persistence.multitenancy._schemas import provision

# One row in every table, with the canary in whatever takes text or bytes.
_FILL = """
with c as (
  insert into {0}.conversations
    (tenant_id, id, agent_id, user_id, title, tags, context, participants, settings, is_session)
  values ($1, $2, $3, $3, $3, array[$3], jsonb_build_object('note', $3::text), array[$3],
    jsonb_build_object('note', $3::text), true)
), ss as (
  insert into {0}.sessions (tenant_id, id, segment, writers, moderators)
  values ($1, $2, 1, array[$3], array[$3])
), sg as (
  insert into {0}.session_segments (
    tenant_id, session_id, number, base_segment, base_count, start_seq
  )
  values ($1, $2, 1, 0, 0, 0)
), sm as (
  insert into {0}.session_merges (
    tenant_id, id, session_id, secondary_id, segment, before_segment, before_count,
    secondary_count, secondary_status, strategy, conflict_resolution, root_count, dropped
  )
  values ($1, $2, $2, $2, 1, 0, 0, 0, 'open', 'append', 'primary_wins', 0,
    jsonb_build_array(jsonb_build_object('reason', $3::text)))
), u as (
  insert into {0}.members (tenant_id, user_id, role) values
    ($1, $1 || '-owner', 'owner'), ($1, $3, 'member')
), t as (
  insert into {0}.threads (tenant_id, thread_key, thread_id, user_id)
  values ($1, $2, $2::uuid::text, $3)
), b as (
  insert into {0}.branches (tenant_id, branch_id, thread_key, name, head_id, metadata)
  values ($1, $2, $2, 'main', $2, jsonb_build_object('note', $3::text))
), s as (
  insert into {0}.checkpoint_schemas (tenant_id, hash, payload)
  values ($1, uuid_send($2), $3::text::bytea)
), w as (
  insert into {0}.checkpoint_writes (
    tenant_id, thread_key, checkpoint_id, task_id, idx, channel, size, codec, payload
  )
  values ($1, $2, $2, $2, 0, $3, 32, 0, $3::text::bytea)
), i as (
  insert into {0}.invitations (tenant_id, id, label, role, token_hash, expires_at)
  values ($1, $2, $3, 'member', sha256(uuid_send($2)), now() + interval '1 day')
), e as (
  insert into {0}.erasures (tenant_id, subject_hash, salt, counts)
  values ($1, sha256(uuid_send($2)), uuid_send($2) || uuid_send($2),
    jsonb_build_object('note', $3::text))
), k as (
  insert into {0}_private.tenant_keys (tenant_id, key_id, wrapped, kek_id, status)
  values ($1, left($3, 8), $3::text::bytea, 'kek', 'retired')
)
insert into {0}.checkpoints (
  tenant_id, branch_id, thread_key, id, size, codec, depth, payload, metadata, tags, search
)
values ($1, $2, $2, $2, 32, 0, 0, $3::text::bytea, jsonb_build_object('note', $3::text), array[$3],
  jsonb_build_object('note', $3::text))
"""


@dataclass(frozen=True)
class Tenant:
    """A tenant with one of everything; all ids of its rows are the same."""

    name: str
    schema: str
    key: UUID = field(default_factory=uuid4)
    canary: str = field(default_factory=lambda: uuid4().hex)

    def seen_in(self, text: str) -> bool:
        """Whether something of it is there, in the clear or as bytes in hex."""
        return self.canary in text or self.canary.encode().hex() in text

    async def contents(self, connection: asyncpg.Connection) -> dict[str, list[str]]:
        """All its rows, by table."""
        tables = await copying.tenant_tables(connection, self.schema)
        query = "select t::text from {} as t where tenant_id = $1 order by 1"
        return {
            table.name: [
                row[0]
                for row in await connection.fetch(query.format(table.of(self.schema)), self.name)
            ]
            for table in tables
        }


def _filled(schema: str, tenant: Tenant) -> str:
    # Literals take on any type; a parameter has one.
    text = _FILL.format(schema)
    for number, value in enumerate((tenant.name, tenant.key, tenant.canary), 1):
        text = text.replace(f"${number}", f"'{value}'")
    return text


async def _settle(dsn: str, isolation: str) -> list[Tenant]:
    connection = await asyncpg.connect(dsn)
    made = []
    for color in ("red", "blue"):
        name = f"{color}-{uuid4().hex[:8]}"
        await connection.execute(
            "insert into haive.tenants (tenant_id, name, isolation, audit)"
            " values ($1, $1, $2, 'writes')",
            *(name, isolation),
        )
        schema = "haive" if isolation == "row" else await provision(dsn, "haive", name)
        tenant = Tenant(name, schema)
        await connection.execute(
            f"update {schema}.tenants set name = $2,"
            " settings = jsonb_build_object('note', $2::text) where tenant_id = $1",
            *(name, tenant.canary),
        )
        await connection.execute(_filled(schema, tenant))
        await connection.execute(
            f"select {schema}_private.append_message($1, $2, $2, 'user', $3, $4, $5, 1, 1, $3)",
            *(name, tenant.key, tenant.canary),
            *(f'[{{"type": "text", "text": "{tenant.canary}"}}]', f'{{"n": "{tenant.canary}"}}'),
        )
        await connection.execute(
            f"select {schema}.open_memory_collection("
            """'{"name": "notes", "model": "m", "dimensions": 2}')"""
        )
        metadata = {
            "text": tenant.canary,
            "namespace": [tenant.canary],
            "path": f"{tenant.canary}\x01",
            "key": tenant.canary,
            "value": {"note": tenant.canary},
            "parts": 1,
            "created_at": "2026-01-01T00:00:00.000000Z",
            "timestamp": "2026-01-01T00:00:00.000000Z",
        }
        memory = {"id": str(tenant.key), "metadata": metadata, "vector": "[1,0]"}
        await connection.execute(
            f"select {schema}.put_memories('notes', $1, $2)", json.dumps([memory]), name
        )
        made.append(tenant)
    await connection.close()
    return made


@pytest.fixture(scope="session")
def settled():
    """Make the two tenants: `red, blue = await settled(dsn, "schema")`."""
    return _settle
