"""`haive bench queries`: reading at a million messages, through the SDK and without it."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import asyncpg

from haive.core.persistence.bench.fill import TAG, fill
from haive.core.persistence.bench.report import Bar, Report
from haive.core.persistence.bench.server import TENANT
from haive.core.persistence.bench.timing import latency_rows, ratio_row, take_turns_by_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haive.core.persistence.bench.fill import Filled
    from haive.core.persistence.bench.server import Connection, Server
    from haive.core.persistence.bench.timing import Progress
    from haive.core.persistence.store import Store

    Probe = Callable[[int], Awaitable[Any]]

_METHOD = (
    "One caller, {messages:,} messages in {conversations:,} conversations of {users:,} users, warm,"
    " {probes:,} random probes of each, in turns from call to call. /sdk is PostgresStore with"
    " models made of the answer, /raw the public SQL function through asyncpg as JSON text, /bare a"
    " statement as one writes it by hand, of the owner, whom no policy binds, as rows of asyncpg."
    " latest: the ten latest conversations of a user; latest+messages: with a tag and min_messages,"
    " and the last 50 messages of each."
)
_BARS = {
    ("get_conversation/sdk", 50): Bar(at_most=0.25),
    ("latest+messages/sdk", 50): Bar(at_most=1.2),
    ("latest+messages/sdk", 99): Bar(at_most=4.0),
}
_GET = "select haive.get_conversation($1, 0, $2)"
_QUERY = (
    "select haive.query_conversations(filters => $1, page_size => 10, message_limit => $2,"
    " tenant => $3)"
)
_LAST = "select haive.get_messages($1, page_size => 50, last => true, tenant => $2)"
_GET_BARE = "select * from haive.conversations where tenant_id = $1 and id = $2"
_QUERY_BARE = """
select c.*, m.*
from (
  select * from haive.conversations
  where tenant_id = $1 and user_id = $2 and tags @> $3 and message_count >= 5
  order by last_message_at desc limit 10
) as c,
lateral (
  select * from haive.messages as m
  where m.tenant_id = $1 and m.conversation_id = c.id
  order by m.seq desc limit 50
) as m
"""
_LAST_BARE = """
select * from haive.messages
where tenant_id = $1 and conversation_id = $2
order by seq desc limit 50
"""
_FILTERS: dict[str, Any] = {"tags": [TAG], "min_messages": 5}


async def measure(
    server: Server,
    *,
    messages: int,
    calls: int,
    rounds: int,
    explain: bool,
    progress: Progress,
) -> Report:
    """Fill the tables and run the bench."""
    filled = await fill(server, messages, progress)
    report = Report(
        bench="queries",
        method=_METHOD.format(
            messages=messages,
            conversations=len(filled.conversations),
            users=len(filled.users),
            probes=calls * rounds,
        ),
        machine=server.machine,
    )
    async with AsyncExitStack() as opened:
        store = await opened.enter_async_context(server.store())
        raw = await asyncpg.connect(server.dsn)
        opened.push_async_callback(raw.close)
        await raw.execute("set role haive_client")
        probes = _probes(store, raw, server.owner, filled, (rounds + 1) * calls)
        samples = await take_turns_by_call(probes, rounds=rounds, calls=calls, progress=progress)
    report.rows = latency_rows(samples, (50, 95, 99), _BARS)
    medians = {name: [each.milliseconds(50) for each in of] for name, of in samples.items()}
    report.rows += [
        ratio_row(f"{name} sdk:bare", medians[f"{name}/sdk"], medians[f"{name}/bare"])
        for name in ("get_conversation", "latest+messages", "last-50-messages")
    ]
    if explain:
        report.notes = await _plans(server, filled)
    return report


def _probes(
    store: Store, raw: Connection, owner: Connection, filled: Filled, count: int
) -> dict[str, Probe]:
    chance = random.Random(11)  # noqa: S311 - made-up questions # nosec B311
    conversations = chance.choices(filled.conversations, k=count)
    long = chance.choices(filled.long_conversations, k=count)
    users = chance.choices(filled.users, k=count)
    return {
        "get_conversation/sdk": lambda n: store.get_conversation(conversations[n]),
        "get_conversation/raw": lambda n: raw.fetchval(_GET, conversations[n], TENANT),
        "get_conversation/bare": lambda n: owner.fetchrow(_GET_BARE, TENANT, conversations[n]),
        "latest+messages/sdk": lambda n: store.query_conversations(
            users[n], filters=_FILTERS, include_messages=True
        ),
        "latest+messages/raw": lambda n: raw.fetchval(_QUERY, _filters(users[n]), 50, TENANT),
        "latest+messages/bare": lambda n: owner.fetch(_QUERY_BARE, TENANT, users[n], [TAG]),
        "last-50-messages/sdk": lambda n: store.get_messages(long[n], limit=50, last=True),
        "last-50-messages/raw": lambda n: raw.fetchval(_LAST, long[n], TENANT),
        "last-50-messages/bare": lambda n: owner.fetch(_LAST_BARE, TENANT, long[n]),
        "latest/sdk": lambda n: store.query_conversations(users[n]),
        "latest/raw": lambda n: raw.fetchval(_QUERY, f'{{"user_id":"{users[n]}"}}', 0, TENANT),
    }


def _filters(user: str) -> str:
    return f'{{"user_id":"{user}","tags":["{TAG}"],"min_messages":5}}'


async def _plans(server: Server, filled: Filled) -> list[str]:
    """The plans inside the functions, which EXPLAIN itself does not show."""
    plans: list[str] = []
    connection = await asyncpg.connect(server.admin_dsn)
    try:
        await connection.execute("load 'auto_explain'")
    except asyncpg.InsufficientPrivilegeError:
        return ["The plans need a superuser, to load auto_explain."]
    else:
        connection.add_log_listener(lambda _, message: plans.append(str(message.message)))
        await connection.execute(
            "set client_min_messages = log; set auto_explain.log_min_duration = 0;"
            "set auto_explain.log_nested_statements = on; set auto_explain.log_analyze = on;"
            "set auto_explain.log_buffers = on"
        )
        await connection.fetchval(_GET, filled.conversations[0], TENANT)
        await connection.fetchval(_QUERY, _filters(filled.users[0]), 50, TENANT)
        await connection.fetchval(_LAST, filled.long_conversations[0], TENANT)
    finally:
        await connection.close()
    return plans
