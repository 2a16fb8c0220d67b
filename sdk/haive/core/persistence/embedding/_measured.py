"""Calibrations that were measured: `haive bench threading` repeats it."""

from __future__ import annotations

from haive.core.persistence.embedding.calibration import Calibration

# Messages of users against sessions of other services, 3,440 pairs of 250 interleaved pairs of
# dialogues.
HASHING = Calibration(
    unrelated=(
        -0.163, -0.033, -0.02, -0.012, -0.006, -0.001, 0.004, 0.008, 0.012, 0.015, 0.02, 0.024,
        0.029, 0.034, 0.041, 0.049, 0.059, 0.072, 0.09, 0.124, 0.521,
    )
)  # fmt: skip
MINILM = Calibration(
    unrelated=(
        -0.103, 0.049, 0.086, 0.112, 0.131, 0.147, 0.162, 0.178, 0.192, 0.209, 0.224, 0.239, 0.253,
        0.27, 0.288, 0.307, 0.329, 0.351, 0.382, 0.428, 0.649,
    )
)  # fmt: skip
