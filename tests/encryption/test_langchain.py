"""LangChain's histories in a tenant whose content is sealed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from haive.core.persistence import Store
from haive.core.persistence.integrations.langchain import HaiveChatMessageHistory

OpenStore = Callable[..., Awaitable[Store]]
SECRET = "parcel 4711"
TALK: list[BaseMessage] = [
    HumanMessage(f"Where is {SECRET}?", name=f"sender of {SECRET}"),
    AIMessage(
        [{"type": "reasoning", "reasoning": SECRET}],
        tool_calls=[{"id": "1", "name": "track", "args": {"what": SECRET}}],
    ),
    ToolMessage(f"{SECRET} is in Basel.", tool_call_id="1", artifact={"what": SECRET}),
]


async def test_a_history_comes_back_equal_and_nothing_of_it_lies_open(
    open_store: OpenStore, owner: asyncpg.Connection, tenant: str
) -> None:
    one, two = [
        HaiveChatMessageHistory.from_store(await open_store(), f"session of {SECRET}")
        for _ in range(2)
    ]
    await asyncio.gather(one.aadd_messages(TALK), two.aadd_messages(TALK))
    assert await one.aget_messages() == TALK + TALK
    rows = [
        str(dict(row))
        for table in ("conversations", "messages")
        for row in await owner.fetch(f"select * from haive.{table} where tenant_id = $1", tenant)
    ]
    assert len(rows) == 1 + 2 * len(TALK)
    assert not any(SECRET in row for row in rows)
    await one.aclear()
    assert await two.aget_messages() == []
