"""Where reads are on record: which rows were read, by whom, and that there is no way past it."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import httpx
import pytest

from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.errors import NotFoundError
from haive.core.persistence.multitenancy import Members
from haive.core.persistence.session import SessionManager

_READERS = r"""
    select p.proname as name from pg_proc as p
    where p.pronamespace in ('haive'::regnamespace, 'haive_private'::regnamespace)
      and (
        p.prosrc ~ 'enter_\w+\([^;]*false\)'
        or (p.prosrc ~ 'enter_\w+\(' and p.prosrc ~ '_docs?\(')
      )
      and p.prosrc not like '%audit_read%'"""
# They answer names and counts, or enter for those who read the log itself.
_COUNTING = {
    "current_tenant", "enter_audit", "count_sealed", "tenant_usage", "memory_stats",
    "open_memory_collection",
}  # fmt: skip
# They answer a row that they wrote, which is on record whatever they changed of it.
_WRITING = {
    "create_invitation", "revoke_invitation", "set_participant", "update_conversation",
    "update_session", "update_session_state",
}  # fmt: skip


async def test_each_read_names_what_was_read(store, record):
    conversation = await store.create_conversation("agent")
    for n in range(3):
        await store.add_message(conversation.id, "user", f"{n}")
    checkpointer = Checkpointer(store)
    one = await checkpointer.save("t", {"a": 1})
    fresh = Checkpointer(store)
    before = await record.seq()
    await store.get_conversation(conversation.id)
    await store.get_conversation(conversation.id, include_messages=True, message_limit=2)
    await store.get_messages(conversation.id, after=1)
    await store.get_messages(conversation.id, after=3)
    await store.query_conversations(include_messages=True)
    await store.query_conversations("nobody")
    await store.create_conversation("agent", id=conversation.id)
    await fresh.restore(one)
    await fresh.list_threads()
    await fresh.list_branches("t")
    thread, branch = await record.owner.fetchrow(
        "select thread_key::text, branch_id::text from haive.branches where tenant_id = $1",
        record.tenant,
    )
    cid = str(conversation.id)
    assert [
        (row["object"], row["rows"], row["row_count"]) for row in await record.since(before)
    ] == [
        ("get_conversation", {cid: None}, 1),
        ("get_conversation", {cid: [2, 3]}, 1),
        ("get_messages", {cid: [2, 3]}, 2),
        ("get_messages", {cid: None}, 0),
        ("query_conversations", {cid: [1, 3]}, 1),
        ("query_conversations", {}, 0),
        ("create_conversations", {cid: None}, 1),
        ("find_checkpoints", {str(one): thread}, 1),
        ("list_threads", {"t": 1}, 1),
        ("list_branches", {branch: None}, 1),
    ]
    assert {row["action"] for row in await record.since(before)} == {"read"}


async def test_what_was_made_before_is_read_and_on_record(store, record):
    manager = SessionManager(store)
    one, other = uuid4(), uuid4()
    await manager.create_session("ada", id=one)
    await manager.branch_session(one, id=other)
    merged = await manager.merge_sessions(one, other, "append")
    await manager.undo_merge(one, merged.merge.id)
    successor = await manager.continue_session(one)
    await Members(store).invite(label="bob")
    before = await record.seq()
    await manager.create_session("ada", id=one)
    await manager.branch_session(one, id=other)
    await manager.continue_session(one)
    again = {"id": str(merged.merge.id)}
    query = "select haive.merge_sessions($1, $2, $3, tenant => $4)"
    await record.owner.execute(query, one, other, again, record.tenant)
    await manager.undo_merge(one, merged.merge.id)
    (invitation,) = await Members(store).invitations()
    assert [(row["action"], row["object"], row["rows"]) for row in await record.since(before)] == [
        ("read", "create_session", {str(one): None}),
        ("read", "create_session", {str(other): None}),
        ("read", "continue_session", {str(successor.id): None}),
        ("read", "merge_sessions", {str(one): None}),
        ("read", "undo_merge", {str(one): None}),
        ("read", "get_session", {str(one): None}),
        ("read", "list_invitations", {str(invitation.id): "member"}),
    ]


async def test_reads_are_not_on_record_where_only_writes_are(store, record):
    await record.switch("writes")
    conversation = await store.create_conversation("agent")
    before = await record.seq()
    await store.get_conversation(conversation.id)
    await store.query_conversations()
    assert await record.told(before) == []


async def test_what_is_not_found_leaves_no_record(store, record):
    before = await record.seq()
    with pytest.raises(NotFoundError):
        await store.get_conversation(uuid4())
    assert await record.told(before) == []


async def test_every_function_that_reads_a_tenant_puts_it_on_record(postgres: asyncpg.Connection):
    assert {row["name"] for row in await postgres.fetch(_READERS)} == _COUNTING | _WRITING


async def test_a_transaction_that_may_not_write_reads_nothing(client, record, direct):
    conversation = await direct.create_conversation("agent")
    read = "select haive.get_conversation($1, tenant => $2)"
    with pytest.raises(asyncpg.PostgresError) as raised:
        async with client.transaction(readonly=True):
            await client.fetchval(read, conversation.id, record.tenant)
    assert raised.value.sqlstate == "PT403"
    await record.switch("writes")
    async with client.transaction(readonly=True):
        assert await client.fetchval(read, conversation.id, record.tenant)


@pytest.fixture
async def api(stack, record):
    """The REST API as a member of the tenant, and as its owner."""
    await record.owner.execute(
        "insert into haive.members (tenant_id, user_id, role)"
        " select $1, r || $1, r from unnest(array['member', 'owner']) as r",
        record.tenant,
    )
    clients = []
    for role in ("member", "owner"):
        token = stack.mint_user_token(f"{role}{record.tenant}")
        headers = {
            "apikey": stack.publishable_key,
            "Authorization": f"Bearer {token}",
            "Accept-Profile": "haive",
            "Content-Profile": "haive",
        }
        base = f"{stack.url}/rest/v1/"
        clients.append(httpx.AsyncClient(base_url=base, headers=headers, timeout=30))
    yield clients
    for one in clients:
        await one.aclose()


_TABLES = ("conversations", "messages", "threads", "branches", "checkpoints", "checkpoint_writes")


async def test_members_read_no_table_past_the_record_and_functions_still_serve_them(
    api, record, direct
):
    conversation = await direct.create_conversation("agent", f"member{record.tenant}")
    await direct.add_message(conversation.id, "user", "hello")
    await Checkpointer(direct).save("t", {"a": 1}, user_id=f"member{record.tenant}")
    before = await record.seq()
    for client in api:
        for table in _TABLES:
            assert (await client.get(table)).json() == []
        found = await client.post("rpc/query_conversations", json={})
        assert [one["id"] for one in found.json()["conversations"]] == [str(conversation.id)]
        got = await client.post("rpc/get_messages", json={"conversation_id": str(conversation.id)})
        assert len(got.json()) == 1
    assert await record.told(before) == ["read query_conversations 1", "read get_messages 1"] * 2


async def test_members_read_tables_where_only_writes_are_on_record(api, record, direct):
    await direct.create_conversation("agent", f"member{record.tenant}")
    await record.switch("writes")
    for client in api:
        assert len((await client.get("conversations")).json()) == 1


async def test_a_get_request_is_refused_where_it_could_leave_no_record(api, record, direct):
    conversation = await direct.create_conversation("agent", f"member{record.tenant}")
    member, _ = api
    before = await record.seq()
    asked = {"conversation_id": str(conversation.id)}
    answer = await member.get("rpc/get_conversation", params=asked)
    assert answer.status_code == 403
    assert answer.json()["code"] == "PT403"
    assert await record.told(before) == []
    await record.switch("writes")
    assert (await member.get("rpc/get_conversation", params=asked)).status_code == 200
