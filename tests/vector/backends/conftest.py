"""One backend at a time, for tests that run over all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from making import FACTORIES, Factory, Make, collection

from haive.core.persistence.vector.backends.protocol import MemoryBackend


@pytest.fixture(scope="session")
def backend_factories() -> dict[str, Factory]:
    """What makes each backend, by its name."""
    return FACTORIES


@pytest.fixture(params=list(FACTORIES))
async def make(
    request: pytest.FixtureRequest, backend_factories: dict[str, Factory]
) -> AsyncIterator[Make]:
    async with backend_factories[request.param]() as made:
        yield made


@pytest.fixture
async def backend(make: Make) -> MemoryBackend:
    """A backend with an empty collection of vectors of eight numbers."""
    made = await make("acme")
    await made.open(collection())
    return made
