"""Child processes that cannot outlive the supervisor."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from typing import TYPE_CHECKING

from haive.core.persistence.errors import LocalStackError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from haive.core.persistence.local.accounts import Account

_PR_SET_PDEATHSIG = 1
# Loaded here: nothing may be imported or opened between fork and exec.
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with(parent: int, on_parent_death: signal.Signals) -> Callable[[], None]:
    number = int(on_parent_death)

    def prepare() -> None:
        # Python has switched the account already: the kernel forgets the wish when it does.
        if _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(127)

    return prepare


async def spawn(
    command: Sequence[str],
    *,
    account: Account,
    log: Path,
    environment: Mapping[str, str],
    on_parent_death: signal.Signals = signal.SIGKILL,
    executable: str | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start a child under the service account, its output appended to a log file.

    Args:
        command: The program and its arguments.
        account: The account to run it under.
        log: The file for stdout and stderr.
        environment: The child's whole environment: nothing is inherited.
        on_parent_death: What the kernel sends it when the supervisor dies.
        executable: The file to execute where that is not the command's first word.
        pass_fds: File descriptors that the child keeps.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            executable=executable,
            stdin=DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd="/",
            env=dict(environment),
            pass_fds=pass_fds,
            start_new_session=True,
            # Safe here: the supervisor starts children from its only working thread.
            preexec_fn=_die_with(os.getpid(), on_parent_death),
            **account.credentials(),
        )
    finally:
        os.close(descriptor)


async def stop(process: Process, *signals: signal.Signals, patience: float = 10.0) -> None:
    """End a child: each signal gets its time, SIGKILL is the last."""
    for number in (*signals, signal.SIGKILL):
        if process.returncode is not None:
            return
        try:
            process.send_signal(number)
            await asyncio.wait_for(process.wait(), patience)
        except ProcessLookupError:
            await process.wait()
        except TimeoutError:
            continue


async def when_ready(
    process: Process,
    is_ready: Callable[[], Awaitable[bool]],
    *,
    name: str,
    log: Path,
    within: float,
) -> Process:
    """Return a child when it is ready; one that is not in time is ended.

    Args:
        process: The child.
        is_ready: Tells whether it is.
        name: What to call it.
        log: Where it says why it is not.
        within: Seconds.

    Raises:
        LocalStackError: It has ended, or was.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            while process.returncode is None:
                if await is_ready():
                    return process
                await asyncio.sleep(0.005)
    await stop(process)
    raise LocalStackError(f"{name} did not start: {log_tail(log)}")


def log_tail(log: Path, *, size: int = 2000) -> str:
    """Return the end of a log file, for an error message."""
    try:
        return log.read_bytes()[-size:].decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
