"""What others do with the same message, by their own documented ways."""

from __future__ import annotations

import itertools
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from haive.core.persistence.bench.bare import SCHEMA
from haive.core.persistence.bench.timing import Subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from haive.core.persistence.bench.timing import Call

#: Sessions at once. Each has a connection of its own up to 32, where both pools end.
CONCURRENCY = (1, 32, 256)
_CONNECTIONS = 32

#: What both need beside us.
_PACKAGES = ("agents", "sqlalchemy", "langchain_postgres", "psycopg", "psycopg_pool")


def missing() -> str | None:
    """What to say when the peers are not installed."""
    absent = [name for name in _PACKAGES if find_spec(name) is None]
    if not absent:
        return None
    return (
        f"The peers are left out: {', '.join(absent)} not installed."
        " `pip install 'haive-persistence[bench]'` brings them."
    )


@asynccontextmanager
async def peers(dsn: str, text: str) -> AsyncIterator[list[Subject]]:
    """The peers, with their tables made beside the bare table."""
    async with AsyncExitStack() as opened:
        yield [
            *await opened.enter_async_context(_openai_agents(dsn, text)),
            *await opened.enter_async_context(_langchain(dsn, text)),
        ]


@asynccontextmanager
async def _openai_agents(dsn: str, text: str) -> AsyncIterator[list[Subject]]:
    from agents.extensions.memory import SQLAlchemySession  # noqa: PLC0415 - the extra "bench"
    from sqlalchemy import make_url  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

    engine = create_async_engine(
        make_url(dsn).set(drivername="postgresql+asyncpg"),
        pool_size=_CONNECTIONS,
        max_overflow=0,
        connect_args={"server_settings": {"search_path": SCHEMA}},
    )
    try:
        first = SQLAlchemySession("first", engine=engine, create_tables=True)
        await first.add_items([{"role": "user", "content": text}])
        numbers = itertools.count()

        def caller() -> Call:
            session = SQLAlchemySession(f"session {next(numbers)}", engine=engine)
            return lambda: session.add_items([{"role": "user", "content": text}])

        yield _subjects("openai-agents", caller)
    finally:
        await engine.dispose()


@asynccontextmanager
async def _langchain(dsn: str, text: str) -> AsyncIterator[list[Subject]]:
    from langchain_core.messages import HumanMessage  # noqa: PLC0415 - the extra "bench"
    from langchain_postgres import PostgresChatMessageHistory  # noqa: PLC0415
    from psycopg_pool import AsyncConnectionPool  # noqa: PLC0415

    table = "chat_history"
    async with AsyncConnectionPool(
        dsn,
        min_size=_CONNECTIONS,
        max_size=_CONNECTIONS,
        timeout=60.0,
        kwargs={"options": f"-csearch_path={SCHEMA}"},
    ) as pool:
        async with pool.connection() as connection:
            await PostgresChatMessageHistory.acreate_tables(connection, table)

        # Its documented way: a history for each use, around a connection that is there.
        async def add(session_id: str) -> None:
            async with pool.connection() as connection:
                history = PostgresChatMessageHistory(table, session_id, async_connection=connection)
                await history.aadd_messages([HumanMessage(text)])

        yield _subjects("langchain-postgres", lambda: partial(add, str(uuid.uuid4())))


def _subjects(name: str, caller: Callable[[], Callable[[], Awaitable[Any]]]) -> list[Subject]:
    return [Subject(f"{name}/{count}", [caller() for _ in range(count)]) for count in CONCURRENCY]
