"""`haive bench import`: a file through the importer, beside COPY of the rows that it makes."""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from haive.core.persistence.bench.report import Bar, Report, Row
from haive.core.persistence.bench.server import TENANT
from haive.core.persistence.bench.timing import ratio_row
from haive.core.persistence.importing import import_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress

_METHOD = (
    "{messages:,} messages in {conversations:,} conversations: import_file reads, checks and writes"
    " the file through PostgresStore; copy is asyncpg's COPY of the rows that this made, held in"
    " memory, into the same emptied tables with their keys, in one transaction. In turns, after an"
    " import that does not count."
)
_COLUMNS = {
    "conversations": (
        "tenant_id", "id", "agent_id", "user_id", "title", "tags", "context", "participants",
        "settings", "message_count", "input_tokens", "output_tokens", "cost", "created_at",
        "updated_at", "last_message_at",
    ),
    "messages": (
        "tenant_id", "conversation_id", "seq", "id", "role", "content", "parts", "metadata",
        "input_tokens", "output_tokens", "model", "cost", "created_at",
    ),
}  # fmt: skip
_WORDS = (
    "the", "agent", "keeps", "what", "you", "said", "and", "finds", "it", "again", "when", "asked",
    "for", "next", "week",
)  # fmt: skip


async def measure(
    server: Server,
    *,
    input_file: str | None,
    conversations: int,
    messages: int,
    rounds: int,
    progress: Progress,
) -> Report:
    """Run the bench."""
    with ExitStack() as opened:
        if input_file is None:
            progress("making the file")
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="haive-bench-"))
            input_file = str(Path(folder) / "conversations.jsonl")
            write_dataset(Path(input_file), conversations, messages)
        return await _measure(server, input_file, rounds, progress)


async def _measure(server: Server, file: str, rounds: int, progress: Progress) -> Report:
    progress("warming up")
    async with server.store() as store:
        report = await import_file(file, store)
        skipped = [f"skipped {entry.count:,}: {entry.reason}" for entry in report.skipped]
        rows = {table: await _rows(server, table, names) for table, names in _COLUMNS.items()}
        seconds: dict[str, list[float]] = {"import": [], "copy": []}
        for number in range(1, rounds + 1):
            for name, taken in seconds.items():
                await server.clear()
                progress(f"round {number} of {rounds}: {name}")
                start = perf_counter()
                if name == "import":
                    await import_file(file, store)
                else:
                    await _copy(server, rows)
                taken.append(perf_counter() - start)
    count = len(rows["messages"])
    rates = {name: [count / each for each in taken] for name, taken in seconds.items()}
    return Report(
        bench="import",
        method=_METHOD.format(messages=count, conversations=len(rows["conversations"])),
        machine=server.machine,
        rows=[
            *(
                Row.of(name, "messages_per_s", "messages/s", values)
                for name, values in rates.items()
            ),
            ratio_row("import:copy", rates["import"], rates["copy"], Bar(at_least=0.35)),
        ],
        notes=skipped,
    )


async def _rows(server: Server, table: str, columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    found = await server.owner.fetch(
        f"select {', '.join(columns)} from haive.{table} where tenant_id = $1",  # noqa: S608 - of constants # nosec B608
        TENANT,
    )
    return [tuple(row) for row in found]


async def _copy(server: Server, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    async with server.owner.transaction():
        for table, columns in _COLUMNS.items():
            await server.owner.copy_records_to_table(
                table, schema_name="haive", columns=columns, records=rows[table]
            )


def write_dataset(file: Path, conversations: int, messages: int) -> None:
    """Write our own format; the same numbers make the same file."""
    with file.open("wb") as lines:
        for record in _records(conversations, messages):
            lines.write(orjson.dumps(record) + b"\n")


def _records(conversations: int, messages: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(conversations * 31 + messages)  # noqa: S311 - made-up data # nosec B311
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    left = messages
    for remaining in range(conversations, 0, -1):
        size = left // remaining
        if remaining > 1:
            size = min(left, round(size * chance.uniform(0.1, 1.9)))
        left -= size
        begin += timedelta(minutes=chance.randrange(60))
        yield {
            "haive": 1,
            "id": _id(chance),
            "agent_id": f"agent-{chance.randrange(20)}",
            "user_id": f"user-{chance.randrange(500)}",
            "metadata": {"title": _text(chance, 5), "tags": [chance.choice(_WORDS)]},
            "created_at": begin.isoformat(),
            "messages": [_message(chance, number, begin) for number in range(size)],
        }


def _message(chance: random.Random, number: int, begin: datetime) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": _id(chance),
        "role": "assistant" if number % 2 else "user",
        "content": _text(chance, round(chance.lognormvariate(3.5, 1))),
        "created_at": (begin + timedelta(seconds=20 * number)).isoformat(),
    }
    if number % 2:
        message["token_usage"] = {
            "input_tokens": 100 + number,
            "output_tokens": 80,
            "cost": "0.001",
        }
    return message


def _id(chance: random.Random) -> str:
    return str(UUID(int=chance.getrandbits(128), version=4))


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=max(1, words)))
