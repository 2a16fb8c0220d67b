"""A migrated stack for the session, and for each test a database of its own."""

from __future__ import annotations

import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import httpx
import pytest

from haive.core.persistence.local import LocalStack
from haive.core.persistence.schema import migrate

Connect = Callable[..., Awaitable[asyncpg.Connection]]
_TEMPLATE = "haive_template"
_numbers = itertools.count(1)


def pytest_configure() -> None:
    """Hear Ctrl-C even where a shell started the tests in its background.

    Such a shell has its children ignore the signal, and they hand that on to theirs: to the
    programs that tests interrupt.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[LocalStack]:
    """The stack of all tests, with the schema installed; its data may be lost, so it is fast."""
    async with LocalStack(postgres_settings={"fsync": "off"}) as running:
        yield running


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
