"""Many processes make the schema at once."""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg

from haive.core.persistence.schema import migrations

PROCESSES = 20

# All are up and loaded before the first one begins.
PROGRAM = """
import asyncio, sys
from haive.core.persistence import PersistenceConfig, PostgresStore

async def main():
    store = PostgresStore(PersistenceConfig(connection_string=sys.argv[1], pool_size=1))
    print("loaded", flush=True)
    sys.stdin.readline()
    await store.initialize()
    conversation = await store.create_conversation("agent")
    assert (await store.add_message(conversation.id, "user", "hello")).seq == 1
    await store.aclose()

asyncio.run(main())
"""


async def test_twenty_processes_initialize_an_empty_database_and_each_migration_runs_once(
    new_database,
):
    dsn = await new_database()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, dsn),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    for process in processes:
        assert await process.stdout.readline() == b"loaded\n"
    ends = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))

    assert [error.decode() for _, error in ends if error] == []
    assert [process.returncode for process in processes] == [0] * PROCESSES
    connection = await asyncpg.connect(dsn)
    applied = await connection.fetch("select version from haive_private.migrations order by 1")
    conversations = await connection.fetchval("select count(*) from haive.conversations")
    await connection.close()
    assert [row["version"] for row in applied] == [one.version for one in migrations()]
    assert conversations == PROCESSES
