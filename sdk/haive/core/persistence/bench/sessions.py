"""`haive bench sessions`: branches, what they take and how they read, messages, merges."""

from __future__ import annotations

from collections import defaultdict
from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence.bench.corpus import Writer
from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.timing import (
    Sample,
    Subject,
    latency_rows,
    rate_rows,
    ratio_row,
    take_turns,
    take_turns_by_call,
)
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.models import NewMessage
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.session import MergeStrategy, SessionConfig, SessionManager

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from haive.core.persistence.bench.server import Connection, Server
    from haive.core.persistence.bench.timing import Call, Progress, Samples
    from haive.core.persistence.store import Store

_TEXT = "x" * 300
_METHOD = (
    "branch: {branches:,} sessions that begin with all of the {long:,} messages of another one,"
    " each with a reason as its context; bytes are all tables with their indexes, in a database of"
    " their own. begin: one more, in turns with a plain conversation."
    " read: the last {page} messages of a session {levels} branches deep, {each} messages on each"
    " level, beside those of a plain conversation; /sdk through SessionManager.messages and"
    " Store.get_messages, /raw the same SQL functions through asyncpg. add: messages of 300 bytes;"
    " NAME/N is N callers with a session or conversation each. merge: two sessions with {tail}"
    " messages each after what they share, half of their questions the same, planned and done;"
    " undone between."
)
_LONG, _BATCH = 10_000, 1_000
_LEVELS, _EACH, _PAGE = 20, 2, 50
_TAIL = 200
_BRANCH_MS = Bar(at_most=2)
_BRANCH_BYTES = Bar(at_most=1_024)
_READ_RATIO = Bar(at_most=1.5)

_SESSION = "select haive.session_messages($1, page_size => 50, last => true)"
_PLAIN = "select haive.get_messages($1, page_size => 50, last => true)"
_SIZES = """
select c.oid::regclass::text as name, pg_total_relation_size(c.oid) as bytes
from pg_class as c
where c.relkind = 'r' and c.relnamespace in ('haive'::regnamespace, 'haive_private'::regnamespace)
"""


async def measure(
    server: Server, *, branches: int, rounds: int, calls: int, seconds: float, progress: Progress
) -> Report:
    """Run the bench."""
    report = Report(
        bench="sessions",
        method=_METHOD.format(
            branches=branches, long=_LONG, page=_PAGE, levels=_LEVELS, each=_EACH, tail=_TAIL
        ),
        machine=server.machine,
    )
    async with AsyncExitStack() as opened:
        databases = await opened.enter_async_context(server.databases())
        dsn = await databases()
        store = await opened.enter_async_context(
            PostgresStore(PersistenceConfig(connection_string=dsn))
        )
        raw = await asyncpg.connect(dsn)
        opened.push_async_callback(raw.close)
        manager = SessionManager(
            store, SessionConfig(default_ttl=None, max_messages_per_session=None)
        )
        # First of all: what tables take is told exactly where nothing else was in them.
        report.rows += await _branching(
            manager, raw, branches=branches, rounds=rounds, calls=calls, progress=progress
        )
        await raw.execute("vacuum analyze")
        await raw.execute("set role haive_client")
        report.rows += await _reading(manager, raw, rounds, calls, progress)
        report.rows += await _adding(manager, rounds, seconds, progress)
        report.rows += await _merging(manager, rounds, progress)
    return report


async def _filled(manager: SessionManager, session_id: UUID, count: int) -> None:
    roles = ("user", "assistant")
    for start in range(0, count, _BATCH):
        await manager.add_messages(
            session_id,
            [
                {"role": roles[number % 2], "content": f"{number} {_TEXT}"[: len(_TEXT)]}
                for number in range(start, min(start + _BATCH, count))
            ],
        )


# -- branches --------------------------------------------------------------------------------------


async def _branching(
    manager: SessionManager,
    raw: Connection,
    *,
    branches: int,
    rounds: int,
    calls: int,
    progress: Progress,
) -> list[Row]:
    progress("branching")
    session = await manager.create_session(user_id="user-123", agent_id="assistant-001")
    await _filled(manager, session.id, _LONG)
    before = await _sizes(raw)

    async def branch(_: int) -> None:
        made = await manager.branch_session(
            session.id, branch_context={"reason": "explore_alternative"}
        )
        assert made.message_count == _LONG  # noqa: S101 # nosec B101

    for number in range(branches):
        await branch(number)
    after = await _sizes(raw)
    grown = {name: (after[name] - before[name]) / branches for name in after}
    # Among all those branches.
    samples = await take_turns_by_call(
        {
            "begin/conversation": lambda _: manager.store.create_conversation(
                "assistant-001", "user-123"
            ),
            "begin/branch": branch,
        },
        rounds=rounds,
        calls=calls,
        progress=progress,
    )
    return [
        *latency_rows(samples, (50, 99), {("begin/branch", 50): _BRANCH_MS}),
        Row.of("branch", "bytes", "bytes", [sum(grown.values())], _BRANCH_BYTES),
        *(
            Row.of(f"branch/{name.removeprefix('haive.')}", "bytes", "bytes", [size])
            for name, size in sorted(grown.items(), key=lambda item: -item[1])
            if size
        ),
    ]


async def _sizes(raw: Connection) -> dict[str, int]:
    return {row["name"]: row["bytes"] for row in await raw.fetch(_SIZES)}


# -- reading ---------------------------------------------------------------------------------------


async def _reading(
    manager: SessionManager, raw: Connection, rounds: int, calls: int, progress: Progress
) -> list[Row]:
    session = await manager.create_session(user_id="user-123")
    await _filled(manager, session.id, _BATCH)
    for _ in range(_LEVELS):
        session = await manager.branch_session(session.id)
        await _filled(manager, session.id, _EACH)
    deep = session.id
    plain = (await manager.store.create_conversation("bench", "user-123")).id
    await manager.store.add_messages(
        [
            NewMessage(conversation_id=plain, role=message.role, content=message.content)
            for message in await manager.messages(deep, limit=2 * _BATCH)
        ]
    )
    last = await manager.messages(deep, limit=_PAGE, last=True)
    same = await manager.store.get_messages(plain, limit=_PAGE, last=True)
    assert [one.text for one in last] == [one.text for one in same]  # noqa: S101 # nosec B101
    assert len({one.conversation_id for one in last}) == _LEVELS + 1  # noqa: S101 # nosec B101
    samples = await take_turns_by_call(
        {
            "read/plain/sdk": lambda _: manager.store.get_messages(plain, limit=_PAGE, last=True),
            "read/branch/sdk": lambda _: manager.messages(deep, limit=_PAGE, last=True),
            "read/plain/raw": lambda _: raw.fetchval(_PLAIN, plain),
            "read/branch/raw": lambda _: raw.fetchval(_SESSION, deep),
        },
        rounds=rounds,
        calls=calls,
        progress=progress,
    )
    return [
        *latency_rows(samples, (50, 99)),
        *(
            ratio_row(
                f"branch:plain/{way}",
                _medians(samples, f"read/branch/{way}"),
                _medians(samples, f"read/plain/{way}"),
                _READ_RATIO,
            )
            for way in ("sdk", "raw")
        ),
    ]


def _medians(samples: Samples, name: str) -> list[float]:
    return [sample.milliseconds(50) for sample in samples[name]]


# -- writing ---------------------------------------------------------------------------------------


async def _adding(
    manager: SessionManager, rounds: int, seconds: float, progress: Progress
) -> list[Row]:
    subjects = []
    for count in (1, 256):
        subjects += [
            Subject(f"add/plain/{count}", await _to_conversations(manager.store, count)),
            Subject(f"add/session/{count}", await _to_sessions(manager, count)),
        ]
    samples = await take_turns(subjects, rounds=rounds, seconds=seconds, progress=progress)
    return [
        *rate_rows(samples),
        *(
            ratio_row(
                f"session:plain/{count}",
                [sample.rate for sample in samples[f"add/session/{count}"]],
                [sample.rate for sample in samples[f"add/plain/{count}"]],
            )
            for count in (1, 256)
        ),
    ]


async def _to_conversations(store: Store, count: int) -> Sequence[Call]:
    made = [await store.create_conversation("bench") for _ in range(count)]
    return [partial(store.add_message, one.id, "user", _TEXT) for one in made]


async def _to_sessions(manager: SessionManager, count: int) -> Sequence[Call]:
    made = [await manager.create_session(agent_id="bench") for _ in range(count)]
    return [partial(manager.add_message, one.id, "user", _TEXT) for one in made]


# -- merging ---------------------------------------------------------------------------------------


async def _merging(manager: SessionManager, rounds: int, progress: Progress) -> list[Row]:
    session = await manager.create_session(user_id="user-123")
    await _filled(manager, session.id, _TAIL)
    branch = await manager.branch_session(session.id)
    ours, theirs = _tails()
    await manager.add_messages(session.id, ours)
    await manager.add_messages(branch.id, theirs)
    samples: Samples = defaultdict(list)
    for number in range(rounds + 1):
        for strategy in MergeStrategy:
            progress(f"merging: {strategy}")
            start = perf_counter()
            merged = await manager.merge_sessions(session.id, branch.id, strategy)
            taken = perf_counter() - start
            assert merged.merge is not None  # noqa: S101 # nosec B101
            await manager.undo_merge(session.id, merged.merge.id)
            if number:  # the first round warms up
                samples[f"merge/{strategy}"].append(Sample([taken]))
    return latency_rows(samples, (50,))


def _tails() -> list[list[dict[str, str]]]:
    """Half of the questions are asked on both sides; of their answers every other one differs."""
    writer = Writer(5)
    tails: list[list[dict[str, str]]] = [[], []]
    for number in range(_TAIL // 2):
        question, answer = writer.text(80), writer.text(200)
        for side, tail in enumerate(tails):
            if number % 2:
                question, answer = writer.text(80), writer.text(200)
            amount = side if number % 4 == 0 else 7
            tail += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": f"{answer} It costs {amount} euros."},
            ]
    return tails
