"""The stack's PostgREST: its settings and its process."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING
from urllib.parse import quote

from haive.core.persistence.local.parts import open_postgrest
from haive.core.persistence.local.processes import spawn, stop, when_ready

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence
    from pathlib import Path

    from haive.core.persistence.local.accounts import Account
    from haive.core.persistence.local.state import StackDirectories

_START_TIMEOUT = 30.0
_PROBE = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class PostgREST:
    """One PostgREST on a Unix socket."""

    name = "postgrest"

    def __init__(
        self,
        *,
        binary: Path,
        directories: StackDirectories,
        account: Account,
        jwt_secret: str,
        schemas: Sequence[str],
        public_url: str,
    ) -> None:
        self._binary = binary
        self._directories = directories
        self._account = account
        self._jwt_secret = jwt_secret
        self._schemas = schemas
        self._public_url = public_url
        self._log = directories.logs / "postgrest.log"

    @property
    def socket(self) -> Path:
        """The Unix socket that it answers on."""
        return self._directories.sockets / "postgrest.sock"

    async def start(self, postgres_port: int) -> Process:
        """Start the server and return it when it has loaded its schema cache."""
        self.socket.unlink(missing_ok=True)
        descriptor = open_postgrest(self._binary)
        try:
            process = await spawn(
                ["postgrest"],
                executable=f"/proc/self/fd/{descriptor}",
                pass_fds=[descriptor],
                account=self._account,
                log=self._log,
                environment=self._environment(postgres_port),
            )
        finally:
            os.close(descriptor)
        return await when_ready(
            process, self._is_ready, name="PostgREST", log=self._log, within=_START_TIMEOUT
        )

    async def stop(self, process: Process) -> None:
        """End the server."""
        await stop(process, signal.SIGTERM, patience=2.0)

    def _environment(self, postgres_port: int) -> dict[str, str]:
        sockets = quote(str(self._directories.sockets))
        return {
            "PGRST_DB_URI": f"postgresql://authenticator@/postgres?host={sockets}"
            f"&port={postgres_port}",
            "PGRST_DB_SCHEMAS": ",".join(self._schemas),
            "PGRST_DB_EXTRA_SEARCH_PATH": "public,extensions",
            "PGRST_DB_ANON_ROLE": "anon",
            "PGRST_DB_MAX_ROWS": "1000",
            "PGRST_DB_POOL": "10",
            "PGRST_DB_POOL_ACQUISITION_TIMEOUT": "10",
            "PGRST_JWT_SECRET": self._jwt_secret,
            "PGRST_JWT_CACHE_MAX_LIFETIME": "300",
            "PGRST_LOG_LEVEL": "error",
            "PGRST_OPENAPI_SERVER_PROXY_URI": f"{self._public_url}/rest/v1",
            "PGRST_SERVER_UNIX_SOCKET": str(self.socket),
            "PGRST_SERVER_UNIX_SOCKET_MODE": "600",
        }

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            return False
        try:
            writer.write(_PROBE)
            status = await reader.readline()
        except ConnectionError:
            return False
        finally:
            writer.close()
        # 503 says that the schema cache is not there yet; what else it says does not matter.
        return status.startswith(b"HTTP/1.1 ") and b" 503 " not in status
