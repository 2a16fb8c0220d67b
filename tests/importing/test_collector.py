"""An import keeps the collector of cycles from what it holds, and gives it back as it was."""

from __future__ import annotations

import gc
import io

import pytest

from haive.core.persistence.importing import import_file
from haive.core.persistence.importing.collector import collecting_seldom


@pytest.fixture(autouse=True)
def before():
    kept = gc.get_threshold()
    gc.set_threshold(700, 10, 9)
    yield (700, 10, 9)
    gc.set_threshold(*kept)


async def test_an_import_collects_seldom_and_gives_the_measure_back(before):
    seen = []
    line = b'{"agent_id": "a", "messages": [{"role": "user", "content": "Hello"}]}\n'
    await import_file(
        io.BytesIO(line), None, dry_run=True, on_progress=lambda _: seen.append(gc.get_threshold())
    )
    assert seen
    assert all(first > 10 * before[0] for first, *_ in seen)
    assert gc.get_threshold() == before


def test_an_error_gives_it_back_too(before):
    with pytest.raises(RuntimeError), collecting_seldom():
        raise RuntimeError
    assert gc.get_threshold() == before


def test_of_two_at_once_the_last_one_gives_it_back(before):
    first, second = collecting_seldom(), collecting_seldom()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold() != before
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before


@pytest.mark.parametrize("measure", [(0, 10, 10), (5_000_000, 10, 10)])
def test_a_program_that_collects_more_seldom_is_left_alone(measure):
    gc.set_threshold(*measure)
    with collecting_seldom():
        assert gc.get_threshold() == measure
    assert gc.get_threshold() == measure
