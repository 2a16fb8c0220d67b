"""Cosines on one scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haive.core.persistence.embedding import Calibration, HashingEmbedder, calibrate
from haive.core.persistence.embedding._measured import HASHING, MINILM
from haive.core.persistence.errors import InvalidInputError

cosines = st.floats(-1, 1)
calibrations = st.lists(cosines, min_size=2, max_size=30).map(sorted).map(tuple).map(
    lambda points: Calibration(unrelated=points)
)  # fmt: skip


@given(calibrations, cosines, cosines)
def test_similarity_is_a_share_that_never_falls_and_is_1_for_the_same_alone(
    calibration: Calibration, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert 0 <= calibration.similarity(low) <= calibration.similarity(high) <= 1
    assert calibration.similarity(1.0) == 1.0
    if low < 0.999:
        assert calibration.similarity(low) < 1


@given(calibrations, cosines, cosines)
def test_sameness_never_falls_either(calibration: Calibration, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= calibration.sameness(low) <= calibration.sameness(high) <= 1
    assert calibration.sameness(1.0) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(-0.3, 0.6))
def test_at_a_similarity_that_share_of_what_does_not_belong_together_is_less_alike(
    seed: int, middle: float
) -> None:
    unrelated = np.random.default_rng(seed).normal(middle, 0.08, 2000).clip(-0.99, 0.99)
    calibration = Calibration.of(unrelated)
    for share in (0.2, 0.5, 0.8, 0.9):
        cosine = float(np.quantile(unrelated, share))
        assert calibration.similarity(cosine) == pytest.approx(share, abs=0.04)


def test_a_cosine_means_more_for_one_embedder_than_for_another() -> None:
    assert HASHING.similarity(0.2) > 0.9
    assert 0.3 < MINILM.similarity(0.2) < 0.7


async def test_sentences_that_come_along_measure_nearly_what_dialogues_do() -> None:
    measured = await calibrate(HashingEmbedder())
    for share in (5, 10, 15, 16):
        assert measured.unrelated[share] == pytest.approx(HASHING.unrelated[share], abs=0.03)


@pytest.mark.parametrize("points", [(), (0.1,), (0.5, 0.1)])
def test_points_that_are_none_are_refused(points: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInputError):
        Calibration(unrelated=points)
    with pytest.raises(InvalidInputError):
        Calibration.of(points[:1])
