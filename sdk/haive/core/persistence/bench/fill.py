"""A million messages, by COPY as the owner of the tables, with the counters as they must be."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from haive.core.persistence._encoding import new_id
from haive.core.persistence.bench.server import TENANT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress

#: A user has 25 conversations of 20 messages each, on average; half of them have this tag.
TAG = "support"
CONVERSATION_COLUMNS = (
    "tenant_id", "id", "agent_id", "user_id", "title", "tags", "message_count", "input_tokens",
    "output_tokens", "created_at", "updated_at", "last_message_at",
)  # fmt: skip
_MESSAGE_COLUMNS = (
    "tenant_id", "conversation_id", "seq", "id", "role", "content", "input_tokens",
    "output_tokens", "created_at",
)  # fmt: skip
_USERS_OF = 25
_MESSAGES_OF = 20
_PER_TURN = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What there is to ask for."""

    users: list[str]
    conversations: list[UUID]
    long_conversations: list[UUID]
    """Those with 50 messages or more."""


async def fill(server: Server, messages: int, progress: Progress) -> Filled:
    """Write that many messages, in a twentieth of that many conversations."""
    chance = random.Random(7)  # noqa: S311 - made-up data # nosec B311
    sizes = _sizes(chance, messages)
    ids = [new_id() for _ in sizes]
    users = [f"user-{number:05}" for number in range(max(1, len(sizes) // _USERS_OF))]
    now = datetime.now(UTC)
    begins = [now - timedelta(days=180 * chance.random() + 1) for _ in sizes]
    texts = [_text(chance) for _ in range(1_000)]

    progress(f"filling in {len(sizes):,} conversations")
    await server.owner.copy_records_to_table(
        "conversations",
        schema_name="haive",
        columns=CONVERSATION_COLUMNS,
        records=(
            (
                TENANT, conversation_id, f"agent-{chance.randrange(20)}", chance.choice(users),
                "A conversation", [chance.choice((TAG, "sales")), f"topic-{chance.randrange(50)}"],
                size, 50 * (size // 2), 80 * (size // 2), begin, begin,
                begin + _PER_TURN * (size - 1),
            )
            for conversation_id, size, begin in zip(ids, sizes, begins, strict=True)
        ),
    )  # fmt: skip

    def rows() -> Iterator[tuple[object, ...]]:
        done = 0
        for conversation_id, size, begin in zip(ids, sizes, begins, strict=True):
            for seq in range(1, size + 1):
                answer = seq % 2 == 0
                yield (
                    TENANT, conversation_id, seq, new_id(), "assistant" if answer else "user",
                    chance.choice(texts), 50 if answer else None, 80 if answer else None,
                    begin + _PER_TURN * (seq - 1),
                )  # fmt: skip
            done += size
            if done % 10_000 < size:
                progress(f"filling in messages: {done:,} of {messages:,} ({done / messages:.0%})")

    await server.owner.copy_records_to_table(
        "messages", schema_name="haive", columns=_MESSAGE_COLUMNS, records=rows()
    )
    progress("vacuum analyze")
    for table in ("conversations", "messages"):
        await server.owner.execute(f"vacuum (analyze) haive.{table}")
    return Filled(
        users=users,
        conversations=ids,
        long_conversations=[
            conversation_id for conversation_id, size in zip(ids, sizes, strict=True) if size >= 50
        ]
        or ids,
    )


def _sizes(chance: random.Random, messages: int) -> list[int]:
    """Sizes of conversations: most are short, some are long, together exactly ``messages``."""
    sizes = []
    left = messages
    for remaining in range(max(1, messages // _MESSAGES_OF), 1, -1):
        size = max(1, min(left - remaining, round(chance.expovariate(remaining / left))))
        sizes.append(size)
        left -= size
    return [*sizes, left]


def _text(chance: random.Random) -> str:
    words = "".join(chance.choice("aeiou bcdfg hklmn prstv") for _ in range(300))
    return words.strip().ljust(300, ".")
