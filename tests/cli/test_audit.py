from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.audit import AuditKey
from haive.core.persistence.cli.app import app

_PROGRAM = "from haive.core.persistence.cli import main; main()"
_OURS = ("DATABASE_URL", "SUPABASE_", "HAIVE_")

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def store(stack, tenant):
    """What fills the tenant: four rows of the record."""
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(
        "update haive.tenants set audit = 'writes' where tenant_id = $1", tenant
    )
    await connection.close()
    config = PersistenceConfig(connection_string=SecretStr(stack.database_url), tenant=tenant)
    async with PostgresStore(config) as opened:
        conversation = await opened.create_conversation("agent")
        await opened.add_message(conversation.id, "user", "hello")
        await opened.set_member("[red]bob\x1b[0m", "reader")
        yield opened


@pytest.fixture
def run(way, store) -> Run:
    """Run `haive audit` in this process."""

    async def one(*arguments: object, **environment: str) -> Result:
        hidden = dict.fromkeys(name for name in os.environ if name.startswith(_OURS))
        return await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["audit", *map(str, arguments)],
            env={**hidden, **way, **environment},
        )

    return one


@pytest.fixture
async def tamper(stack, tenant):
    """Change the log, as a superuser who disables its triggers."""
    path = httpx.URL(stack.database_url).path
    connection = await asyncpg.connect(str(httpx.URL(stack.admin_url).copy_with(path=path)))
    await connection.execute("set session_replication_role = replica")

    async def change(sql: str) -> None:
        await connection.execute(f"{sql} where tenant_id = $1 and seq = 3", tenant)

    yield change
    await connection.close()


async def test_tail_shows_a_line_for_each_row_and_json_all_fields(run):
    done = await run("tail")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert "update tenants 1" in lines[0]
    assert "insert messages 1" in lines[2]
    assert "[red]bob" in lines[3]
    assert "\x1b" not in done.stdout
    entries = [json.loads(line) for line in (await run("tail", "--json")).stdout.splitlines()]
    assert [entry["seq"] for entry in entries] == [1, 2, 3, 4]
    assert entries[2].keys() == {
        "seq", "at", "actor", "login", "role", "action", "object", "rows", "row_count", "address",
        "application", "request_id", "hash",
    }  # fmt: skip
    assert len((await run("tail", "--limit", 2)).stdout.splitlines()) == 2


async def test_tail_of_an_empty_record_says_so(run, stack, tenant):
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(
        "insert into haive.tenants (tenant_id, name) values ($1, $1)", f"{tenant}-empty"
    )
    await connection.close()
    tail = await run("tail", HAIVE_TENANT=f"{tenant}-empty")
    assert (tail.exit_code, tail.stdout) == (0, "Nothing is on record.\n"), tail.stderr


async def test_tail_follow_shows_what_comes_until_it_is_interrupted(way, store):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
    path = os.pathsep.join(filter(None, sys.path))
    command = (sys.executable, "-c", _PROGRAM, "audit", "tail", "--follow", "--json")
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--limit", "1"),
        env={**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **way},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        first = await asyncio.wait_for(process.stdout.readline(), 30)
        assert json.loads(first)["seq"] == 4
        await store.create_conversation("agent")
        second = await asyncio.wait_for(process.stdout.readline(), 30)
        assert json.loads(second)["object"] == "conversations"
    finally:
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130


async def test_verify_says_that_the_chain_holds(run, tenant):
    done = await run("verify")
    assert done.exit_code == 0, done.output
    assert f"{tenant}: the chain holds, 4 rows." in done.stdout
    assert "Held against no head" in done.stdout
    found = json.loads((await run("verify", "--json")).stdout)
    assert (found["ok"], found["checked"], found["tenant"]) == (True, 4, tenant)


@pytest.mark.parametrize(
    ("sql", "finding"),
    [
        ("update haive.audit_log set actor = 'mallory'", "row 3 is not as it was written"),
        ("delete from haive.audit_log", "row 3 is missing"),
    ],
)
async def test_a_broken_chain_is_exit_code_1_and_names_the_row(run, tamper, sql, finding, tmp_path):
    await tamper(sql)
    done = await run("verify")
    assert done.exit_code == 1
    assert finding in done.stdout
    found = await run("verify", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["bad_seq"] == 3
    assert (await run("export", "-o", tmp_path / "log.jsonl")).exit_code == 0
    offline = await run("verify", tmp_path / "log.jsonl")
    assert (offline.exit_code, finding in offline.stdout) == (1, True)


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
async def test_an_export_and_a_signed_head_are_verified_without_a_database(
    run, bare_haive, tmp_path, name
):
    key = AuditKey(text := AuditKey.generate())
    exported = await run("export", "--output", tmp_path / name)
    assert (exported.exit_code, exported.stdout) == (0, "")
    assert "Exported 4 rows." in exported.stderr
    signed = await run("head", "--sign", "-o", tmp_path / "head.json", HAIVE_AUDIT_KEY=text)
    assert signed.exit_code == 0, signed.output
    check = ("audit", "verify", name, "--head", "head.json")
    done = bare_haive(*check, HAIVE_AUDIT_KEY=key.public)
    assert done.returncode == 0, done.stderr
    assert "Held against 1 head." in done.stdout
    raw = (tmp_path / name).read_bytes()
    lines = (gzip.decompress(raw) if name.endswith(".gz") else raw).splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[:-1]))
    cut = bare_haive("audit", "verify", "cut.jsonl", "--head", "head.json")
    assert (cut.returncode, "row 4 is missing" in cut.stdout) == (1, True)


async def test_what_cannot_be_checked_is_exit_code_2(run, tmp_path):
    head = tmp_path / "head.json"
    for arguments, said in {
        ("verify", tmp_path / "none"): "cannot be read",
        ("verify", "--head", tmp_path / "none"): "cannot be read",
    }.items():
        done = await run(*arguments)
        assert (done.exit_code, said in done.stderr) == (2, True)
    head.write_text("{}")
    assert "is no head" in (await run("verify", "--head", head)).stderr
    unsigned = await run("head", "--output", head)
    assert unsigned.exit_code == 0
    assert (await run("verify", "--head", head)).exit_code == 0
    done = await run("verify", "--head", head, HAIVE_AUDIT_KEY=AuditKey.generate())
    assert (done.exit_code, "is not signed by the key" in done.stderr) == (2, True)
    done = await run("head", "--sign")
    assert (done.exit_code, "HAIVE_AUDIT_KEY" in done.stderr) == (1, True)


async def test_export_goes_to_standard_output_from_a_row_on(run):
    done = await run("export", "--after", 2, "--quiet")
    header, *rows = map(json.loads, done.stdout.splitlines())
    assert (header["after"], [row["seq"] for row in rows]) == (2, [3, 4])
    assert (await run("export", "--after", 9)).exit_code == 1


async def test_key_makes_a_key_and_its_public_part(run):
    private, public = (await run("key")).stdout.split()
    assert AuditKey(private).public == public
    (secret,) = (await run("key", "--hmac")).stdout.split()
    assert AuditKey(secret).public is None
