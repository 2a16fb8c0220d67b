"""What the functions with rights of their own refuse to those who have not."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest


@pytest.fixture
async def as_persona(postgres, settled, personas):
    await settled(postgres, "member")

    @asynccontextmanager
    async def enter(name):
        async with postgres.transaction():
            await personas[name].enter(postgres)
            yield postgres
            await postgres.execute("reset role")

    return enter


def _refused(sqlstate):
    return pytest.raises(asyncpg.PostgresError, check=lambda error: error.sqlstate == sqlstate)


@pytest.mark.parametrize("extra", [{}, {"participants": ["member"]}, {"user_id": "member"}])
async def test_creating_at_the_id_of_anothers_conversation_shows_nothing_of_it(
    as_persona, targets, extra
):
    guess = {"id": str(targets["other"]), "agent_id": "agent", "user_id": "somebody", **extra}
    with _refused("PT409" if "user_id" in extra else "PT403"):
        async with as_persona("member") as connection:
            await connection.fetchval("select haive.create_conversations($1)", json.dumps([guess]))


async def test_creating_again_what_is_ones_own_is_answered(as_persona, targets):
    again = {"id": str(targets["own"]), "agent_id": "agent", "user_id": "member"}
    async with as_persona("member") as connection:
        answer = await connection.fetchval(
            "select haive.create_conversations($1)", json.dumps([again])
        )
    assert json.loads(answer)[0]["id"] == again["id"]


async def test_adding_at_the_id_of_anothers_message_shows_nothing_of_it(as_persona, targets):
    message = {
        "id": str(targets["other"]),
        "conversation_id": str(targets["own"]),
        "role": "user",
        "content": "hello",
    }
    with _refused("PT409"):
        async with as_persona("member") as connection:
            await connection.fetchval("select haive.add_messages($1)", json.dumps([message]))


async def test_a_batch_with_one_message_for_anothers_conversation_writes_none(
    as_persona, postgres, targets
):
    batch = [
        {"conversation_id": str(targets[target]), "role": "user", "content": "more"}
        for target in ("own", "other")
    ]
    count = "select count(*) from haive.messages"
    before = await postgres.fetchval(count)
    with _refused("PT404"):
        async with as_persona("member") as connection:
            await connection.fetchval("select haive.add_messages($1)", json.dumps(batch))
    assert await postgres.fetchval(count) == before


@pytest.mark.parametrize("user", ["owner", "second admin"])
@pytest.mark.parametrize("role", [None, "reader"])
async def test_an_admin_neither_removes_nor_demotes_owners_and_other_admins(
    as_persona, postgres, user, role
):
    await postgres.execute("insert into haive.members values ('red', 'second admin', 'admin')")
    with _refused("PT403"):
        async with as_persona("admin") as connection:
            await connection.execute("select haive.set_member($1, $2)", user, role)


@pytest.mark.parametrize("role", ["owner", "admin"])
async def test_an_admin_makes_no_owner_and_no_admin(as_persona, role):
    with _refused("PT403"):
        async with as_persona("admin") as connection:
            await connection.execute("select haive.set_member('new', $1)", role)


@pytest.mark.parametrize("role", ["owner", "admin", "member", "reader", None])
async def test_an_owner_sets_every_role(as_persona, postgres, role):
    async with as_persona("owner") as connection:
        await connection.execute("select haive.set_member('somebody', $1)", role)
    query = "select role from haive.members where tenant_id = 'red' and user_id = 'somebody'"
    assert await postgres.fetchval(query) == role


async def test_the_tenant_entered_ends_with_the_transaction(client, postgres):
    await postgres.execute("insert into haive.tenants values ('red', 'Red')")
    document = json.dumps([{"id": str(uuid4()), "agent_id": "a"}])
    await client.fetchval("select haive.create_conversations($1, 'red')", document)
    assert await client.fetchval("select current_setting('persistence.tenant', true)") in (None, "")
    assert await client.fetch("select from haive.conversations") == []


async def test_a_user_cannot_enter_a_tenant_by_its_setting(as_persona):
    async with as_persona("elsewhere") as connection:
        await connection.execute("set local persistence.tenant = 'red'")
        assert (
            await connection.fetch("select from haive.conversations where tenant_id = 'red'") == []
        )
