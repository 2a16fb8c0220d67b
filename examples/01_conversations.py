"""Real conversations through real Postgres and PostgREST, by both stores.

make demo                          # the transcript below
make demo INPUT=conversations.json # your own: see `haive import --help`
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

import httpx
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.importing import import_file
from haive.core.persistence.local import LocalStack
from haive.core.persistence.models import (
    Conversation,
    ConversationMetadata,
    MessageRole,
    TextPart,
    TokenUsage,
    ToolCallPart,
    ToolResultPart,
)

console = Console()

USER, AGENT = "user-123", "assistant-001"
COLOURS = {"system": "dim", "user": "cyan", "assistant": "green", "tool": "yellow"}


async def talk(store: Store) -> Conversation:
    """A user asks, an agent calls a tool and answers."""
    conversation = await store.create_conversation(
        agent_id=AGENT,
        user_id=USER,
        metadata=ConversationMetadata(
            title="Technical Discussion",
            tags=["python", "ai", "architecture"],
            context={"project": "haive-core", "version": "2.0"},
            participants=[USER, AGENT],
            settings={"temperature": 0.7, "model": "gpt-4"},
        ),
    )
    add = store.add_message
    await add(conversation.id, MessageRole.SYSTEM, "You explain things briefly.")
    await add(
        conversation.id, MessageRole.USER, "How many messages can one process store a second?"
    )
    await add(
        conversation.id,
        MessageRole.ASSISTANT,
        [
            TextPart(text="Let me measure that."),
            ToolCallPart(id="call-1", name="bench", arguments={"what": "messages"}),
        ],
        token_usage=TokenUsage(input_tokens=150, output_tokens=24, model="gpt-4", cost=0.00594),
    )
    await add(
        conversation.id,
        MessageRole.TOOL,
        [ToolResultPart(tool_call_id="call-1", content={"run": "make bench"})],
    )
    await add(
        conversation.id,
        MessageRole.ASSISTANT,
        "Tens of thousands, each of them durable before its caller goes on. Run `make bench`.",
        metadata={"confidence_score": 0.85, "tools_used": ["bench"]},
        token_usage=TokenUsage(input_tokens=210, output_tokens=31, model="gpt-4", cost=0.00816),
    )
    return await store.get_conversation(conversation.id, include_messages=True)


def show(conversation: Conversation, through: str) -> None:
    """Who said what, the tokens, and what they cost."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    for message in conversation.messages or []:
        said = message.text
        if not isinstance(message.content, str):
            for part in message.content:
                if isinstance(part, ToolCallPart):
                    said += f"  → {part.name}({part.arguments})"
                elif isinstance(part, ToolResultPart):
                    said += f"  ← {part.content}"
        usage = message.token_usage
        spent = f"{usage.total_tokens} tokens" if usage else ""
        cost = f"${usage.cost}" if usage and usage.cost is not None else ""
        table.add_row(
            str(message.seq),
            f"[{COLOURS[message.role]}]{message.role}[/]",
            escape(said),
            spent,
            cost,
        )
    title = escape(conversation.metadata.title or str(conversation.id))
    total = f"{conversation.message_count} messages · {conversation.total_tokens} tokens"
    console.print(
        Panel(
            table,
            title=f"{title} · through {through}",
            subtitle=f"{total} · ${conversation.cost}",
        )
    )


async def show_who_sees_what(stack: LocalStack, store: Store, conversation: Conversation) -> None:
    """The same rows as the user they belong to, and as another user."""
    owner = conversation.user_id or USER
    for user in (owner, "someone-else"):
        await store.set_member(user, "member")
    table = Table(
        "as",
        "conversations",
        "messages of this one",
        title="The tables through PostgREST, under RLS",
    )
    for user in (owner, "someone-else"):
        headers = {
            "apikey": stack.publishable_key,
            "Authorization": f"Bearer {stack.mint_user_token(user)}",
            "Accept-Profile": "haive",
        }
        async with httpx.AsyncClient(base_url=stack.url, headers=headers) as api:
            found = (await api.get("/rest/v1/conversations?select=id,messages(seq)")).json()
        messages = sum(len(row["messages"]) for row in found if row["id"] == str(conversation.id))
        table.add_row(user, str(len(found)), str(messages))
    console.print(table)


async def demonstrate(stack: LocalStack) -> None:
    """Talk through both stores, and look at the rows from every side."""
    async with (
        PostgresStore(PersistenceConfig(connection_string=stack.database_url)) as direct,
        SupabaseStore(stack.url, stack.secret_key) as api,
    ):
        show(await talk(direct), "PostgresStore")
        conversation = await talk(api)
        show(conversation, "SupabaseStore")
        read = await direct.get_conversation(conversation.id, include_messages=True)
        console.print(f"Both stores read the same rows: {read == conversation}\n")
        await show_who_sees_what(stack, api, conversation)


async def bring(stack: LocalStack, file: Path) -> None:
    """Import the user's own file and show the newest conversation of it."""
    async with PostgresStore(PersistenceConfig(connection_string=stack.database_url)) as store:
        report = await import_file(file, store, user=USER)
        console.print(
            f"{report.conversations} conversations and {report.messages} messages imported "
            f"in {report.seconds:.1f} s"
        )
        for skipped in report.skipped:
            console.print(f"  left out {skipped.count} {skipped.what}: {skipped.reason}")
        page = await store.query_conversations(limit=1, include_messages=True)
        if not page:
            sys.exit("There was no conversation in it; `haive import --help` names the formats.")
        show(page[0], "PostgresStore")
        await show_who_sees_what(stack, store, page[0])


async def main() -> None:
    """Run the demonstration."""
    async with AsyncExitStack() as running:
        start = perf_counter()
        with console.status(
            "Starting Postgres and PostgREST (the first time takes some seconds) …"
        ):
            stack = await running.enter_async_context(LocalStack())
        console.print(f"Local stack at {stack.url} in {perf_counter() - start:.1f} s\n")
        if len(sys.argv) > 1:
            await bring(stack, Path(sys.argv[1]))
        else:
            await demonstrate(stack)
    console.print("\nNext: haive local start · haive import FILE · haive conversations list")


if __name__ == "__main__":
    asyncio.run(main())
