"""What does not start leaves nothing behind, and says why."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from haive.core.persistence.errors import LocalStackError
from haive.core.persistence.local import LocalStack, cluster, platform_api, postgrest, state
from haive.core.persistence.local.accounts import Account
from haive.core.persistence.local.instances import Instance
from haive.core.persistence.local.platform_api import PlatformAPI
from haive.core.persistence.local.postgrest import PostgREST


@pytest.fixture
async def sleeper():
    """A process that never gets ready."""
    process = await asyncio.create_subprocess_exec("sleep", "60")
    yield process
    if process.returncode is None:
        process.kill()
        await process.wait()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    path.write_text("what it said last")
    return path


async def test_auth_and_storage_that_hang_are_ended(tmp_path, sleeper, log, monkeypatch):
    monkeypatch.setattr(platform_api, "_START_TIMEOUT", 0.1)

    async def spawn():
        return sleeper

    api = PlatformAPI(spawn=spawn, socket=tmp_path / "socket", log=log)
    with pytest.raises(LocalStackError, match="what it said last"):
        await api.socket()
    assert sleeper.returncode is not None


async def test_a_postgrest_that_hangs_is_ended(tmp_path, sleeper, monkeypatch):
    async def spawn(*_, **__):
        return sleeper

    monkeypatch.setattr(postgrest, "_START_TIMEOUT", 0.1)
    monkeypatch.setattr(postgrest, "spawn", spawn)
    account = Account.for_services()
    binary = tmp_path / "postgrest"
    binary.touch()
    monkeypatch.setattr(postgrest, "open_postgrest", lambda path: os.open(path, os.O_RDONLY))
    directories = state.StackDirectories.open(tmp_path / "data", account)
    (directories.logs / "postgrest.log").write_text("what it said last")
    try:
        server = PostgREST(
            binary=binary,
            directories=directories,
            account=account,
            jwt_secret="",
            schemas=["public"],
            public_url="",
        )
        with pytest.raises(LocalStackError, match="what it said last"):
            await server.start(5432)
    finally:
        directories.close()
    assert sleeper.returncode is not None


async def test_a_postgres_that_says_nothing_is_ended(tmp_path, sleeper, monkeypatch):
    monkeypatch.setattr(cluster, "_START_TIMEOUT", 0.1)
    assert not await cluster.is_ready(tmp_path, sleeper)
    assert sleeper.returncode is not None


async def test_a_postgres_that_recovers_has_all_the_time_it_takes(tmp_path, sleeper, monkeypatch):
    monkeypatch.setattr(cluster, "_START_TIMEOUT", 0.1)
    pid_file = tmp_path / "postmaster.pid"
    lines = [str(sleeper.pid), *6 * ["…"]]
    pid_file.write_text("\n".join([*lines, "starting", ""]))
    waiting = asyncio.create_task(cluster.is_ready(tmp_path, sleeper))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    pid_file.write_text("\n".join([*lines, "ready   ", ""]))
    assert await waiting


async def test_a_copy_of_the_cluster_that_fails_leaves_nothing(tmp_path, monkeypatch):
    async def fail(_, target):
        (target / "base").mkdir()
        raise LocalStackError("no space left")

    monkeypatch.setattr(cluster, "_copy_tree", fail)
    with pytest.raises(LocalStackError, match="no space left"):
        await cluster.copy_template(
            tmp_path, tmp_path / "postgres", Account.for_services(), durable=False
        )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def template(tmp_path):
    """A cluster with a database that takes its time to copy."""
    template = tmp_path / "template"
    database = template / "base" / "1"
    database.mkdir(parents=True)
    for number in range(20_000):
        (database / str(number)).touch()
    (template / "PG_VERSION").touch()
    return template


@pytest.fixture
def copies(monkeypatch):
    """The processes that copy."""
    started = []

    async def start(*command, **settings):
        started.append(await asyncio.create_subprocess_exec(*command, **settings))
        return started[-1]

    monkeypatch.setattr(cluster, "create_subprocess_exec", start)
    return started


@pytest.fixture
def copying(tmp_path, template):
    """A copy to a directory with nothing else in it."""
    (tmp_path / "data").mkdir()
    account = Account.for_services()
    return cluster.copy_template(template, tmp_path / "data" / "postgres", account, durable=False)


async def test_a_part_that_cannot_be_copied_ends_the_copies_of_the_others(
    tmp_path, template, copying, copies, monkeypatch
):
    missing = template / "missing"
    monkeypatch.setattr(cluster, "_split", lambda _: ([missing], [template / "base" / "1"]))
    with pytest.raises(LocalStackError, match=r"cp.*missing"):
        await copying
    assert all(copy.returncode is not None for copy in copies)
    assert list((tmp_path / "data").iterdir()) == []


async def test_a_copy_that_is_cancelled_ends_its_processes(tmp_path, copying, copies, eventually):
    task = asyncio.create_task(copying)
    await eventually(lambda: copies)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert all(copy.returncode is not None for copy in copies)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_copy_that_was_killed_is_removed_by_a_reset_and_by_the_next_start(tmp_path):
    staging = tmp_path / f"{state.STAGING}x"
    (staging / "base").mkdir(parents=True)
    Instance("x", tmp_path).wipe()
    assert not staging.exists()
    (staging / "base").mkdir(parents=True)
    state.StackDirectories.open(tmp_path, Account.for_services()).close()
    assert not staging.exists()


@pytest.mark.parametrize("name", [".postgres-data", ".postgres-backup"])
def test_what_others_keep_beside_the_cluster_stays(tmp_path, name):
    kept = tmp_path / name / "PG_VERSION"
    kept.parent.mkdir()
    kept.write_text("17")
    state.StackDirectories.open(tmp_path, Account.for_services()).close()
    Instance("x", tmp_path).wipe()
    assert kept.read_text() == "17"


def test_a_copy_that_cannot_be_removed_stops_no_start(tmp_path, monkeypatch):
    (tmp_path / f"{state.STAGING}x" / "base").mkdir(parents=True)

    def fail(*_, **__):
        raise OSError("somebody writes to it")

    monkeypatch.setattr(os, "rmdir", fail)
    state.remove_stagings(tmp_path)


def test_what_a_crash_of_the_machine_has_emptied_is_not_there(tmp_path):
    (tmp_path / "running.json").write_text("")
    assert Instance("x", tmp_path).about() is None
    assert state.read_json(tmp_path / "running.json") is None


@pytest.fixture
def temporary():
    """Make a directory that every account may enter: `temporary("name ")`."""
    with ExitStack() as made:

        def make(prefix):
            place = tempfile.TemporaryDirectory(prefix=prefix, dir="/tmp")
            path = Path(made.enter_context(place))
            path.chmod(0o755)
            return path

        yield make


def test_a_temporary_directory_with_a_comma_is_passed_over(temporary, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary("a,b")))
    directories = state.StackDirectories.open(None, Account.for_services())
    directories.close()
    assert "," not in str(directories.run)


async def test_storage_is_off_in_a_data_directory_with_a_comma(temporary):
    settings = {"migrate": False, "postgres_settings": {"fsync": "off"}}
    async with (
        LocalStack(data_dir=temporary("a,b"), **settings) as stack,
        httpx.AsyncClient(base_url=stack.url) as client,
    ):
        answer = await client.get("/storage/v1/bucket")
    assert answer.status_code == 501
    assert "comma" in answer.json()["message"]


async def test_a_temporary_directory_may_have_signs_in_its_name(temporary, monkeypatch):
    place = temporary("p%41&x ")
    monkeypatch.setenv("TMPDIR", str(place))
    async with LocalStack(migrate=False, postgres_settings={"fsync": "off"}) as stack:
        assert stack.data_dir.is_relative_to(place)
        headers = {"apikey": stack.secret_key}
        async with httpx.AsyncClient(base_url=stack.url, headers=headers) as client:
            assert (await client.get("/rest/v1/")).status_code == 200
