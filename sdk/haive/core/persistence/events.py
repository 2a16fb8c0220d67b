"""What happened in a tenant, as it happens: events, and subscriptions to them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections import deque
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from time import monotonic
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID  # noqa: TC003 - likewise

from pydantic import BaseModel, TypeAdapter

from haive.core.persistence.errors import (
    CursorExpiredError,
    InvalidInputError,
    PersistenceError,
    QuotaExceededError,
    TokenExpiredError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from haive.core.persistence._hints import Hints, Listener
    from haive.core.persistence._transport import Transport


_log = logging.getLogger("haive.core.persistence.events")

# Seconds between looks where hints come: the net under them. Where none come, it is the only way.
_SAFETY, _POLL = 25.0, 2.0
# A transaction that wrote before a watch was known, and commits after, sends no hint: the first
# looks come sooner.
_FIRST_LOOK = 0.25
# Realtime reads the log of the server, and so can tell of a commit a moment before it is seen.
# A member is also told of what is not theirs to see: three more looks, and no fourth.
_AGAIN = (0.002, 0.02, 0.25)
# Seconds for a new token to come when the old one has expired.
_TOKEN_PATIENCE = 60.0
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 5.0
# A subscriber who falls behind holds one page of events, and the rest stays in the database.
_PAGE_SIZE = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened. It names what changed; what it is now is read with the store."""

    kind: str
    """``messages.added``, ``conversation.updated``, ``checkpoint.saved``, …"""
    channel: str
    """The channel it was heard on."""
    conversation_id: UUID | None
    first_seq: int | None
    """Of ``messages.added``: the first message, and with ``last_seq`` the last one."""
    last_seq: int | None
    thread: str | None
    """The thread's id; None where the thread has been deleted since."""
    namespace: str | None
    checkpoint_id: UUID | None
    created_at: datetime
    """When its transaction began."""
    cursor: str
    """To go on after this event: ``subscribe(…, after=event.cursor)``."""


class _Row(BaseModel):
    id: int
    kind: str
    conversation_id: UUID | None
    first_seq: int | None
    last_seq: int | None
    thread: str | None
    namespace: str | None
    checkpoint_id: UUID | None
    created_at: datetime

    def event(self, channel: str, window: str | None) -> Event:
        return Event(
            kind=self.kind,
            channel=channel,
            conversation_id=self.conversation_id,
            first_seq=self.first_seq,
            last_seq=self.last_seq,
            thread=self.thread,
            namespace=self.namespace,
            checkpoint_id=self.checkpoint_id,
            created_at=self.created_at,
            cursor=f"{window}/{self.id}",
        )


class _PageOfEvents(BaseModel):
    events: list[_Row]
    window: str | None
    next: str
    more: bool
    topic: str


_PAGE = TypeAdapter(_PageOfEvents)


class _Reader:
    """Reads one channel on from its cursor."""

    def __init__(
        self,
        transport: Callable[[], Transport],
        channel: str,
        after: str | None,
        wake: asyncio.Event,
    ) -> None:
        self._transport = transport
        self.channel = channel
        self.cursor = after
        self._next = after
        self._more = False
        self._wake = wake
        self._buffer: deque[Event] = deque()
        self._hinted = True
        self._told = self._last_id = 0
        self._again: list[float] = []
        self._due = 0.0
        self._pause = _FIRST_LOOK
        self._hints: Hints | None = None
        self._listener: Listener | None = None
        self._was_heard = False

    def _hint(self, event: int) -> None:
        self._hinted = True
        if event > self._last_id:
            self._told, self._again = max(event, self._told), list(_AGAIN)
        self._wake.set()

    def pop(self) -> Event | None:
        if not self._buffer:
            return None
        event = self._buffer.popleft()
        self.cursor = event.cursor
        if not self._buffer:
            self.cursor = self._next
        return event

    @property
    def is_heard(self) -> bool:
        return self._listener is not None and self._listener.is_heard

    def wait_until(self) -> float:
        """When to look, if no hint comes before."""
        return 0.0 if self._hinted or self._more else self._due

    async def look(self) -> None:
        """Read a page, if there may be one. The first one says from where on, and listens."""
        if self.wait_until() <= monotonic():
            await self._read()

    async def _read(self) -> None:
        transport = self._transport()
        hints = transport.hints()
        self._hinted = False
        try:
            page = await transport.call(
                "read_events",
                {
                    "channel": self.channel,
                    "after": self._next,
                    "page_size": _PAGE_SIZE,
                    "watch": hints and hints.way,
                },
                _PAGE,
                safe=True,
            )
        except BaseException as error:
            self._hinted = True  # what the hint told of was not read
            if isinstance(error, CursorExpiredError):
                self.cursor = None  # nobody can go on from there
            raise
        for row in page.events:
            self._last_id = max(self._last_id, row.id)
            self._buffer.append(row.event(self.channel, page.window))
        self._next = page.next
        if not self._buffer:
            self.cursor = page.next
        self._more = page.more
        # Another topic, where the tenant has moved to a schema of its own; other hints, where its
        # database was opened anew.
        if hints is not self._hints or (
            self._listener is not None and self._listener.topic != page.topic
        ):
            await self._silence()
            self._hints = hints
        if hints is not None and self._listener is None:
            self._listener = hints.listen(transport.schema, page.topic, self._hint)
        self._plan_next_look()

    def _plan_next_look(self) -> None:
        heard = self.is_heard
        if heard and not self._was_heard:
            self._pause = _FIRST_LOOK
        self._was_heard = heard
        pause = self._pause if heard else _POLL
        if heard and self._again and self._last_id < self._told:
            self._due = monotonic() + self._again.pop(0)
            return
        # Read, not the caller's to see, or made up by somebody who may send on the topic.
        self._told = self._last_id
        # Scattered, so that many subscribers do not look in step.
        self._due = monotonic() + pause * random.uniform(0.8, 1.2)  # noqa: S311 # nosec B311
        self._pause = min(self._pause * 4, _SAFETY)

    async def _silence(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.aclose()

    async def end(self) -> None:
        await self._silence()
        self._buffer.clear()


class Subscription:
    """Events of channels as they happen: in order, none missed, none twice.

    Made by `Store.subscribe` and `Store.events`::

        async with store.subscribe(f"conversation:{conversation.id}") as events:
            async for event in events:
                print(event.kind, event.first_seq, event.last_seq)

    What happens once the block is entered is heard, connections that are lost and servers that
    restart included: it reads on from where it was. Of one conversation and of one branch of a
    thread, events come in the order of the changes. A subscriber that is slow holds one page of
    events of each channel, and the rest waits in the database.

    Raises:
        NotFoundError: A conversation is not there, or no longer the caller's to see.
        CursorExpiredError: ``after`` is older than the events that are kept.
        TokenExpiredError: The user's token has expired and `set_access_token` brought no new one
            within a minute.
    """

    def __init__(
        self,
        transport: Callable[[], Transport],
        channels: Mapping[str, str | None],
        on_event: Callable[[Event], Awaitable[None] | None] | None = None,
    ) -> None:
        if not channels:
            raise InvalidInputError("No channel is named.")
        if not all(isinstance(channel, str) for channel in channels):
            raise InvalidInputError(
                "A channel is text.", hint='Of one conversation it is f"conversation:{id}".'
            )
        self._wake = asyncio.Event()
        self._readers = [
            _Reader(transport, channel, after, self._wake) for channel, after in channels.items()
        ]
        self._on_event = on_event
        self._task: asyncio.Task[None] | None = None
        self._caller: asyncio.Task[Any] | None = None
        self._interrupted = False
        self._entered = self._open = False

    @property
    def cursor(self) -> str | None:
        """Where to go on after what was handed out; of one channel."""
        return self._readers[0].cursor if len(self._readers) == 1 else None

    @property
    def cursors(self) -> dict[str, str | None]:
        """Where to go on, by channel."""
        return {reader.channel: reader.cursor for reader in self._readers}

    @property
    def is_heard(self) -> bool:
        """Whether hints arrive now; where they do not, it looks every two seconds."""
        return all(reader.is_heard for reader in self._readers)

    async def __aenter__(self) -> Self:
        self._entered = self._open = True
        try:
            for reader in self._readers:
                await reader.look()
        except BaseException:
            await self.aclose()
            raise
        if self._on_event is not None:
            self._caller = asyncio.current_task()
            self._task = asyncio.create_task(self._deliver(self._on_event))
            self._task.add_done_callback(self._interrupt)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False  # from here on the block is not interrupted any more
        cancelled = isinstance(error, asyncio.CancelledError)
        try:
            failure = await self._end_task()
        except asyncio.CancelledError:
            if not self._interrupted or cancelled:
                raise
            cancelled = True  # it was interrupted at its very end
            failure = await self._end_task()
        await self.aclose()
        # The block was cancelled for the sake of the callback's error, which is what is told.
        ours = self._interrupted and self._caller is not None and self._caller.uncancel() == 0
        if failure is not None and (error is None or (ours and cancelled)):
            raise failure

    async def wait(self) -> None:
        """Wait for the end of a subscription with ``on_event``: its error, or for ever."""
        if self._task is None:
            raise InvalidInputError("wait() is for subscriptions with on_event.")
        await asyncio.shield(self._task)

    async def aclose(self) -> None:
        """End the subscription; nothing of it is left behind."""
        self._open = False
        await self._end_task()
        for reader in self._readers:
            await reader.end()
        self._wake.set()

    def __aiter__(self) -> Self:
        if self._on_event is not None:
            raise InvalidInputError("The events of this subscription go to on_event.")
        return self

    async def __anext__(self) -> Event:
        return await self._take()

    async def _take(self) -> Event:
        if not self._entered:
            raise PersistenceError(
                "The subscription was not entered.",
                hint="Iterate inside `async with store.subscribe(...) as events:`.",
            )
        failing_since: float | None = None
        delay = _FIRST_DELAY
        while self._open:
            for reader in self._readers:
                if (event := reader.pop()) is not None:
                    return event
            try:
                await self._look()
                failing_since, delay = None, _FIRST_DELAY
                continue
            except TokenExpiredError:
                failing_since = failing_since or monotonic()
                if monotonic() - failing_since > _TOKEN_PATIENCE:
                    raise
                pause = 1.0
            except QuotaExceededError as error:
                if not error.retryable:
                    raise
                pause = float(error.retry_after or 5)
            except PersistenceError as error:
                if not error.retryable:
                    raise
                _log.debug("reading events: %s", error)
                pause = delay * random.uniform(0.5, 1.0)  # noqa: S311 # nosec B311
                delay = min(delay * 2, _LONGEST_DELAY)
            await asyncio.sleep(pause)
        raise StopAsyncIteration

    async def _look(self) -> None:
        """Wait for a hint or the time to look without one, and read."""
        until = min(reader.wait_until() for reader in self._readers)
        if (seconds := until - monotonic()) > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
        self._wake.clear()
        for reader in self._readers:
            if self._open:
                await reader.look()

    async def _deliver(self, on_event: Callable[[Event], Awaitable[None] | None]) -> None:
        while True:
            try:
                event = await self._take()
            except StopAsyncIteration:
                return
            outcome = on_event(event)
            if inspect.isawaitable(outcome):
                await outcome

    def _interrupt(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        if self._open and self._caller is not None and not self._caller.done():
            self._interrupted = True
            self._caller.cancel()

    async def _end_task(self) -> BaseException | None:
        task = self._task
        if task is None or task is asyncio.current_task():
            return None
        task.cancel()
        await asyncio.wait([task])
        return None if task.cancelled() else task.exception()
