"""The stack's Postgres server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from haive.core.persistence.errors import LocalStackError
from haive.core.persistence.local.cluster import ADMIN, ENVIRONMENT, is_ready, run_sql
from haive.core.persistence.local.processes import log_tail, spawn, stop
from haive.core.persistence.local.realtime.partitions import PARTITIONS

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping

    from haive.core.persistence.local.accounts import Account
    from haive.core.persistence.local.keys import StackKeys
    from haive.core.persistence.local.parts import PostgresBinaries
    from haive.core.persistence.local.state import StackDirectories

_PORT_ATTEMPTS = 5
# A postmaster that was killed a moment ago: the next one waits until it is really gone.
_OLD_POSTMASTER = 'lock file "postmaster.pid" already exists'
# Left over backends of a killed postmaster hold its shared memory until they notice.
_OLD_BACKENDS = "pre-existing shared memory block"
_PORT_TAKEN = "could not bind"
_PASSING = (_OLD_POSTMASTER, _OLD_BACKENDS, _PORT_TAKEN)


class Postgres:
    """One Postgres cluster that can be started, again after a crash, and stopped."""

    name = "postgres"

    def __init__(
        self,
        *,
        binaries: PostgresBinaries,
        directories: StackDirectories,
        account: Account,
        settings: Mapping[str, str],
        port: int | None,
    ) -> None:
        self._binaries = binaries
        self._directories = directories
        self._account = account
        self._settings = dict(settings)
        self._port = port
        self._log = directories.logs / "postgres.log"

    @property
    def port(self) -> int:
        """The TCP port, once started."""
        if self._port is None:
            raise LocalStackError("Postgres has no port before its first start.")
        return self._port

    def url(self, role: str, password: str) -> str:
        """Return the connection string of a role over TCP."""
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/postgres"

    async def start(self) -> Process:
        """Start the server and return it when it takes connections.

        The first start finds a port; later ones, after a crash, keep it.
        """
        keep_port = self._port is not None
        for attempt in range(_PORT_ATTEMPTS):
            if not keep_port:
                self._port = _free_port()
            offset = self._log.stat().st_size if self._log.exists() else 0
            _forget_dead_postmaster(self._directories.cluster)
            process = await self._spawn()
            if await is_ready(self._directories.cluster, process):
                return process
            output = self._log.read_bytes()[offset:].decode(errors="replace")
            if not any(reason in output for reason in _PASSING):
                break
            await asyncio.sleep(0.1 * 2**attempt)
        raise LocalStackError(f"Postgres did not start: {log_tail(self._log)}")

    async def stop(self, process: Process, *, durable: bool) -> None:
        """End the server: cleanly, or at once where the data is thrown away."""
        if durable:
            await stop(process, signal.SIGINT, signal.SIGQUIT)
        else:
            await stop(process, signal.SIGQUIT)

    async def prepare(self, keys: StackKeys) -> None:
        """Give the roles that log in over TCP this stack's passwords, and make partitions."""
        await self.execute(
            f"alter role {ADMIN} password '{keys.admin_password}';"
            f"alter role postgres password '{keys.postgres_password}';"
            f"{PARTITIONS}"
        )

    async def execute(self, sql: str) -> None:
        """Run SQL as the superuser, over the stack's own socket."""
        await run_sql(self._binaries, self._account, self._directories.sockets, self.port, sql)

    async def _spawn(self) -> Process:
        settings = {
            **self._settings,
            "port": str(self.port),
            "unix_socket_directories": str(self._directories.sockets),
        }
        arguments = [word for pair in settings.items() for word in ("-c", "=".join(pair))]
        with ExitStack() as opened:
            cluster, pass_fds = self._cluster_argument(opened)
            return await spawn(
                [str(self._binaries.bin / "postgres"), "-D", cluster, *arguments],
                account=self._account,
                log=self._log,
                environment=ENVIRONMENT,
                on_parent_death=signal.SIGQUIT,
                pass_fds=pass_fds,
            )

    def _cluster_argument(self, opened: ExitStack) -> tuple[str, tuple[int, ...]]:
        """Return how Postgres finds its data, also below directories closed to its account.

        Root's data directory may well lie under /root or pytest's private directory, where
        `nobody` cannot go; an inherited descriptor leads there without widening any mode.
        """
        cluster = self._directories.cluster
        if self._account.reaches(cluster):
            return str(cluster), ()
        descriptor = os.open(cluster, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, descriptor)
        return f"/proc/self/fd/{descriptor}", (descriptor,)


def _forget_dead_postmaster(cluster: Path) -> None:
    """Remove a pid file whose process is none of this cluster's.

    Postgres itself believes in any process of that number: a zombie that nobody reaps, or
    whatever got the number after a restart of the machine. The lock on the data directory is
    ours, and Postgres still looks for backends that are attached to its shared memory.
    """
    pid_file = cluster / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n")[0])
    except FileNotFoundError:
        return
    try:
        alive = Path(f"/proc/{pid}/cwd").samefile(cluster)  # where a server always stands
    except FileNotFoundError:
        alive = False
    if not alive:
        pid_file.unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
