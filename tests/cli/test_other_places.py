"""`--tenant` finds a tenant wherever its rows are, and reads it where its content is sealed."""

from __future__ import annotations

import itertools
import json

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence._keys import KeyRing
from haive.core.persistence.encryption import DatabaseKeyStore, DataKeys, EnvironmentKey
from haive.core.persistence.multitenancy import IsolationLevel, TenantConfig, TenantManager

_numbers = itertools.count(1)
_LINES = json.dumps({"messages": [{"role": "user", "content": "Only they read this."}]}) + "\n"
_MASTER = KeyRing.generate()


@pytest.fixture
async def make(stack):
    """Make a tenant: `await make("sealed")` or `await make("in a schema")`."""
    async with PostgresStore(PersistenceConfig(connection_string=stack.database_url)) as store:
        keys = DataKeys(
            EnvironmentKey(environ={"TENANT_MASTER_KEY": _MASTER}), DatabaseKeyStore(store)
        )
        made = []

        async def make_one(kind):
            manager = TenantManager(
                store, TenantConfig(enable_encryption_at_rest=kind == "sealed"), keys=keys
            )
            made.append((manager, f"elsewhere-{next(_numbers)}"))
            level = IsolationLevel.ROW if kind == "sealed" else IsolationLevel.SCHEMA
            await manager.create_tenant(made[-1][1], isolation_level=level)
            return made[-1][1]

        yield make_one
        for manager, name in made:
            await manager.delete_tenant(name)
            await manager.purge_tenant(name)


@pytest.mark.parametrize("kind", ["sealed", "in a schema"])
async def test_what_is_imported_is_listed_shown_and_exported(
    kind, make, bare_haive, stack, tmp_path
):
    tenant = await make(kind)

    def haive(*arguments):
        environment = {"DATABASE_URL": stack.database_url, "TENANT_MASTER_KEY": _MASTER}
        return bare_haive(*arguments, "--tenant", tenant, **environment)

    (tmp_path / "said.jsonl").write_text(_LINES)
    assert haive("import", "said.jsonl", "--quiet").returncode == 0
    (found,) = json.loads(haive("conversations", "list", "--json").stdout)
    shown = haive("conversations", "show", found["id"])
    assert "Only they read this." in shown.stdout
    assert "Only they read this." in haive("conversations", "export", "--quiet").stdout
    threads = haive("checkpoints", "threads", "--json")
    assert (threads.returncode, json.loads(threads.stdout)) == (0, [])
    connection = await asyncpg.connect(stack.database_url)
    text = "select count(*) from haive.messages where content = 'Only they read this.'"
    assert await connection.fetchval(f"{text} and tenant_id = $1", tenant) == 0
    await connection.close()


async def test_without_the_key_it_says_which_is_missing(make, bare_haive, stack):
    done = bare_haive(
        *("conversations", "list", "--tenant", await make("sealed")),
        DATABASE_URL=stack.database_url,
    )
    assert done.returncode == 1
    assert "TENANT_MASTER_KEY" in done.stderr


def test_a_tenant_that_is_not_there_is_an_error(bare_haive, stack):
    done = bare_haive(
        *("conversations", "list", "--tenant", "nobody"), DATABASE_URL=stack.database_url
    )
    assert done.returncode == 1
    assert "nobody" in done.stderr


@pytest.mark.parametrize("kind", ["sealed", "in a schema"])
async def test_a_session_begins_and_is_shown_there(kind, make, bare_haive, stack):
    tenant = await make(kind)

    def haive(*arguments):
        environment = {"DATABASE_URL": stack.database_url, "TENANT_MASTER_KEY": _MASTER}
        done = bare_haive("sessions", *arguments, "--tenant", tenant, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = json.loads(haive("create", "--title", "Only they read this.", "--json"))
    branch = json.loads(haive("branch", made["id"], "--json"))
    assert branch["parent_id"] == made["id"]
    assert "Only they read this." in haive("tree", branch["id"])
    assert "Only they read this." in haive("list")


@pytest.mark.parametrize("kind", ["sealed", "in a schema"])
async def test_what_happens_there_is_watched(kind, make, bare_haive, stack):
    tenant = await make(kind)

    def haive(*arguments, **given):
        environment = {"DATABASE_URL": stack.database_url, "TENANT_MASTER_KEY": _MASTER}
        done = bare_haive(*arguments, "--tenant", tenant, **given, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    haive("import", "-", "--quiet", stdin=_LINES)
    shown = haive("watch", "--after", "0", "--limit", "2", "--messages", "--json")
    created, added = map(json.loads, shown.splitlines())
    assert created["kind"] == "conversation.created"
    assert [message["content"] for message in added["messages"]] == ["Only they read this."]


@pytest.mark.parametrize("kind", ["sealed", "in a schema"])
async def test_its_record_is_read_without_the_key(kind, make, bare_haive, stack, tmp_path):
    tenant = await make(kind)
    environment = {"DATABASE_URL": stack.database_url}
    done = bare_haive(
        *("import", "-", "--quiet", "--tenant", tenant),
        stdin=_LINES,
        TENANT_MASTER_KEY=_MASTER,
        **environment,
    )
    assert done.returncode == 0, done.stderr

    def audit(*arguments):
        done = bare_haive("audit", *arguments, "--tenant", tenant, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "insert messages 1" in audit("tail")
    assert json.loads(audit("verify", "--quiet", "--json"))["ok"]
    assert json.loads(audit("head"))["tenant"] == tenant
    assert '\\"messages\\"' in audit("export", "--quiet")
