"""`haive bench rest`: what SupabaseStore adds to supabase-py, and supabase-py to HTTP."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx
from supabase import AsyncClientOptions, acreate_client

from haive.core.persistence._encoding import new_id
from haive.core.persistence.bench.report import Bar, Report
from haive.core.persistence.bench.server import hardware, machine
from haive.core.persistence.bench.timing import latency_rows, ratio_row, take_turns_by_call
from haive.core.persistence.local import LocalStack
from haive.core.persistence.supabase import SupabaseStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haive.core.persistence.bench.timing import Progress

_TEXT = "x" * 300
_METHOD = (
    "One caller, in turns from call to call: SupabaseStore (ours), supabase-py's rpc() and a plain"
    " HTTP request (httpx) of the same function with the same key. get_messages reads 50 messages."
)
_FUNCTIONS = ("get_conversation", "add_message", "get_messages")


async def measure(
    url: str | None, key: str | None, *, calls: int, rounds: int, progress: Progress
) -> Report:
    """Run the bench against a project, or a local stack of its own."""
    about = hardware()
    async with AsyncExitStack() as opened:
        if url is None or key is None:
            progress("starting")
            stack = await opened.enter_async_context(LocalStack())
            url, key = stack.url, stack.secret_key
            about = await _about(stack)
        store = await opened.enter_async_context(SupabaseStore(url, key))
        http = await opened.enter_async_context(_http(url, key))
        client = await acreate_client(url, key, AsyncClientOptions(schema="haive"))

        conversation = (await store.create_conversation("bench")).id
        written = (await store.create_conversation("bench")).id
        for _ in range(50):
            await store.add_message(conversation, "user", _TEXT)

        async def by_client(function: str, arguments: dict[str, Any]) -> object:
            return (await client.rpc(function, arguments).execute()).data

        async def by_http(function: str, arguments: dict[str, Any]) -> object:
            answer = await http.post(f"/rest/v1/rpc/{function}", json=arguments)
            return answer.raise_for_status().json()

        def of(conversation_id: object, **more: object) -> dict[str, Any]:
            return {"conversation_id": str(conversation_id), **more}

        def message() -> dict[str, Any]:
            new = {"id": str(new_id()), "role": "user", "content": _TEXT}
            return {"messages": [of(written, **new)]}

        last = {"after": 0, "before": None, "page_size": 50, "last": True}
        subjects: dict[str, Callable[[int], Awaitable[object]]] = {
            "get_conversation/ours": lambda _: store.get_conversation(conversation),
            "add_message/ours": lambda _: store.add_message(written, "user", _TEXT),
            "get_messages/ours": lambda _: store.get_messages(conversation, limit=50, last=True),
        }
        for way, call in {"supabase-py": by_client, "httpx": by_http}.items():
            subjects |= {
                f"get_conversation/{way}": lambda _, call=call: call(  # type: ignore[misc] # bound now
                    "get_conversation", of(conversation, message_limit=0)
                ),
                f"add_message/{way}": lambda _, call=call: call(  # type: ignore[misc] # bound now
                    "add_messages", message()
                ),
                f"get_messages/{way}": lambda _, call=call: call(  # type: ignore[misc] # bound now
                    "get_messages", of(conversation, **last)
                ),
            }
        try:
            samples = await take_turns_by_call(
                subjects, rounds=rounds, calls=calls, progress=progress
            )
        finally:
            for one in (conversation, written):
                await store.delete_conversation(one)
    report = Report(bench="rest", method=_METHOD, machine=about)
    report.rows = latency_rows(samples, (50, 99))
    medians = {
        name: [sample.milliseconds(50) for sample in taken] for name, taken in samples.items()
    }
    for function in _FUNCTIONS:
        for way, bar in (("supabase-py", Bar(at_most=1.2)), ("httpx", None)):
            ours, other = medians[f"{function}/ours"], medians[f"{function}/{way}"]
            report.rows.append(ratio_row(f"{function}:{way}", ours, other, bar))
    return report


async def _about(stack: LocalStack) -> dict[str, Any]:
    connection = await asyncpg.connect(stack.database_url)
    try:
        return await machine(connection)
    finally:
        await connection.close()


def _http(url: str, key: str) -> httpx.AsyncClient:
    headers = {
        "apikey": key,
        "Authorization": f"Bearer {key}",
        "Accept-Profile": "haive",
        "Content-Profile": "haive",
    }
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=30)
