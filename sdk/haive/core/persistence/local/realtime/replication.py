"""Reading Postgres' write-ahead log through a temporary slot, and doing so again after a loss."""

from __future__ import annotations

import asyncio
import logging
import secrets
import struct
import time
from typing import TYPE_CHECKING, Final, NoReturn

from haive.core.persistence.local.realtime import limits
from haive.core.persistence.local.realtime.pgoutput import Change, Decoder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_PUBLICATIONS: Final = ("supabase_realtime_messages_publication", "supabase_realtime")
_PROTOCOL: Final = 196_608  # 3.0
_CHUNK: Final = 256 * 1024
_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
_HEAD: Final = struct.Struct("!cI")
_STATUS: Final = struct.Struct("!cQQQqB")
_KEEPALIVE: Final = struct.Struct("!cQqB")
_DATA_HEADER: Final = 25
_EPOCH: Final = 946_684_800


class ReplicationError(Exception):
    """Postgres does not stream, or not any more."""


class Replication:
    """The stream of committed rows.

    A temporary slot goes with its connection: what is committed while there is none is not told,
    as on the platform. Rows of rolled back transactions never come.

    Args:
        sockets: The directory of Postgres' Unix socket.
        port: Its port.
        role: The superuser.
        on_change: Gets each changed row, in the order of commits.
        keep_up: Awaited between chunks: it may hold the stream up.
    """

    def __init__(
        self,
        *,
        sockets: Path,
        port: int,
        role: str,
        on_change: Callable[[Change], None],
        keep_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._path = sockets / f".s.PGSQL.{port}"
        self._role = role
        self._on_change = on_change
        self._keep_up = keep_up
        self.streaming = asyncio.Event()

    async def run(self) -> NoReturn:
        """Stream, and start again whenever the stream ends."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._stream()
            except (OSError, EOFError, ReplicationError) as error:
                if time.monotonic() - began > _PAUSES[-1]:
                    failures = 0
                log.warning("the replication stream ended: %s %s", type(error).__name__, error)
            self.streaming.clear()
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1

    async def _stream(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._path), limit=2 * _CHUNK)
        try:
            connection = _Connection(reader, writer)
            await connection.start(self._role)
            slot = f"haive_realtime_{secrets.token_hex(8)}"
            await connection.query(
                # Capitals: this is another grammar than SQL, which takes no small letters.
                f"CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')"
            )
            publications = ",".join(_PUBLICATIONS)
            await connection.begin_streaming(
                f"START_REPLICATION SLOT {slot} LOGICAL 0/0"
                f" (proto_version '1', publication_names '{publications}')"
            )
            self.streaming.set()
            await self._read(reader, writer)
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = Decoder(self._on_change)
        waiting = bytearray()
        while chunk := await reader.read(_CHUNK):
            waiting += chunk
            at, end = 0, len(waiting)
            while end - at >= _HEAD.size:
                kind, size = _HEAD.unpack_from(waiting, at)
                if size > limits.LOG_MESSAGE_BYTES:
                    raise ReplicationError("a row is too large")
                after = at + 1 + size
                if after > end:
                    break
                if kind != b"d":
                    raise ReplicationError("the server ended the stream")
                at += _HEAD.size
                if waiting[at] == 0x77:  # w: data of the log
                    _decode(decoder, bytes(waiting[at + _DATA_HEADER : after]))
                else:
                    _, position, _, wants_answer = _KEEPALIVE.unpack_from(waiting, at)
                    if wants_answer:
                        writer.write(_status(position))
                at = after
            del waiting[:at]
            await self._keep_up()
        raise EOFError


class _Connection:
    """The few messages of Postgres' protocol that come before the stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def start(self, role: str) -> None:
        """Log in, which the stack's socket lets anybody do who reaches it."""
        settings = {
            "user": role,
            "database": "postgres",
            "replication": "database",
            "application_name": "haive realtime",
        }
        body = _PROTOCOL.to_bytes(4) + b"".join(
            word.encode() + b"\0" for pair in settings.items() for word in pair
        )
        self._writer.write((len(body) + 5).to_bytes(4) + body + b"\0")
        await self._until(b"Z")

    async def query(self, command: str) -> None:
        """Run a command to its end."""
        self._send(command)
        await self._until(b"Z")

    async def begin_streaming(self, command: str) -> None:
        """Run the command that opens the stream."""
        self._send(command)
        await self._until(b"W")

    def _send(self, command: str) -> None:
        body = command.encode() + b"\0"
        self._writer.write(_HEAD.pack(b"Q", len(body) + 4) + body)

    async def _until(self, wanted: bytes) -> None:
        kind = b""
        while kind != wanted:
            kind, size = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
            body = await self._reader.readexactly(size - 4)
            if kind == b"E":
                fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
                raise ReplicationError(f"SQLSTATE {fields.get(b'C', b'').decode()}")
            if kind == b"R" and body[:4] != b"\0\0\0\0":
                raise ReplicationError("Postgres asks for a password")


def _decode(decoder: Decoder, message: bytes) -> None:
    try:
        decoder.feed(message)
    except (struct.error, LookupError, ValueError) as error:
        raise ReplicationError("a row cannot be read") from error


def _status(position: int) -> bytes:
    """Return the message that all up to a position of the log has been taken."""
    now = int((time.time() - _EPOCH) * 1e6)
    body = _STATUS.pack(b"r", position, position, position, now, 0)
    return _HEAD.pack(b"d", len(body) + 4) + body
