"""The examples run, each as its own process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
OWN = [
    {"role": "user", "content": "Is [this] markup?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "no"},
    {"role": "assistant", "content": "No."},
]


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example: Path) -> None:
    assert run(example)


def test_the_demo_shows_who_sees_what() -> None:
    shown = run(EXAMPLES[0])
    assert "Both stores read the same rows: True" in shown
    assert "someone-else │ 0" in shown


def test_the_demo_takes_the_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"messages": OWN}))
    shown = run(EXAMPLES[0], file)
    assert "1 conversations and 4 messages imported" in shown
    assert "Is [this] markup?" in shown
    assert "someone-else │ 0" in shown
