"""Tenants of a database of its own, registered as `TenantManager` does it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

Register = Callable[..., Awaitable[str]]
_PROGRAM = "from haive.core.persistence.cli import main; main()"
_numbers = itertools.count(1)


@pytest.fixture
async def register(postgres: asyncpg.Connection) -> Register:
    """Make a tenant in the registry: `await register(isolation="schema")`."""

    async def make(isolation: str = "row", **columns: object) -> str:
        tenant = f"tenant-{next(_numbers)}"
        await postgres.execute(
            "insert into haive.tenants (tenant_id, name, isolation) values ($1, $1, $2)",
            *(tenant, isolation),
        )
        for name, value in columns.items():
            await postgres.execute(
                f"update haive.tenants set {name} = $2 where tenant_id = $1", tenant, value
            )
        return tenant

    return make


@pytest.fixture
def haive(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `haive` in an empty directory: `haive("migrate", DATABASE_URL=…)`."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", _PROGRAM, *arguments],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                **environment,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


_FILL = """
with c as (
  insert into {0}.conversations (tenant_id, id, agent_id, is_session)
  values ($1, $2, 'agent', true)
), ss as (
  insert into {0}.sessions (tenant_id, id, segment) values ($1, $2, 1)
), sg as (
  insert into {0}.session_segments (
    tenant_id, session_id, number, base_segment, base_count, start_seq
  )
  values ($1, $2, 1, 0, 0, 0)
), sm as (
  insert into {0}.session_merges (
    tenant_id, id, session_id, secondary_id, segment, before_segment, before_count,
    secondary_count, secondary_status, strategy, conflict_resolution, root_count
  )
  values ($1, $2, $2, $2, 1, 0, 0, 0, 'open', 'append', 'primary_wins', 0)
), u as (
  insert into {0}.members (tenant_id, user_id, role) values ($1, $2::uuid::text, 'owner')
), t as (
  insert into {0}.threads (tenant_id, thread_key, thread_id) values ($1, $2, $2::uuid::text)
), b as (
  insert into {0}.branches (tenant_id, branch_id, thread_key, name, head_id)
  values ($1, $2, $2, 'main', $2)
), s as (
  insert into {0}.checkpoint_schemas (tenant_id, hash, payload) values ($1, uuid_send($2), '')
), i as (
  insert into {0}.invitations (tenant_id, id, role, token_hash, expires_at)
  values ($1, $2, 'member', sha256(uuid_send($2)), now() + interval '1 day')
), e as (
  insert into {0}.erasures (tenant_id, subject_hash, salt)
  values ($1, sha256(uuid_send($2)), uuid_send($2) || uuid_send($2))
), d as (
  insert into {0}_private.meter_days values (
    $1, '2026-01-01', (hashtext($2::uuid::text) & 32767)::smallint, 1, 1, 1, 1, 1
  )
), f as (
  insert into {0}_private.event_floors values ($1, '3') on conflict do nothing
), w as (
  insert into {0}.checkpoint_writes (
    tenant_id, thread_key, checkpoint_id, task_id, idx, channel, size, codec, payload
  )
  values ($1, $2, $2, $2, 0, 'c', 0, 0, '')
)
insert into {0}.checkpoints (tenant_id, branch_id, thread_key, id, size, codec, depth, payload)
values ($1, $2, $2, $2, 0, 0, 0, '')
"""


@pytest.fixture
def fill(postgres: asyncpg.Connection) -> Callable[..., Awaitable[str]]:
    """Give a tenant a row in every table, and answer its conversation."""

    async def run(tenant: str, schema: str = "haive", messages: int = 3) -> str:
        conversation = uuid4()
        await postgres.execute(_FILL.format(schema), tenant, conversation)
        for number in range(messages):
            await postgres.execute(
                f"select {schema}_private.append_message($1, $2, $3, 'user', $4)",
                *(tenant, conversation, uuid4(), f"message {number}"),
            )
        return str(conversation)

    return run
