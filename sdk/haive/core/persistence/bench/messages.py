"""`haive bench messages`: durable messages, one awaited call each, from many callers at once."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence._encoding import new_id
from haive.core.persistence.bench import peers
from haive.core.persistence.bench.bare import bare_table
from haive.core.persistence.bench.report import Bar, Report
from haive.core.persistence.bench.server import TENANT
from haive.core.persistence.bench.timing import Subject, rate_rows, ratio_row, take_turns

if TYPE_CHECKING:
    from haive.core.persistence.bench.report import Row
    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Call, Progress, Samples
    from haive.core.persistence.store import Store

_TEXT = "x" * 300
_METHOD = (
    "Messages of 300 bytes from one process; NAME/N is N callers, each awaiting its call before the"
    " next, with a conversation of its own (shared: 16 callers a conversation). limit is asyncpg"
    " with one `insert … select from unnest` in flight into a bare table with the same keys;"
    " limit-pipelined has two in flight. by-hand is a message in our tables (itself, counters of"
    " the conversation, an event) as one statement of their owner, whom no policy binds. All take"
    " turns in one run, after a round that warms up."
)
_BY_HAND = """
with place as (
  update haive.conversations
  set message_count = message_count + 1, last_message_at = now()
  where tenant_id = $1 and id = $2
  returning message_count as seq
),
told as (
  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  select $1, 'messages.added', $2, seq, seq from place
)
insert into haive.messages (tenant_id, conversation_id, seq, id, role, content)
select $1, $2, seq, $3, 'user', $4 from place
"""


async def measure(server: Server, *, rounds: int, seconds: float, progress: Progress) -> Report:
    """Run the bench."""
    report = Report(bench="messages", method=_METHOD, machine=server.machine)
    async with AsyncExitStack() as opened:
        store = await opened.enter_async_context(server.store())
        bare = await opened.enter_async_context(bare_table(server.owner, server.dsn, _TEXT))
        subjects = [
            Subject("ours/1", await _ours(store, 1)),
            Subject("bare-insert/1", await bare.lone()),
            Subject("by-hand/1", [await _by_hand(server, store, opened)]),
            Subject("ours/256", await _ours(store, 256)),
            Subject("limit/256", await bare.grouped(256)),
            Subject("limit-pipelined/256", await bare.pipelined(256)),
            Subject("ours-shared/256", await _ours(store, 256, sharing=16)),
            Subject("ours/1024", await _ours(store, 1024)),
            Subject("limit/1024", await bare.grouped(1024)),
            Subject("limit-pipelined/1024", await bare.pipelined(1024)),
        ]
        if (absent := peers.missing()) is None:
            progress("loading the peers")
            subjects += await opened.enter_async_context(peers.peers(server.dsn, _TEXT))
        else:
            report.notes.append(absent)
        samples = await take_turns(subjects, rounds=rounds, seconds=seconds, progress=progress)
    report.rows = [*rate_rows(samples), *_ratios(samples)]
    return report


async def _ours(store: Store, count: int, *, sharing: int = 1) -> list[Call]:
    conversations = [await store.create_conversation("bench") for _ in range(count // sharing)]

    return [
        partial(store.add_message, conversations[number // sharing].id, "user", _TEXT)
        for number in range(count)
    ]


async def _by_hand(server: Server, store: Store, opened: AsyncExitStack) -> Call:
    conversation = await store.create_conversation("bench")
    owner = await asyncpg.connect(server.dsn)
    opened.push_async_callback(owner.close)
    # As for a tenant that is neither metered nor audited: the triggers are not called.
    await owner.execute("set persistence.watch = '---'")

    async def insert() -> None:
        await owner.execute(_BY_HAND, TENANT, conversation.id, new_id(), _TEXT)

    return insert


def _ratios(samples: Samples) -> list[Row]:
    rates = {name: [sample.rate for sample in rounds] for name, rounds in samples.items()}
    rows = [
        ratio_row("ours:limit/256", rates["ours/256"], rates["limit/256"], Bar(at_least=0.6)),
        ratio_row("ours:limit/1024", rates["ours/1024"], rates["limit/1024"], Bar(at_least=0.6)),
        ratio_row("ours:limit-pipelined/256", rates["ours/256"], rates["limit-pipelined/256"]),
        ratio_row("ours:limit-pipelined/1024", rates["ours/1024"], rates["limit-pipelined/1024"]),
    ]
    of_peers = [
        rounds
        for name, rounds in rates.items()
        if name.startswith(("openai-agents/", "langchain-postgres/"))
    ]
    if of_peers:
        best = [max(rates_of_round) for rates_of_round in zip(*of_peers, strict=True)]
        rows.append(ratio_row("ours:best-peer", rates["ours/256"], best, Bar(at_least=8)))
    lone, bare, by_hand = (
        [sample.milliseconds(50) for sample in samples[name]]
        for name in ("ours/1", "bare-insert/1", "by-hand/1")
    )
    return [
        *rows,
        ratio_row("lone:bare", lone, bare, Bar(at_most=1.3)),
        ratio_row("by-hand:bare", by_hand, bare),
    ]
