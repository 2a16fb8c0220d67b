"""The server that a bench runs against, and the machine under it."""

from __future__ import annotations

import os
import platform
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg

from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.local import LocalStack
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.schema import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    Connection = asyncpg.Connection[asyncpg.Record]

#: All that a bench writes belongs to this tenant, and goes with it.
TENANT = "bench"

# Both are the defaults, written down because they are the point.
_SETTINGS = {"fsync": "on", "synchronous_commit": "on", "max_connections": "200"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A database with the schema."""

    dsn: str
    admin_dsn: str
    owner: Connection
    """A connection of the owner of the schema."""
    machine: dict[str, Any]
    stack: LocalStack | None = None
    """The local stack that it is part of, if it is."""

    def store(self) -> PostgresStore:
        """A store as a user of the SDK makes it."""
        return PostgresStore(PersistenceConfig(connection_string=self.dsn, tenant=TENANT))

    @asynccontextmanager
    async def databases(self) -> AsyncIterator[Callable[..., Awaitable[str]]]:
        """Makes databases with the schema, and answers their connection strings.

        What tables take can be told exactly where nothing was in them before. They are empty, or
        copies of the one whose connection string is given, which nobody is connected to.
        """
        admin = await asyncpg.connect(self.admin_dsn)
        names = ["bench_template"]
        try:
            await admin.execute(f"create database {names[0]} owner postgres")
            template = await asyncpg.connect(_other(self.admin_dsn, names[0]))
            await template.execute(_VECTORS)
            await template.close()
            await migrate(_other(self.dsn, names[0]))

            async def make(like: str | None = None) -> str:
                names.append(f"bench_{len(names)}")
                original = names[0] if like is None else urlsplit(like).path.strip("/")
                await admin.execute(
                    f"create database {names[-1]} template {original} owner postgres"
                )
                return _other(self.dsn, names[-1])

            yield make
        finally:
            for name in names:
                await admin.execute(f"drop database if exists {name} with (force)")
            await admin.close()

    async def clear(self) -> None:
        """Remove what was written, and what is left of it in the tables."""
        for statement in _CLEAR:
            await self.owner.execute(statement, TENANT)
        for table in ("messages", "conversations", "events"):
            await self.owner.execute(f"vacuum (analyze) haive.{table}")


# As a project has them.
_VECTORS = """
    create schema extensions authorization postgres;
    create extension vector with schema extensions;
"""

_CLEAR = (
    "delete from haive.messages where tenant_id = $1",
    "delete from haive.conversations where tenant_id = $1",
    "delete from haive.events where tenant_id = $1",
)


@asynccontextmanager
async def running_server(database_url: str | None) -> AsyncIterator[Server]:
    """A server for the time of a bench: the one that is named, or a new local stack."""
    if database_url is not None:
        async with _server(database_url, database_url) as server:
            try:
                yield server
            finally:
                await server.clear()
                await server.owner.execute("delete from haive.tenants where tenant_id = $1", TENANT)
        return
    async with running_stack() as (server, _):
        yield server


@asynccontextmanager
async def running_stack(
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Server, LocalStack]]:
    """A new local stack for the time of a bench, with its server and more settings of Postgres."""
    async with (
        LocalStack(postgres_settings={**_SETTINGS, **(settings or {})}) as stack,
        _server(stack.database_url, stack.admin_url, stack) as server,
    ):
        yield server, stack


@asynccontextmanager
async def _server(
    dsn: str, admin_dsn: str, stack: LocalStack | None = None
) -> AsyncIterator[Server]:
    owner = await asyncpg.connect(dsn)
    try:
        await owner.execute(
            "insert into haive.tenants (tenant_id, name) values ($1, $1) on conflict do nothing",
            TENANT,
        )
        yield Server(
            dsn=dsn,
            admin_dsn=admin_dsn,
            owner=owner,
            machine=await machine(owner),
            stack=stack,
        )
    finally:
        await owner.close()


def _other(dsn: str, database: str) -> str:
    return urlsplit(dsn)._replace(path=f"/{database}").geturl()


async def machine(connection: Connection) -> dict[str, Any]:
    """The machine, and what of the server's settings makes writing fast or slow."""
    settings = {
        name: await connection.fetchval("select current_setting($1)", name)
        for name in ("server_version", "fsync", "synchronous_commit")
    }
    return {
        **hardware(),
        "postgres": settings["server_version"],
        "fsync": settings["fsync"],
        "synchronous_commit": settings["synchronous_commit"],
    }


def hardware() -> dict[str, Any]:
    """What the client runs on; with a local stack the server too."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "python": platform.python_version(),
    }


def _field(file: Path, name: str) -> str | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(values, None)
