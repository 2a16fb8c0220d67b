"""What `haive bench consolidation` kills: one call of `consolidate_memories`, by itself."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from haive.core.persistence.bench.killed import tell
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.vector import MemoryConfig, VectorMemory
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.store import Store
    from haive.core.persistence.vector.records import Record

_COLLECTION = "bench-dialogues"


class _Telling(PgvectorBackend):
    """Tells of all that it has written."""

    async def put(self, records: Sequence[Record]) -> None:
        await super().put(records)
        tell(f"written {len(records)}")

    async def replace(self, records: Sequence[Record]) -> int:
        written = await super().replace(records)
        tell(f"written {written}")
        return written


def memory_in(store: Store, *, telling: bool = False) -> VectorMemory:
    """The memory that is consolidated; texts are alike by their words and letters."""
    backend = (_Telling if telling else PgvectorBackend)(store)
    config = MemoryConfig(index_name=_COLLECTION, embedder=HashingEmbedder(256))
    return VectorMemory(config=config, backend=backend)


async def main(strategy: str, threshold: float, until: str) -> None:
    """Consolidate all up to a time, in the DATABASE_URL of the environment.

    What is told, a line each: ``begun``, how many memories were written, and at last how many
    groups there are.
    """
    async with PostgresStore(PersistenceConfig()) as store:
        tell("begun")
        done = await memory_in(store, telling=True).consolidate_memories(
            similarity_threshold=threshold,
            consolidation_strategy=strategy,
            archive_originals=True,
            until=datetime.fromisoformat(until),
        )
    tell(f"ended {len(done.plan.groups)}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
