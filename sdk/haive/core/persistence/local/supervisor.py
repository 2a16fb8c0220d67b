"""The process that runs a stack's parts, and stops them when its owner goes away.

One process of its own: a blocking client in the caller's event loop must not stop the gateway.
The owner writes the settings as one JSON line to stdin and keeps that pipe open; the answers
are JSON lines on stdout. The line `go` ends the pause for migration, `detach` says that the
owner leaves and the stack stays; otherwise the end of the pipe ends the stack.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import LocalStackError, PartUnavailableError
from haive.core.persistence.local import parts, state
from haive.core.persistence.local.accounts import Account
from haive.core.persistence.local.cluster import ADMIN, copy_template, find_template, is_cluster
from haive.core.persistence.local.keys import StackKeys
from haive.core.persistence.local.platform_api import ROLE, PlatformAPI, can_keep, spawn_platform
from haive.core.persistence.local.postgres import Postgres
from haive.core.persistence.local.postgrest import PostgREST
from haive.core.persistence.local.realtime.part import RealtimePart
from haive.core.persistence.local.settings import StackSettings
from haive.core.persistence.local.watch import Watch

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from haive.core.persistence.local.gateway import Gateway

log = logging.getLogger(__name__)


class Owner:
    """The process at the other end of stdin and stdout."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.may_go_on = asyncio.Event()

    @classmethod
    async def connect(cls) -> Owner:
        """Listen to stdin."""
        reader = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        return cls(reader)

    async def settings(self) -> StackSettings:
        """Return what the owner asks for."""
        return StackSettings.from_json(await self._reader.readline())

    async def gone(self) -> None:
        """Return when the owner has closed its end, or has died, without a farewell."""
        while line := await self._reader.readline():
            match line.strip():
                case b"go":
                    self.may_go_on.set()
                case b"detach":
                    await asyncio.Event().wait()
                case other:
                    raise LocalStackError(f"The owner said {other!r}.")

    def tell(self, event: str, **content: Any) -> None:
        """Send one line to the owner, if it is still there."""
        line = json.dumps({"event": event, **content}).encode() + b"\n"
        with suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), line)


class Supervisor:
    """Starts the parts of one stack, and keeps them up."""

    def __init__(self, settings: StackSettings, owner: Owner) -> None:
        self._settings = settings
        self._owner = owner
        self._account = Account.for_services()
        self._watches: list[Watch] = []
        self._platform: PlatformAPI | None = None
        self._realtime: RealtimePart | None = None

    async def run(self) -> None:
        """Run the stack until it is cancelled.

        Raises:
            LocalStackError: The stack did not start, or a part of it does not stay up.
        """
        async with AsyncExitStack() as exits:
            await self._start(exits)
            async with asyncio.TaskGroup() as group:
                for watch in self._watches:
                    group.create_task(watch.keep())
                if self._realtime is not None:
                    group.create_task(self._realtime.keep_partitions())

    async def _start(self, exits: AsyncExitStack) -> None:
        for path in state.sweep(self._account):
            log.info("removed %s of a stack that was killed", path)
        data_dir = self._settings.data_dir
        durable = data_dir is not None
        directories = state.StackDirectories.open(
            None if data_dir is None else Path(data_dir), self._account
        )
        exits.callback(directories.close)
        self._log_to(directories.logs / "supervisor.log")
        keys = self._load_keys(directories)
        ports = state.read_json(directories.ports_file) or {}
        listener = _listen(ports.get("gateway"))
        exits.callback(listener.close)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        binaries = await parts.PostgresBinaries.find(self._account)
        npm_parts = await parts.NpmParts.find(self._account)
        gateway_class = await self._make_cluster(directories.cluster, binaries, npm_parts)
        postgres = Postgres(
            binaries=binaries,
            directories=directories,
            account=self._account,
            settings=self._settings.postgres_settings,
            port=_free(ports.get("postgres")),
        )
        postgrest = PostgREST(
            binary=npm_parts.postgrest,
            directories=directories,
            account=self._account,
            jwt_secret=keys.jwt_secret,
            schemas=self._settings.schemas,
            public_url=url,
        )

        async def start_rest() -> Process:
            await database.running.wait()
            return await postgrest.start(postgres.port)

        database = Watch("postgres", postgres.start, partial(postgres.stop, durable=durable))
        rest = Watch("postgrest", start_rest, postgrest.stop)
        database.restarts(rest)
        self._watches = [database, rest]

        exits.push_async_callback(database.stop)
        await database.start()
        exits.push_async_callback(rest.stop)
        about = {
            "url": url,
            **keys.to_dict(),
            "database_url": postgres.url("postgres", keys.postgres_password),
            "admin_url": postgres.url(ADMIN, keys.admin_password),
            "data_dir": str(directories.data),
            "run_dir": str(directories.run),
        }
        async with asyncio.TaskGroup() as group:
            preparing = group.create_task(postgres.prepare(keys))
            if self._settings.pause_for_migration:
                # Before PostgREST looks at the schema: there is nothing to reload or to await.
                await preparing
                self._owner.tell("database", **about)
                await self._owner.may_go_on.wait()
            # It needs neither the passwords, over the socket, nor the partitions.
            group.create_task(rest.start())

        platform_log = directories.logs / "platform.log"
        platform_socket = directories.sockets / "platform.sock"

        has_storage = can_keep(directories.objects, self._account)

        async def start_platform() -> Process:
            await database.running.wait()
            return await spawn_platform(
                "serve",
                npm_parts=npm_parts,
                account=self._account,
                log=platform_log,
                socket=platform_socket,
                objects=directories.objects if has_storage else None,
                postgres=(directories.sockets, postgres.port, ROLE),
                url=url,
                keys=keys,
            )

        self._platform = PlatformAPI(spawn=start_platform, socket=platform_socket, log=platform_log)
        exits.push_async_callback(self._platform.stop)
        self._realtime = RealtimePart(postgres=postgres, sockets=directories.sockets, keys=keys)
        exits.push_async_callback(self._realtime.stop)
        gateway = gateway_class(
            keys=keys,
            rest=postgrest.socket,
            platform=self._platform.socket,
            has_storage=has_storage,
            realtime=self._realtime.answer,
            health=self._health,
        )
        exits.push_async_callback(gateway.stop)
        exits.push_async_callback(self._realtime.disconnect)
        await gateway.start(listener)
        state.write_json(
            directories.ports_file,
            {"gateway": listener.getsockname()[1], "postgres": postgres.port},
        )
        state.write_json(
            directories.running_file,
            {
                **about,
                "pid": os.getpid(),
                "start_time": state.process_start_time(os.getpid()),
                "started_at": time.time(),
            },
        )
        self._owner.tell("ready", **about)

    async def _make_cluster(
        self, cluster: Path, binaries: parts.PostgresBinaries, npm_parts: parts.NpmParts
    ) -> type[Gateway]:
        """Make the cluster, unless there is one already, and load the gateway meanwhile."""
        async with asyncio.TaskGroup() as group:
            if not is_cluster(cluster):
                template = await find_template(binaries, npm_parts, self._account)
                durable = self._settings.data_dir is not None
                group.create_task(copy_template(template, cluster, self._account, durable=durable))
            # The copy is the work of other processes. Not while the template is built, whose
            # processes are forked: that wants no other thread.
            loading = group.create_task(asyncio.to_thread(_load_gateway))
        return loading.result()

    def _health(self) -> tuple[bool, dict[str, Any]]:
        services = {
            watch.name: "running" if watch.running.is_set() else "restarting"
            for watch in self._watches
        }
        healthy = all(watch.running.is_set() for watch in self._watches)
        for name, part in (("platform", self._platform), ("realtime", self._realtime)):
            started = part is not None and part.running
            services[name] = "running" if started else "starts when asked"
        if self._realtime is not None and self._realtime.has_failed:
            services["realtime"], healthy = "failed", False
        return healthy, {"status": "ok" if healthy else "degraded", "services": services}

    def _load_keys(self, directories: state.StackDirectories) -> StackKeys:
        saved = state.read_json(directories.keys_file)
        if saved is not None:
            return StackKeys(**saved)
        keys = StackKeys.generate()
        state.write_json(directories.keys_file, keys.to_dict())
        return keys

    def _log_to(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 2)
        os.close(descriptor)


def _load_gateway() -> type[Gateway]:
    """Import the gateway, and what signs its tokens: a quarter of a second."""
    import jwt  # noqa: F401, PLC0415 - as below; `keys` needs it

    from haive.core.persistence.local.gateway import Gateway  # noqa: PLC0415 - it takes its time

    return Gateway


def _listen(port: int | None) -> socket.socket:
    """Return a socket on the port of the last run, or on any where that is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port or 0))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    return listener


def _free(port: int | None) -> int | None:
    """Return the port if nothing listens on it, else None."""
    if port is None:
        return None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
    return port


async def _main() -> int:
    owner = await Owner.connect()
    settings = await owner.settings()
    stack = asyncio.create_task(Supervisor(settings, owner).run())
    gone = asyncio.create_task(owner.gone())
    loop = asyncio.get_running_loop()
    stopping = loop.create_future()

    def request_stop() -> None:
        if not stopping.done():
            stopping.set_result(None)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, request_stop)
    gone.add_done_callback(lambda _: request_stop())
    await asyncio.wait((stack, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not stack.done():
        stack.cancel()
        await asyncio.wait((stack,))
    gone.cancel()
    if stack.cancelled():
        return 0
    error = stack.exception()
    if isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    log.error("the stack failed", exc_info=error)
    owner.tell(
        "error",
        part_unavailable=isinstance(error, PartUnavailableError),
        message=str(error) or repr(error),
    )
    return 1


def main() -> None:
    """Run a stack for the process at the other end of stdin and stdout."""
    os.umask(0o022)  # what must be private says so itself; what is shared must be readable
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    sys.exit(asyncio.run(_main()))


if __name__ == "__main__":
    main()
