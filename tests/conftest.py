"""A migrated stack for the session, and for each test a database of its own."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from haive.core.persistence.local import LocalStack
from haive.core.persistence.local.parts import cached, find_deno
from haive.core.persistence.schema import migrate

Connect = Callable[..., Awaitable[asyncpg.Connection]]
_TEMPLATE = "haive_template"
_JAVASCRIPT = Path(__file__).parent / "javascript"
_FILES = ("deno.json", "deno.lock", "client.ts")
_numbers = itertools.count(1)
_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30
# Seconds in which what should happen happens on a busy machine.
PATIENCE = 20


def pytest_configure() -> None:
    """Hear Ctrl-C even where a shell started the tests in its background.

    Such a shell has its children ignore the signal, and they hand that on to theirs: to the
    programs that tests interrupt.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave what all tests are made of out of every later search for garbage: 0.3 s each."""
    gc.collect()
    gc.freeze()


def _has_room() -> bool:
    return _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[LocalStack]:
    """The stack of all tests, with the schema installed; its data may be lost, so it is fast."""
    with pytest.MonkeyPatch.context() as patch:
        # A database a test is thousands of files made and removed: a sixth of the time, where the
        # disk does it. Not for stacks that start Auth: Deno lets nobody into /dev.
        if _has_room():
            patch.setenv("TMPDIR", str(_MEMORY))
        running = LocalStack(postgres_settings={"fsync": "off"})
        await running.__aenter__()
    try:
        yield running
    finally:
        await running.__aexit__(None, None, None)


@pytest.fixture(scope="session")
async def server(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    """The superuser's connection, for what concerns the whole server."""
    connection = await asyncpg.connect(stack.admin_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def template(stack: LocalStack, server: asyncpg.Connection) -> str:
    """A database with nothing but the schema, that nobody is connected to."""
    await server.execute(f"create database {_TEMPLATE} owner postgres")
    # What Supabase lets postgres do, and this server does not.
    connection = await asyncpg.connect(stack.admin_url, database=_TEMPLATE)
    await connection.execute(
        "create schema extensions authorization postgres;"
        "create extension vector with schema extensions"
    )
    await connection.close()
    await migrate(_other_database(stack, _TEMPLATE))
    return _TEMPLATE


@pytest.fixture
async def new_database(
    stack: LocalStack, server: asyncpg.Connection
) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Make a database, `await new_database(template=…)`, and get its connection string."""
    async with AsyncExitStack() as made:

        async def make(template: str = "template1") -> str:
            name = f"test_{next(_numbers)}"
            await server.execute(f"create database {name} template {template} owner postgres")
            made.push_async_callback(server.execute, f"drop database {name} with (force)")
            return _other_database(stack, name)

        yield make


@pytest.fixture
async def database(new_database: Callable[..., Awaitable[str]], template: str) -> str:
    """The connection string (role postgres) of a fresh database with the schema."""
    return await new_database(template)


@pytest.fixture
async def connect(database: str) -> AsyncIterator[Connect]:
    """Open a connection to the test's database: `await connect("haive_client")`."""
    async with AsyncExitStack() as opened:

        async def open_one(role: str | None = None, dsn: str = database) -> asyncpg.Connection:
            connection = await asyncpg.connect(dsn)
            opened.push_async_callback(connection.close)
            if role is not None:
                await connection.execute(f"set role {role}")
            return connection

        yield open_one


@pytest.fixture
async def postgres(connect: Connect) -> asyncpg.Connection:
    """The owner of the schema, who sees every row."""
    return await connect()


@pytest.fixture
async def client(connect: Connect) -> asyncpg.Connection:
    """What the SDK is on a direct connection."""
    return await connect("haive_client")


def _other_database(stack: LocalStack, name: str) -> str:
    return str(httpx.URL(stack.database_url).copy_with(path=f"/{name}"))


@dataclass
class Script:
    """A running client.ts."""

    process: asyncio.subprocess.Process
    said: list[dict[str, Any]] = field(default_factory=list)

    async def listen(self) -> None:
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))

    def tell(self, command: str, **given: Any) -> None:
        self.process.stdin.write(json.dumps({"command": command, **given}).encode() + b"\n")

    def has_said(self, **what: Any) -> bool:
        return any(what.items() <= said.items() for said in self.said)


@pytest.fixture(scope="session")
async def javascript() -> Path:
    """A directory with supabase-js, downloaded once as pinned in deno.lock."""

    async def install(target: Path) -> None:
        for name in _FILES:
            shutil.copyfile(_JAVASCRIPT / name, target / name)
        environment = {
            "DENO_TLS_CA_STORE": "system,mozilla",
            **os.environ,
            "DENO_DIR": str(target / ".deno"),
        }
        command = [await find_deno(), "install", "--frozen", "--quiet"]
        process = await asyncio.create_subprocess_exec(*command, cwd=target, env=environment)
        assert await process.wait() == 0
        shutil.rmtree(target / ".deno")

    digest = hashlib.sha256()
    for name in _FILES:
        digest.update((_JAVASCRIPT / name).read_bytes())
    return await cached(f"supabase-js-{digest.hexdigest()[:16]}", install)


@pytest.fixture
async def supabase_js(
    javascript: Path, stack: LocalStack
) -> AsyncIterator[Callable[..., Awaitable[Script]]]:
    """Start a client of the real supabase-js: `await supabase_js(user)`."""
    async with AsyncExitStack() as started:

        async def start_one(user: str, version: str = "2.0.0") -> Script:
            token = stack.mint_user_token(user)
            command = [
                *(await find_deno(), "run", "--no-prompt", "--quiet", "--allow-net=127.0.0.1"),
                *("--allow-env", "--cached-only", "client.ts"),
                *(stack.url, stack.publishable_key, token, version),
            ]
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=javascript,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            script = Script(process)
            listening = asyncio.create_task(script.listen())

            async def end() -> None:
                process.stdin.close()
                try:
                    await asyncio.wait_for(process.wait(), 10)
                except TimeoutError:
                    process.kill()
                    await process.wait()
                await listening

            started.push_async_callback(end)
            return script

        yield start_one


@pytest.fixture
def eventually() -> Callable[..., Awaitable[Any]]:
    """Wait for what has no event: `await eventually(lambda: ...)` returns the first true value."""

    async def wait(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"not within {PATIENCE} s")
            await asyncio.sleep(0.01)

    return wait
