"""A function of the caller's, or a model of sentence-transformers, makes the vectors."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from haive.core.persistence import errors
from haive.core.persistence.embedding import (
    Embedder,
    FunctionEmbedder,
    QueryEmbedder,
    SentenceTransformerEmbedder,
)
from haive.core.persistence.embedding import sentence_transformers as module


def letters(texts: list[str]) -> list[list[float]]:
    """How often a, b and c are in a text, and how long it is; not of length 1."""
    return [[float(text.count(letter)) for letter in "abc"] + [len(text) + 1.0] for text in texts]


async def later(texts: list[str]) -> Any:
    await asyncio.sleep(0)
    return np.array(letters(texts))


def promising(texts: list[str]) -> Any:
    return later(texts)


@pytest.mark.parametrize("function", [letters, later, promising])
async def test_any_function_from_texts_to_rows_will_do(function) -> None:
    embedder = FunctionEmbedder(function, name="letters-1", dimensions=4, batch_size=2)
    assert isinstance(embedder, Embedder)
    found = await embedder.embed(["aab", "c", "", "abc", "b"])
    assert found.shape == (5, 4)
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert np.allclose(found[0], np.array([2, 1, 0, 4]) / np.sqrt(21))
    assert (await embedder.embed([])).shape == (0, 4)
    assert len((await embedder.calibration()).unrelated) > 2


async def test_texts_come_in_calls_of_the_batch_size() -> None:
    calls: list[int] = []

    def counted(texts: list[str]) -> list[list[float]]:
        calls.append(len(texts))
        return letters(texts)

    embedder = FunctionEmbedder(counted, name="letters-1", dimensions=4, batch_size=2)
    await embedder.embed(["a"] * 5)
    assert calls == [2, 2, 1]


async def test_a_question_may_be_read_otherwise() -> None:
    embedder = FunctionEmbedder(
        letters, name="letters-1", dimensions=4, query_function=lambda _: [[0, 0, 0, 9]]
    )
    assert isinstance(embedder, QueryEmbedder)
    assert (await embedder.embed_query("a")).tolist() == [0, 0, 0, 1]
    assert (await embedder.embed(["a"]))[0].tolist() != [0, 0, 0, 1]


def failing(_: list[str]) -> Any:
    raise OSError("/etc/secret")


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (failing, errors.ModelError),
        (lambda texts: letters(texts)[1:], errors.ModelAnswerError),
        (lambda texts: [row[:2] for row in letters(texts)], errors.ModelAnswerError),
        (lambda texts: [[float("nan")] * 4 for _ in texts], errors.ModelAnswerError),
        (lambda texts: [[0.0] * 4 for _ in texts], errors.ModelAnswerError),
        (lambda texts: ["words"], errors.ModelAnswerError),
        (lambda texts: None, errors.ModelAnswerError),
    ],
)
async def test_what_a_function_does_wrong_is_one_error(function, error) -> None:
    embedder = FunctionEmbedder(function, name="letters-1", dimensions=4)
    with pytest.raises(error, match="letters-1") as caught:
        await embedder.embed(["a", "b"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "x" * 201}, {"dimensions": 0}, {"batch_size": 0}]
)
def test_arguments_are_checked(wrong) -> None:
    with pytest.raises(errors.ConfigurationError):
        FunctionEmbedder(letters, **{"name": "letters-1", "dimensions": 4, **wrong})
    with pytest.raises(errors.ConfigurationError, match="not a function"):
        FunctionEmbedder("letters", name="letters-1", dimensions=4)


class Model:
    """As a ``SentenceTransformer`` before version 5 has it."""

    def encode(self, sentences: list[str], **options: Any) -> Any:
        assert options == {"batch_size": 32, "show_progress_bar": False}
        return np.array(letters(sentences), np.float32)


class WithPrompts(Model):
    """As one has it since."""

    def encode_query(self, sentences: list[str], **options: Any) -> Any:
        return self.encode([f"aaa {text}" for text in sentences], **options)

    def encode_document(self, sentences: list[str], **options: Any) -> Any:
        return self.encode([f"bbb {text}" for text in sentences], **options)


async def test_texts_and_questions_have_their_own_prompts_where_the_model_has_them() -> None:
    plain = SentenceTransformerEmbedder(Model(), name="letters")
    assert plain.name == "letters-4"
    assert np.array_equal((await plain.embed(["ab"]))[0], await plain.embed_query("ab"))
    assert (await plain.embed([])).shape == (0, 4)
    both = SentenceTransformerEmbedder(WithPrompts(), name="letters")
    vectors = await both.embed(["c"]), await both.embed_query("c")
    assert vectors[0][0].argmax() == vectors[1].argmax() == 3
    assert vectors[0][0][1] == vectors[1][0] > 0 == vectors[1][1]


async def test_a_model_that_is_loaded_has_to_be_named(monkeypatch) -> None:
    with pytest.raises(errors.ConfigurationError, match="needs a name"):
        SentenceTransformerEmbedder(Model())
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(errors.ConfigurationError, match="sentence_transformers is not") as caught:
        SentenceTransformerEmbedder("all-mpnet-base-v2")
    assert caught.value.hint == "pip install sentence-transformers."
