"""Many callers and few conversations, good and bad, on a real database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise
from uuid import UUID, uuid4

import pytest

from haive.core.persistence import PostgresStore
from haive.core.persistence.errors import (
    ConflictError,
    ContentTooLargeError,
    NotFoundError,
    PersistenceError,
)
from haive.core.persistence.models import Message

CALLERS, ROUNDS = 60, 8
# 200 kB of JSON but 1.2 MB in the database: the client lets it pass, the server refuses it.
REFUSED = {"numbers": [1] * 100_000}
KINDS = {"good": 60, "burst": 12, "unknown": 6, "same": 6, "other": 6, "refused": 1, "cancelled": 9}


@dataclass
class Callers:
    """Callers that do what a seed says, each checking its own outcomes."""

    store: PostgresStore
    conversations: list[UUID]
    answered: list[Message] = field(default_factory=list)
    given_up: set[UUID] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=count)

    async def run(self, seed: int) -> None:
        chance = random.Random(seed)
        mine: list[Message] = []
        for _ in range(ROUNDS):
            (kind,) = chance.choices(list(KINDS), KINDS.values())
            mine += await getattr(self, kind)(chance, mine)
            await asyncio.sleep(chance.choice((0, 0, 0.002)))
        self.answered += mine
        for conversation in self.conversations:
            seqs = [m.seq for m in mine if m.conversation_id == conversation]
            assert all(a < b for a, b in pairwise(seqs)), "a caller's messages changed their order"

    async def good(self, chance: random.Random, _) -> list[Message]:
        conversation, text = chance.choice(self.conversations), self.text()
        message = await self.store.add_message(conversation, "user", text)
        assert (message.conversation_id, message.content) == (conversation, text)
        return [message]

    async def burst(self, chance: random.Random, _) -> list[Message]:
        conversation = chance.choice(self.conversations)
        texts = [self.text() for _ in range(chance.randrange(2, 12))]
        messages = await asyncio.gather(
            *(self.store.add_message(conversation, "user", text) for text in texts)
        )
        assert [message.content for message in messages] == texts
        return messages

    async def unknown(self, _, __) -> list[Message]:
        nowhere = uuid4()
        with pytest.raises(NotFoundError, match=str(nowhere)):
            await self.store.add_message(nowhere, "user", self.text())
        return []

    async def same(self, chance: random.Random, mine: list[Message]) -> list[Message]:
        if mine:
            one = chance.choice(mine)
            again = await self.store.add_message(one.conversation_id, one.role, one.text, id=one.id)
            assert again == one
            return []
        # Or both at once: whoever comes second gets the answer of the first.
        conversation, message_id, text = chance.choice(self.conversations), uuid4(), self.text()
        first, second = await asyncio.gather(
            *(self.store.add_message(conversation, "user", text, id=message_id) for _ in range(2))
        )
        assert first == second
        return [first]

    async def other(self, chance: random.Random, mine: list[Message]) -> list[Message]:
        if mine:
            one = chance.choice(mine)
            with pytest.raises(ConflictError, match=str(one.id)):
                await self.store.add_message(one.conversation_id, one.role, self.text(), id=one.id)
        return []

    async def refused(self, chance: random.Random, _) -> list[Message]:
        with pytest.raises(ContentTooLargeError):
            await self.store.add_message(
                chance.choice(self.conversations), "user", self.text(), metadata=REFUSED
            )
        return []

    async def cancelled(self, chance: random.Random, _) -> list[Message]:
        message_id = uuid4()
        self.given_up.add(message_id)
        task = asyncio.create_task(
            self.store.add_message(
                chance.choice(self.conversations), "user", self.text(), id=message_id
            )
        )
        await asyncio.sleep(chance.choice((0, 0.001, 0.004)))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return []

    def text(self) -> str:
        return f"message {next(self.numbers)}"


@pytest.mark.parametrize("seed", range(4))
async def test_each_caller_gets_its_own_outcome_and_nothing_is_lost(
    database, open_store, find_faults, seed
):
    store = await open_store()
    conversations = [(await store.create_conversation("agent")).id for _ in range(5)]
    callers = Callers(store, conversations)

    async with asyncio.timeout(30):
        await asyncio.gather(*(callers.run(seed * 1_000 + number) for number in range(CALLERS)))

    assert len(callers.answered) > CALLERS
    assert await find_faults(database, callers.answered, []) == []
    answered = {message.id for message in callers.answered}
    for conversation in conversations:
        stored = await store.get_messages(conversation, limit=10_000)
        assert {message.id for message in stored} <= answered | callers.given_up


async def test_a_message_of_a_cancelled_caller_is_there_once_or_not_at_all(
    database, open_store, find_faults
):
    store = await open_store(pool_size=2)
    conversation = await store.create_conversation("agent")
    for n in range(40):  # a lone caller, ended at every moment of its call
        task = asyncio.create_task(store.add_message(conversation.id, "user", f"message {n}"))
        await asyncio.sleep(n / 20_000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    last = await store.add_message(conversation.id, "user", "the last one")

    assert last.seq == (await store.get_conversation(conversation.id)).message_count
    assert await find_faults(database, [last], []) == []


async def test_closing_the_store_waits_for_messages_on_their_way(database, open_store, find_faults):
    for callers in (1, 50):
        store = await open_store()
        conversation = await store.create_conversation("agent")
        calls = [
            asyncio.create_task(store.add_message(conversation.id, "user", f"{callers}: {n}"))
            for n in range(callers)
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await store.aclose()
            messages = await asyncio.gather(*calls, return_exceptions=True)
        assert not any(isinstance(message, PersistenceError) for message in messages), messages
        assert await find_faults(database, messages, []) == []
