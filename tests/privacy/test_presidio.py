"""Presidio as the detector: the real library, where it is installed, without any network."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest

from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.privacy import PIIPolicy, PresidioDetector, Redactor

installed = importlib.util.find_spec("presidio_analyzer") is not None
needs_presidio = pytest.mark.skipif(not installed, reason="the extra pii is not installed")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def detector() -> PresidioDetector:
    return PresidioDetector()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of spaCy's own making: it knows one name."""
    import spacy  # noqa: PLC0415 - of the extra

    folder = tmp_path_factory.mktemp("model")
    language = spacy.blank("en")
    ruler = language.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}])
    language.to_disk(folder)
    return folder


@pytest.mark.skipif(installed, reason="the extra pii is installed")
def test_without_the_library_the_error_names_the_command() -> None:
    with pytest.raises(ConfigurationError, match=r'pip install "haive-persistence\[pii\]"'):
        PresidioDetector()
    with pytest.raises(ConfigurationError, match="Presidio is not installed"):
        Redactor(PIIPolicy(detector="presidio"))


@needs_presidio
@pytest.mark.usefixtures("no_network")
def test_it_finds_what_presidio_finds_and_what_the_patterns_find(detector) -> None:
    text = (
        "ada@example.org, bitcoin 16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ, card 4012888888881881, "
        "driver license H12234567, nothing in 12 euros or version 2.3.4 of 2024-01-01"
    )
    found = {(finding.entity, text[finding.start : finding.end]) for finding in detector.find(text)}
    assert found == {
        ("EMAIL", "ada@example.org"),
        ("CRYPTO", "16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ"),
        ("CREDIT_CARD", "4012888888881881"),
        ("US_DRIVER_LICENSE", "H12234567"),
    }


@needs_presidio
@pytest.mark.usefixtures("no_network")
def test_without_a_model_no_names_are_promised(detector) -> None:
    assert not detector.entities & {"PERSON", "LOCATION"}
    with pytest.raises(ConfigurationError, match="PERSON"):
        PresidioDetector(entities=frozenset({"PERSON"}))
    with pytest.raises(ConfigurationError, match="PERSON"):
        Redactor(PIIPolicy(detector="presidio", entities={"PERSON"}))


@needs_presidio
@pytest.mark.usefixtures("no_network")
def test_with_a_model_names_are_masked(model) -> None:
    policy = PIIPolicy(detector=PresidioDetector(str(model)))
    done = Redactor(policy).apply("I, Ada Lovelace, ada@example.org, sign: Ada Lovelace.")
    assert done.value == "I, [PERSON_1], [EMAIL_1], sign: [PERSON_1]."


@needs_presidio
@pytest.mark.usefixtures("no_network")
def test_a_text_longer_than_spacy_takes_at_once_is_read_to_its_end(model) -> None:
    detector = PresidioDetector(str(model), entities=frozenset({"PERSON"}))
    text = "A word and one more. " * 55_000 + "Ada Lovelace"
    assert len(text) > 1_000_000
    (finding,) = detector.find(text)
    assert text[finding.start : finding.end] == "Ada Lovelace"


@needs_presidio
@pytest.mark.usefixtures("no_network")
def test_nothing_is_downloaded() -> None:
    with pytest.raises(ConfigurationError, match="spacy download xx_no_such_model"):
        PresidioDetector("xx_no_such_model")
    with pytest.raises(ConfigurationError, match="qq"):
        PresidioDetector(language="qq")
