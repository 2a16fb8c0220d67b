from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import asyncpg
import httpx
import pytest

from haive.core.persistence.errors import LocalStackError
from haive.core.persistence.local import LocalStack

# Not synchronous_commit: what was committed must survive the kill of Postgres.
FAST = {"fsync": "off"}
WARM_START_SECONDS = 1.5


def fast_stack(**options):
    return LocalStack(migrate=False, postgres_settings=FAST, **options)


async def fetch(stack, query):
    connection = await asyncpg.connect(stack.database_url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_a_started_stack_answers_over_http_and_over_postgres():
    async with fast_stack() as stack:
        assert await fetch(stack, "select 1") == 1
        async with httpx.AsyncClient(base_url=stack.url) as client:
            assert (await client.get("/health")).json()["status"] == "ok"


async def test_nothing_is_left_after_the_block(processes_of, eventually):
    async with fast_stack() as stack:
        data_dir = stack.data_dir
        processes = processes_of(data_dir)
        assert processes.named("postgres")
        assert processes.named("postgrest")
    await eventually(lambda: not processes.alive())
    assert not data_dir.parent.exists()


async def test_an_error_inside_the_block_ends_the_stack_too(processes_of, eventually):
    seen = []

    async def fail_inside():
        async with fast_stack() as stack:
            seen.append((stack.data_dir, processes_of(stack.data_dir)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_inside()
    ((data_dir, processes),) = seen
    await eventually(lambda: not processes.alive())
    assert not data_dir.exists()


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path, eventually):
    stack = fast_stack(data_dir=tmp_path / "data")
    start = asyncio.create_task(stack.__aenter__())
    await eventually((tmp_path / "data" / "lock").exists)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    async with fast_stack(data_dir=tmp_path / "data") as again:  # the lock is free
        assert await fetch(again, "select 1") == 1


async def test_a_killed_owner_leaves_nothing(owner, processes_of, eventually):
    with owner() as (program, data_dir):
        processes = processes_of(data_dir)
        program.kill()
        await eventually(lambda: not processes.alive())
        await eventually(lambda: not data_dir.parent.exists())


async def test_a_killed_supervisor_leaves_no_process_and_the_block_clears_its_directory(
    processes_of, eventually
):
    async with fast_stack() as stack:
        data_dir = stack.data_dir
        processes = processes_of(data_dir)
        os.kill(next(iter(processes.known)), signal.SIGKILL)
        await eventually(lambda: not processes.alive())
    assert not data_dir.parent.exists()


async def test_ctrl_c_reaches_the_owner_alone_and_ends_the_stack_in_order(
    owner, processes_of, eventually
):
    with owner() as (program, data_dir):
        processes = processes_of(data_dir)
        os.killpg(program.pid, signal.SIGINT)
        await eventually(lambda: program.poll() is not None)
        await eventually(lambda: not processes.alive())
        assert not data_dir.parent.exists()


async def test_postgres_comes_back_with_its_data_when_all_its_processes_are_killed(
    processes_of, eventually
):
    async with fast_stack() as stack:
        await fetch(stack, "create table public.kept as select 42 as answer")
        await fetch(stack, "grant select on public.kept to service_role")
        processes = processes_of(stack.data_dir)
        processes.kill(processes.named("postgres"))

        async def recovered():
            try:
                if await fetch(stack, "select answer from public.kept") != 42:
                    return False
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return False
            headers = {"apikey": stack.secret_key}
            async with httpx.AsyncClient(base_url=stack.url, headers=headers) as client:
                return (await client.get("/rest/v1/kept")).status_code == 200

        await eventually(recovered)


async def test_postgrest_is_started_again_when_it_is_killed(processes_of, eventually):
    async with fast_stack() as stack:
        (pid,) = processes_of(stack.data_dir).named("postgrest")
        os.kill(pid, signal.SIGKILL)
        headers = {"apikey": stack.secret_key}
        async with httpx.AsyncClient(base_url=stack.url, headers=headers) as client:

            async def recovered():
                return (await client.get("/rest/v1/")).status_code == 200

            await eventually(recovered)
        assert processes_of(stack.data_dir).named("postgrest") != [pid]


async def test_three_stacks_run_side_by_side():
    async with fast_stack() as one, fast_stack() as two, fast_stack() as three:
        stacks = (one, two, three)
        for number, stack in enumerate(stacks):
            await fetch(stack, f"create table public.mine as select {number} as number")
        assert [await fetch(stack, "select number from public.mine") for stack in stacks] == [
            *range(3)
        ]
        assert len({stack.url for stack in stacks}) == 3
        assert len({stack.secret_key for stack in stacks}) == 3


async def test_the_directories_of_dead_stacks_are_swept_at_the_next_start():
    dead = Path(tempfile.mkdtemp(prefix="haive-stack-"))
    (dead / "lock").touch()
    (dead / "data").mkdir()
    async with fast_stack() as one, fast_stack():
        names = {path.name for path in dead.parent.glob("haive-stack-*")}
        assert dead.name not in names
        assert one.data_dir.parent.name in names  # it lives


async def test_a_data_directory_keeps_data_keys_and_ports(tmp_path):
    async with fast_stack(data_dir=tmp_path) as stack:
        await fetch(stack, "create table public.kept as select 42 as answer")
        before = (stack.url, stack.database_url, stack.secret_key, stack.jwt_secret)
    async with fast_stack(data_dir=tmp_path) as stack:
        assert await fetch(stack, "select answer from public.kept") == 42
        assert (stack.url, stack.database_url, stack.secret_key, stack.jwt_secret) == before


async def test_a_data_directory_recovers_from_a_killed_stack(tmp_path, processes_of, eventually):
    async with fast_stack(data_dir=tmp_path) as stack:
        await fetch(stack, "create table public.kept as select 42 as answer")
        processes = processes_of(tmp_path)
        processes.kill()
        await eventually(lambda: not processes.alive())
    assert (tmp_path / "postgres" / "postmaster.pid").exists()
    async with fast_stack(data_dir=tmp_path) as stack:
        assert await fetch(stack, "select answer from public.kept") == 42


async def test_a_second_stack_on_the_same_data_directory_is_refused(tmp_path):
    async with fast_stack(data_dir=tmp_path):
        with pytest.raises(LocalStackError, match="Another local stack runs on"):
            async with fast_stack(data_dir=tmp_path):
                pytest.fail("both run")


async def test_secrets_and_data_are_closed_to_other_users_even_with_an_open_umask(tmp_path):
    previous = os.umask(0)
    try:
        async with fast_stack(data_dir=tmp_path / "data") as stack:
            modes = {
                path.name: path.stat().st_mode & 0o077
                for path in stack.data_dir.iterdir()
                if path.name != "lock"
            }
    finally:
        os.umask(previous)
    assert modes == dict.fromkeys(modes, 0)
    assert {"keys.json", "running.json", "postgres", "logs", "objects"} <= modes.keys()


async def test_a_stack_starts_under_a_closed_umask():
    previous = os.umask(0o077)
    try:
        async with fast_stack() as stack:
            assert await fetch(stack, "select 1") == 1
    finally:
        os.umask(previous)


async def test_the_schema_is_installed_before_the_api_reads_it(monkeypatch):
    async def migrate(dsn, *, schema):
        connection = await asyncpg.connect(dsn)
        await connection.execute(
            f"create schema {schema}; grant usage on schema {schema} to anon;"
            f"create function {schema}.answer() returns int language sql as 'select 42'"
        )
        await connection.close()

    module = types.ModuleType("haive.core.persistence.schema")
    module.migrate = migrate
    monkeypatch.setitem(sys.modules, module.__name__, module)
    async with LocalStack(postgres_settings=FAST) as stack:
        headers = {"apikey": stack.publishable_key, "Content-Profile": "haive"}
        async with httpx.AsyncClient(base_url=stack.url, headers=headers) as client:
            assert (await client.post("/rest/v1/rpc/answer")).json() == 42


async def test_a_wrong_setting_of_postgres_is_told_with_its_own_words():
    with pytest.raises(LocalStackError, match="no_such_setting"):
        async with LocalStack(migrate=False, postgres_settings={"no_such_setting": "1"}):
            pytest.fail("it started")


async def test_a_stack_that_does_not_run_says_how_to_start_it():
    with pytest.raises(LocalStackError, match="async with LocalStack"):
        _ = LocalStack().url


@pytest.mark.timed
async def test_a_warm_start_takes_less_than_the_bar(stack, record_figure):
    times = []
    for _ in range(3):
        began = time.perf_counter()
        async with LocalStack(migrate=False):
            times.append(time.perf_counter() - began)
    record_figure(f"warm start: best {min(times):.2f} s of {len(times)}")
    assert min(times) < WARM_START_SECONDS


def test_importing_the_package_loads_no_server_and_starts_nothing():
    code = (
        "import sys, haive.core.persistence.local;"
        "assert not {'aiohttp', 'jwt', 'ctypes'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-S", "-c", code], check=True, env=environment)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root switches accounts")
async def test_root_may_keep_data_where_the_service_account_cannot_go():
    closed = Path(tempfile.mkdtemp(prefix="closed-"))  # 0700, as are /root and pytest's own
    try:
        async with fast_stack(data_dir=closed / "data") as stack:
            assert await fetch(stack, "select 1") == 1
            async with httpx.AsyncClient(base_url=stack.url) as client:
                answer = await client.get("/storage/v1/bucket")
        assert answer.status_code == 501
        assert "cannot enter the data directory" in answer.json()["message"]
        assert oct(os.lstat(closed).st_mode) == oct(stat.S_IFDIR | 0o700)
    finally:
        shutil.rmtree(closed)
