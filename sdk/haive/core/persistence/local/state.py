"""Directories, locks and files of a stack, and what is left of dead ones."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import LocalStackError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haive.core.persistence.local.accounts import Account

_PREFIX = "haive-stack-"
#: What the name of a copy of the cluster begins with that is not whole yet; a name that is nobody
#: else's, for what is left of it is removed, and a data directory may hold others' files too.
STAGING = ".haive-postgres-"
# A Unix socket's path may be 107 bytes long; the longest name we put into a directory is 24.
_LONGEST_RUN_DIRECTORY = 80
# Where TMPDIR does not do; mkdtemp makes a private directory there.
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 # nosec B108


@dataclass(slots=True)
class Lock:
    """An exclusive `flock`, which the kernel frees when its holder dies in whatever way."""

    path: Path
    descriptor: int

    @classmethod
    def try_take(cls, path: Path) -> Lock | None:
        """Return the lock, or None where another process holds it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def release(self) -> None:
        """Let the next one have it."""
        os.close(self.descriptor)


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock, waiting for it without blocking the event loop."""
    while (lock := Lock.try_take(path)) is None:  # noqa: ASYNC110 - a flock has no event
        await asyncio.sleep(0.02)
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class StackDirectories:
    """Where one running stack keeps what.

    Sockets always lie in a short-lived directory of their own: their paths are limited to
    107 bytes, and a user's data directory may be longer than that, or closed to `nobody`.
    """

    run: Path
    data: Path
    locks: tuple[Lock, ...]

    @property
    def sockets(self) -> Path:
        """The directory, private to the service account, of the stack's Unix sockets."""
        return self.run / "sockets"

    @property
    def logs(self) -> Path:
        """The directory of the log files."""
        return self.data / "logs"

    @property
    def cluster(self) -> Path:
        """Postgres' data directory."""
        return self.data / "postgres"

    @property
    def objects(self) -> Path:
        """The bytes of the objects in Storage."""
        return self.data / "objects"

    @property
    def keys_file(self) -> Path:
        """The stack's secrets."""
        return self.data / "keys.json"

    @property
    def running_file(self) -> Path:
        """What a running stack tells about itself; absent when stopped."""
        return self.data / "running.json"

    @property
    def ports_file(self) -> Path:
        """The ports of the last run, to be had again."""
        return self.data / "ports.json"

    @classmethod
    def open(cls, data_dir: Path | None, account: Account) -> StackDirectories:
        """Make and lock the directories of one stack.

        Args:
            data_dir: Where the data stays, or None for a directory that dies with the stack.
            account: The account that the stack's programs run under.

        Raises:
            LocalStackError: Another stack runs on this data directory.
        """
        run, run_lock = _make_run_directory(account)
        locks = [run_lock]
        try:
            data = run / "data" if data_dir is None else data_dir.absolute()
            data.mkdir(parents=True, exist_ok=True, mode=0o755)
            if data_dir is not None:
                locks.append(_lock_data(data))
                remove_stagings(data)
            directories = cls(run, data, tuple(locks))
            for folder in (directories.sockets, directories.objects):
                folder.mkdir(mode=0o700, exist_ok=True)
                account.take(folder)
            directories.logs.mkdir(mode=0o700, exist_ok=True)
        except BaseException:
            shutil.rmtree(run, ignore_errors=True)
            for lock in locks:
                lock.release()
            raise
        return directories

    def close(self) -> None:
        """Remove what was only for this run, and unlock the rest."""
        if self.data.is_dir():
            self.running_file.unlink(missing_ok=True)
        shutil.rmtree(self.run, ignore_errors=True)
        for lock in self.locks:
            lock.release()


def remove_stagings(data: Path) -> None:
    """Remove what a start has left of the cluster that was killed while it copied it."""
    for path in data.glob(f"{STAGING}*"):
        shutil.rmtree(path, ignore_errors=True)


def _lock_data(data: Path) -> Lock:
    lock = Lock.try_take(data / "lock")
    if lock is None:
        raise LocalStackError(
            f"Another local stack runs on {data}: stop that one, or give this one a data_dir of"
            " its own."
        )
    return lock


def _make_run_directory(account: Account) -> tuple[Path, Lock]:
    base = _run_base(account)
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    path.chmod(0o711)
    # Locked before it has the name that `sweep` looks for: nobody takes it for a dead one.
    lock = Lock.try_take(path / "lock.new")
    if lock is None:
        raise LocalStackError(f"{path} was just made and is locked already.")
    lock.path = (path / "lock.new").rename(path / "lock")
    return path, lock


def _run_base(account: Account) -> Path:
    candidates = [Path(tempfile.gettempdir()), *map(Path, _TEMPORARY)]
    for base in candidates:
        # Postgres and Deno take a comma for the end of a path.
        fits = len(os.fsencode(base)) + 24 < _LONGEST_RUN_DIRECTORY and "," not in str(base)
        if fits and account.reaches(base):
            return base
    raise LocalStackError(
        f"None of {', '.join(map(str, candidates))} can hold the stack's sockets: set TMPDIR to"
        " a directory with a short path, without commas, that every account may enter."
    )


def sweep(account: Account) -> list[Path]:
    """Remove what stacks that were killed have left; return their directories.

    A directory belongs to a dead stack when it is ours and nobody holds its lock.
    """
    removed = []
    for path in _run_base(account).glob(f"{_PREFIX}*"):
        try:
            if path.is_symlink() or path.stat().st_uid != os.geteuid():
                continue
            if not (path / "lock").is_file():
                continue
            lock = Lock.try_take(path / "lock")
        except OSError:  # its owner removes it at this moment
            continue
        if lock is None:
            continue
        shutil.rmtree(path, ignore_errors=True)
        lock.release()
        removed.append(path)
    return removed


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a state file holds; None where there is none, or a crash has emptied it."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    content: dict[str, Any] | None = json.loads(text) if text else None
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a state file that its owner alone may read, all of it or nothing."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:  # mkstemp made it 0600
        json.dump(content, file, indent=2)
        file.write("\n")
    Path(name).replace(path)


def process_start_time(pid: int) -> int | None:
    """Return a process' start in clock ticks since boot: with its pid it names one process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])
