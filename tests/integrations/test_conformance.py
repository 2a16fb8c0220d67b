"""LangGraph's own suite for checkpointers, each of its tests counted.

Its report calls a saver "FULL" that leaves out what it has not: so the number of tests is compared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module

import pytest
from langgraph.checkpoint.conformance.capabilities import Capability, DetectedCapabilities

from haive.core.persistence.integrations.langgraph import HaiveSaver


def _tests_of(capability: Capability) -> list[Callable[..., Awaitable[None]]]:
    module = import_module(f"langgraph.checkpoint.conformance.spec.test_{capability.value}")
    return list(getattr(module, f"ALL_{capability.name}_TESTS"))


TESTS = [
    pytest.param(test, id=f"{capability.value}-{test.__name__[5:]}")
    for capability in Capability
    for test in _tests_of(capability)
]


def test_there_are_eighty_one_tests_and_no_capability_is_missing() -> None:
    assert len(TESTS) == 81
    assert DetectedCapabilities.from_instance(HaiveSaver.__new__(HaiveSaver)).missing == set()


@pytest.mark.parametrize("test", TESTS)
async def test_the_saver_conforms(saver: HaiveSaver, test) -> None:
    await test(saver)
