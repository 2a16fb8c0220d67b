"""Processes that a bench kills: each begins, tells how far it is, and ends or is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import StreamReader
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping


def environment(**values: str) -> dict[str, str]:
    """What such a process is started with: ours, the way to this package, and these."""
    return {**os.environ, **values, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@contextlib.asynccontextmanager
async def begun(
    module: str, *arguments: str, env: Mapping[str, str]
) -> AsyncIterator[tuple[Process, AsyncIterator[tuple[str, int]]]]:
    """Run a module, and hear what it tells from the moment that it says "begun".

    Each of its further lines is a word and a number. What still runs at the end is killed.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdout=asyncio.subprocess.PIPE,
        env=dict(env),
    )
    try:
        if process.stdout is None or await process.stdout.readline() != b"begun\n":
            raise RuntimeError(f"{module} did not begin.")
        yield process, _told(process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _told(lines: StreamReader) -> AsyncIterator[tuple[str, int]]:
    async for line in lines:
        what, _, count = line.decode().partition(" ")
        yield what, int(count)


def tell(line: str) -> None:
    """Say a line to the process that kills; from within the one that is killed."""
    print(line, flush=True)  # noqa: T201 - that is how they talk
