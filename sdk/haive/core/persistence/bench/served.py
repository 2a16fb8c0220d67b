"""What the REST API takes when it serves the schemas of many tenants."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, cast

from haive.core.persistence.bench.report import Row
from haive.core.persistence.errors import UnavailableError
from haive.core.persistence.multitenancy._exposure import await_exposure, expose, hide
from haive.core.persistence.supabase import SupabaseStore

if TYPE_CHECKING:
    from haive.core.persistence._supabase_transport import SupabaseTransport
    from haive.core.persistence.bench.timing import Progress
    from haive.core.persistence.local import LocalStack

_COUNTS = (1, 100, 300, 1_000)
# How many more are served one by one at each of the counts.
_MORE = 3
# Seconds. PostgREST reads all functions of all schemas anew for each one more.
_PATIENCE = 120.0


async def measure(stack: LocalStack, schemas: list[str], progress: Progress) -> list[Row]:
    """Have PostgREST serve more and more, and time how long one more takes, and a plain call.

    It ends where PostgREST does not come after any more, with how long was waited for it.
    """
    rows: list[Row] = []
    served = 0
    async with SupabaseStore(stack.url, stack.secret_key) as store:

        def place() -> SupabaseTransport:
            return cast("SupabaseTransport", store._transport.scoped(schema=schemas[served - 1]))

        async def serve(count: int) -> float:
            nonlocal served
            start = perf_counter()
            await expose(stack.database_url, schemas[served:count], beside=["haive"])
            served = count
            await await_exposure(place(), patience=_PATIENCE)
            return (perf_counter() - start) * 1e3

        async def call() -> float:
            start = perf_counter()
            await place().schema_version()
            return (perf_counter() - start) * 1e3

        try:
            for count in _COUNTS:
                name = f"served/{count}"
                if count > len(schemas):
                    break
                progress(f"{name}: making the API serve them")
                await serve(max(count - _MORE, served + 1))
                more = [await serve(served + 1) for _ in range(min(_MORE, count - served))]
                if more:
                    rows.append(Row.of(name, "one_more_ms", "ms", more))
                rows.append(Row.of(name, "call_ms", "ms", [await call() for _ in range(100)]))
                if (memory := await asyncio.to_thread(_memory, stack)) is not None:
                    rows.append(Row.of(name, "memory", "bytes", [memory]))
        except UnavailableError:
            rows.append(Row.of(name, "given_up_after_ms", "ms", [_PATIENCE * 1e3]))
        finally:
            await hide(stack.database_url, schemas)
    return rows


def _memory(stack: LocalStack) -> int | None:
    """Bytes that the PostgREST of a stack has in memory."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes() != b"postgrest\0":
                continue
            # Of a temporary stack, whose directories are beside one another.
            if f"{stack.data_dir.parent}/".encode() not in (process / "environ").read_bytes():
                continue
            lines = (process / "status").read_text().splitlines()
        except OSError:
            continue
        (resident,) = (line for line in lines if line.startswith("VmRSS:"))
        return int(resident.split()[1]) * 1024
    return None
