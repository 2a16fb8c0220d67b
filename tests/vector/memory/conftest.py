"""A memory over each backend, with a collection of its own and a clock that tests turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from making_notes import make_tenant
from qdrant_client import AsyncQdrantClient

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.local import LocalStack
from haive.core.persistence.vector import MemoryConfig, VectorMemory
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.backends.protocol import MemoryBackend
from haive.core.persistence.vector.backends.qdrant import QdrantBackend

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Clock:
    """What time it is."""

    now: datetime = BEGIN

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["qdrant", "pgvector"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def backend(kind: str, stack: LocalStack) -> AsyncIterator[MemoryBackend]:
    if kind == "qdrant":
        client = AsyncQdrantClient(":memory:")
        yield QdrantBackend(client=client)
        await client.close()
        return
    owner = await asyncpg.connect(stack.database_url)
    tenant = await make_tenant(owner)
    await owner.close()
    config = PersistenceConfig(connection_string=stack.database_url, pool_size=2, tenant=tenant)
    async with PostgresStore(config) as store:
        yield PgvectorBackend(store)


Make = Callable[..., VectorMemory]


@pytest.fixture
async def make(backend: MemoryBackend, clock: Clock) -> AsyncIterator[Make]:
    """Make a memory over the test's collection, with vectors of hashed words unless told else."""
    name = f"m{uuid4().hex[:12]}"
    async with AsyncExitStack() as opened:

        def make_one(*, over: MemoryBackend = backend, **settings: Any) -> VectorMemory:
            if not any(each.startswith("embed") for each in settings):
                settings["embedder"] = HashingEmbedder(256)
            config = MemoryConfig(**{"index_name": name, **settings})
            memory = VectorMemory(config=config, backend=over, clock=clock)
            opened.push_async_callback(memory.aclose)
            return memory

        yield make_one


@pytest.fixture
def memory(make: Make) -> VectorMemory:
    return make()
