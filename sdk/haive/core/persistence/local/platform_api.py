"""Auth and Storage: `@supabase/lite` in a Deno process, started when first asked for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

from haive.core.persistence.local.processes import spawn, stop, when_ready

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from haive.core.persistence.local.accounts import Account
    from haive.core.persistence.local.keys import StackKeys
    from haive.core.persistence.local.parts import NpmParts

ROLE = "supabase_auth_admin"
_START_TIMEOUT = 30.0
_HEAP = "--v8-flags=--max-old-space-size=1024"


def can_keep(objects: Path, account: Account) -> bool:
    """Tell whether Storage may keep files in a directory: Deno takes a comma for a path's end."""
    return "," not in str(objects) and account.reaches(objects)


async def spawn_platform(
    mode: str,
    *,
    npm_parts: NpmParts,
    account: Account,
    log: Path,
    socket: Path,
    objects: Path | None,
    postgres: tuple[Path, int, str],
    url: str,
    keys: StackKeys,
) -> Process:
    """Start the Deno process that installs or serves Auth and Storage.

    Args:
        mode: `install` makes the tables and ends, `serve` answers on the socket.
        npm_parts: The installed npm parts.
        account: The account to run under.
        log: The file for its output.
        socket: Where it listens.
        objects: Where it keeps the objects' bytes; None for no Storage.
        postgres: The directory of Postgres' socket, the port, and the role to log in as.
        url: The public URL of the stack.
        keys: The stack's keys.
    """
    host, port, role = postgres
    writable = [str(host), str(socket.parent), *([] if objects is None else [str(objects)])]
    settings = {
        "host": str(host),
        "port": port,
        "user": role,
        "socket": str(socket),
        "objects": None if objects is None else str(objects),
        "url": url,
        "jwt_secret": keys.jwt_secret,
        "publishable_key": keys.publishable_key,
        "secret_key": keys.secret_key,
    }
    return await spawn(
        [
            *(str(npm_parts.deno), "run", "--no-prompt", "--no-remote", "--frozen", "--quiet"),
            *("--config", str(npm_parts.root / "deno.json"), "--no-code-cache", _HEAP),
            f"--allow-read={','.join([str(npm_parts.root), *writable])}",
            f"--allow-write={','.join(writable)}",
            f"--allow-net=unix:{host}/.s.PGSQL.{port},unix:{socket}",
            "--allow-env",  # all of which is given below
            "--unstable-no-legacy-abort",
            *(str(npm_parts.root / "services" / "platform.ts"), mode),
        ],
        account=account,
        log=log,
        environment={
            "DENO_DIR": str(socket.parent / "deno"),
            "DENO_NO_UPDATE_CHECK": "1",
            "HOME": str(socket.parent),
            "NO_COLOR": "1",
            "PATH": os.defpath,
            "PLATFORM_SETTINGS": json.dumps(settings),
        },
    )


class PlatformAPI:
    """The server behind `/auth/v1` and `/storage/v1`.

    Args:
        spawn: Starts the process.
        socket: Where it answers.
        log: Where it logs.
    """

    def __init__(self, *, spawn: Callable[[], Awaitable[Process]], socket: Path, log: Path) -> None:
        self._spawn = spawn
        self._socket = socket
        self._log = log
        self._process: Process | None = None
        self._starting = asyncio.Lock()

    @property
    def running(self) -> bool:
        """Whether its process is up."""
        return self._process is not None and self._process.returncode is None

    async def socket(self) -> Path:
        """Return the Unix socket that it answers on, starting it for the first and after a crash.

        Raises:
            LocalStackError: It did not start.
        """
        if not self.running:
            async with self._starting:
                if not self.running:
                    await self._start()
        return self._socket

    async def stop(self) -> None:
        """End the server, if it was ever started."""
        if self._process is not None:
            await stop(self._process, signal.SIGTERM, patience=2.0)

    async def _start(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._process = await when_ready(
            await self._spawn(),
            self._is_listening,
            name="Auth and Storage",
            log=self._log,
            within=_START_TIMEOUT,
        )

    async def _is_listening(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            return False
        writer.close()
        return True
