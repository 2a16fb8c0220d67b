"""A process of its own for what must take little time and memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

_REFUSED = r"""
import resource, time
from haive.core.persistence.checkpointer._frames import DELTA, FULL, decode
from haive.core.persistence.errors import CorruptCheckpointError

def refused(code, bomb, parent, size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    try:
        decode(code, bomb, parent, size=size)
    except CorruptCheckpointError:
        took = time.perf_counter() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert took < 0.05, took
        assert grown < 32 * 1024, grown
    else:
        raise AssertionError("the bomb went off")
"""


@pytest.fixture
def defuse() -> Callable[[str], None]:
    """Run a program that calls `refused(code, bomb, parent, size)` for each of its bombs."""

    def run(program: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", f"{_REFUSED}\n{program}\nprint('defused')"],
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        assert done.stdout.strip() == "defused", done.stderr

    return run
