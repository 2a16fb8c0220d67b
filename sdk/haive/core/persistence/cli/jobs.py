"""What is done again and again, by one program at a time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from haive.core.persistence.cli.conversations import parse_span
from haive.core.persistence.cli.output import err, out, plain
from haive.core.persistence.errors import ConflictError, PersistenceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import timedelta

    from haive.core.persistence.store import Store


@asynccontextmanager
async def alone(store: Store, job: str) -> AsyncIterator[bool]:
    """Whether nobody else does this job in the tenant, for as long as the block runs."""
    from haive.core.persistence.checkpointer._documents import TENANT  # noqa: PLC0415 - slow

    transport = store._transport
    tenant = (await transport.call("current_tenant", {}, TENANT, safe=True)).tenant
    async with transport.alone(f"{transport.schema} {tenant} {job}") as is_alone:
        yield is_alone


async def repeat(job: Callable[[], Awaitable[str]], every: str | None) -> None:
    """Do a job once, or again and again, past errors that pass by themselves.

    Args:
        job: Returns what it did, in a sentence or as JSON.
        every: The time between, such as ``10m``; None for once.
    """
    pause = None if every is None else _pause(every)
    while True:
        try:
            done = await job()
            out.print("" if pause is None or done[:1] == "{" else _now(), end="", highlight=False)
            typer.echo(done)
        except PersistenceError as error:
            if pause is None or not (error.retryable or isinstance(error, ConflictError)):
                raise
            err.print(f"[yellow]{_now()}{plain(str(error))}[/]", highlight=False)
        if pause is None:
            return
        await asyncio.sleep(pause.total_seconds())


def _pause(text: str) -> timedelta:
    span = parse_span(text)
    if not span:
        raise typer.BadParameter(f"--every: {text!r} is no span (90m, 1h, 1d).")
    return span


def _now() -> str:
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} "
