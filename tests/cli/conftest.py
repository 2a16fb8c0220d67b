"""Run `haive` as a user does, against a tenant of its own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from haive.core.persistence.local import LocalStack

_PROGRAM = "from haive.core.persistence.cli import main; main()"
_OURS = ("DATABASE_URL", "SUPABASE_", "HAIVE_", "TENANT_")
_tenants = itertools.count(1)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bare_haive(tmp_path: Path) -> Run:
    """Run `haive` in an empty directory, with nothing in the environment but what is given."""

    def run(*arguments: str, stdin: str | None = None, **environment: str):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        path = os.pathsep.join(filter(None, sys.path))
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", _PROGRAM, *arguments],
            env={**inherited, "PYTHONPATH": path, **environment},
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
async def tenant(stack: LocalStack) -> str:
    """A new tenant."""
    name = f"cli-{next(_tenants)}"
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute("insert into haive.tenants (tenant_id, name) values ($1, $1)", name)
    await connection.close()
    return name


@pytest.fixture(params=["postgres", "supabase"])
def way(request: pytest.FixtureRequest, stack: LocalStack, tenant: str) -> dict[str, str]:
    """The environment that names the stack and the tenant, in each of the two ways."""
    if request.param == "postgres":
        return {"DATABASE_URL": stack.database_url, "HAIVE_TENANT": tenant}
    return {
        "SUPABASE_URL": stack.url,
        "SUPABASE_SECRET_KEY": stack.secret_key,
        "HAIVE_TENANT": tenant,
    }


@pytest.fixture
def haive(bare_haive: Run, way: dict[str, str]) -> Run:
    """Run `haive` on the stack, by each of the two ways."""

    def run(*arguments: str, stdin: str | None = None, **environment: str):
        return bare_haive(*arguments, stdin=stdin, **way, **environment)

    return run
