"""What writes goes on record: one row a statement, with ids and never with content."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from pydantic import BaseModel, TypeAdapter

from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer, KeyRing
from haive.core.persistence.errors import ConflictError, NotFoundError
from haive.core.persistence.models import NewConversation, NewMessage

_KEY = KeyRing.generate()
_ANYTHING = TypeAdapter(object)


class Cart(BaseModel):
    items: int = 1


class Tenant:
    """A tenant with something of everything, and the operations on it."""

    def __init__(self, store):
        self.store = store
        self.checkpointer = Checkpointer(store)
        self.conversation: UUID
        self.message: UUID
        self.checkpoints: list[UUID] = []

    async def settle(self):
        conversation = await self.store.create_conversation("agent", "ada")
        self.conversation = conversation.id
        self.message = (await self.store.add_message(conversation.id, "user", "hello")).id
        for step in range(3):
            self.checkpoints.append(await self.checkpointer.save("t", {"step": step}))
        await self.put("c")

    async def begin(self):
        await self.store.create_conversation("agent")

    async def begin_many(self):
        await self.store.create_conversations([NewConversation(agent_id="a") for _ in range(3)])

    async def begin_again(self):
        await self.store.create_conversation("agent", "ada", id=self.conversation)

    async def add(self):
        await self.store.add_message(self.conversation, "user", "more")

    async def add_many(self):
        new = NewMessage(conversation_id=self.conversation, role="user", content="x")
        await self.store.add_messages([new] * 3)

    async def copy_many(self):
        new = NewMessage(conversation_id=self.conversation, role="user", content="x")
        await self.store.add_messages([new] * 4_500)

    async def add_again(self):
        await self.store.add_message(self.conversation, "user", "hello", id=self.message)

    async def update(self):
        await self.store.update_conversation(self.conversation, metadata={"title": "new"})

    async def delete(self):
        await self.store.delete_conversation(self.conversation)

    async def set_member(self):
        await self.store.set_member("bob", "admin")
        await self.store.set_member("bob", "reader")
        await self.store.set_member("bob", None)
        await self.store.set_member("bob", None)

    async def save_first(self):
        await self.checkpointer.save("new", {"a": 1})

    async def save_next(self):
        await self.checkpointer.save("t", {"a": 1})

    async def save_with_schema(self):
        config = CheckpointConfig()
        await Checkpointer(self.store, config).save("t", Cart())

    async def tag(self):
        await self.checkpointer.tag(self.checkpoints[0], "milestone")

    async def fail(self):
        await self.checkpointer.mark_failed(self.checkpoints[0])

    async def branch(self):
        await self.checkpointer.create_branch(self.checkpoints[0], "try")

    async def put(self, channel="d"):
        write = {"idx": 0, "channel": channel, "size": 0, "codec": 0, "payload": ""}
        arguments = {
            "thread_id": "t",
            "checkpoint_id": self.checkpoints[-1],
            "task_id": uuid4(),
            "writes": json.dumps([write, {**write, "idx": -1}]),
        }
        if type(self.store).__name__ == "SupabaseStore":
            arguments["writes"] = json.loads(arguments["writes"])
        call = self.store._transport.call
        await call("put_checkpoint_writes", arguments, _ANYTHING, safe=True)
        return arguments

    async def put_again(self):
        arguments = await self.put("e")
        call = self.store._transport.call
        await call("put_checkpoint_writes", arguments, _ANYTHING, safe=True)

    async def copy_branch(self):
        await self.copy()

    async def copy(self):
        await self.checkpointer.copy_thread("t", "copy")

    async def delete_thread(self):
        await self.checkpointer.delete_thread("t")

    async def prune(self):
        await Checkpointer(
            self.store, CheckpointConfig(max_checkpoints_per_thread=1, retention_days=None)
        ).prune("t")

    async def seal_branch(self):
        await self.checkpointer.create_branch(self.checkpoints[0], "try", {"why": "a test"})
        await self.seal()

    async def seal(self):
        keyed = Checkpointer(self.store, CheckpointConfig(encryption_key=_KEY))
        await keyed.rotate_keys("t", seal_plain=True)


_WRITES = {
    "begin": ["insert conversations 1"],
    "begin_many": ["insert conversations 3"],
    "begin_again": [],
    "add": ["insert messages 1"],
    "add_many": ["insert messages 3"],
    "copy_many": ["insert messages 4500"],
    "add_again": [],
    "update": ["update conversations 1"],
    "delete": ["delete conversations 1"],
    "set_member": ["insert members 1", "update members 1", "delete members 1"],
    "save_first": ["insert threads 1", "insert branches 1", "insert checkpoints 1"],
    "save_next": ["insert checkpoints 1"],
    "save_with_schema": ["insert checkpoints 1", "insert checkpoint_schemas 1"],
    "tag": ["update checkpoints 1"],
    "fail": ["update checkpoints 1"],
    "branch": ["insert branches 1"],
    "put": ["insert checkpoint_writes 2"],
    "put_again": ["insert checkpoint_writes 2", "update checkpoint_writes 1"],
    "copy": [
        "insert threads 1", "insert branches 1", "insert checkpoints 3",
        "insert checkpoint_writes 2",
    ],
    "copy_branch": [
        "insert threads 1", "insert branches 2", "insert checkpoints 3", "update branches 1",
        "insert checkpoint_writes 2",
    ],
    "delete_thread": ["delete threads 1"],
    "prune": ["update checkpoints 1", "delete checkpoints 2"],
    "seal": ["update checkpoints 3", "update checkpoint_writes 2"],
    "seal_branch": [
        "insert branches 1", "update checkpoints 3", "update checkpoint_writes 2",
        "update branches 1",
    ],
}  # fmt: skip


@pytest.mark.parametrize("operation", _WRITES)
async def test_an_operation_leaves_exactly_these_rows(store, record, operation):
    tenant = Tenant(store)
    await tenant.settle()
    if operation == "copy_branch":
        await tenant.branch()
    await record.switch("writes")
    before = await record.seq()
    await getattr(tenant, operation)()
    assert await record.told(before) == _WRITES[operation]


async def test_what_is_told_of_rows(store, record):
    tenant = Tenant(store)
    await tenant.settle()
    one, two = tenant.conversation, (await store.create_conversation("agent")).id
    before = await record.seq()
    new = [NewMessage(conversation_id=c, role="user", content="x") for c in (one, two, one)]
    await store.add_messages(new)
    await store.update_conversation(one, metadata={"title": "t", "tags": ["new"]})
    await store.set_member("bob", "reader")
    await tenant.checkpointer.tag(tenant.checkpoints[0], "milestone")
    await store.delete_conversation(one)
    await store.delete_conversation(two)
    key = await record.owner.fetchval(
        "select thread_key::text from haive.threads where tenant_id = $1", record.tenant
    )
    rows = await record.since(before)
    assert [row["rows"] for row in rows if row["action"] != "read"] == [
        {str(one): [2, 3], str(two): [1, 1]},
        {str(one): ["tags", "title"]},
        {"bob": "reader"},
        {str(tenant.checkpoints[0]): key},
        {str(one): [1, 3]},
        {str(two): [1, 1]},
    ]


async def test_who_and_from_where_is_told(stack, store, transport, record, owner):
    before = await record.seq()
    await store.create_conversation("agent")
    (row,) = await record.since(before)
    login, role, address = {
        "postgres": ("postgres", "haive_client", "127.0.0.1"),
        "supabase": ("authenticator", "service_role", None),  # by a socket, and no proxy before it
    }[transport]
    assert (row["login"], row["role"], row["address"]) == (login, role, address)
    assert row["actor"] is None


async def test_a_users_id_and_the_id_of_their_request_are_told(stack, record):
    await record.owner.execute(
        "insert into haive.members (tenant_id, user_id, role) values ($1, 'ada', 'member')",
        record.tenant,
    )
    before = await record.seq()
    headers = {
        "apikey": stack.publishable_key,
        "Authorization": f"Bearer {stack.mint_user_token('ada')}",
        "Content-Profile": "haive",
        "User-Agent": "a browser",
        "X-Request-Id": "request-7",
        "X-Forwarded-For": "192.0.2.7",
        "x-haive-tenant": record.tenant,
    }
    async with httpx.AsyncClient(headers=headers) as client:
        answer = await client.post(
            f"{stack.url}/rest/v1/rpc/create_conversations",
            json={"conversations": [{"agent_id": "agent"}]},
        )
    assert answer.status_code == 200
    (row,) = await record.since(before)
    assert (row["actor"], row["role"]) == ("ada", "authenticated")
    assert (row["application"], row["request_id"]) == ("a browser", "request-7")
    assert "192.0.2.7" in row["address"]


async def test_a_refused_attempt_is_rolled_back_with_its_record(store, record):
    tenant = Tenant(store)
    await tenant.settle()
    before = await record.seq()
    with pytest.raises(NotFoundError):
        await store.delete_conversation(uuid4())
    with pytest.raises(ConflictError):
        await store.add_message(tenant.conversation, "user", "other", id=tenant.message)
    assert await record.told(before) == []


async def test_no_content_is_on_record(store, record):
    canary = "the canary sings"
    conversation = await store.create_conversation(
        canary,
        metadata={
            "title": canary, "tags": [canary], "context": {canary: canary},
            "settings": {canary: canary},
        },
    )  # fmt: skip
    await store.add_message(conversation.id, "user", canary, metadata={canary: canary})
    await store.update_conversation(conversation.id, agent_id=canary, metadata={"title": canary})
    checkpointer = Checkpointer(store)
    one = await checkpointer.save("t", {canary: canary}, {canary: canary})
    await checkpointer.tag(one, canary)
    await checkpointer.create_branch(one, canary, {canary: canary})
    await store.query_conversations(filters={"text": canary})
    await checkpointer.get_history("t")
    await checkpointer.list_branches("t")
    await store.delete_conversation(conversation.id)
    query = "select string_agg(l::text, '') from haive.audit_log as l where tenant_id = $1"
    assert canary not in await record.owner.fetchval(query, record.tenant)


async def test_the_switches_of_a_tenant_are_on_record_beyond_its_end(store, record, client):
    tenant = Tenant(store)
    await tenant.settle()
    await store.set_member("bob", "reader")
    before = await record.seq()
    for changes in ({"name": "New", "status": "suspended"}, {"status": "deleted"}):
        await client.fetchval(
            "select haive.update_tenant($1, $2)", record.tenant, json.dumps(changes)
        )
    assert await client.fetchval("select haive.purge_tenant($1)", record.tenant) == 1
    rows = await record.since(before)
    assert [(row["action"], row["object"]) for row in rows] == [
        ("update", "tenants"), ("update", "tenants"), ("delete", "tenants")
    ]  # fmt: skip
    assert rows[0]["rows"]["changed"] == ["name", "status"]
    assert [row["rows"]["status"] for row in rows] == ["suspended", "deleted", "deleted"]
    page = json.loads(await client.fetchval("select haive.audit_page(tenant => $1)", record.tenant))
    assert len(page) == rows[-1]["seq"]


async def test_that_auditing_ends_is_on_record_itself(store, record, client):
    for mode in ("off", "writes"):
        await client.fetchval(
            "select haive.update_tenant($1, $2)", record.tenant, json.dumps({"audit": mode})
        )
        await store.create_conversation("agent")
    rows = (await record.since())[-3:]
    assert [(row["object"], row["rows"].get("audit")) for row in rows] == [
        ("tenants", "off"), ("tenants", "writes"), ("conversations", None)
    ]  # fmt: skip


async def test_a_tenant_entered_before_does_not_hide_what_the_platform_does(record, client):
    async with client.transaction():
        await client.fetchval("select haive.current_tenant('default')")
        await client.fetchval(
            "select haive.update_tenant($1, $2)", record.tenant, json.dumps({"name": "New"})
        )
    assert (await record.told())[-1] == "update tenants 1"


async def test_a_statement_of_the_owners_is_on_record_of_each_tenant(direct, record, owner):
    await Tenant(direct).settle()
    before = await record.seq()
    for table in (
        "members", "conversations", "messages", "threads", "branches", "checkpoints",
        "checkpoint_writes", "checkpoint_schemas",
    ):  # fmt: skip
        await owner.execute(
            f"update haive.{table} set tenant_id = tenant_id where tenant_id = $1", record.tenant
        )
    await owner.execute("delete from haive.messages where tenant_id = $1", record.tenant)
    await owner.execute("delete from haive.checkpoints where tenant_id = $1", record.tenant)
    assert await record.told(before) == [
        "update conversations 1", "update messages 1", "update threads 1", "update branches 1",
        "update checkpoints 3", "update checkpoint_writes 2", "delete messages 1",
        "delete checkpoints 3",
    ]  # fmt: skip


async def test_of_many_rows_the_first_thousand_are_named(direct, record):
    before = await record.seq()
    made = await direct.create_conversations([NewConversation(agent_id="a") for _ in range(1_200)])
    new = [NewMessage(conversation_id=one.id, role="user", content="x") for one in made]
    await direct.add_messages(new)
    for row in await record.since(before):
        assert row["row_count"] == 1_200
        assert (len(row["rows"]), row["rows"]["more"]) == (1_001, 200)


async def test_a_record_holds_no_other_transaction_up(record, connect, stack):
    """It is chained at the commit: else the second would wait for the head that the first has."""
    slow, fast = [await connect("haive_client", stack.database_url) for _ in range(2)]
    make = "select haive.create_conversations($1, $2)"
    document = json.dumps([{"agent_id": "a"}])
    async with slow.transaction():
        await slow.fetchval(make, document, record.tenant)
        async with asyncio.timeout(5):
            await fast.fetchval(make, document, record.tenant)
    rows = await record.since()
    assert rows[-1]["at"] < rows[-2]["at"]


async def test_invitations_erasures_and_keys_are_on_record(record, client):
    before = await record.seq()
    query = "select haive.create_invitation(role => 'reader', tenant => $1)"
    invited = json.loads(await client.fetchval(query, record.tenant))
    query = "select haive.revoke_invitation($1, $2)"
    await client.fetchval(query, UUID(invited["id"]), record.tenant)
    for _ in range(2):
        await client.fetchval("select haive.erase_user('lovelace', tenant => $1)", record.tenant)
    await record.owner.execute(
        "insert into haive_private.tenant_keys (tenant_id, key_id, wrapped, kek_id, status)"
        " values ($1, '0123abcd', 'x', 'kek', 'active')",
        record.tenant,
    )
    rows = await record.since(before)
    assert [(row["action"], row["object"]) for row in rows] == [
        ("insert", "invitations"), ("update", "invitations"), ("insert", "erasures"),
        ("update", "erasures"), ("insert", "tenant_keys"),
    ]  # fmt: skip
    assert rows[0]["rows"] == {invited["id"]: "reader"}
    assert rows[4]["rows"] == {"0123abcd": "active"}
    assert not any("lovelace" in str(row["rows"]) for row in rows)


_UNWATCHED = """
    select c.relname || ' ' || v.verb as missing
    from pg_class as c
    join pg_attribute as a on a.attrelid = c.oid and a.attname = 'tenant_id' and a.attnum > 0
    cross join (values ('insert', 4), ('delete', 8), ('update', 16)) as v (verb, bit)
    where (
        c.relnamespace = 'haive'::regnamespace
        or c.oid = 'haive_private.tenant_keys'::regclass
      ) and c.relkind in ('r', 'p')
      and c.relname <> all($1) and not exists (
        select from pg_trigger as t join pg_proc as p on p.oid = t.tgfoid
        where t.tgrelid = c.oid and t.tgtype & v.bit > 0 and t.tgenabled = 'O'
          and p.proname in ('audit_rows', 'audit_row', 'audit_messages'))"""
# The outbox tells again what its tables tell, and the log does not tell of itself.
_UNTOLD = ["events", "audit_log"]


async def test_every_table_of_tenants_is_watched(postgres: asyncpg.Connection):
    assert await postgres.fetch(_UNWATCHED, _UNTOLD) == []


@pytest.mark.parametrize(
    "sabotage",
    [
        "create table haive.notes (tenant_id text)",
        "drop trigger audit_delete on haive.messages",
        "alter table haive.members disable trigger audit_update",
    ],
)
async def test_a_table_that_is_not_watched_is_noticed(postgres, sabotage):
    await postgres.execute(sabotage)
    assert await postgres.fetch(_UNWATCHED, _UNTOLD) != []


async def test_a_tenant_that_is_not_audited_touches_none_of_it(stack, store, record, superuser):
    tenant = Tenant(store)
    await tenant.settle()
    await record.switch("off")
    before = await record.seq()
    # Whoever tried to put something on record would fail.
    await superuser.execute("revoke insert on haive_private.audit_queue from haive_writer")
    try:
        for operation in ("begin", "add", "add_many", "update", "set_member", "tag", "branch"):
            await getattr(tenant, operation)()
        await store.get_conversation(tenant.conversation)
        await tenant.delete()
        await record.switch("off")
    finally:
        await superuser.execute("grant insert on haive_private.audit_queue to haive_writer")
    assert await record.told(before) == []


async def test_nothing_waits_in_the_queue_between_transactions(store, record, superuser):
    await Tenant(store).settle()
    assert await superuser.fetchval("select count(*) from haive_private.audit_queue") == 0


async def test_what_else_its_transaction_writes_is_on_record(direct, record):
    """The triggers that a lone message and a checkpoint pass by are there for what follows."""
    tenant = Tenant(direct)
    await tenant.settle()
    before = await record.seq()
    async with record.owner.transaction():
        await record.owner.execute(
            "select haive_private.append_message($1, $2, $3, 'user', 'one')",
            *(record.tenant, tenant.conversation, uuid4()),
        )
        await record.owner.execute(
            "update haive.messages set content = 'two' where tenant_id = $1", record.tenant
        )
        await record.owner.execute(
            "select haive.save_checkpoint('new', $2, payload => '\\x00', size => 1, tenant => $1)",
            *(record.tenant, uuid4()),
        )
        await record.owner.execute(
            "update haive.checkpoints set tags = '{x}' where tenant_id = $1", record.tenant
        )
    assert await record.told(before) == [
        "insert messages 1", "update messages 2", "insert threads 1", "insert branches 1",
        "insert checkpoints 1", "update checkpoints 4",
    ]  # fmt: skip


async def test_what_a_trigger_of_ones_own_writes_with_it_is_on_record(direct, record):
    tenant = Tenant(direct)
    await tenant.settle()
    await record.owner.execute("""
        create function public.note_title() returns trigger language plpgsql security definer as $$
        begin
          update haive.conversations set title = new.content where id = new.conversation_id;
          return null;
        end $$;
        create trigger note_title after insert on haive.messages
        for each row execute function public.note_title()""")
    before = await record.seq()
    try:
        await tenant.add()
    finally:
        await record.owner.execute("drop function public.note_title() cascade")
    assert sorted(await record.told(before)) == ["insert messages 1", "update conversations 1"]
