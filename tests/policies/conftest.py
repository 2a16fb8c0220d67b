"""Two tenants, and those who come to look."""

from __future__ import annotations

import json
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import pytest

#: A user's conversation, one they take part in, one of others in their tenant, and one elsewhere.
#: As many threads, named `thread own` and so on, with the same ids for all that is in them.
TARGETS = {
    "own": UUID("019aaaaa-0000-7000-8000-000000000001"),
    "shared": UUID("019aaaaa-0000-7000-8000-000000000002"),
    "other": UUID("019aaaaa-0000-7000-8000-000000000003"),
    "foreign": UUID("019aaaaa-0000-7000-8000-000000000004"),
}


@dataclass(frozen=True)
class Persona:
    """Who calls: the database role, the user's id if any, and the tenant that they name."""

    role: str
    sub: str | None = None
    entered: str | None = "red"

    async def enter(self, connection: asyncpg.Connection) -> None:
        """Become the persona until the end of the transaction, as PostgREST does it."""
        await connection.execute(f"set local role {self.role}")
        claims = {"role": self.role} | ({"sub": self.sub} if self.sub else {})
        headers = {"x-haive-tenant": self.entered} if self.entered else {}
        settings = {"request.jwt.claims": json.dumps(claims), "persistence.tenant": ""}
        if self.role != "haive_client":
            settings["request.headers"] = json.dumps(headers)
        elif self.entered:
            settings["persistence.tenant"] = self.entered
        for name, value in settings.items():
            await connection.execute("select set_config($1, $2, true)", name, value)


#: One of each. All users are named in the conversations `own` and `shared`, members or not.
PERSONAS = {
    "anon": Persona("anon"),
    "signed in": Persona("authenticated", "stranger"),
    "elsewhere": Persona("authenticated", "foreigner"),
    "reader": Persona("authenticated", "reader"),
    "member": Persona("authenticated", "member"),
    "admin": Persona("authenticated", "admin"),
    "owner": Persona("authenticated", "owner"),
    "service_role": Persona("service_role"),
    "haive_client": Persona("haive_client"),
    "no tenant": Persona("haive_client", entered=None),
}


async def settle(connection: asyncpg.Connection, user: str | None) -> None:
    """Fill both tenants, with `user` as the one that the targets are named after."""
    await connection.execute(
        """
        insert into haive.tenants (tenant_id, name, audit)
        values ('red', 'Red', 'writes'), ('blue', 'Blue', 'writes');
        insert into haive.members (tenant_id, user_id, role) values
          ('red', 'reader', 'reader'), ('red', 'member', 'member'), ('red', 'admin', 'admin'),
          ('red', 'owner', 'owner'), ('red', 'somebody', 'member'),
          ('blue', 'foreigner', 'member'), ('blue', 'boss', 'owner');
        insert into haive_private.tenant_keys (tenant_id, key_id, wrapped, kek_id, status) values
          ('red', '00000001', 'w', 'kek', 'active'), ('red', '00000002', 'w', 'kek', 'retired'),
          ('blue', '00000001', 'w', 'kek', 'active'), ('blue', '00000002', 'w', 'kek', 'retired');
        """
    )
    rows = [
        ("red", TARGETS["own"], user, []),
        ("red", TARGETS["shared"], "somebody", [user or "anyone"]),
        ("red", TARGETS["other"], "somebody", []),
        ("blue", TARGETS["foreign"], "boss", []),
    ]
    for tenant, target, user_id, participants in rows:
        await connection.execute(
            """
            with conversation as (
              insert into haive.conversations (
                tenant_id, id, agent_id, user_id, participants, is_session
              )
              values ($1, $2, 'agent', $3, $4, true)
            ), session as (
              insert into haive.sessions (tenant_id, id, segment, writers)
              values ($1, $2, 1, $4)
            ), segment as (
              insert into haive.session_segments (
                tenant_id, session_id, number, base_segment, base_count, start_seq
              )
              values ($1, $2, 1, 0, 0, 0)
            )
            insert into haive.session_merges (
              tenant_id, id, session_id, secondary_id, segment, before_segment, before_count,
              secondary_count, secondary_status, strategy, conflict_resolution, root_count
            )
            values ($1, $2, $2, $2, 1, 0, 0, 0, 'open', 'append', 'primary_wins', 0)
            """,
            *(tenant, target, user_id, participants),
        )
        await connection.execute(
            "select haive_private.append_message($1, $2, $2, 'user', 'hello')", tenant, target
        )
    for name, (tenant, target, _, _) in zip(TARGETS, rows, strict=True):
        await connection.execute(
            "insert into haive.invitations (tenant_id, id, role, token_hash, expires_at)"
            " values ($1, $2, 'reader', sha256(convert_to($3, 'UTF8')), now() + interval '1 day')",
            *(tenant, target, f"token {name}"),
        )
    for name, (tenant, target, user_id, _) in zip(TARGETS, rows, strict=True):
        await connection.execute(
            """
            with thread as (
              insert into haive.threads (tenant_id, thread_key, thread_id, user_id)
              values ($1, $2, $3, $4)
            ), branch as (
              insert into haive.branches (tenant_id, branch_id, thread_key, name, head_id)
              values ($1, $2, $2, 'main', $2)
            ), schema as (
              insert into haive.checkpoint_schemas (tenant_id, hash, payload)
              values ($1, uuid_send($2), '{}')
            ), write as (
              insert into haive.checkpoint_writes (
                tenant_id, thread_key, checkpoint_id, task_id, idx, channel, size, codec, payload
              )
              values ($1, $2, $2, $2, 0, 'c', 0, 0, '')
            )
            insert into haive.checkpoints (
              tenant_id, branch_id, thread_key, id, size, codec, depth, payload
            )
            values ($1, $2, $2, $2, 0, 0, 0, '')
            """,
            *(tenant, target, f"thread {name}", user_id),
        )
    await connection.execute(
        "select haive.open_memory_collection($1)",
        json.dumps({"name": "notes", "model": "m", "dimensions": 2}),
    )
    for tenant, target, user_id, _ in rows:
        memory = {
            "id": str(target),
            "metadata": {
                "text": "a note",
                "user_id": user_id,
                "target": str(target),
                "namespace": [str(target)],
                "path": f"{target}\x01",
                "key": "k",
                "value": {},
                "parts": 1,
                "created_at": "2026-01-01T00:00:00.000000Z",
                "timestamp": "2026-01-01T00:00:00.000000Z",
            },
            "vector": "[1,0]",
            "tokens": "AAAA",
        }
        await connection.execute(
            "select haive.put_memories('notes', $1, $2)", json.dumps([memory]), tenant
        )
    # What a transaction has written itself, nobody reads before its end: be it of an earlier one.
    await connection.execute("update haive.events set xid = '3'")
    # The record is written at the commit, and this may be undone.
    await connection.execute("set constraints all immediate")


@pytest.fixture(scope="session")
def personas() -> dict[str, Persona]:
    return PERSONAS


@pytest.fixture(scope="session")
def targets() -> dict[str, UUID]:
    return TARGETS


@pytest.fixture(scope="session")
def settled():
    return settle
