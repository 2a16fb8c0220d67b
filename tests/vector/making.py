"""Backends to run the suite over. To add one, write what makes it and name it in FACTORIES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import numpy as np
import uuid_utils
from backends.fakes.pinecone import KEY, FakePinecone
from backends.fakes.qdrant import StrictQdrant
from backends.fakes.weaviate import KEY as WEAVIATE_KEY
from backends.fakes.weaviate import FakeWeaviate

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.backends.pinecone import PineconeBackend
from haive.core.persistence.vector.backends.protocol import MemoryBackend
from haive.core.persistence.vector.backends.qdrant import QdrantBackend
from haive.core.persistence.vector.backends.weaviate import WeaviateBackend
from haive.core.persistence.vector.config import IndexType
from haive.core.persistence.vector.records import Collection, Record

#: Makes a tenant's backend, not open yet, over a service that a test has for itself.
Make = Callable[[str], Awaitable[MemoryBackend]]
Factory = Callable[[], AbstractAsyncContextManager[Make]]
WIDTH = 8


@asynccontextmanager
async def qdrant() -> AsyncIterator[Make]:
    client = StrictQdrant()

    async def make(tenant: str) -> MemoryBackend:
        return QdrantBackend(tenant=tenant, client=client)

    yield make
    await client.close()


@asynccontextmanager
async def pinecone() -> AsyncIterator[Make]:
    fake = FakePinecone()
    await fake.server.start_server()
    made: list[MemoryBackend] = []

    async def make(tenant: str) -> MemoryBackend:
        made.append(PineconeBackend(tenant=tenant, api_key=KEY, url=fake.url))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()
    await fake.server.close()


@asynccontextmanager
async def weaviate() -> AsyncIterator[Make]:
    fake = FakeWeaviate()
    await fake.start()
    made: list[MemoryBackend] = []

    async def make(tenant: str) -> MemoryBackend:
        made.append(
            WeaviateBackend(
                tenant=tenant, api_key=WEAVIATE_KEY, url=fake.url, grpc_port=fake.grpc_port
            )
        )
        return made[-1]

    yield make
    for each in made:
        await each.aclose()
    await fake.stop()


def pgvector(new_database: Callable[[], Awaitable[str]]) -> Factory:
    """Over a database of the test's own; over the REST API the folder pgvector goes."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Make]:
        database = await new_database()
        owner = await asyncpg.connect(database)
        async with AsyncExitStack() as stores:

            async def make(tenant: str) -> MemoryBackend:
                await owner.execute(
                    "insert into haive.tenants (tenant_id, name) values ($1, $1)"
                    " on conflict do nothing",
                    tenant,
                )
                config = PersistenceConfig(connection_string=database, tenant=tenant, pool_size=2)
                return PgvectorBackend(await stores.enter_async_context(PostgresStore(config)))

            yield make
        await owner.close()

    return opened


#: Those that need no database; pgvector comes from a fixture that has one.
FACTORIES: dict[str, Factory] = {"pinecone": pinecone, "qdrant": qdrant, "weaviate": weaviate}


def collection(**changes: Any) -> Collection:
    facts: dict[str, Any] = {
        "name": "memories", "model": "model-a", "dimensions": WIDTH, "metric": "cosine",
        "language": "english", "index_type": IndexType.HNSW, "m": 16, "ef_construction": 64,
    }  # fmt: skip
    return Collection(**{**facts, **changes})


def unit(seed: int, width: int = WIDTH) -> Any:
    vector = np.random.default_rng(seed).standard_normal(width)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def record(text: str = "", *, seed: int | None = 0, **metadata: Any) -> Record:
    return Record(
        id=str(UUID(bytes=uuid_utils.uuid7().bytes)),
        metadata={"text": text, **metadata},
        vector=None if seed is None else unit(seed),
    )
