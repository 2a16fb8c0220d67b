"""Messages as rows, and what must be true of every database at every moment."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

_KINDS = (
    *("uuid", "uuid", "text", "text", "jsonb", "jsonb"),
    *("int", "int", "text", "numeric", "timestamptz"),
)


@dataclass(frozen=True)
class Message:
    """The columns of a message in the order of append_message's arguments."""

    conversation_id: UUID
    id: UUID = field(default_factory=uuid4)
    role: str = "user"
    content: str = "hello"
    parts: str | None = None
    metadata: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    model: str | None = None
    cost: Any = None
    created_at: Any = None

    def but(self, **changes: Any) -> Message:
        return replace(self, **changes)


class Writer:
    """Calls the two functions that write messages; each answer is (seq, time, failure) rows."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def one(self, message: Message) -> tuple[Any, ...]:
        places = ", ".join(f"${place + 2}::{kind}" for place, kind in enumerate(_KINDS))
        query = f"select * from haive_private.append_message($1, {places})"
        return tuple(await self._connection.fetchrow(query, None, *astuple(message)))

    async def many(self, messages: list[Message]) -> list[tuple[Any, ...]]:
        places = ", ".join(f"${place + 2}::{kind}[]" for place, kind in enumerate(_KINDS))
        query = f"select * from haive_private.append_messages($1, {places})"
        columns = zip(*map(astuple, messages), strict=True)
        row = await self._connection.fetchrow(query, None, *map(list, columns))
        failures = row["failures"] or [None] * len(messages)
        return list(zip(row["seqs"], row["times"], failures, strict=True))

    async def conversation(self, **columns: Any) -> UUID:
        document = {"id": str(uuid4()), "agent_id": "agent", "user_id": "user", **columns}
        query = "select haive.create_conversations($1)"
        await self._connection.fetchval(query, json.dumps([document]))
        return UUID(document["id"])


_BROKEN = {
    "seq without gaps": """
        select conversation_id from haive.messages group by tenant_id, conversation_id
        having min(seq) <> 1 or max(seq) <> count(*)""",
    "counters equal to their sums": """
        select c.id from haive.conversations as c
        left join haive.messages as m on m.tenant_id = c.tenant_id and m.conversation_id = c.id
        group by c.tenant_id, c.id
        having c.message_count <> count(m.id)
          or c.input_tokens <> coalesce(sum(m.input_tokens), 0)
          or c.output_tokens <> coalesce(sum(m.output_tokens), 0)
          or c.cost <> coalesce(sum(m.cost), 0)
          or c.last_message_at < max(m.created_at) filter (where m.created_at <= now())""",
    "each message in one event": """
        select m.id from haive.messages as m
        left join haive.events as e
          on e.tenant_id = m.tenant_id and e.conversation_id = m.conversation_id
          and e.kind = 'messages.added' and m.seq between e.first_seq and e.last_seq
        group by m.tenant_id, m.id having count(e.id) <> 1""",
    "each event of messages that exist": """
        select e.id from haive.events as e
        join haive.conversations as c on c.tenant_id = e.tenant_id and c.id = e.conversation_id
        where e.kind = 'messages.added'
          and not (1 <= e.first_seq and e.first_seq <= e.last_seq
            and e.last_seq <= c.message_count)""",
}


@pytest.fixture
def message():
    return Message


@pytest.fixture
def writer_of():
    return Writer


@pytest.fixture
def writer(client: asyncpg.Connection) -> Writer:
    return Writer(client)


@pytest.fixture
def broken(postgres: asyncpg.Connection):
    """Return what is wrong with the test's database; nothing, it should be."""

    async def look(connection: asyncpg.Connection = postgres) -> dict[str, Any]:
        found = {rule: await connection.fetch(query) for rule, query in _BROKEN.items()}
        return {rule: rows for rule, rows in found.items() if rows}

    return look
