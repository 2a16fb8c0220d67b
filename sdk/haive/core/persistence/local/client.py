"""The owner's side of a supervisor: starts it, migrates when it is time, and ends it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess  # nosec B404
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from haive.core.persistence.errors import LocalStackError, PartUnavailableError
from haive.core.persistence.local.machine import check_machine

if TYPE_CHECKING:
    from haive.core.persistence.local.settings import StackSettings

_STOP_TIMEOUT = 30.0


class SupervisorClient:
    """One supervisor process and the pipes to it."""

    def __init__(self, settings: StackSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._run_dir: Path | None = None

    async def start(self, *, migrate: bool) -> dict[str, str]:
        """Start the stack and return what it tells about itself.

        Args:
            migrate: Install the schema between the start of Postgres and that of PostgREST.

        Raises:
            PartUnavailableError: A part cannot run on this machine.
            LocalStackError: The stack did not start.
        """
        check_machine()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `stop`
        self._process = self._spawn()
        self._send(self._settings.to_json())
        if migrate:
            about = await self._hear("database")
            from haive.core.persistence.schema import migrate as install  # noqa: PLC0415 - heavy, and not always needed

            await install(about["database_url"], schema="haive")
            self._send(b"go\n")
        return await self._hear("ready")

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Nothing of it comes from outside: our own module under our own interpreter.
        return subprocess.Popen(  # nosec B603
            [sys.executable, "-m", "haive.core.persistence.local.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # Ctrl-C reaches a whole terminal session: the owner alone shall see it, and stop us.
            start_new_session=True,
        )

    async def stop(self) -> None:
        """End the supervisor and wait for it."""
        await asyncio.to_thread(self._stop)

    def detach(self) -> None:
        """Leave the supervisor running, after its start."""
        process = self._started()
        self._send(b"detach\n")
        self._close_pipes(process)
        process.returncode = 0  # it goes on without us: there is nothing to wait for

    def _stop(self) -> None:
        process = self._process
        if process is not None:
            self._close_pipes(process)
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # Where the supervisor itself was killed, its directory is still there.
        if self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)

    def _close_pipes(self, process: subprocess.Popen[bytes]) -> None:
        for pipe in (process.stdin, process.stdout, self._stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # unsent words to a dead supervisor
                    continue

    def _send(self, line: bytes) -> None:
        stdin = self._started().stdin
        if stdin is None:
            raise LocalStackError("The supervisor has no stdin.")
        try:
            stdin.write(line)
            stdin.flush()
        except BrokenPipeError:  # it has ended: `_hear` tells why
            return

    async def _hear(self, expected: str) -> dict[str, str]:
        stdout = self._started().stdout
        line = b"" if stdout is None else await asyncio.to_thread(stdout.readline)
        if not line:
            raise LocalStackError(f"The local stack ended at its start: {self._last_words()}")
        message: dict[str, Any] = json.loads(line)
        event = message.pop("event")
        if event == "error":
            kind = PartUnavailableError if message["part_unavailable"] else LocalStackError
            raise kind(message["message"])
        if event != expected:
            raise LocalStackError(f"The supervisor said {event!r} in place of {expected!r}.")
        self._run_dir = Path(message["run_dir"])
        return message

    def _last_words(self) -> str:
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        return self._stderr.read()[-2000:].decode(errors="replace").strip()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise LocalStackError("The supervisor was not started.")
        return self._process
