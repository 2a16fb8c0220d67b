"""Stacks to test, and a look at the processes behind them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from haive.core.persistence.errors import PartUnavailableError
from haive.core.persistence.local import LocalStack
from haive.core.persistence.local.machine import check_machine

PATIENCE = 20.0
# Not synchronous_commit: what was committed must survive the kill of Postgres.
FAST = {"fsync": "off"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        check_machine()
    except PartUnavailableError as error:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[LocalStack]:
    """One stack for all tests that only ask it things."""
    async with LocalStack(migrate=False, postgres_settings=FAST) as running:
        yield running


@pytest.fixture
async def postgres(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def api(stack: LocalStack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
        yield client


@pytest.fixture
def record_figure(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Show a measurement among the dots."""

    def show(figure: str) -> None:
        with capsys.disabled():
            print(f"\n{figure}", end=" ")  # noqa: T201 - the point of it

    return show


@dataclass(frozen=True)
class Processes:
    """The processes of one stack, as they were when looked at."""

    known: dict[int, str]

    @classmethod
    def of(cls, supervisor: int) -> Processes:
        """Return the supervisor and all that come from it."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))):
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found: dict[int, str] = {}
        todo = [supervisor]
        while todo:
            pid = todo.pop()
            if fields := _stat(pid):
                found[pid] = fields[19]
                todo += children.get(pid, [])
        return cls(found)

    def alive(self) -> list[int]:
        """Return those that still run: a zombie does not."""
        return [
            pid
            for pid, start in self.known.items()
            if (fields := _stat(pid)) and fields[19] == start and fields[0] != "Z"
        ]

    def kill(self, pids: Iterable[int] | None = None) -> None:
        """Kill some, or all: the supervisor is held meanwhile, so that it can react to none."""
        supervisor = next(iter(self.known))
        os.kill(supervisor, signal.SIGSTOP)
        for pid in self.alive() if pids is None else pids:
            if pid != supervisor:
                with suppress(ProcessLookupError):  # a backend goes with its postmaster
                    os.kill(pid, signal.SIGKILL)
        os.kill(supervisor, signal.SIGCONT if pids is not None else signal.SIGKILL)

    def named(self, word: str) -> list[int]:
        """Return those whose program is called so."""
        return [pid for pid in self.alive() if _program(pid) == word]


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _program(pid: int) -> str:
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].split(":")[0]).name
    except OSError:
        return ""


@pytest.fixture
def processes_of() -> Callable[[Path], Processes]:
    """Return a function from a stack's data directory to the processes behind it."""

    def look(data_dir: Path) -> Processes:
        return Processes.of(json.loads((data_dir / "running.json").read_text())["pid"])

    return look


_OWNER = """
import asyncio, json, sys
from pathlib import Path
from haive.core.persistence.local import LocalStack

async def main():
    data_dir = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    async with LocalStack(migrate=False, data_dir=data_dir) as stack:
        print(json.dumps({"data_dir": str(stack.data_dir), "url": stack.url}), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def owner() -> Callable[..., Any]:
    """Start a program that owns a stack, in a process group of its own."""

    @contextmanager
    def start(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        program = subprocess.Popen(
            [sys.executable, "-c", _OWNER, *arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        try:
            assert program.stdout is not None
            with program.stdout:
                told = json.loads(program.stdout.readline())
                yield program, Path(told["data_dir"])
        finally:
            if program.poll() is None:
                program.send_signal(signal.SIGTERM)
            program.wait(PATIENCE)

    return start
