"""Writes conversations as JSON lines, in constant memory."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import tempfile
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from haive.core.persistence.cli.output import count, err
from haive.core.persistence.errors import InvalidInputError, NotFoundError

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

    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    hidden = quiet or not err.is_terminal
    with (
        opened(output) as file,
        Progress(*columns, console=err, transient=True, disable=hidden) as progress,
    ):
        task = progress.add_task("")

        async def run() -> LineWriter:
            async with target.opened() as store:
                sessions = await session_lines.SessionLines.among(store, conversation_ids, filters)
                writer = LineWriter(store, sessions, file.write, file_format)
                async for conversation in _conversations(store, conversation_ids, filters):
                    await writer.add(conversation)
                    progress.update(task, description=writer.written())
                return writer

        writer = asyncio.run(run())
    if not quiet:
        left_out = ", ".join(writer.left_out())
        said = f"Exported {writer.written()}." + (f" Left out: {left_out}." if left_out else "")
        err.print(said, highlight=False)


@contextmanager
def opened(output: str) -> Iterator[IO[bytes]]:
    """A file that takes its name when it is whole, or standard output for ``-``.

    Whoever it is about, it is its owner's alone to read.

    Raises:
        InvalidInputError: It cannot be written.
    """
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    part: Path | None = None
    try:
        if path.exists() and not path.is_file():
            # A pipe or device is written to, and must not be replaced by a file.
            raw: IO[bytes] = path.open("wb")
        else:
            descriptor, name = tempfile.mkstemp(
                prefix=f"{path.name}.", suffix=".part", dir=path.parent
            )
            raw, part = os.fdopen(descriptor, "wb"), Path(name)
        with raw:
            if path.suffix == ".gz":
                # No name and no time in it: the same conversations make the same file.
                with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
                    yield cast("IO[bytes]", packed)
            else:
                yield raw
        if part is not None:
            part.replace(path)
    except BaseException as error:
        if part is not None:
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


class LineWriter:
    """Writes conversations as lines, and counts what became of them.

    Args:
        store: Where they are.
        sessions: Knows which of them are sessions.
        write: Takes the bytes.
        file_format: What the lines are.
    """

    def __init__(
        self,
        store: Store,
        sessions: SessionLines,
        write: Callable[[bytes], object],
        file_format: Format,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._write = write
        self._is_ours = file_format is Format.HAIVE
        self.conversations = self.messages = 0
        self._empty = self._deleted = self._cut_off = self._answers = 0

    def written(self) -> str:
        """What was written, in words."""
        return f"{count(self.conversations, 'conversation')}, {count(self.messages, 'message')}"

    def left_out(self) -> list[str]:
        """What was not written, in words."""
        deleted = "deleted meanwhile"
        return [
            text
            for number, text in (
                (self._empty, f"{count(self._empty, 'conversation')} without messages"),
                (self._answers, f"{count(self._answers, 'answer')} of tools without a call"),
                (self._deleted, f"{count(self._deleted, 'conversation')} {deleted}"),
                (self._cut_off, f"the end of {count(self._cut_off, 'conversation')} {deleted}"),
            )
            if number
        ]

    async def add(self, conversation: Conversation) -> None:
        """Write a conversation, as far as it is there and its format has it."""
        from haive.core.persistence.importing.formats import haive, openai_lines  # noqa: PLC0415 - slow

        session = await self._sessions.find(conversation.id)
        answers = openai_lines.Answers()
        head = haive.head(conversation, session) if self._is_ours else openai_lines.HEAD
        written = 0
        try:
            async for message in _messages(
                self._store, self._sessions, conversation, session, hidden=self._is_ours
            ):
                records = (
                    [haive.message(message, session)]
                    if self._is_ours
                    else [
                        record
                        for one in answers.sorted_out(message)
                        for record in openai_lines.records(one)
                    ]
                )
                if records:
                    # The head too is written only now: before, it may turn out to be deleted.
                    self._write((b"," if written else head) + b",".join(records))
                    written += 1
        except NotFoundError:
            if not written:
                self._deleted += 1
                return
            self._cut_off += 1
        self._answers += answers.left_out
        if not written:
            if not self._is_ours:
                self._empty += 1
                return
            self._write(head)
        self._write(haive.TAIL if self._is_ours else openai_lines.TAIL)
        self.conversations += 1
        self.messages += written
