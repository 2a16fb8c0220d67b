"""What `haive bench rotation` kills: one call of `rotate`, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys

from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.encryption import (
    DatabaseKeyStore,
    DataKeys,
    EnvironmentKey,
    Sealer,
    rotate,
)
from haive.core.persistence.postgres import PostgresStore


async def main(tenant: str, max_age: float) -> None:
    """Seal all of a tenant anew, with DATABASE_URL and TENANT_MASTER_KEY of the environment."""
    async with PostgresStore(PersistenceConfig(tenant=tenant)) as store:
        keys = DataKeys(EnvironmentKey(), DatabaseKeyStore(store))
        print("begun", flush=True)  # noqa: T201 - to the process that kills
        rotated = await rotate(store, Sealer(tenant, keys, max_age=max_age), keys)
    report = {"rows": rotated.rows + rotated.checkpoints, "key_id": rotated.key_id}
    print(json.dumps(report))  # noqa: T201 - likewise


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
