"""A sealed tenant in use: what is in it, and those who read and write it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer
from haive.core.persistence.errors import PersistenceError
from haive.core.persistence.models import (
    ConversationMetadata,
    MessageRole,
    NewConversation,
    NewMessage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from uuid import UUID

    from haive.core.persistence.bench.timing import Progress
    from haive.core.persistence.store import Store

_BATCH = 1_000
_THREADS = 50
_PLAIN = CheckpointConfig(compression="none")


@dataclass(slots=True)
class Contents:
    """What was written."""

    titles: dict[UUID, str] = field(default_factory=dict)
    texts: dict[UUID, list[str]] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    """Of each thread, the number in its last state."""

    async def lost(self, store: Store) -> int:
        """How many rows are not as they were written; all of them are read."""
        checkpointer = Checkpointer(store, _PLAIN)
        lost = 0
        for conversation, texts in self.texts.items():
            try:
                found = [message.text async for message in store.iter_messages(conversation)]
                title = await _title(store, conversation)
            except PersistenceError:
                lost += len(texts) + 1
                continue
            lost += abs(len(found) - len(texts))
            lost += sum(a != b for a, b in zip(found, texts, strict=False))
            lost += title != self.titles[conversation]
        for thread, number in self.states.items():
            try:
                state = (await checkpointer.recover(thread)).state
            except PersistenceError:
                state = None
            lost += state != {"n": number, "thread": thread}
        return lost


async def fill(store: Store, rows: int, progress: Progress) -> Contents:
    """Write so many rows: 92 of 100 messages, 4 conversations and 4 checkpoints."""
    contents = Contents()
    some = max(rows * 4 // 100, 1)
    names = [f"title {number}" for number in range(some)]
    for start in range(0, some, _BATCH):
        progress(f"conversations: {start:,} of {some:,}")
        new = [
            NewConversation(agent_id="bench", metadata=ConversationMetadata(title=title))
            for title in names[start : start + _BATCH]
        ]
        for one in await store.create_conversations(new):
            contents.titles[one.id] = str(one.metadata.title)
            contents.texts[one.id] = []
    ids = [*contents.texts]
    count = rows - 2 * some
    for start in range(0, count, _BATCH):
        progress(f"messages: {start:,} of {count:,}")
        batch = [
            NewMessage(
                conversation_id=ids[number % some],
                role=MessageRole.USER,
                content=f"{number} " + "x" * 300,
            )
            for number in range(start, min(start + _BATCH, count))
        ]
        for message in await store.add_messages(batch):
            contents.texts[message.conversation_id].append(str(message.text))
    checkpointer = Checkpointer(store, _PLAIN)
    progress(f"checkpoints: {some:,}")

    async def save(thread: str, numbers: range) -> None:
        for number in numbers:
            await checkpointer.save(thread, {"n": number, "thread": thread})
            contents.states[thread] = number

    threads = min(_THREADS, some)
    await asyncio.gather(
        *(save(f"thread {one}", range(one, some, threads)) for one in range(threads))
    )
    return contents


@dataclass(slots=True)
class Traffic:
    """Readers and writers in closed loops, for as long as the block lasts."""

    readers: Sequence[Store]
    writers: Sequence[Store]
    contents: Contents
    reads: int = 0
    failed_reads: int = 0
    writes: int = 0
    failed_writes: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _done: bool = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._reading(store)) for store in self.readers]
        self._tasks += [asyncio.create_task(self._writing(store)) for store in self.writers]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done = True
        await asyncio.gather(*self._tasks)

    async def _reading(self, store: Store) -> None:
        chance = random.Random(1)  # noqa: S311 # nosec B311 - which, not what with
        ids = [*self.contents.texts]
        threads = [*self.contents.states]
        checkpointer = Checkpointer(store, _PLAIN)
        while not self._done:
            conversation, thread = chance.choice(ids), chance.choice(threads)
            # What is written meanwhile comes behind it.
            texts = list(self.contents.texts[conversation])
            try:
                found = await store.get_messages(conversation, limit=10_000)
                right = [message.text for message in found][: len(texts)] == texts
                right &= str(await _title(store, conversation)).startswith(("title ", "retitled "))
                state = (await checkpointer.recover(thread)).state
                right &= state["thread"] == thread
            except PersistenceError:
                right = False
            self.reads += 1
            self.failed_reads += not right

    async def _writing(self, store: Store) -> None:
        chance = random.Random(2)  # noqa: S311 # nosec B311 - likewise
        ids = [*self.contents.texts]
        threads = [*self.contents.states]
        checkpointer = Checkpointer(store, _PLAIN)
        while not self._done:
            conversation, thread = chance.choice(ids), chance.choice(threads)
            title, text = f"retitled {self.writes}", f"said {self.writes}"
            number = self.contents.states[thread] + 1
            try:
                await store.update_conversation(conversation, metadata={"title": title})
                self.contents.titles[conversation] = title
                await store.add_message(conversation, "assistant", text)
                self.contents.texts[conversation].append(text)
                await checkpointer.save(thread, {"n": number, "thread": thread})
                self.contents.states[thread] = number
            except PersistenceError:
                self.failed_writes += 1
            self.writes += 1
            await asyncio.sleep(0.005)


async def _title(store: Store, conversation: UUID) -> str | None:
    found = await store.get_conversation(conversation)
    return found.metadata.title
