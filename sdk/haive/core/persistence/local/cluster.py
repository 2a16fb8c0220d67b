"""The template cluster: initialised once, copied for every stack."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import tempfile
from asyncio.subprocess import PIPE, STDOUT, Process, create_subprocess_exec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from haive.core.persistence.errors import LocalStackError
from haive.core.persistence.local.keys import StackKeys
from haive.core.persistence.local.parts import NpmParts, PostgresBinaries, cached
from haive.core.persistence.local.platform_api import spawn_platform
from haive.core.persistence.local.processes import log_tail, spawn, stop
from haive.core.persistence.local.state import STAGING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haive.core.persistence.local.accounts import Account

ADMIN = "supabase_admin"
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
_HERE = Path(__file__).parent
_SCRIPTS = ("bootstrap.sql", "bootstrap_platform.sql", "bootstrap_realtime.sql")
_START_TIMEOUT = 60.0
_PORT = 5432

_SETTINGS = """
listen_addresses = '127.0.0.1'
max_connections = 100
password_encryption = 'scram-sha-256'
shared_preload_libraries = 'pg_stat_statements'
unix_socket_permissions = 0700
wal_level = 'logical'
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
"""

# The socket's directory is closed to other users, so what reaches the socket is the stack.
_ACCESS = """\
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


def is_cluster(path: Path) -> bool:
    """Return whether there is a whole cluster."""
    return (path / "PG_VERSION").is_file()


async def find_template(binaries: PostgresBinaries, npm_parts: NpmParts, account: Account) -> Path:
    """Return the template cluster, built by the first who needs it.

    Args:
        binaries: The Postgres that makes it, and will run its copies.
        npm_parts: Where Auth and Storage come from.
        account: The account to build it under.
    """
    sql = [(_HERE / name).read_text() for name in _SCRIPTS]
    made_from = "\n".join((binaries.version, npm_parts.root.name, _SETTINGS, _ACCESS, *sql))

    async def build(target: Path) -> None:
        # Elsewhere first: the service account cannot write into root's cache, nor Deno into /dev.
        temporary = tempfile.gettempdir()
        is_fit = not Path(temporary).is_relative_to("/dev") and "," not in temporary
        place = None if is_fit else "/tmp"  # noqa: S108  # nosec B108
        with tempfile.TemporaryDirectory(prefix="haive-template-", dir=place) as name:
            workshop = Path(name)
            account.take(workshop)
            cluster = workshop / "cluster"
            await _initialise(cluster, binaries, account)
            process = await _start(cluster, workshop, binaries, account)
            try:
                await run_sql(binaries, account, workshop, _PORT, sql[0])
                await _install_platform(workshop, npm_parts, account)
                for script in sql[1:]:
                    await run_sql(binaries, account, workshop, _PORT, script)
            finally:
                await stop(process, signal.SIGINT)
            await _copy_tree(cluster, target)

    digest = hashlib.sha256(made_from.encode()).hexdigest()
    return await cached(f"cluster-{digest[:16]}", build)


async def copy_template(template: Path, cluster: Path, account: Account, *, durable: bool) -> None:
    """Copy the template to a stack's data directory.

    Args:
        template: What `find_template` returned.
        cluster: Where it goes.
        account: The account that owns the copy.
        durable: Whether it has to survive a crash of the machine from now on.
    """
    # Whole or absent: the copy gets its name last.
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=cluster.parent))
    try:
        await _copy_tree(template, staging)
        account.take_tree(staging)
        if durable:
            os.sync()
        os.rename(staging, cluster)  # noqa: PTH104 - at once: no thread needed
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


async def is_ready(cluster: Path, process: Process) -> bool:
    """Wait until the server takes connections; False when it ended before, or was for its silence.

    The postmaster says so in the eighth line of its pid file, where pg_ctl looks too. After a crash
    it may be starting for as long as it likes: it reads its log.
    """
    pid_file = cluster / "postmaster.pid"
    deadline = monotonic() + _START_TIMEOUT
    while process.returncode is None:
        try:
            lines = pid_file.read_text().split("\n")
        except FileNotFoundError:
            lines = []
        known = len(lines) > 7 and lines[0] == str(process.pid)
        state = lines[7].strip() if known else ""
        if state == "ready":
            return True
        if state == "starting":
            deadline = monotonic() + _START_TIMEOUT
        elif monotonic() > deadline:
            await stop(process, signal.SIGQUIT)
        await asyncio.sleep(0.005)
    return False


async def run_sql(
    binaries: PostgresBinaries, account: Account, sockets: Path, port: int, sql: str
) -> None:
    """Run SQL as the superuser over a Unix socket."""
    await _run(
        *(str(binaries.bin / "psql"), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"),
        *("--host", str(sockets), "--port", str(port), "--username", ADMIN, "postgres"),
        stdin=sql,
        account=account,
    )


async def _initialise(cluster: Path, binaries: PostgresBinaries, account: Account) -> None:
    await _run(
        *(str(binaries.bin / "initdb"), "--pgdata", str(cluster), "--username", ADMIN),
        *("--auth", "trust", "--no-sync", "--no-instructions", "--encoding", "UTF8"),
        *("--locale-provider", "builtin", "--locale", "C.UTF-8"),
        account=account,
    )
    with (cluster / "postgresql.conf").open("a") as settings:
        settings.write(_SETTINGS)
    (cluster / "pg_hba.conf").write_text(_ACCESS)


async def _start(
    cluster: Path, workshop: Path, binaries: PostgresBinaries, account: Account
) -> Process:
    log = workshop / "log"
    process = await spawn(
        [
            *(str(binaries.bin / "postgres"), "-D", str(cluster), "-c", "listen_addresses="),
            *("-c", f"unix_socket_directories={workshop}", "-c", f"port={_PORT}"),
            *("-c", "fsync=off"),
        ],
        account=account,
        log=log,
        environment=ENVIRONMENT,
        on_parent_death=signal.SIGQUIT,
    )
    if not await is_ready(cluster, process):
        raise LocalStackError(f"Postgres did not start for its template: {log_tail(log)}")
    return process


async def _install_platform(workshop: Path, npm_parts: NpmParts, account: Account) -> None:
    log = workshop / "platform.log"
    process = await spawn_platform(
        "install",
        npm_parts=npm_parts,
        account=account,
        log=log,
        socket=workshop / "platform.sock",
        objects=workshop,
        postgres=(workshop, _PORT, ADMIN),
        url="http://127.0.0.1",
        keys=StackKeys.generate(),
    )
    if await process.wait() != 0:
        raise LocalStackError(f"Auth and Storage were not installed: {log_tail(log)}")


async def _copy_tree(source: Path, target: Path) -> None:
    # Making a thousand files is what takes the time, and each processor can make some: each
    # database by itself, beside all that is not in one.
    base = target / "base"
    base.mkdir()
    rest, databases = _split(source)
    try:
        async with asyncio.TaskGroup() as group:  # where one fails the others end
            group.create_task(_copy(rest, target))
            for path in databases:
                group.create_task(_copy([path], base))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    for path in (base, target):
        os.chmod(path, 0o700)  # noqa: PTH101 - at once: no thread needed


def _split(cluster: Path) -> tuple[list[Path], list[Path]]:
    base = cluster / "base"
    return [path for path in cluster.iterdir() if path != base], list(base.iterdir())


async def _copy(sources: Iterable[Path], target: Path) -> None:
    await _run(*("cp", "-R", "--reflink=auto", "--preserve=mode"), *map(str, sources), str(target))


async def _run(*command: str, stdin: str = "", account: Account | None = None) -> None:
    process = await create_subprocess_exec(
        *command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
        cwd="/",
        env=ENVIRONMENT,
        **(account.credentials() if account is not None else {}),
    )
    try:
        output, _ = await process.communicate(stdin.encode())
    finally:
        await stop(process)  # what nobody waits for would go on writing
    if process.returncode != 0:
        raise LocalStackError(
            f"`{Path(command[0]).name}` failed: {output.decode(errors='replace').strip()}"
        )
