"""`haive bench threading`: its figures, and a run on made-up dialogues."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from haive.core.persistence.bench.cli import app
from haive.core.persistence.bench.topics import rand_index, right_share
from haive.core.persistence.errors import ConfigurationError, InvalidInputError

_groups = st.lists(st.integers(0, 3), min_size=2, max_size=12)


def test_shares_and_indexes_are_those_of_the_textbook() -> None:
    truth = [0, 0, 0, 1, 1, 1]
    assert right_share(truth, [5, 5, 5, 7, 7, 7]) == 1
    assert right_share(truth, [5, 5, 7, 7, 7, 7]) == pytest.approx(5 / 6)
    assert right_share(truth, [0] * 6) == 0.5
    assert right_share(truth, list(range(6))) == pytest.approx(2 / 6)
    assert rand_index(truth, [5, 5, 5, 7, 7, 7]) == 1
    assert rand_index(truth, [0] * 6) == 0
    assert rand_index(truth, list(range(6))) == 0
    # Of sklearn.metrics.adjusted_rand_score.
    assert rand_index([0, 0, 1, 1], [0, 0, 1, 2]) == pytest.approx(0.5714285714)
    assert rand_index([0, 0, 1, 2], [0, 0, 1, 1]) == pytest.approx(0.5714285714)


@given(_groups, st.permutations(range(4)))
def test_names_of_sessions_do_not_matter(truth: list[int], names: list[int]) -> None:
    renamed = [names[group] for group in truth]
    assert right_share(truth, renamed) == 1
    assert rand_index(truth, renamed) == 1


@pytest.fixture
def without_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ConfigurationError("It is not installed.")

    monkeypatch.setattr("haive.core.persistence.bench.topics.MiniLMEmbedder", missing)


def dialogues(file, services: list[str]) -> str:
    said = {
        "Hotels_1": [
            "a comfortable hotel with breakfast near the lake",
            "The hotel Seehof serves breakfast.",
        ],
        "Trains_1": ["the fastest train connection to Geneva", "The train leaves from platform 4."],
    }
    lines = [
        {
            "id": f"{number}",
            "services": [service],
            "turns": [
                {"speaker": speaker, "text": f"{text} {number}"}
                for _ in range(4)
                for speaker, text in zip(("user", "system"), said[service], strict=True)
            ],
        }
        for number in range(10)
        for service in services
        for _ in range(2)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


@pytest.mark.usefixtures("without_model")
def test_topics_that_have_nothing_in_common_are_told_apart(tmp_path) -> None:
    file = dialogues(tmp_path / "dialogues.jsonl", ["Hotels_1", "Trains_1"])
    arguments = ["threading", "--dialogues", file, "--pairs", "5", "--calibrate", "--json"]
    done = CliRunner().invoke(app, [*arguments, "--check"])
    assert done.exit_code == 0, done.output
    figures = {
        (row["name"], row["metric"]): row["value"] for row in json.loads(done.stdout)["rows"]
    }
    assert figures["hashing-1-1024", "right_share"] > 0.95
    assert figures["hashing-1-1024", "rand_index"] > 0.9
    assert figures["one", "right_share"] == 0.5
    assert figures["one", "sessions"] == 1
    assert figures["each", "sessions"] == 16
    assert "minilm: left out" in done.stderr
    assert "hashing-1-1024, on the other dialogues: " in done.stderr


@pytest.mark.usefixtures("without_model")
def test_dialogues_of_one_service_cannot_be_told_apart(tmp_path) -> None:
    file = dialogues(tmp_path / "dialogues.jsonl", ["Hotels_1"])
    done = CliRunner().invoke(app, ["threading", "--dialogues", file])
    assert isinstance(done.exception, InvalidInputError)
