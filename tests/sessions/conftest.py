"""Managers of sessions over both transports, each in a tenant of its own, and the owner's view."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.local import LocalStack
from haive.core.persistence.session import Session, SessionConfig, SessionManager

OpenStore = Callable[..., Awaitable[Store]]
NewManager = Callable[..., SessionManager]
Texts = Callable[..., Awaitable[list[str]]]
_numbers = itertools.count(1)


@pytest.fixture
async def owner(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    """The owner of the schema, who sees and changes every row."""
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def new_tenant(owner: asyncpg.Connection) -> Callable[..., Awaitable[str]]:
    """Make a tenant: `await new_tenant(audit="all")`."""

    async def make(**columns: object) -> str:
        name = f"sessions-{next(_numbers)}"
        await owner.execute("insert into haive.tenants (tenant_id, name) values ($1, $1)", name)
        for column, value in columns.items():
            await owner.execute(
                f"update haive.tenants set {column} = $2 where tenant_id = $1", name, value
            )
        return name

    return make


@pytest.fixture
async def tenant(new_tenant: Callable[..., Awaitable[str]]) -> str:
    return await new_tenant()


@pytest.fixture(params=["postgres", "supabase"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def open_store(stack: LocalStack, tenant: str, transport: str) -> AsyncIterator[OpenStore]:
    """Open one more store of the test's transport, in its tenant unless told another."""
    async with AsyncExitStack() as opened:

        async def open_one(over: str = transport, **settings: object) -> Store:
            settings = {"tenant": tenant, **settings}
            store: Store
            if over == "postgres":
                settings = {"pool_size": 4, **settings}
                config = PersistenceConfig(connection_string=stack.database_url, **settings)
                store = PostgresStore(config)
            else:
                store = SupabaseStore(stack.url, settings.pop("key", stack.secret_key), **settings)
            return await opened.enter_async_context(store)

        yield open_one


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
def new_manager(store: Store) -> NewManager:
    """Make one more manager of the test's store; nothing expires or fills up unless told."""

    def make(using: Store = store, **settings: object) -> SessionManager:
        settings = {"default_ttl": None, "max_messages_per_session": None, **settings}
        return SessionManager(using, SessionConfig(**settings))

    return make


@pytest.fixture
def manager(new_manager: NewManager) -> SessionManager:
    return new_manager()


@pytest.fixture
def texts(manager: SessionManager) -> Texts:
    """The texts of a session's messages, in order: `await texts(session)`."""

    async def read(session: Session, **how: object) -> list[str]:
        return [each.text for each in await manager.messages(session.id, limit=10_000, **how)]

    return read


@pytest.fixture
def filled(manager: SessionManager) -> Callable[..., Awaitable[Session]]:
    """A session with messages: `await filled("a", "b", user_id="ada")`."""

    async def make(*said: str, **how: object) -> Session:
        session = await manager.create_session(**{"user_id": "ada", **how})
        if said:
            await manager.add_messages(
                session.id, [{"role": "user", "content": each} for each in said]
            )
        return session

    return make


@pytest.fixture
def age(owner):
    """Let seconds pass for a session, as the database counts them."""

    async def pass_by(session, seconds):
        await owner.execute(
            "update haive.sessions set active_at = active_at - $2::interval where id = $1",
            *(session.id, timedelta(seconds=seconds)),
        )

    return pass_by
