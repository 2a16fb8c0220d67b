"""How callers are gathered into statements, with an append that only pretends."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from haive.core.persistence._group_commit import GroupCommit
from haive.core.persistence._rows import MessageRow
from haive.core.persistence.errors import (
    ConnectionLostError,
    InvalidInputError,
    NotFoundError,
    PersistenceError,
    StatementTimeoutError,
)
from haive.core.persistence.models import MessageRole

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FLIGHTS = 2
LARGEST = 256


def row(conversation_id: UUID, text: str = "") -> MessageRow:
    return MessageRow(
        conversation_id, uuid4(), MessageRole.USER, text, text, None, None, None, None
    )


def in_any_loop() -> None:
    """Pass: what only pretends belongs to no loop."""


class Database:
    """Gives seq, takes its time, and notes what flew together."""

    def __init__(self, *, pause: float = 0.001) -> None:
        self.pause = pause
        self.batches: list[list[str]] = []
        self.written: list[str] = []
        self.most_flights = 0
        self.overlaps = 0
        self._flying: Counter[UUID] = Counter()
        self._flights = 0
        self._seqs: Counter[UUID] = Counter()

    async def append(self, rows):
        conversations = {row.conversation_id for row in rows}
        self.overlaps += any(self._flying[conversation] for conversation in conversations)
        self._flying.update(conversations)
        self._flights += 1
        self.most_flights = max(self.most_flights, self._flights)
        self.batches.append([row.text for row in rows])
        try:
            await asyncio.sleep(self.pause)
            return [self.outcome(row, len(rows)) for row in rows]
        finally:
            self._flying.subtract(conversations)
            self._flights -= 1

    def outcome(self, row, _together):
        self.written.append(row.text)
        self._seqs[row.conversation_id] += 1
        return row.stored(self._seqs[row.conversation_id], NOW)


@pytest.fixture(autouse=True)
async def nothing_hangs():
    async with asyncio.timeout(20):
        yield


async def test_a_lone_caller_waits_for_nobody():
    database = Database()
    commits = GroupCommit(database.append, in_any_loop)
    conversation = uuid4()
    for n in range(3):
        assert (await commits.add(row(conversation))).seq == n + 1
    assert [len(batch) for batch in database.batches] == [1, 1, 1]


async def test_callers_at_the_same_time_share_statements():
    database = Database()
    commits = GroupCommit(database.append, in_any_loop)
    await asyncio.gather(*(commits.add(row(uuid4())) for _ in range(200)))
    assert len(database.batches) <= 4


async def test_statements_are_bounded():
    database = Database()
    commits = GroupCommit(database.append, in_any_loop)
    await asyncio.gather(*(commits.add(row(uuid4())) for _ in range(2_000)))
    assert max(map(len, database.batches)) <= LARGEST


async def test_two_statements_are_in_flight_and_none_share_a_conversation():
    database = Database()
    commits = GroupCommit(database.append, in_any_loop)
    conversations = [uuid4() for _ in range(30)]

    async def caller(number: int) -> None:
        chance = random.Random(number)
        for _ in range(20):
            await commits.add(row(chance.choice(conversations)))

    await asyncio.gather(*(caller(number) for number in range(100)))
    assert database.most_flights == FLIGHTS
    assert database.overlaps == 0
    assert len(database.written) == 2_000


@pytest.mark.parametrize("conversations", [1, 3, 500])
async def test_a_conversation_keeps_the_order_of_its_calls(conversations):
    database = Database()
    commits = GroupCommit(database.append, in_any_loop)
    ids = [uuid4() for _ in range(conversations)]
    calls = [(ids[n % conversations], f"{n}") for n in range(1_500)]
    await asyncio.gather(*(commits.add(row(*call)) for call in calls))
    for conversation in ids:
        expected = [text for where, text in calls if where == conversation]
        mine = set(expected)
        assert [text for text in database.written if text in mine] == expected


async def test_a_busy_conversation_does_not_hold_up_the_others():
    database = Database()
    commits = GroupCommit(database.append, in_any_loop)
    busy, quiet = uuid4(), uuid4()
    crowd = [asyncio.create_task(commits.add(row(busy))) for _ in range(5_000)]
    await asyncio.sleep(0)
    await commits.add(row(quiet))
    done = sum(task.done() for task in crowd)
    await asyncio.gather(*crowd)
    assert done < 1_500


async def test_each_caller_gets_its_own_outcome():
    class Picky(Database):
        def outcome(self, row, _together):
            if row.text == "bad":
                return NotFoundError(f"no conversation {row.conversation_id}")
            return super().outcome(row, _together)

    commits = GroupCommit(Picky().append, in_any_loop)
    rows = [row(uuid4(), "bad" if n % 7 == 0 else f"{n}") for n in range(100)]
    outcomes = await asyncio.gather(*map(commits.add, rows), return_exceptions=True)
    for given, outcome in zip(rows, outcomes, strict=True):
        if given.text == "bad":
            assert isinstance(outcome, NotFoundError)
            assert str(given.conversation_id) in str(outcome)
        else:
            assert outcome.id == given.id


async def test_a_batch_that_is_refused_is_written_one_by_one():
    class Refusing(Database):
        async def append(self, rows):
            if any(row.text == "bad" for row in rows):
                self.batches.append([row.text for row in rows])
                raise InvalidInputError
            return await super().append(rows)

    database = Refusing()
    commits = GroupCommit(database.append, in_any_loop)
    conversation = uuid4()
    texts = [f"{n}" for n in range(50)]
    texts[20] = "bad"
    outcomes = await asyncio.gather(
        *(commits.add(row(conversation, text)) for text in texts), return_exceptions=True
    )
    assert isinstance(outcomes[20], InvalidInputError)
    assert [text for text in database.written if text != "bad"] == texts[:20] + texts[21:]
    assert max(Counter(database.written).values()) == 1


async def test_a_lost_server_fails_a_batch_as_a_whole_and_the_next_ones_go_on():
    class Away(Database):
        away = True

        async def append(self, rows):
            if self.away:
                self.batches.append([row.text for row in rows])
                await asyncio.sleep(self.pause)
                raise ConnectionLostError
            return await super().append(rows)

    database = Away()
    commits = GroupCommit(database.append, in_any_loop)
    outcomes = await asyncio.gather(
        *(commits.add(row(uuid4())) for _ in range(100)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {ConnectionLostError}
    assert len(database.batches) <= 4  # not each row again
    database.away = False
    assert (await commits.add(row(uuid4()))).seq == 1


async def test_an_error_that_is_none_of_ours_reaches_every_caller_and_blocks_none_after_it():
    class Broken(Database):
        broken = True

        async def append(self, rows):
            if self.broken:
                await asyncio.sleep(self.pause)
                raise ZeroDivisionError
            return await super().append(rows)

    reported = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    try:
        database = Broken()
        commits = GroupCommit(database.append, in_any_loop)
        conversation = uuid4()
        outcomes = await asyncio.gather(
            *(commits.add(row(conversation)) for _ in range(10)), return_exceptions=True
        )
        assert all(isinstance(o, ZeroDivisionError | PersistenceError) for o in outcomes)
        database.broken = False
        assert (await commits.add(row(conversation))).seq == 1
    finally:
        loop.set_exception_handler(None)


async def test_two_callers_do_not_get_the_same_error_object():
    # Raised in two tasks, one exception would collect the tracebacks of both.
    async def append(rows):
        await asyncio.sleep(0.001)
        raise StatementTimeoutError if len(rows) == 1 else ConnectionLostError

    commits = GroupCommit(append, in_any_loop)
    outcomes = await asyncio.gather(
        *(commits.add(row(uuid4())) for _ in range(10)), return_exceptions=True
    )
    assert len(set(map(id, outcomes))) == 10


async def test_a_caller_that_is_cancelled_takes_nobody_with_it():
    database = Database(pause=0.02)
    commits = GroupCommit(database.append, in_any_loop)
    conversation = uuid4()
    tasks = [asyncio.create_task(commits.add(row(conversation, f"{n}"))) for n in range(60)]
    for moment in range(3):
        await asyncio.sleep(0.01)
        for task in tasks[moment::6]:
            task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    answered = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(answered) >= 30
    assert [message.seq for message in answered] == sorted(message.seq for message in answered)
    assert max(Counter(database.written).values()) == 1
    assert (await commits.add(row(conversation))).seq == len(database.written)


@pytest.mark.parametrize("callers", [1, 2, 100])
async def test_draining_waits_for_all_that_was_added(callers):
    database = Database(pause=0.01)
    commits = GroupCommit(database.append, in_any_loop)
    tasks = [asyncio.create_task(commits.add(row(uuid4()))) for _ in range(callers)]
    await asyncio.sleep(0)  # they have called, and nothing was launched yet
    await commits.drain()
    assert len(database.written) == callers
    await asyncio.gather(*tasks)


async def test_draining_waits_for_what_waits_behind_others():
    database = Database(pause=0.005)
    commits = GroupCommit(database.append, in_any_loop)
    conversation = uuid4()
    tasks = [asyncio.create_task(commits.add(row(conversation))) for _ in range(3_000)]
    await asyncio.sleep(0.002)
    await commits.drain()
    assert len(database.written) == 3_000
    await asyncio.gather(*tasks)


async def test_where_the_loop_is_refused_nothing_is_queued():
    def in_no_loop() -> None:
        raise PersistenceError("The store was opened in another event loop.")

    database = Database()
    commits = GroupCommit(database.append, in_no_loop)
    for call in (commits.add(row(uuid4())), commits.drain()):
        with pytest.raises(PersistenceError, match="another event loop"):
            await call
    assert database.batches == []
