"""Limits hold exactly however many write at once, and a refusal says what is to be done."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import httpx
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store
from haive.core.persistence._group_commit import GroupCommit
from haive.core.persistence.errors import PersistenceError, QuotaExceededError
from haive.core.persistence.local import LocalStack
from haive.core.persistence.models import Message, MessageRole, NewMessage
from haive.core.persistence.multitenancy import ResourceQuota, TenantManager

NewId = Callable[[], str]
USAGE = {"input_tokens": 6, "output_tokens": 4}


async def race(store: Store, callers: int) -> list[PersistenceError | None]:
    """Begin conversations at the same time; None for each that was made."""

    async def one() -> PersistenceError | None:
        try:
            await store.create_conversation("agent")
        except QuotaExceededError as error:
            return error
        return None

    # The first other error ends them all: nobody is left behind who holds a connection.
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(callers)]
    return [caller.result() for caller in tasks]


async def kill_some(dsn: str, chance: random.Random) -> None:
    """End sessions that write conversations, for as long as it runs."""
    connection = await asyncpg.connect(dsn)
    try:
        while True:
            await asyncio.sleep(chance.uniform(0.01, 0.06))
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where query like '%create_conversations%' and pid <> pg_backend_pid()"
                " and state = 'active' order by random() limit 1"
            )
    finally:
        await connection.close()


@pytest.mark.parametrize("seed", range(2))
async def test_of_many_creates_at_once_exactly_as_many_pass_as_the_limit_allows(
    manager: TenantManager, new_id: NewId, stack: LocalStack, seed: int
) -> None:
    tenant = await manager.create_tenant(new_id(), None, {}, ResourceQuota(max_conversations=100))
    killing = asyncio.create_task(kill_some(stack.admin_url, random.Random(seed)))
    try:
        async with manager.tenant_context(tenant.tenant_id) as store:
            outcomes = await race(store, 500)
    finally:
        killing.cancel()
        with suppress(asyncio.CancelledError):
            await killing
    assert outcomes.count(None) == 100
    for error in filter(None, outcomes):
        assert (error.resource, error.limit, error.used) == ("conversations", 100, 100)
        assert (error.resets_at, error.retry_after, error.retryable) == (None, None, False)
    used = await manager.usage(tenant.tenant_id)
    assert (used.conversations.used, used.conversations.fraction) == (100, 1.0)
    found = await manager.reconcile_usage(tenant.tenant_id)
    assert (found.conversations, found.conversations_drift, found.storage_drift) == (100, 0, 0)


@pytest.mark.parametrize("sabotaged", [False, True])
async def test_the_race_finds_a_limit_that_is_not_locked(
    database: str, postgres: asyncpg.Connection, *, sabotaged: bool
) -> None:
    source = await postgres.fetchval(
        "select pg_get_functiondef(oid) from pg_proc"
        " where pronamespace = 'haive_private'::regnamespace and proname = 'meter'"
    )
    # Time for others between the sum and the commit, which makes no difference under the lock.
    broken = source.replace("exit when found;", "exit when found and pg_sleep(0.002) is not null;")
    if sabotaged:
        broken = broken.replace("perform pg_advisory_xact_lock(v_lock);", "null;")
    assert broken != source
    await postgres.execute("grant create on schema haive_private to haive_writer")
    await postgres.execute(broken)
    await postgres.execute(
        "insert into haive.tenants (tenant_id, name, metered, max_conversations)"
        " values ('raced', 'Raced', true, 50)"
    )
    config = PersistenceConfig(connection_string=database, tenant="raced", pool_size=12)
    async with PostgresStore(config) as store:
        outcomes = await race(store, 150)
    made = await postgres.fetchval("select count(*) from haive.conversations")
    assert made == outcomes.count(None)
    assert (made > 50) is sabotaged


@pytest.mark.parametrize("resource", ["tokens", "storage"])
async def test_a_batch_over_a_limit_passes_as_far_as_the_limit_goes(
    manager: TenantManager, new_id: NewId, resource: str
) -> None:
    tenant = await manager.create_tenant(new_id())
    async with manager.tenant_context(tenant.tenant_id) as store:
        conversations = [await store.create_conversation("agent") for _ in range(5)]
        stored = (await manager.usage(tenant.tenant_id)).storage.used
        # 20 messages of 10 tokens and 132 bytes (of them 102 of the row), and a part of one more.
        quota = (
            ResourceQuota(max_tokens_per_month=205)
            if resource == "tokens"
            else ResourceQuota(max_storage_gb=(stored + 20 * 132 + 131) / 1e9)
        )
        await manager.update_tenant(tenant.tenant_id, quota=quota)

        outcomes = await asyncio.gather(
            *(
                store.add_message(conversations[n % 5].id, "user", "x" * 30, token_usage=USAGE)
                for n in range(60)
            ),
            return_exceptions=True,
        )

        refused = [error for error in outcomes if isinstance(error, BaseException)]
        assert len(outcomes) - len(refused) == 20
        assert {(type(error), error.resource) for error in refused} == {
            (QuotaExceededError, resource)
        }
        assert len({id(error) for error in refused}) == len(refused)
        # All or none.
        with pytest.raises(QuotaExceededError):
            await store.add_messages(
                [
                    NewMessage(
                        conversation_id=conversations[0].id, role=MessageRole.USER, content=text
                    )
                    for text in ("", "x" * 200)
                ]
            ) if resource == "storage" else await store.add_message(
                conversations[0].id, "user", "", token_usage=USAGE
            )
        count = sum([(await store.get_conversation(one.id)).message_count for one in conversations])
        assert count == 20
        if resource == "tokens":
            # What uses none of it is no matter.
            await store.add_message(conversations[0].id, "user", "without tokens")
            assert refused[0].resets_at.utcoffset() == timedelta(0)
            assert refused[0].resets_at > datetime.now(UTC)
            assert refused[0].retry_after > 0
        else:
            # What is deleted makes room.
            await store.delete_conversation(conversations[0].id)
            await store.add_message(conversations[1].id, "user", "x" * 30)


async def test_requests_are_counted_and_refused_with_the_time_to_wait(
    manager: TenantManager, new_id: NewId
) -> None:
    limit = ResourceQuota(max_requests_per_minute=60)
    tenant = await manager.create_tenant(new_id(), None, {}, limit)
    async with manager.tenant_context(tenant.tenant_id) as store:
        conversation = await store.create_conversation("agent")
        started = datetime.now(UTC)
        outcomes = await asyncio.gather(
            *(store.get_conversation(conversation.id) for _ in range(90)), return_exceptions=True
        )
        refused = [error for error in outcomes if isinstance(error, BaseException)]
        assert {type(error) for error in refused} == {QuotaExceededError}
        passed = len(outcomes) - len(refused)
        refilled = (datetime.now(UTC) - started).total_seconds() + 1
        assert 59 <= passed <= 59 + refilled
        error = refused[-1]
        assert (error.resource, error.limit, error.retryable) == ("requests", 60, True)
        assert 1 <= error.retry_after <= 9
        assert 55 <= error.used <= 60
        used = await manager.usage(tenant.tenant_id)
        assert used.requests.fraction > 0.9
        # A bucket gives one a second: one of two writers may get it.
        writing = (store.add_message(conversation.id, "user", "hello") for _ in range(2))
        for outcome in await asyncio.gather(*writing, return_exceptions=True):
            assert isinstance(outcome, QuotaExceededError | Message)
        await asyncio.sleep(error.retry_after)
        await store.get_conversation(conversation.id)


async def test_a_statement_that_comes_too_soon_is_not_sent_again_in_parts() -> None:
    sent = []

    async def append(rows):
        sent.append(len(rows))
        await asyncio.sleep(0)
        raise QuotaExceededError(resource="requests")

    class Row:
        weight = 1

        def __init__(self, conversation_id):
            self.conversation_id = conversation_id

    commits = GroupCommit(append, lambda: None)
    outcomes = await asyncio.gather(
        *(commits.add(Row(uuid4())) for _ in range(50)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {QuotaExceededError}
    assert sum(sent) == 50


@pytest.mark.parametrize(
    ("limits", "resource", "waits"),
    [
        ({"max_requests_per_minute": 1}, "requests", True),
        ({"max_tokens_per_month": 1}, "tokens", True),
        ({"max_storage_bytes": 1000}, "storage", False),
    ],
)
async def test_the_rest_api_answers_429_with_the_time_to_wait(
    stack: LocalStack, new_id: NewId, limits: dict[str, int], resource: str, *, waits: bool
) -> None:
    name = f"rest-{new_id()}"
    connection = await asyncpg.connect(stack.database_url)
    await connection.fetchval("select haive.create_tenant($1)", name)
    conversation = uuid4()
    await connection.fetchval(
        "select haive.create_conversations($1, $2)",
        *(json.dumps([{"id": str(conversation), "agent_id": "a"}]), name),
    )
    await connection.fetchval("select haive.update_tenant($1, $2)", name, json.dumps(limits))
    await connection.close()
    message = {
        "conversation_id": str(conversation), "role": "user", "content": "x" * 1_000,
        "input_tokens": 1, "output_tokens": 1,
    }  # fmt: skip
    async with httpx.AsyncClient(
        base_url=f"{stack.url}/rest/v1",
        headers={"apikey": stack.secret_key, "Content-Profile": "haive"},
    ) as http:
        for _ in range(2):
            answer = await http.post(
                "/rpc/add_messages", json={"messages": [message], "tenant": name}
            )
            if resource != "requests":
                break
    assert answer.status_code == 429
    body = answer.json()
    facts = json.loads(body["details"])
    assert (body["code"], facts["resource"], facts["limit"]) == (
        "PT429", resource, next(iter(limits.values())),
    )  # fmt: skip
    assert ("retry-after" in answer.headers) is waits
    if waits:
        assert int(answer.headers["retry-after"]) == facts["retry_after"] > 0


async def test_who_reaches_80_percent_is_told_once_until_less_is_used_again(
    manager: TenantManager, new_id: NewId, stack: LocalStack
) -> None:
    limit = ResourceQuota(max_conversations=10, max_tokens_per_month=100)
    tenant = (await manager.create_tenant(new_id(), None, {}, limit)).tenant_id
    connection = await asyncpg.connect(stack.database_url)

    async def warnings() -> int:
        return await connection.fetchval(
            "select count(*) from haive.events where tenant_id = $1 and kind = 'quota.warning'",
            tenant,
        )

    async with manager.tenant_context(tenant) as store:
        made = [await store.create_conversation("agent") for _ in range(7)]
        assert await warnings() == 0
        made += [await store.create_conversation("agent") for _ in range(3)]
        assert await warnings() == 1
        for _ in range(3):
            await store.delete_conversation(made.pop().id)
        await store.create_conversation("agent")
        assert await warnings() == 2
        for _ in range(9):
            await store.add_message(made[0].id, "user", "hello", token_usage=USAGE)
        assert await warnings() == 3
    used = await manager.usage(tenant)
    assert (used.conversations.fraction, used.tokens.fraction) == (0.8, 0.9)
    # Another limit, another warning.
    await manager.update_tenant(tenant, quota=ResourceQuota(max_conversations=100))
    await manager.update_tenant(tenant, quota=ResourceQuota(max_conversations=9))
    assert await warnings() == 4
    await connection.close()


async def test_a_tenant_that_is_metered_later_is_counted_with_what_is_on_its_way(
    postgres: asyncpg.Connection, client: asyncpg.Connection, connect
) -> None:
    create = "select haive.create_conversations($1, 'late')"
    documents = [json.dumps([{"id": str(uuid4()), "agent_id": "a"}]) for _ in range(3)]
    await postgres.execute("select haive.create_tenant('late')")
    await client.execute(create, documents[0])
    assert await postgres.fetchval("select count(*) from haive_private.meters") == 0

    other = await connect("haive_client")
    await client.execute("begin")
    await client.execute(create, documents[1])
    update = """select haive.update_tenant('late', '{"max_conversations": 3}')"""
    updating = asyncio.create_task(postgres.execute(update))
    await asyncio.sleep(0.1)
    writing = asyncio.create_task(other.execute(create, documents[2]))
    await asyncio.sleep(0.1)
    assert not updating.done()
    assert not writing.done()
    await client.execute("commit")
    await asyncio.gather(updating, writing)

    usage = json.loads(await postgres.fetchval("select haive.tenant_usage('late')"))
    assert (usage["metered"], usage["conversations"]["used"]) == (True, 3)
    found = json.loads(await postgres.fetchval("select haive.reconcile_usage('late')"))
    assert (found["conversations_drift"], found["storage_drift"]) == (0, 0)
    # A limit is no limit where nothing is counted.
    answer = await postgres.fetchval("""select haive.update_tenant('late', '{"metered": false}')""")
    assert json.loads(answer)["metered"]
    changes = '{"metered": false, "max_conversations": null}'
    answer = await postgres.fetchval("select haive.update_tenant('late', $1)", changes)
    assert not json.loads(answer)["metered"]
    assert await postgres.fetchval("select count(*) from haive_private.meters") == 0


async def test_a_transaction_that_does_not_see_others_is_refused(
    postgres: asyncpg.Connection, client: asyncpg.Connection
) -> None:
    await postgres.execute(
        """select haive.create_tenant('limited', null, '{}', '{"max_conversations": 9}')"""
    )
    async with client.transaction(isolation="repeatable_read"):
        with pytest.raises(asyncpg.PostgresError, match="does not see") as raised:
            await client.execute(
                "select haive.create_conversations($1, 'limited')",
                json.dumps([{"agent_id": "a"}]),
            )
        assert raised.value.sqlstate == "PT422"


async def test_a_transaction_that_may_not_write_is_checked_and_not_counted(
    postgres: asyncpg.Connection, client: asyncpg.Connection
) -> None:
    options = json.dumps({"max_requests_per_minute": 3})
    await postgres.execute("select haive.create_tenant('counted', null, '{}', $1)", options)
    async with client.transaction(readonly=True):
        for _ in range(5):
            await client.execute("select haive.query_conversations(tenant => 'counted')")
    for _ in range(3):
        await client.execute("select haive.query_conversations(tenant => 'counted')")
    async with client.transaction(readonly=True):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await client.execute("select haive.query_conversations(tenant => 'counted')")
        assert raised.value.sqlstate == "PT429"
