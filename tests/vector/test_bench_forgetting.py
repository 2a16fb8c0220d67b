"""`haive bench forgetting` and `consolidation`, small, and with what must make them fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from haive.core.persistence.bench.cli import app
from haive.core.persistence.bench.corpus import Writer
from haive.core.persistence.vector._cascading import Cascade


def run(*arguments: str) -> tuple[int, dict[tuple[str, str], float]]:
    done = CliRunner().invoke(app, [*arguments, "--json", "--check"])
    assert done.stdout, done.output
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return done.exit_code, {(row["name"], row["metric"]): row["value"] for row in rows}


def test_what_is_forgotten_is_counted_exactly_and_found_nowhere() -> None:
    code, figures = run("forgetting", "--memories", "100")
    assert code == 0
    # Five conversations with a summary and keywords, and what is above them.
    assert figures["the user: forgotten", "count"] >= 80 + 10


def test_what_is_left_behind_is_found(monkeypatch) -> None:
    async def kept(*_: object) -> set[str]:
        return set()

    for step in ("run", "settle"):
        monkeypatch.setattr(Cascade, step, kept)
    code, figures = run("forgetting", "--memories", "100")
    assert code == 1
    assert figures["some: found", "count"] > 0


@pytest.fixture
def dialogues(tmp_path: Path) -> str:
    file = tmp_path / "dialogues.jsonl"
    lines = [json.dumps({"messages": talk}) for talk in Writer(5).dialogues(12)]
    file.write_text("\n".join(lines))
    return str(file)


def test_a_consolidation_that_is_stopped_ends_as_one_that_was_not(dialogues: str) -> None:
    code, figures = run(
        "consolidation", "--input", dialogues, "--stops", "2", "--threshold", "0.35"
    )
    assert code == 0
    assert figures["stopped", "count"] == 2
    assert figures["different", "count"] == 0
