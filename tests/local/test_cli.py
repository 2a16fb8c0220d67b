from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import asyncpg
import httpx
import pytest
from typer.testing import CliRunner

from haive.core.persistence.local.cli import app

_PROGRAM = "from haive.core.persistence.local.cli import app; app()"


@pytest.fixture(scope="module")
def haive():
    """Run `haive local` under a stack name of this test run's own."""
    name = f"test-{os.getpid()}"

    def run(command, *arguments):
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", _PROGRAM, command, "--name", name, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )

    yield run
    run("stop")
    facts = json.loads(run("status", "--json").stdout)
    data_dir = Path(facts["data_dir"])
    assert data_dir.name == name
    subprocess.run(["rm", "-rf", str(data_dir)], check=True)


@pytest.fixture
def running(haive):
    started = haive("start", "--no-migrate")
    assert started.returncode == 0, started.stderr
    return json.loads(haive("status", "--json").stdout)


def test_a_stopped_stack_has_exit_code_3(haive):
    haive("stop")
    status = haive("status")
    assert status.returncode == 3
    assert "haive local start" in status.stdout
    facts = json.loads(haive("status", "--json").stdout)
    assert facts["running"] is False
    assert facts["versions"]["postgrest"].startswith("12.0.2")


async def test_start_leaves_a_stack_that_works(running):
    headers = {"apikey": running["secret_key"]}
    async with httpx.AsyncClient(base_url=running["url"], headers=headers) as client:
        assert (await client.get("/rest/v1/")).status_code == 200
    assert running["running"] is True


def test_status_tells_of_each_service(haive, running):
    assert running["services"]["postgres"] == "running"
    assert running["services"]["realtime"] == "starts when asked"
    assert "realtime starts when asked" in " ".join(haive("status").stdout.split())


def test_start_twice_is_the_same_stack(haive, running):
    again = haive("start", "--no-migrate")
    assert again.returncode == 0
    assert "runs already" in again.stdout
    assert json.loads(haive("status", "--json").stdout)["pid"] == running["pid"]


def test_env_is_for_the_shell_and_json_for_programs(haive, running):
    lines = haive("env").stdout.splitlines()
    assert all(line.startswith("export ") for line in lines)
    exported = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    assert exported["SUPABASE_URL"] == running["url"]
    assert exported["DATABASE_URL"] == running["database_url"]
    assert exported.keys() == json.loads(haive("env", "--json").stdout).keys()
    assert {"SUPABASE_ANON_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_JWT_SECRET"} <= {*exported}


async def test_url_keys_and_data_stay_over_stop_and_start(haive, running):
    connection = await asyncpg.connect(running["database_url"])
    await connection.execute("create table public.kept (id int)")
    await connection.close()
    assert haive("stop").returncode == 0
    assert haive("start", "--no-migrate").returncode == 0
    again = json.loads(haive("status", "--json").stdout)
    same = ("url", "secret_key", "publishable_key", "jwt_secret", "database_url")
    assert [again[name] for name in same] == [running[name] for name in same]
    connection = await asyncpg.connect(again["database_url"])
    assert await connection.fetchval("select count(*) from public.kept") == 0
    await connection.close()


async def test_reset_empties_a_running_stack_and_keeps_its_keys(haive, running):
    assert haive("reset", "--yes", "--no-migrate").returncode == 0
    again = json.loads(haive("status", "--json").stdout)
    assert again["secret_key"] == running["secret_key"]
    connection = await asyncpg.connect(again["database_url"])
    assert await connection.fetchval("select to_regclass('public.kept')") is None
    await connection.close()


def test_reset_works_on_a_stopped_stack(haive, running):
    haive("stop")
    assert haive("reset", "--yes").returncode == 0
    assert not (Path(running["data_dir"]) / "postgres").exists()
    assert haive("status").returncode == 3


def test_reset_asks_first(haive, running):
    refused = haive("reset")
    assert refused.returncode == 1
    assert json.loads(haive("status", "--json").stdout)["pid"] == running["pid"]


def test_credentials_are_readable_by_their_owner_alone(running):
    for name in ("keys.json", "running.json"):
        assert (Path(running["data_dir"]) / name).stat().st_mode & 0o077 == 0


def test_env_of_a_stopped_stack_says_how_to_start_it(haive):
    haive("stop")
    failed = haive("env")
    assert failed.returncode == 1
    assert "haive local start" in failed.stderr
    assert failed.stdout == ""


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "aiohttp" else find(name)
    )
    failed = CliRunner().invoke(app, ["start", "--name", f"test-{os.getpid()}-missing"])
    assert failed.exit_code == 1
    assert "pip install 'haive-persistence[local]'" in failed.stderr.replace("\n", " ")


def test_a_bad_name_is_refused(haive):
    failed = haive("status", "--name", "../x")
    assert failed.returncode == 1
    assert "no name for a stack" in failed.stderr
