"""Calibrations that were measured: `haive bench threading --calibrate` repeats it."""

from __future__ import annotations

from haive.core.persistence.embedding.calibration import Calibration

# Messages of users against sessions of other domains, in 250 pairs of task dialogues.
HASHING = Calibration(
    unrelated=(
        -0.195, -0.030, -0.016, -0.009, -0.002, 0.002, 0.006, 0.011, 0.015, 0.019, 0.023, 0.027,
        0.033, 0.040, 0.047, 0.055, 0.066, 0.081, 0.112, 0.164, 0.521,
    )
)  # fmt: skip
MINILM = Calibration(
    unrelated=(
        -0.110, 0.056, 0.089, 0.118, 0.139, 0.156, 0.174, 0.194, 0.211, 0.227, 0.244, 0.261, 0.277,
        0.297, 0.316, 0.337, 0.356, 0.380, 0.411, 0.456, 0.701,
    )
)  # fmt: skip
