"""What `haive bench rotation` kills: one call of `rotate`, in a process of its own."""

from __future__ import annotations

import asyncio
import sys

from haive.core.persistence.bench.killed import tell
from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.encryption import (
    DatabaseKeyStore,
    DataKeys,
    EnvironmentKey,
    Sealer,
    rotate,
)
from haive.core.persistence.errors import ConflictError
from haive.core.persistence.postgres import PostgresStore


async def main(tenant: str, max_age: float, batch: int) -> None:
    """Seal all of a tenant anew, with DATABASE_URL and TENANT_MASTER_KEY of the environment.

    What is told, a line each: ``begun``, how many rows of a table are done, and at last all.
    """
    async with PostgresStore(PersistenceConfig(tenant=tenant)) as store:
        keys = DataKeys(EnvironmentKey(), DatabaseKeyStore(store))
        store._sealer = Sealer(tenant, keys, max_age=max_age)
        tell("begun")
        while True:
            try:
                rotated = await rotate(
                    store,
                    store._sealer,
                    keys,
                    batch=batch,
                    progress=lambda table, count: tell(f"{table} {count}"),
                )
                break
            except ConflictError:
                # The session of the one that was killed holds its lock until the server notices.
                await asyncio.sleep(0.05)
    tell(f"ended {rotated.rows + rotated.checkpoints}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
