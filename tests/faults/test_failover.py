"""After a failover numbers of transactions are given out again, and who reads events is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import asyncpg
import pytest

from haive.core.persistence.local import LocalStack

_WRITE = """select haive.create_conversations('[{"agent_id": "agent"}]')"""
_READ = "select haive.read_events('tenant', $1)"


async def _read(connection: asyncpg.Connection, after: str | None) -> dict[str, object]:
    return json.loads(await connection.fetchval(_READ, after))


def _begin_a_timeline(directory: Path) -> None:
    """Have the next start do what a promotion and a recovery to a point in time have in common."""
    signal = directory / "recovery.signal"
    signal.touch()
    owner = directory.stat()
    os.chown(signal, owner.st_uid, owner.st_gid)


async def test_a_cursor_of_before_a_failover_is_told_so(tmp_path: Path) -> None:
    settings = {"restore_command": "false", "hot_standby": "off"}
    async with LocalStack(data_dir=tmp_path, postgres_settings=settings) as stack:
        connection = await asyncpg.connect(stack.database_url)
        await connection.execute(_WRITE)
        cursor = (await _read(connection, "0"))["next"]
        assert (await _read(connection, cursor))["events"] == []
        await connection.close()
    _begin_a_timeline(tmp_path / "postgres")
    async with LocalStack(data_dir=tmp_path, postgres_settings=settings) as stack:
        connection = await asyncpg.connect(stack.database_url)
        with pytest.raises(asyncpg.PostgresError) as caught:
            await _read(connection, cursor)
        assert caught.value.sqlstate == "PT416"
        begun = (await _read(connection, None))["next"]
        await connection.execute(_WRITE)
        assert len((await _read(connection, begun))["events"]) == 1
        await connection.close()
