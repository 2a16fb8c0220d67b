"""Group commit: what many callers write at once goes to the database in a few statements.

A statement is in flight while the next one gathers. Messages of one conversation are never in two
statements at once, so that they keep the order in which they were given.
"""

from __future__ import annotations

import asyncio
from collections import deque
from copy import copy
from typing import TYPE_CHECKING

from haive.core.persistence.errors import (
    OperationTimeoutError,
    PersistenceError,
    QuotaExceededError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence.models import Message

    Outcome = Message | PersistenceError
    Append = Callable[[Sequence[MessageRow]], Awaitable[Sequence[Outcome]]]
    Waiting = tuple[MessageRow, asyncio.Future[Message]]

# Two statements keep the server busy while the callers of the other one run; more gain nothing on
# two cores (43,000 messages a second with two, 37,000 with three).
_FLIGHTS = 2
# A statement of 128 rows costs little more a row than one of 256; 64 costs a fifth more.
_SMALLEST, _LARGEST = 32, 256
# Bytes after which a statement takes no more rows: Postgres takes messages of 1 GiB at most.
_HEAVIEST = 16 * 1024 * 1024


class GroupCommit:
    """Gathers the rows of concurrent callers and answers each with its own message or error."""

    def __init__(self, append: Append, check_loop: Callable[[], None]) -> None:
        self._append = append
        # Before anything is queued: what is on its way is answered in one loop, without a lock.
        self._check_loop = check_loop
        self._checked: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, deque[Waiting]] = {}
        self._ready: deque[int] = deque()
        self._busy: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flights = 0
        self._outstanding = 0
        self._alone = True
        self._launching = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def add(self, row: MessageRow) -> Message:
        """Write one message and return it when it is durable.

        Raises:
            PersistenceError: The running loop is not that of the connections.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._checked:
            self._check_loop()
            self._checked = loop
        if self._alone and not self._outstanding:
            return await self._add_directly(row)
        future: asyncio.Future[Message] = loop.create_future()
        stream = row.conversation_id.int  # hashed in C, which a UUID is not
        queue = self._waiting.get(stream)
        if queue is None:
            queue = self._waiting[stream] = deque()
            if stream not in self._busy:
                self._ready.append(stream)
        queue.append((row, future))
        self._outstanding += 1
        self._quiet.clear()
        if not self._launching and self._ready and self._flights < _FLIGHTS:
            # Not at once: all who were answered by the last statement shall be in the next.
            self._launching = True
            loop.call_soon(self._launch)
        return await future

    async def drain(self) -> None:
        """Wait until nothing is on its way; in the loop of the connections, as `add`."""
        self._check_loop()
        await self._quiet.wait()

    async def _add_directly(self, row: MessageRow) -> Message:
        """The way of a lone caller: no task and no future between it and the database."""
        self._outstanding += 1
        self._quiet.clear()
        self._flights += 1
        stream = row.conversation_id.int
        self._busy.add(stream)
        try:
            (outcome,) = await self._append((row,))
        finally:
            self._outstanding -= 1
            self._alone = not self._outstanding
            self._landed({stream})
        if isinstance(outcome, PersistenceError):
            raise outcome
        return outcome

    def _launch(self) -> None:
        self._launching = False
        while self._ready and self._flights < _FLIGHTS:
            batch = self._take()
            if not batch:
                return
            self._flights += 1
            task = asyncio.create_task(self._fly(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take(self) -> list[Waiting]:
        size = min(_LARGEST, max(_SMALLEST, -(-self._outstanding // _FLIGHTS)))
        batch: list[Waiting] = []
        weight = 0
        while self._ready and len(batch) < size and weight < _HEAVIEST:
            stream = self._ready.popleft()
            queue = self._waiting[stream]
            taken = len(batch)
            while queue and len(batch) < size and weight < _HEAVIEST:
                row, future = queue.popleft()
                if future.done():  # its caller was cancelled before anything was sent
                    self._outstanding -= 1
                    continue
                batch.append((row, future))
                weight += row.weight
            if not queue:
                del self._waiting[stream]
            if len(batch) > taken:  # else all of its callers were cancelled
                self._busy.add(stream)
        if not self._outstanding:
            self._quiet.set()
        return batch

    async def _fly(self, batch: list[Waiting]) -> None:
        try:
            await self._write_and_answer(batch)
        finally:
            # After the answers: who writes again at once is in the next statement, which is then
            # half of all and no third (43,000 against 38,000 messages a second of 256 callers).
            self._outstanding -= len(batch)
            self._alone = len(batch) == 1 and not self._outstanding
            self._landed({row.conversation_id.int for row, _ in batch})

    async def _write_and_answer(self, batch: list[Waiting]) -> None:
        try:
            outcomes = await self._write([row for row, _ in batch])
        except PersistenceError as error:
            # Each caller raises an error of its own: one would gather the tracebacks of all.
            outcomes = [copy(error) for _ in batch]
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(
                        PersistenceError("The writer was stopped; whether it wrote is not known.")
                    )
            if not isinstance(error, asyncio.CancelledError):
                raise
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():  # its caller was cancelled
                continue
            if isinstance(outcome, PersistenceError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    async def _write(self, rows: Sequence[MessageRow]) -> Sequence[Outcome]:
        """Write the rows; when the statement is refused, in parts, so that the good ones pass."""
        try:
            return await self._append(rows)
        except PersistenceError as error:
            if len(rows) == 1 or isinstance(error, UnavailableError) or _is_rate(error):
                raise
        # By conversation first: a locked one costs its wait once, and not for each of its rows.
        streams: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            streams.setdefault(row.conversation_id.int, []).append(place)
        outcomes: list[Outcome] = [PersistenceError()] * len(rows)
        for places in streams.values():
            part = [rows[place] for place in places]
            for place, outcome in zip(places, await self._write_stream(part), strict=True):
                outcomes[place] = outcome
        return outcomes

    async def _write_stream(self, rows: Sequence[MessageRow]) -> Sequence[Outcome]:
        """Write rows of one conversation; when they are refused, each alone."""
        try:
            return await self._append(rows)
        except PersistenceError as error:
            unheard = isinstance(error, UnavailableError | OperationTimeoutError)
            if len(rows) == 1 or unheard or _is_rate(error):
                return [copy(error) for _ in rows]
        outcomes: list[Outcome] = []
        for row in rows:
            try:
                outcomes.extend(await self._append((row,)))
            except PersistenceError as error:
                outcomes.append(error)
        return outcomes

    def _landed(self, streams: set[int]) -> None:
        self._flights -= 1
        if not self._outstanding:
            self._quiet.set()
        self._busy -= streams
        self._ready.extend(stream for stream in streams if stream in self._waiting)
        if self._ready and not self._launching:
            self._launching = True
            asyncio.get_running_loop().call_soon(self._launch)


def _is_rate(error: PersistenceError) -> bool:
    """Whether there were too many statements: then parts of one are more of them."""
    return isinstance(error, QuotaExceededError) and error.resource == "requests"
