from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from haive.core.persistence.cli.app import app

_DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


def _commands(group, path):
    for name in group.list_commands(typer.Context(group)):
        command = group.get_command(typer.Context(group), name)
        if hasattr(command, "list_commands"):
            yield from _commands(command, [*path, name])
        else:
            yield " ".join([*path, name]), command


_ALL = dict(_commands(get_command(app), ["haive"]))
_OWN = {name for name in _ALL if not name.startswith(("haive local", "haive bench"))}


def test_the_commands_are_these():
    assert {
        "haive import",
        "haive migrate",
        "haive conversations list",
        "haive conversations show",
        "haive conversations export",
        "haive checkpoints threads",
        "haive checkpoints list",
        "haive checkpoints tree",
        "haive checkpoints show",
        "haive checkpoints diff",
        "haive checkpoints restore",
        "haive checkpoints branch",
        "haive checkpoints tag",
        "haive checkpoints untag",
        "haive checkpoints fail",
        "haive checkpoints copy",
        "haive checkpoints delete",
        "haive checkpoints prune",
        "haive checkpoints rotate",
        "haive checkpoints key",
        "haive sessions list",
        "haive sessions show",
        "haive sessions tree",
        "haive sessions create",
        "haive sessions branch",
        "haive sessions merge",
        "haive sessions undo",
        "haive sessions merges",
        "haive sessions close",
        "haive sessions resume",
        "haive sessions delete",
        "haive sessions participants",
        "haive sessions hide",
        "haive sessions show-message",
        "haive sessions expire",
        "haive memory search",
        "haive memory list",
        "haive memory add",
        "haive memory forget",
        "haive memory consolidate",
        "haive memory reindex",
        "haive memory stats",
        "haive memory map",
        "haive audit tail",
        "haive audit export",
        "haive audit verify",
        "haive audit head",
        "haive audit key",
        "haive tenants create",
        "haive tenants list",
        "haive tenants show",
        "haive tenants usage",
        "haive tenants update",
        "haive tenants suspend",
        "haive tenants resume",
        "haive tenants delete",
        "haive tenants purge",
        "haive tenants members",
        "haive tenants invite",
        "haive tenants invitations",
        "haive tenants export-user",
        "haive tenants erase-user",
        "haive tenants retention",
        "haive tenants reconcile",
        "haive tenants scrub",
        "haive watch",
    } == _OWN
    assert "haive local start" in _ALL


@pytest.mark.parametrize("name", sorted(_ALL))
def test_every_command_has_help_and_stands_in_the_docs(name):
    assert _ALL[name].help
    documented = "haive bench" if name.startswith("haive bench") else name
    assert documented in _DOCS.read_text()


@pytest.mark.parametrize("name", sorted(_OWN))
def test_every_command_stands_in_the_table_of_commands(name):
    assert f"`{name}`" in _DOCS.read_text().partition("\n## ")[0]


@pytest.mark.parametrize("name", sorted(_OWN))
def test_every_option_has_help(name):
    for parameter in _ALL[name].params:
        assert getattr(parameter, "help", None), parameter.name


def test_a_misspelt_command_is_exit_code_2(bare_haive):
    done = bare_haive("exprot")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_version_is_shown(bare_haive):
    assert bare_haive("--version").stdout.startswith("haive")


def test_the_root_imports_nothing_heavy():
    heavy = {
        "asyncpg",
        "pydantic",
        "supabase",
        "httpx",
        "ijson",
        "cryptography",
        "ormsgpack",
        "numpy",
    }
    program = "import sys; from haive.core.persistence.cli import app; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not heavy & {*done.stdout.split()}
