"""Sessions: a branch that tries something else, merged back; and people who share one.

python examples/03_sessions.py
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.errors import AccessDeniedError, ConflictError
from haive.core.persistence.local import LocalStack
from haive.core.persistence.session import SessionConfig, SessionManager

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.session import Merge, Session, SessionMessage

console = Console()

USER, AGENT = "user-123", "support-agent"
COLOURS = {"system": "magenta", "user": "cyan", "assistant": "green"}
REASONS = {
    "same_message": "both have",
    "near_duplicate": "says the same as",
    "conflict": "contradicts",
}


async def say(manager: SessionManager, session: Session, *texts: str) -> None:
    """A user and an agent in turns."""
    roles = ("user", "assistant")
    await manager.add_messages(
        session.id, [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    )


async def support(manager: SessionManager) -> tuple[Session, Session]:
    """A conversation about a grinder, and a branch of it that asks for another way out."""
    session = await manager.create_session(
        USER, AGENT, {"mode": "technical_support"}, title="A grinder that stops"
    )
    await say(
        manager,
        session,
        "My coffee grinder stops after ten seconds.",
        "Then its motor overheats. Are the burrs clean?",
    )
    branch = await manager.branch_session(
        session.id, branch_context={"reason": "what if it cannot be repaired?"}
    )
    await say(
        manager,
        session,
        "They are full of old coffee.",
        "Unscrew the lid and brush them: the motor has to turn freely.",
        "How long does the warranty of the grinder last?",
        "The warranty of the grinder lasts 24 months.",
    )
    await say(
        manager,
        branch,
        "How long does the warranty of the grinder last?",
        "The warranty of the grinder lasts 12 months.",
        "What would a new one cost me within the warranty?",
        "Nothing: a replacement is sent within three days.",
    )
    return session, branch


def show(title: str, session: Session, messages: Sequence[SessionMessage]) -> None:
    """Who said what, and from which session it comes."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    for message in messages:
        borrowed = message.conversation_id != session.id
        table.add_row(
            str(message.index),
            f"[{COLOURS[message.role]}]{message.author or message.role}[/]",
            escape(message.text),
            f"[dim]of {str(message.conversation_id)[-8:]}[/]" if borrowed else "",
        )
    console.print(Panel(table, title=f"{title} · {str(session.id)[-8:]}"))


def show_record(merge: Merge, texts: dict[tuple[str, int], str]) -> None:
    """What a merge left out, and why."""
    for one in merge.dropped:
        cause = one["because_of"]
        what = texts[one["conversation_id"], one["seq"]]
        why = texts[cause["conversation_id"], cause["seq"]]
        console.print(f"  left out  “{what}”\n            {REASONS[one['reason']]} “{why}”")
    for conflict in merge.conflicts:
        console.print(f"  conflict in {conflict['reason']}: kept {conflict['kept']}")


async def branch_and_merge(manager: SessionManager) -> None:
    """Try something else, take it back in, and take that back."""
    session, branch = await support(manager)
    show("The branch begins with what was said", branch, await manager.messages(branch.id))
    texts = {
        (str(message.conversation_id), message.seq): message.text
        for each in (session, branch)
        for message in await manager.messages(each.id)
    }
    merged = await manager.merge_sessions(session.id, branch.id, "intelligent", "primary_wins")
    show("Merged", merged, await manager.messages(session.id))
    assert merged.merge is not None  # noqa: S101 - merge_sessions says so
    show_record(merged.merge, texts)
    undone = await manager.undo_merge(session.id, merged.merge.id)
    console.print(f"  undone: {merged.message_count} messages, then {undone.message_count}\n")


async def work_together(manager: SessionManager) -> None:
    """A reader, a writer and a moderator in one session."""
    room = await manager.create_collaborative_session(
        ["reader", "writer", "moderator"],
        {"reader": ["read"], "moderator": ["read", "write", "moderate"]},
        title="Which grinder do we buy?",
    )
    await manager.add_message(room.id, "user", "The one with steel burrs.", as_user="writer")
    rude = await manager.add_message(room.id, "user", "Yours is rubbish.", as_user="writer")
    try:
        await manager.add_message(room.id, "user", "Ceramic!", as_user="reader")
    except AccessDeniedError as error:
        console.print(f"  the reader writes: {error.message}")
    await manager.hide_message(room.id, rude.id, as_user="moderator")

    # Both have read the same version; the second one to decide reads it again.
    seen = await manager.get_session(room.id)
    await manager.update_state(room.id, {"choice": "steel"}, expected=seen, as_user="writer")
    try:
        await manager.update_state(
            room.id, {"choice": "ceramic"}, expected=seen, as_user="moderator"
        )
    except ConflictError as error:
        console.print(f"  the moderator decides too: {error.message}")

    show("What the reader sees", room, await manager.messages(room.id, as_user="reader"))
    hidden = await manager.messages(room.id, hidden=True, as_user="moderator")
    console.print(f"  the moderator sees {len(hidden)} messages")
    console.print(f"  the state that they share: {(await manager.get_session(room.id)).state}\n")


async def main() -> None:
    """The same over both stores."""
    async with (
        LocalStack() as stack,
        PostgresStore(PersistenceConfig(connection_string=stack.database_url)) as direct,
        SupabaseStore(stack.url, stack.secret_key) as api,
    ):
        stores: tuple[Store, ...] = (direct, api)
        for store in stores:
            console.rule(type(store).__name__)
            manager = SessionManager(store, SessionConfig(default_ttl=3600))
            await branch_and_merge(manager)
            await work_together(manager)
    console.print("Next: haive sessions list · haive sessions tree ID")


if __name__ == "__main__":
    asyncio.run(main())
