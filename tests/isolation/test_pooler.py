"""Through a pooler that shares sessions between transactions, no tenant's context reaches another.

The pooler is a proxy of our own that does what pgbouncer does in transaction mode: a client has a
server from its first message until the server is ready and in no transaction.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import struct
from base64 import b64decode, b64encode
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr, TypeAdapter

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence._encoding import Document

_ANYTHING = TypeAdapter(object)
# How a client begins that would rather talk in secret.
_TLS = 80877103
_SERVERS, _CLIENTS, _TENANTS = 5, 200, 20


class Pooler:
    """A proxy that hands its few servers from transaction to transaction."""

    def __init__(self, dsn: str) -> None:
        self._parts = urlsplit(dsn)
        self._idle: asyncio.Queue = asyncio.Queue()
        self._greeting = b""
        self._clients: set[asyncio.Task] = set()
        self.handed = 0

    @asynccontextmanager
    async def running(self):
        """Yield the connection string of the pooler."""
        servers = [await self._connect() for _ in range(_SERVERS)]
        for server in servers:
            self._idle.put_nowait(server)
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        netloc = f"{self._parts.username}:x@127.0.0.1:{port}"
        try:
            yield self._parts._replace(netloc=netloc).geturl()
        finally:
            listener.close()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            for _, writer in servers:
                writer.close()

    async def _accept(self, reader, writer):
        client = asyncio.current_task()
        self._clients.add(client)
        try:
            await self._greet(reader, writer)
            messages: asyncio.Queue = asyncio.Queue()
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, messages))
                group.create_task(self._serve(messages, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # it went away before it had a server
        finally:
            writer.close()
            self._clients.discard(client)

    async def _greet(self, reader, writer):
        while True:  # asked for TLS, it says no and is asked again
            (size,) = struct.unpack("!I", await reader.readexactly(4))
            body = await reader.readexactly(size - 4)
            if struct.unpack("!I", body[:4])[0] != _TLS:
                break
            writer.write(b"N")
        writer.write(b"R" + struct.pack("!II", 8, 0) + self._greeting)

    async def _serve(self, messages, writer):
        kind, message = await messages.get()
        while kind not in {b"X", None}:
            server = await self._idle.get()
            self.handed += 1
            later = await self._transact(messages, writer, server, kind, message)
            self._idle.put_nowait(server)
            kind, message = later or await messages.get()

    async def _transact(self, messages, writer, server, kind, message):
        """Work for one client until its transaction has ended; return what it said since."""
        from_server, to_server = server
        expected = 0

        async def answer():
            while True:
                about, text = await _read(from_server)
                writer.write(text)
                if about == b"Z":
                    nonlocal expected
                    expected -= 1
                    if not expected and text[-1:] == b"I":
                        return

        answers = asyncio.ensure_future(answer())
        while True:
            if kind in {b"X", None}:  # gone in the middle: what it began is rolled back
                message = b"S\0\0\0\4Q\0\0\0\rROLLBACK\0"
                expected += 1
                kind = b"Q"
            expected += kind in {b"Q", b"S"}
            to_server.write(message)
            asked = asyncio.ensure_future(messages.get())
            await asyncio.wait({asked, answers}, return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                answers.result()
                return asked.result() if asked.done() else asked.cancel() and None
            kind, message = asked.result()

    async def _connect(self):
        parts = self._parts
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        names = f"user\0{parts.username}\0database\0{parts.path[1:]}\0\0".encode()
        writer.write(struct.pack("!II", len(names) + 8, 196608) + names)
        await _authenticate(reader, writer, parts.password)
        greeting = b""
        while True:
            kind, message = await _read(reader)
            greeting += message
            if kind == b"Z":
                self._greeting = greeting
                return reader, writer


async def _pump(reader, messages):
    """Take in what a client says; at its end, that it has gone."""
    try:
        while True:
            said = await _read(reader)
            messages.put_nowait(said)
            if said[0] == b"X":
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        messages.put_nowait((None, b""))


async def _read(reader):
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)


async def _authenticate(reader, writer, password):
    """SCRAM-SHA-256 (RFC 7677), as the stack's Postgres asks for."""
    await _read(reader)
    first = "n=,r=haive-test-nonce"
    body = b"SCRAM-SHA-256\0" + struct.pack("!I", len(first) + 3) + b"n,," + first.encode()
    writer.write(b"p" + struct.pack("!I", len(body) + 4) + body)
    _, message = await _read(reader)
    challenge = message[9:].decode()
    fields = dict(part.split("=", 1) for part in challenge.split(","))
    salted = hashlib.pbkdf2_hmac(
        "sha256", password.encode(), b64decode(fields["s"]), int(fields["i"])
    )
    key = hmac.digest(salted, b"Client Key", "sha256")
    last = f"c=biws,r={fields['r']}"
    signature = hmac.digest(
        hashlib.sha256(key).digest(), f"{first},{challenge},{last}".encode(), "sha256"
    )
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    body = f"{last},p={b64encode(proof).decode()}".encode()
    writer.write(b"p" + struct.pack("!I", len(body) + 4) + body)
    for _ in range(2):  # the server's own proof, and its consent
        kind, message = await _read(reader)
        assert kind == b"R", message


@pytest.fixture
async def pooled(database):
    pooler = Pooler(database)
    async with pooler.running() as dsn:
        yield pooler, dsn


@pytest.fixture
async def tenants(postgres):
    names = [f"pooled-{number}" for number in range(_TENANTS)]
    await postgres.executemany(
        "insert into haive.tenants (tenant_id, name, audit, metered) values ($1, $1, 'all', true)",
        [(name,) for name in names],
    )
    return names


async def test_two_hundred_clients_on_five_sessions_stay_in_their_tenants(pooled, tenants):
    pooler, dsn = pooled
    config = PersistenceConfig(
        connection_string=SecretStr(dsn),
        transaction_pooler=True,
        pool_size=_CLIENTS,
        max_overflow=0,
    )
    async with PostgresStore(config) as store:
        places = {name: store._transport.scoped(tenant=name) for name in tenants}

        async def work(number):
            chooser = random.Random(number)
            for step in range(10):
                name = chooser.choice(tenants)
                where = await places[name].call("current_tenant", {}, _ANYTHING, safe=True)
                assert where == {"tenant": name}
                made = {"id": _id(number, step), "agent_id": name}
                await places[name].call(
                    "create_conversations", {"conversations": _json([made])}, _ANYTHING, safe=True
                )
                found = await places[name].call("query_conversations", {}, _ANYTHING, safe=True)
                assert {one["agent_id"] for one in found["conversations"]} == {name}

        await asyncio.gather(*(work(number) for number in range(_CLIENTS)))
    assert pooler.handed >= 3 * 10 * _CLIENTS
    await _assert_nothing_is_left(dsn)


async def _assert_nothing_is_left(dsn):
    """No session remembers a tenant: each is asked, while the others are held."""
    async with AsyncExitStack() as held:
        for _ in range(_SERVERS):
            connection = await asyncpg.connect(dsn, statement_cache_size=0)
            held.push_async_callback(connection.close)
            await held.enter_async_context(connection.transaction())
            left = await connection.fetchrow(
                "select current_setting('persistence.tenant', true) as tenant,"
                " current_setting('persistence.watch', true) as watch, current_user as role"
            )
            assert not left["tenant"]
            assert not left["watch"]
            assert left["role"] == "postgres"


async def test_a_setting_of_the_session_would_reach_others(pooled, tenants):
    # The control: what the stores do not do bleeds through this pooler.
    _, dsn = pooled
    wrong = []

    async def work(number):
        name = tenants[number % _TENANTS]
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
        for _ in range(5):
            await connection.execute(f"set persistence.tenant = '{name}'")
            await asyncio.sleep(0)
            found = await connection.fetchval("select haive.current_tenant() ->> 'tenant'")
            if found != name:
                wrong.append((name, found))
        await connection.close()

    await asyncio.gather(*(work(number) for number in range(40)))
    assert wrong


def _id(number, step):
    return f"019aaaaa-0000-7000-8000-{number:06x}{step:06x}"


def _json(value):
    return Document(json.dumps(value))
