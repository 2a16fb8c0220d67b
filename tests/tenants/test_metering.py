"""What is counted is what is there, whatever was done; days and months end where the tenant is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer
from haive.core.persistence.errors import InvalidInputError, PersistenceError
from haive.core.persistence.models import MessageRole, NewMessage
from haive.core.persistence.multitenancy import ResourceQuota, TenantManager

NewId = Callable[[], str]
TEXTS = ("", "plain", "Straße, 東京, 🜚", "x" * 3_000, '{"a": "\\u0001"}')


class History:
    """Operations in any order, on conversations and threads."""

    def __init__(self, store, chance: random.Random) -> None:
        self.store = store
        self.chance = chance
        self.checkpointer = Checkpointer(store)
        self.conversations = []
        self.threads: set[str] = set()

    def document(self):
        return {
            self.chance.choice("abc"): self.chance.choice(TEXTS)
            for _ in range(self.chance.randrange(3))
        }

    def message(self, conversation) -> NewMessage:
        text = self.chance.choice(TEXTS)
        parts = [
            {"type": "text", "text": text},
            {"type": "tool_call", "id": "1", "name": "t", "arguments": self.document()},
        ]
        return NewMessage(
            conversation_id=conversation.id,
            role=MessageRole.ASSISTANT,
            content=self.chance.choice([text, parts]),
            metadata=self.document(),
        )

    async def create(self):
        self.conversations.append(
            await self.store.create_conversation(
                "agent",
                metadata={
                    "title": self.chance.choice([None, *TEXTS[:3]]),
                    "tags": self.chance.sample(("ä", "b", "c"), self.chance.randrange(3)),
                    "context": self.document(),
                    "participants": ["somebody"],
                },
            )
        )

    async def add(self):
        if self.conversations:
            one = self.chance.choice(self.conversations)
            count = self.chance.choice((1, 1, 2, 9))
            await self.store.add_messages([self.message(one) for _ in range(count)])

    async def change(self):
        if self.conversations:
            one = self.chance.choice(self.conversations)
            changes = {"title": self.chance.choice(TEXTS[:3]), "context": self.document()}
            await self.store.update_conversation(one.id, metadata={**changes, "tags": ["new"]})

    async def delete(self):
        if len(self.conversations) > 2:
            one = self.conversations.pop(self.chance.randrange(len(self.conversations)))
            await self.store.delete_conversation(one.id)

    async def save(self):
        thread = self.chance.choice(("one", "two", "three"))
        self.threads.add(thread)
        for _ in range(3):
            await self.checkpointer.save(
                thread,
                {"n": self.chance.random(), "text": self.chance.choice(TEXTS)},
                tags=["kept"],
                metadata=self.document(),
            )

    async def annotate(self):
        if self.threads:
            thread = self.chance.choice(sorted(self.threads))
            found = await self.checkpointer.get_history(thread)
            await self.checkpointer.tag(
                self.chance.choice(found).id, self.chance.choice("xyz"), thread_id=thread
            )
            await self.checkpointer.create_branch(
                self.chance.choice(found).id,
                f"b{self.chance.random()}",
                self.document(),
                thread_id=thread,
            )

    async def prune(self):
        if self.threads:
            pruning = Checkpointer(self.store, CheckpointConfig(max_checkpoints_per_thread=2))
            await pruning.prune(self.chance.choice(sorted(self.threads)))

    async def copy(self):
        if self.threads and "copy" not in self.threads:
            await self.checkpointer.copy_thread(self.chance.choice(sorted(self.threads)), "copy")
            self.threads.add("copy")

    async def forget(self):
        if len(self.threads) > 1:
            thread = self.chance.choice(sorted(self.threads))
            self.threads.discard(thread)
            await self.checkpointer.delete_thread(thread)

    async def refused(self):
        with pytest.raises(PersistenceError):
            await self.store.add_message("00000000-0000-0000-0000-000000000001", "user", "nowhere")


OPERATIONS = {
    "create": 4, "add": 8, "change": 3, "delete": 2, "save": 4, "annotate": 2, "prune": 1,
    "forget": 1, "copy": 1, "refused": 1,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
async def test_after_any_history_the_meters_say_what_the_rows_say(database: str, seed: int) -> None:
    chance = random.Random(seed)
    async with PostgresStore(PersistenceConfig(connection_string=database, pool_size=3)) as store:
        manager = TenantManager(store)
        quota = ResourceQuota(max_storage_gb=1, max_conversations=1_000)
        await manager.create_tenant("counted", None, {}, quota)
        async with manager.tenant_context("counted") as tenant:
            history = History(tenant, chance)
            for _ in range(60):
                (name,) = chance.choices(list(OPERATIONS), OPERATIONS.values())
                await getattr(history, name)()
            found = await manager.reconcile_usage("counted")
            assert (found.conversations_drift, found.storage_drift) == (0, 0)
            assert found.conversations == len(history.conversations)
            assert found.storage > 0
            for one in history.conversations:
                await tenant.delete_conversation(one.id)
            for thread in history.threads:
                await history.checkpointer.delete_thread(thread)
        used = await manager.usage("counted")
        found = await manager.reconcile_usage("counted")
        assert (used.conversations.used, found.conversations_drift, found.storage_drift) == (
            0,
            0,
            0,
        )


async def test_what_the_owner_of_the_tables_changes_is_counted_too(
    postgres: asyncpg.Connection,
) -> None:
    await postgres.execute("select haive.create_tenant('a', null, '{}', '{\"metered\": true}')")
    await postgres.execute(
        "insert into haive.conversations (tenant_id, id, agent_id)"
        " select t, gen_random_uuid(), 'x' from unnest(array['a', 'default']) as t"
    )
    await postgres.execute(
        "insert into haive.messages (tenant_id, conversation_id, seq, id, role, content)"
        " select tenant_id, id, n, gen_random_uuid(), 'user', 'hello'"
        " from haive.conversations, generate_series(1, 5) as n"
    )
    await postgres.execute("update haive.messages set content = 'more than before' where seq > 3")
    await postgres.execute("delete from haive.messages where seq = 1")
    found = await postgres.fetchval("select haive.reconcile_usage('a')::jsonb ->> 'storage_drift'")
    assert found == "0"
    assert (
        await postgres.fetchval("select count(distinct tenant_id) from haive_private.meters") == 1
    )
    await postgres.execute("delete from haive.tenants where tenant_id = 'a'")
    assert await postgres.fetchval("select count(*) from haive_private.meters") == 0


async def test_reconciling_finds_and_mends_a_drift(postgres: asyncpg.Connection) -> None:
    await postgres.execute("select haive.create_tenant('a', null, '{}', '{\"metered\": true}')")
    await postgres.execute("""select haive.create_conversations('[{"agent_id": "x"}]', 'a')""")
    await postgres.execute("update haive_private.meters set bytes = bytes + 7, conversations = 3")
    found = "select haive.reconcile_usage('a')::jsonb - 'storage'"
    assert '"storage_drift": -7' in await postgres.fetchval(found)
    assert '"storage_drift": 0' in await postgres.fetchval(found)


async def test_writers_go_on_while_the_rows_are_counted(
    postgres: asyncpg.Connection, connect: Callable
) -> None:
    await postgres.execute("select haive.create_tenant('a', null, '{}', '{\"metered\": true}')")
    write = """select haive.create_conversations('[{"agent_id": "x"}]', 'a')"""
    await postgres.execute(write)
    await postgres.execute("update haive_private.meters set bytes = bytes + 7, conversations = 3")
    early, late = await connect("haive_client"), await connect("haive_client")
    await late.execute("set lock_timeout = '1s'")
    found = "select haive.reconcile_usage('a')::jsonb - 'storage'"
    async with early.transaction():
        await early.execute(write)
        async with postgres.transaction():
            counted = await postgres.fetchval(found)
            assert '"storage_drift": -7' in counted
            assert '"conversations": 1,' in counted
            await late.execute(write)
    counted = await postgres.fetchval(found)
    assert '"storage_drift": 0' in counted
    assert '"conversations": 3,' in counted
    assert '"conversations_drift": 0' in counted


async def test_counting_beside_writers_finds_no_drift_and_makes_none(
    postgres: asyncpg.Connection, connect: Callable
) -> None:
    await postgres.execute("select haive.create_tenant('a', null, '{}', '{\"metered\": true}')")
    write = """select haive.create_conversations('[{"agent_id": "x"}]', 'a')"""
    await postgres.execute(write)
    found = "select haive.reconcile_usage('a')::jsonb ->> 'storage_drift'"

    async def repeat(statement: str, times: int) -> set[str]:
        connection = await connect("haive_client")
        return {await connection.fetchval(statement) for _ in range(times)}

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(repeat(write, 100))
        drifts = [group.create_task(repeat(found, 30)) for _ in range(2)]
    assert [drift.result() for drift in drifts] == [{"0"}, {"0"}]
    # Two who find the same drift at once mend it once.
    await postgres.execute(
        "update haive_private.meters set bytes = bytes + 7"
        " where slot = (select min(slot) from haive_private.meters)"
    )
    await asyncio.gather(*(repeat(found, 1) for _ in range(3)))
    assert await postgres.fetchval(found) == "0"


@pytest.mark.parametrize(
    ("zone", "day", "end"),
    [
        ("UTC", date(2026, 11, 22), datetime(2026, 12, 1, tzinfo=UTC)),
        ("America/New_York", date(2026, 10, 31), datetime(2026, 11, 1, 4, tzinfo=UTC)),
        # The clocks go back on November 1.
        ("America/New_York", date(2026, 11, 1), datetime(2026, 12, 1, 5, tzinfo=UTC)),
        ("Asia/Kolkata", date(2026, 12, 31), datetime(2026, 12, 31, 18, 30, tzinfo=UTC)),
        ("Pacific/Kiritimati", date(2028, 2, 29), datetime(2028, 2, 29, 10, tzinfo=UTC)),
    ],
)
async def test_a_month_ends_at_midnight_where_the_tenant_is(
    postgres: asyncpg.Connection, zone: str, day: date, end: datetime
) -> None:
    await postgres.execute(
        "select haive.create_tenant('a', null, jsonb_build_object('timezone', $1::text))", zone
    )
    assert await postgres.fetchval("select haive_private.month_end('a', $1)", day) == end


async def test_days_and_months_turn_and_never_go_back(postgres: asyncpg.Connection) -> None:
    await postgres.execute("select haive.create_tenant('a', null, '{}', '{\"metered\": true}')")
    await postgres.execute("select set_config('persistence.tenant', 'a', false)")
    turn = "select haive_private.turn_meter('a', 3, $1)"
    use = "select (haive_private.metered_use('a', $1))[3]"

    async def write(day: date, tokens: int) -> date:
        on = await postgres.fetchval(turn, day)
        await postgres.execute(
            "update haive_private.meters set day_messages = day_messages + 1,"
            " day_input_tokens = day_input_tokens + $1, month_tokens = month_tokens + $1",
            tokens,
        )
        return on

    first = date(2026, 1, 30)
    assert await write(first, 5) == first
    assert await write(first + timedelta(days=1), 7) == date(2026, 1, 31)
    assert await postgres.fetchval(use, date(2026, 1, 31)) == 12
    # Seen from February, though nothing was written there yet.
    assert await postgres.fetchval(use, date(2026, 2, 1)) == 0
    assert await write(date(2026, 2, 1), 1) == date(2026, 2, 1)
    assert await postgres.fetchval(use, date(2026, 2, 1)) == 1
    # A transaction that began before midnight writes after one that began later.
    assert await write(date(2026, 1, 31), 2) == date(2026, 2, 1)
    assert await postgres.fetchval(use, date(2026, 2, 1)) == 3
    days = await postgres.fetch(
        "select day, messages, input_tokens from haive_private.meter_days order by day"
    )
    assert [tuple(row) for row in days] == [(first, 1, 5), (date(2026, 1, 31), 1, 7)]


async def test_analytics_of_the_documentation(manager: TenantManager, new_id: NewId) -> None:
    known = (await manager.create_tenant(new_id())).tenant_id
    async with manager.tenant_context(known) as store:
        conversation = await store.create_conversation("agent", user_id="ada")
        usage = {"input_tokens": 6, "output_tokens": 4, "cost": "0.25"}
        for _ in range(2):
            await store.add_message(conversation.id, "user", "hello", token_usage=usage)
    for time_range in (
        "last_30_days", "last_1_day", "last_24_hours", "today", "this_month", "all",
        (datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)),
    ):  # fmt: skip
        analytics = await manager.get_analytics(
            include_tenants=[known, "org-456"],
            metrics=["conversation_count", "token_usage", "storage_used", "active_users"],
            time_range=time_range,
        )
        assert analytics.unknown == ("org-456",)
        found = analytics[known]
        assert (found.conversation_count, found.active_users, found.message_count) == (1, 1, None)
        assert found.token_usage.model_dump() == {
            "input_tokens": 12, "output_tokens": 8, "total_tokens": 20, "cost": Decimal("0.5"),
        }  # fmt: skip
        assert found.storage_used == analytics.totals.storage_used > 0
        assert analytics.totals.token_usage == found.token_usage
    yesterday = datetime.now(UTC) - timedelta(days=1)
    before = await manager.get_analytics(
        [known], ["message_count"], (yesterday - timedelta(1), yesterday)
    )
    assert before[known].message_count == 0
    assert known in await manager.get_analytics(metrics=["message_count"])


@pytest.mark.parametrize(
    "time_range",
    [None, 30, "last_0_days", "yesterday", "last_99999_days",
     (datetime(2026, 1, 1), datetime(2026, 1, 2)),  # noqa: DTZ001
     (datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))],
)  # fmt: skip
async def test_a_time_range_without_meaning_is_refused(manager: TenantManager, time_range) -> None:
    with pytest.raises(InvalidInputError):
        await manager.get_analytics(time_range=time_range)


async def test_users_are_active_in_the_time_that_their_messages_are_of(
    manager: TenantManager, new_id: NewId
) -> None:
    known = (await manager.create_tenant(new_id())).tenant_id
    now = datetime.now(UTC)
    async with manager.tenant_context(known) as store:
        conversation = await store.create_conversation("agent", user_id="ada")
        for days in (9, 1):
            await store.add_messages(
                [
                    NewMessage(
                        conversation_id=conversation.id,
                        role="user",
                        content="hello",
                        created_at=now - timedelta(days=days),
                    )
                ]
            )

    async def active(since: int, until: int) -> int | None:
        time_range = (now - timedelta(days=since), now - timedelta(days=until))
        found = await manager.get_analytics([known], ["active_users"], time_range)
        return found[known].active_users

    assert [await active(10, 8), await active(8, 2), await active(2, 0)] == [1, 0, 1]


async def test_unknown_metrics_are_refused(manager: TenantManager) -> None:
    with pytest.raises(InvalidInputError, match="metrics"):
        await manager.get_analytics(metrics=None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="happiness"):
        await manager.get_analytics(metrics=["happiness"])
