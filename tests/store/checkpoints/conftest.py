"""A checkpointer of each transport, plain and sealed, and the owner's view of the tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from haive.core.persistence import Store
from haive.core.persistence.checkpointer import (
    CheckpointConfig,
    Checkpointer,
    CheckpointStrategy,
    KeyRing,
)
from haive.core.persistence.local import LocalStack

NewCheckpointer = Callable[..., Checkpointer]


@pytest.fixture(params=[False, True], ids=["plain", "sealed"])
def key(request: pytest.FixtureRequest) -> str | None:
    """A key to seal with, or none."""
    return KeyRing.generate() if request.param else None


@pytest.fixture
def new_checkpointer(store: Store, key: str | None) -> NewCheckpointer:
    """Make one more checkpointer, that knows nothing yet, with the test's key unless told."""

    def make(
        strategy: CheckpointStrategy = CheckpointStrategy.ADAPTIVE,
        using: Store = store,
        **settings: object,
    ) -> Checkpointer:
        settings = {"encryption_key": key, **settings}
        return Checkpointer(using, CheckpointConfig(**settings), strategy)

    return make


@pytest.fixture
def checkpointer(new_checkpointer: NewCheckpointer) -> Checkpointer:
    return new_checkpointer()


@pytest.fixture
async def owner(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    """The owner of the schema, who sees and changes every row."""
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()
