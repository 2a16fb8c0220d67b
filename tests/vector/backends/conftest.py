"""One backend at a time, for tests that run over all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
from making import FACTORIES, Make, collection, pgvector

from haive.core.persistence.vector.backends.protocol import MemoryBackend


@pytest.fixture(params=[*FACTORIES, "pgvector"])
async def make(
    request: pytest.FixtureRequest,
    new_database: Callable[..., Awaitable[str]],
    template: str,
) -> AsyncIterator[Make]:
    factories = {**FACTORIES, "pgvector": pgvector(partial(new_database, template))}
    async with factories[request.param]() as made:
        yield made


@pytest.fixture
async def backend(make: Make) -> MemoryBackend:
    """A backend with an empty collection of vectors of eight numbers."""
    made = await make("acme")
    await made.open(collection())
    return made
