"""Documentation is run as it is written."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import httpx
import pytest

from haive.core.persistence.local import LocalStack
from haive.core.persistence.schema import migrate

Run = Callable[..., Awaitable[dict[str, object]]]
# The servers that stand in for Pinecone and Weaviate are theirs.
sys.path.append(str(Path(__file__).parents[1] / "vector"))


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a piece of documentation, `await` at its top level included; it gives its names."""
    return _run


async def _run(
    source: str, names: dict[str, object], filename: str = "<snippet>"
) -> dict[str, object]:
    code = compile(source, filename, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, names)
    if inspect.isawaitable(outcome):
        await outcome
    return names


@pytest.fixture
def environment(stack: LocalStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `haive local env` prints, set."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "DATABASE_URL": stack.database_url,
        "SUPABASE_URL": stack.url,
        "SUPABASE_ANON_KEY": stack.publishable_key,
        "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
        "SUPABASE_SECRET_KEY": stack.secret_key,
    }.items():
        monkeypatch.setenv(name, value)
    # A page sets it itself; it is gone after the test.
    monkeypatch.setenv("TENANT_MASTER_KEY", "")
    monkeypatch.delenv("TENANT_MASTER_KEY")


@pytest.fixture(scope="session")
async def public_schema(stack: LocalStack) -> None:
    """The kit installed under the name `public`, with user-123 as a member, seen by the API."""
    await migrate(stack.database_url, schema="public")
    owner = await asyncpg.connect(stack.database_url)
    await owner.execute("select public.set_member('user-123', 'member')")
    await owner.close()
    headers = {"apikey": stack.secret_key}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers) as api:
        for _ in range(200):  # the API reads the catalogue again within a moment
            if (await api.post("/rest/v1/rpc/schema_version", json={})).is_success:
                return
            await asyncio.sleep(0.05)
    pytest.fail("The API does not see the schema.")
