"""What was acknowledged is there when all of Postgres is killed, and callers need do nothing."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence._retry import retrying
from haive.core.persistence.errors import ConnectionLostError
from haive.core.persistence.local import LocalStack
from haive.core.persistence.models import Message, MessageRole, NewMessage

# A stack gives up on a Postgres that dies more than six times without living ten seconds.
STACKS, KILLS_A_STACK = 4, 5
CONVERSATIONS, WRITERS = 40, 64
# All by one statement, and all by COPY.
BATCHES = (50, 50, 50, 4_200)
# What asyncpg raises when the server is killed under it.
LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


@dataclass
class Load:
    """Writers that never stop, and what they were told."""

    store: PostgresStore
    conversations: list[UUID]
    acknowledged: list[Message] = field(default_factory=list)
    batches: list[list[object]] = field(default_factory=list)
    stopping: bool = False
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def write(self, number: int) -> None:
        chance = random.Random(number)
        while not self.stopping:
            message = await self.store.add_message(
                chance.choice(self.conversations),
                chance.choice(list(MessageRole)),
                f"message {next(self.numbers)} {'x' * chance.randrange(300)}",
                token_usage={"input_tokens": chance.randrange(9), "output_tokens": 1, "cost": "0.1"}
                if chance.random() < 0.3
                else None,
            )
            self.acknowledged.append(message)

    async def write_batches(self, size: int) -> None:
        chance = random.Random(size)
        while not self.stopping:
            messages = [
                NewMessage(
                    id=uuid4(),
                    conversation_id=chance.choice(self.conversations),
                    role=MessageRole.USER,
                    content=f"message {next(self.numbers)} of a batch",
                )
                for _ in range(size)
            ]
            self.batches.append([message.id for message in messages])
            self.acknowledged += await self.store.add_messages(messages)
            await asyncio.sleep(0.05)

    @asynccontextmanager
    async def running(self):
        """Write while the block runs; an error of any writer is the block's."""
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(self.write(number))
            for size in BATCHES:
                group.create_task(self.write_batches(size))
            yield
            self.stopping = True

    async def goes_on(self, within: float = 20.0) -> None:
        """Wait until messages are acknowledged again."""
        before = len(self.acknowledged)
        async with asyncio.timeout(within):
            while len(self.acknowledged) <= before + WRITERS:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)


@asynccontextmanager
async def durable_stack():
    async with LocalStack() as stack:
        connection = await asyncpg.connect(stack.database_url)
        names = ("fsync", "synchronous_commit")
        settings = [await connection.fetchval(f"show {name}") for name in names]
        await connection.close()
        assert settings == ["on", "on"]
        yield stack


async def begin(store: PostgresStore) -> Load:
    made = [await store.create_conversation("agent") for _ in range(CONVERSATIONS)]
    return Load(store, [conversation.id for conversation in made])


@pytest.fixture
def kill(postgres_pids):
    """Kill every process of a stack's Postgres, and return when another one runs."""

    async def strike(stack: LocalStack) -> None:
        pids = postgres_pids(stack.data_dir)
        assert pids
        for pid in pids:
            with suppress(ProcessLookupError):  # a backend goes with its postmaster
                os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while postgres_pids(stack.data_dir)[:1] in ([], pids[:1]):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)

    return strike


@pytest.mark.timeout(240)
async def test_what_was_acknowledged_survives_the_kill_of_all_processes_and_writers_go_on(
    find_faults, kill, capsys
):
    chance = random.Random(20)
    kills = written = 0
    for _ in range(STACKS):
        async with durable_stack() as stack:
            config = PersistenceConfig(connection_string=stack.database_url)
            async with PostgresStore(config) as store:
                load = await begin(store)
                async with load.running():
                    for _ in range(KILLS_A_STACK):
                        await load.goes_on()
                        await asyncio.sleep(chance.uniform(0.05, 0.4))
                        await kill(stack)
                        kills += 1
                    await load.goes_on()
            assert await find_faults(stack.database_url, load.acknowledged, load.batches) == []
            written += len(load.acknowledged)
    assert kills == STACKS * KILLS_A_STACK
    with capsys.disabled():
        print(f"\n{kills} kills, {written:,} acknowledged messages, none lost", end=" ")  # noqa: T201


async def test_the_same_check_finds_what_an_answer_before_the_commit_loses(find_faults, kill):
    lost = "acknowledged messages are lost"
    async with durable_stack() as stack:
        config = PersistenceConfig(connection_string=stack.database_url)
        async with PostgresStore(config) as store:
            load = await begin(store)
            async with answers_early(stack.database_url) as (append, ahead):
                store._transport.append = append
                async with load.running():
                    await load.goes_on()
                    while not ahead:  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(0)
                    await kill(stack)  # before the next turn of the loop: no commit is sent
                    await load.goes_on()
        faults = await find_faults(stack.database_url, load.acknowledged, load.batches)
    assert any(fault.startswith(lost) for fault in faults), faults


@asynccontextmanager
async def answers_early(
    dsn: str,
) -> tuple[Callable[..., Awaitable[list[Message]]], set[asyncpg.Connection]]:
    """The sabotage: an append that answers while its transaction is still open.

    With it come the connections whose commit has not been sent, though the answer was given.
    """
    late = set()
    ahead = set()

    async def commit(connection: asyncpg.Connection) -> None:
        ahead.add(connection)
        await asyncio.sleep(0.02)
        ahead.remove(connection)
        with suppress(*LOST):
            await connection.execute("commit")
        connection.terminate()

    async def once(rows):
        connection = None
        try:
            connection = await asyncpg.connect(dsn)
            await connection.execute("begin; set local role haive_client")
            seqs, times, _ = await connection.fetchrow(
                "select * from haive_private.append_messages(null, $1, $2, $3, $4)",
                [row.conversation_id for row in rows],
                [row.id for row in rows],
                [row.role for row in rows],
                [row.text for row in rows],
            )
        except LOST as error:
            if connection is not None:
                connection.terminate()
            raise ConnectionLostError from error
        task = asyncio.create_task(commit(connection))
        late.add(task)
        task.add_done_callback(late.discard)
        return [row.stored(seq, at) for row, seq, at in zip(rows, seqs, times, strict=True)]

    async def append(rows):
        return await retrying(lambda: once(rows), 20)

    yield append, ahead
    await asyncio.gather(*late)
