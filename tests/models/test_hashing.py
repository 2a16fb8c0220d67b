"""Vectors without a model."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haive.core.persistence.embedding import Embedder, HashingEmbedder
from haive.core.persistence.embedding._words import signs_of, words_of
from haive.core.persistence.errors import InvalidInputError

_TEXTS = ["Book a table for two.", "你好。世界", "", "👍", "naïve Café", "a a a b"]


def embed(texts: list[str], dimensions: int = 1024) -> np.ndarray:
    return asyncio.run(HashingEmbedder(dimensions).embed(texts))


def test_it_is_an_embedder() -> None:
    embedder = HashingEmbedder(256)
    assert isinstance(embedder, Embedder)
    assert (embedder.name, embedder.dimensions) == ("hashing-1-256", 256)
    assert HashingEmbedder().name == "hashing-1-1024"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=8), st.sampled_from([32, 100, 1024]))
def test_every_text_has_a_vector_of_length_1_whatever_else_is_in_the_call(
    texts: list[str], dimensions: int
) -> None:
    together = embed(texts, dimensions)
    assert together.shape == (len(texts), dimensions)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_array_equal(embed([text], dimensions)[0], row)


def test_many_texts_are_as_few_are() -> None:
    texts = [f"text {number} of many, {number % 7}" for number in range(2500)]
    np.testing.assert_array_equal(embed(texts)[2000:2003], embed(texts[2000:2003]))


def test_vectors_are_the_same_in_every_process() -> None:
    code = (
        "import asyncio, sys, hashlib;"
        "from haive.core.persistence.embedding import HashingEmbedder;"
        f"v = asyncio.run(HashingEmbedder().embed({_TEXTS!r}));"
        "print(hashlib.sha256(v.round(4).tobytes()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_vectors_are_those_of_the_version_in_the_name() -> None:
    # Where these change, vectors that are stored are worth nothing: the name has to change too.
    found = embed(["Book a table", "Größe", ""], 32)
    places = [np.flatnonzero(np.abs(row) > 0.25).tolist() for row in found]
    assert places == [[16, 19], [18, 20, 29], [0]]
    np.testing.assert_allclose(found[0, :6], [0.0, 0.0, -0.0138, 0.0, -0.1999, -0.1846], atol=1e-4)


def test_what_shares_words_or_parts_of_them_is_alike() -> None:
    for text, near, far in [
        ("Book a table in Basel", "I'd like a table in Basel, please", "Will it rain tomorrow?"),
        ("the connection failed", "connections are failing", "the weather is lovely"),
        ("Wie wird das Wetter morgen?", "Wetter für morgen bitte", "Buche einen Tisch"),
        ("明天天气怎么样", "后天天气如何", "预订两人桌"),
        ("ΚΑΛΗΜΕΡΑ κόσμε", "καλημερα", "Αθήνα"),
    ]:
        one, other, third = embed([text, near, far])
        assert one @ other > one @ third + 0.1, text


def test_a_word_that_comes_again_counts_less_each_time() -> None:
    one, other, third = embed(["table chair", "table table chair", "table " * 8 + "chair"])
    assert 0.99 > one @ other > one @ third > 0.85  # in proportion it would be 0.8


def test_common_words_and_case_say_little() -> None:
    one, other, third = embed(["the invoice of May", "THE INVOICE, MAY", "the and of with"])
    assert one @ other > 0.9
    assert one @ third < 0.2


def test_dimensions_out_of_range_are_refused() -> None:
    for dimensions in (0, 31, 4097):
        with pytest.raises(InvalidInputError):
            HashingEmbedder(dimensions)


def test_vectors_of_a_name_stay_what_they_are_in_scripts_with_marks() -> None:
    assert words_of("मेरा लड़का") == ["म", "र", "लड", "क"]
    assert words_of("मेरा लड़का", marks=True) == ["मेरा", "लड़का"]


@pytest.mark.parametrize("letter", ["a", "漢", "ก", "é"])
def test_signs_of_a_long_run_of_letters_are_found_at_once(letter: str) -> None:
    begin = perf_counter()
    assert signs_of(letter * 100_000) == []
    assert signs_of(letter * 100_000 + "++")[0].endswith("++")
    assert perf_counter() - begin < 2


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("C++ and C#, but not #C", ["c++", "c#"]),
        ("An A- is less than an A+.", ["a-", "a+"]),
        ("a well-known e-mail - or - rather--not", []),
        ("-5 or 2020-11-30, (-3)", ["-", "-"]),
        ("$5, 7 \u20ac and 3 \u00b0C", ["$", "\u20ac", "\u00b0"]),
        ("x <3 and 5 > 4, but > quoted and <b>", ["<", ">"]),
        ("\u25cf one \u2192 two \u2705", []),
    ],
)
def test_signs_are_what_says_something(text: str, signs: list[str]) -> None:
    assert signs_of(text) == signs
