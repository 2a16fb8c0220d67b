"""What a physical replica answers for tenants with limits."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from haive.core.persistence.local.accounts import Account
from haive.core.persistence.local.parts import PostgresBinaries
from haive.core.persistence.local.processes import log_tail, spawn, stop

_PATIENCE = 20  # seconds
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


async def _ready(url):
    async with asyncio.timeout(_PATIENCE):
        while True:
            with suppress(OSError, asyncpg.CannotConnectNowError):
                return await asyncpg.connect(url)
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _replica(stack):
    """A connection to a standby of what the stack has by now."""
    account = Account.for_services()
    binaries = (await PostgresBinaries.find(account)).bin
    folder = Path(tempfile.mkdtemp(prefix="haive-replica-"))
    account.take(folder)
    log = folder / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def run(*command):
        return await spawn(command, account=account, log=log, environment=_ENVIRONMENT)

    try:
        copied = await run(
            *(str(binaries / "pg_basebackup"), "--pgdata", str(folder / "data")),
            *("--checkpoint", "fast", "--no-sync", "--write-recovery-conf"),
            *("--dbname", stack.admin_url),
        )
        assert await copied.wait() == 0, log_tail(log)
        server = await run(
            *(str(binaries / "postgres"), "-D", str(folder / "data")),
            *("-c", f"port={port}", "-c", f"unix_socket_directories={folder}"),
        )
        try:
            at = urlsplit(stack.admin_url)
            place = f"{at.username}:{at.password}@127.0.0.1:{port}"
            connection = await _ready(at._replace(netloc=place).geturl())
            yield connection
            await connection.close()
        finally:
            await stop(server, signal.SIGQUIT)
    finally:
        shutil.rmtree(folder)


async def test_a_tenant_with_a_limit_of_requests_is_read_on_a_replica(stack, new_id):
    tenant = new_id()
    owner = await asyncpg.connect(stack.database_url)
    try:
        await owner.execute(
            "select haive.create_tenant($1, options => $2)",
            *(tenant, '{"max_requests_per_minute": 8}'),
        )
        await owner.execute(
            "select haive.create_conversations($1, $2)", '[{"agent_id": "agent"}]', tenant
        )
    finally:
        await owner.close()
    async with _replica(stack) as standby:
        assert await standby.fetchval("select pg_is_in_recovery()")
        for _ in range(10):  # more than the limit: nothing can be counted there
            page = await standby.fetchval("select haive.query_conversations(tenant => $1)", tenant)
            assert len(json.loads(page)["conversations"]) == 1
        usage = json.loads(await standby.fetchval("select haive.tenant_usage($1)", tenant))
    assert usage["conversations"]["used"] == 1
    assert usage["requests"] == {"used": 0, "limit": 8, "fraction": 0, "resets_at": None}
