"""Writes conversations as JSON lines, in constant memory."""

from __future__ import annotations

import asyncio
import gzip
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from haive.core.persistence.cli.output import count, err
from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from uuid import UUID

    from haive.core.persistence.cli.connection import Target
    from haive.core.persistence.cli.session_lines import SessionLines
    from haive.core.persistence.models import Conversation, Message
    from haive.core.persistence.session import Session
    from haive.core.persistence.store import Store

# Conversations of a page, and the messages that come with each: longer ones are read on their own.
_PAGE = 200
_MESSAGES = 100


class Format(StrEnum):
    """What `--format` takes."""

    HAIVE = "haive"
    OPENAI = "openai"


def export_to(
    output: str,
    target: Target,
    *,
    file_format: Format,
    conversation_ids: Sequence[UUID],
    filters: Mapping[str, Any],
    quiet: bool,
) -> None:
    """Export to a file, or to standard output for ``-``.

    Raises:
        InvalidInputError: The file cannot be written.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn  # noqa: PLC0415 - slow

    from haive.core.persistence.cli import session_lines  # noqa: PLC0415 - slow

    write_one = _write_haive if file_format is Format.HAIVE else _write_openai
    conversations = messages = 0

    def told() -> str:
        return f"{count(conversations, 'conversation')}, {count(messages, 'message')}"

    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    hidden = quiet or not err.is_terminal
    with (
        opened(output) as file,
        Progress(*columns, console=err, transient=True, disable=hidden) as progress,
    ):
        task = progress.add_task("")

        async def run() -> None:
            nonlocal conversations, messages
            async with target.opened() as store:
                lines = await session_lines.SessionLines.among(store, conversation_ids, filters)
                async for conversation in _conversations(store, conversation_ids, filters):
                    messages += await write_one(store, lines, conversation, file.write)
                    conversations += 1
                    progress.update(task, description=told())

        asyncio.run(run())
    if not quiet:
        err.print(f"Exported {told()}.", highlight=False)


@contextmanager
def opened(output: str) -> Iterator[IO[bytes]]:
    """A file that takes its name when it is whole, or standard output for ``-``.

    Raises:
        InvalidInputError: It cannot be written.
    """
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    # A pipe or device is written to, and must not be replaced by a file.
    part = path if path.exists() and not path.is_file() else path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as raw:
            if path.suffix == ".gz":
                # No name and no time in it: the same conversations make the same file.
                with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
                    yield cast("IO[bytes]", packed)
            else:
                yield raw
        if part != path:
            part.replace(path)
    except BaseException as error:
        if part != path:
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InvalidInputError(f"{output} cannot be written: {error.strerror}.") from error
        raise


async def _conversations(
    store: Store, conversation_ids: Sequence[UUID], filters: Mapping[str, Any]
) -> AsyncIterator[Conversation]:
    for one in conversation_ids:
        yield await store.get_conversation(one, include_messages=True, message_limit=_MESSAGES)
    if conversation_ids:
        return
    page_after: str | None = None
    while True:
        page = await store.query_conversations(
            limit=_PAGE,
            filters=filters,
            order_by="created_at",
            ascending=True,
            include_messages=True,
            message_limit=_MESSAGES,
            page_after=page_after,
        )
        for conversation in page:
            yield conversation
        page_after = page.next_page
        if page_after is None:
            return


async def _messages(
    store: Store,
    lines: SessionLines,
    conversation: Conversation,
    session: Session | None,
    *,
    hidden: bool,
) -> AsyncIterator[Message]:
    if session is not None:
        async for one in lines.messages(session, hidden=hidden):
            yield one
        return
    there = conversation.messages or []
    if len(there) == conversation.message_count:
        for message in there:
            yield message
        return
    async for message in store.iter_messages(conversation.id):
        yield message


async def _write_haive(
    store: Store,
    lines: SessionLines,
    conversation: Conversation,
    write: Callable[[bytes], object],
) -> int:
    from haive.core.persistence.importing.formats import haive  # noqa: PLC0415 - slow

    session = await lines.find(conversation.id)
    write(haive.head(conversation, session))
    comma, written = b"", 0
    async for message in _messages(store, lines, conversation, session, hidden=True):
        write(comma + haive.message(message, session))
        comma = b","
        written += 1
    write(haive.TAIL)
    return written


async def _write_openai(
    store: Store,
    lines: SessionLines,
    conversation: Conversation,
    write: Callable[[bytes], object],
) -> int:
    from haive.core.persistence.importing.formats import openai_lines  # noqa: PLC0415 - slow

    session = await lines.find(conversation.id)
    write(openai_lines.HEAD)
    comma, written = b"", 0
    async for message in _messages(store, lines, conversation, session, hidden=False):
        for record in openai_lines.records(message):
            write(comma + record)
            comma = b","
        written += 1
    write(openai_lines.TAIL)
    return written
