"""The import of a file: read, prepare, write, with the next batch read while two are written."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO, Literal

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.importing.collector import collecting_seldom
from haive.core.persistence.importing.detect import FormatName, detect
from haive.core.persistence.importing.formats import DRAFTERS
from haive.core.persistence.importing.prepare import ImportSettings, Prepared, prepare
from haive.core.persistence.importing.records import Skipped, UnusableError
from haive.core.persistence.importing.report import ImportReport
from haive.core.persistence.importing.source import Source
from haive.core.persistence.importing.threads import in_thread
from haive.core.persistence.importing.values import Value, read_values
from haive.core.persistence.importing.writer import MAX_BYTES, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from uuid import UUID

    from haive.core.persistence.store import Store

DEFAULT_BATCH_SIZE = 5_000
_IN_FLIGHT = 2


async def import_file(
    file: str | Path | BinaryIO,
    store: Store | None,
    *,
    format: FormatName | Literal["auto"] = "auto",  # noqa: A002 - what it is
    agent: str | None = None,
    user: str | None = None,
    tags: Sequence[str] = (),
    source: str | None = None,
    dry_run: bool = False,
    strict: bool = False,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Import the conversations of a file.

    What was imported before is found by its ids and not written again: an import that was
    interrupted goes on when it is run again, and of a source that has grown only what is new is
    added. What cannot be imported is counted in the report with its reason.

    Args:
        file: A path, ``-`` for standard input, or an open binary file; gzip is unpacked, and so
            is the .zip of a ChatGPT export.
        store: Where to; None in a dry run.
        format: ``haive``, ``openai``, ``chatgpt`` or ``dialogues``; told by the content if not
            given.
        agent: The agent of all conversations; else the one of the source, its model, or
            "imported". What is stored keeps its agent where none is given.
        user: The user of all conversations. What is stored keeps its user where neither this nor
            the source names one.
        tags: Added to each conversation, to those that are there too.
        source: A name for what the file is a copy of. It keeps apart two sources with the same
            ids, and lets conversations without ids be known by their place in the file.
        dry_run: Read and report only.
        strict: Stop at the first record that cannot be imported.
        batch_size: About how many messages are written at once.
        on_progress: Called after each batch with the report as it is then.

    Raises:
        InvalidInputError: The file cannot be read or is in no known format, or, if ``strict``, a
            record cannot be imported.
        PersistenceError: The database cannot be written to.
    """
    if batch_size < 1:
        raise InvalidInputError("batch_size is 1 or more.")
    if store is None and not dry_run:
        raise InvalidInputError("There is no store to import to.")
    report = ImportReport(dry_run=dry_run)
    with closing(await in_thread(lambda: Source.open(file))) as opened, collecting_seldom():
        kind, framing = detect(opened.head, format)
        report.format = kind
        settings = ImportSettings(
            format=kind, agent=agent, user=user, tags=tags, source=source or ""
        )

        def note(skipped: Skipped) -> None:
            if strict and not skipped.expected:
                raise InvalidInputError(
                    f"{skipped.place}: {skipped.reason}.",
                    hint="What stands before it is imported. Leave out --strict to skip it.",
                )
            report.note(skipped)

        prepared = _prepared(read_values(opened, framing), settings, note)
        batches = _batches(prepared, batch_size)
        writer = None if store is None or dry_run else Writer(store, report, note, agent, tags)

        def progress() -> None:
            report.tick(opened.bytes_read, opened.size)
            if on_progress is not None:
                on_progress(report)

        await _write_all(batches, writer, report, progress)
        progress()
    return report


async def _write_all(
    batches: Iterator[list[Prepared]],
    writer: Writer | None,
    report: ImportReport,
    progress: Callable[[], None],
) -> None:
    in_flight: deque[tuple[set[UUID], asyncio.Task[None]]] = deque()
    try:
        # Reading in a thread leaves the loop to the batches that are being written.
        while batch := await in_thread(lambda: next(batches, None)):
            if writer is None:
                report.conversations += len(batch)
                report.messages += sum(len(prepared.messages) for prepared in batch)
                progress()
                continue
            ids = {prepared.id for prepared in batch}
            # A conversation that comes again must find what the first one wrote.
            while len(in_flight) >= _IN_FLIGHT or any(ids & other for other, _ in in_flight):
                await _first_written(in_flight, progress)
            in_flight.append((ids, asyncio.create_task(writer.write(batch))))
        await _drain(in_flight, progress)
    except InvalidInputError:  # strict: what stands before the record is written
        await _drain(in_flight, progress)
        raise
    finally:
        for _, task in in_flight:
            task.cancel()
        await asyncio.gather(*(task for _, task in in_flight), return_exceptions=True)


async def _drain(
    in_flight: deque[tuple[set[UUID], asyncio.Task[None]]], progress: Callable[[], None]
) -> None:
    while in_flight:
        await _first_written(in_flight, progress)


async def _first_written(
    in_flight: deque[tuple[set[UUID], asyncio.Task[None]]], progress: Callable[[], None]
) -> None:
    # Taken out before: what has failed is not waited for again.
    _, task = in_flight.popleft()
    await task
    progress()


def _prepared(
    values: Iterator[Value | Skipped],
    settings: ImportSettings,
    note: Callable[[Skipped], None],
) -> Iterator[Prepared]:
    draft_of = DRAFTERS[settings.format]  # type: ignore[index] # one of them, or detect refused
    for number, value in enumerate(values, 1):
        if isinstance(value, Skipped):
            note(value)
            continue
        place, record = value
        draft = None
        try:
            draft = draft_of(record, place)
            prepared = prepare(draft, number, settings)
        except UnusableError as error:
            prepared = None
            problem = Skipped(
                what="conversation", reason=str(error), place=place, expected=error.expected
            )
        for skipped in draft.skipped if draft else ():
            note(skipped)
        if prepared is None:
            note(problem)
        else:
            yield prepared


def _batches(conversations: Iterator[Prepared], batch_size: int) -> Iterator[list[Prepared]]:
    batch: list[Prepared] = []
    ids: set[UUID] = set()
    messages = size = 0
    try:
        for prepared in conversations:
            # No more than a store writes at once: of a few more, it would make two writes.
            if prepared.id in ids or (batch and messages + len(prepared.messages) > batch_size):
                yield batch
                batch, ids, messages, size = [], set(), 0, 0
            batch.append(prepared)
            ids.add(prepared.id)
            messages += len(prepared.messages)
            size += prepared.size
            if messages >= batch_size or len(batch) >= batch_size or size >= MAX_BYTES:
                yield batch
                batch, ids, messages, size = [], set(), 0, 0
    except InvalidInputError:  # strict: what stands before the record is written
        if batch:
            yield batch
        raise
    if batch:
        yield batch
