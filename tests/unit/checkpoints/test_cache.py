"""The states at hand: bounded in bytes, the oldest go first, and heads are only hints."""

from __future__ import annotations

import gc
import tracemalloc
from collections import OrderedDict
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.checkpointer import _cache
from haive.core.persistence.checkpointer._cache import ENTRY_BYTES, StateCache
from haive.core.persistence.checkpointer._chains import Chain, Known


def known(size: int, checkpoint_id: UUID | None = None) -> Known:
    return Known(checkpoint_id or uuid4(), bytes(size), Chain(), "main")


def room(*sizes: int) -> int:
    """What states of these sizes take."""
    return sum(size + ENTRY_BYTES for size in sizes)


def test_a_state_is_found_by_thread_namespace_and_id() -> None:
    cache = StateCache(room(10, 10, 10, 10))
    one = known(10)
    cache.put("t", "", one)
    assert cache.get("t", "", one.id) is one
    for thread, namespace, checkpoint_id in (("u", "", one.id), ("t", "s", one.id)):
        assert cache.get(thread, namespace, checkpoint_id) is None
    assert cache.get("t", "", uuid4()) is None


def test_the_one_that_was_used_longest_ago_goes_first() -> None:
    cache = StateCache(room(10, 10, 10))
    one, two, three, four = (known(10) for _ in range(4))
    for state in (one, two, three):
        cache.put("t", "", state)
    cache.get("t", "", one.id)
    cache.put("t", "", four)
    assert [cache.get("t", "", state.id) for state in (one, two, three, four)] == [
        one, None, three, four,
    ]  # fmt: skip


def test_what_is_larger_than_all_of_it_is_not_kept_and_costs_nothing() -> None:
    cache = StateCache(room(10, 10, 10))
    small, large = known(10), known(room(10, 10, 10) - ENTRY_BYTES + 1)
    cache.put("t", "", small)
    cache.put("t", "", large)
    assert cache.get("t", "", large.id) is None
    assert cache.get("t", "", small.id) is small
    assert cache.size == room(10)
    nothing = StateCache(0)
    nothing.put("t", "", small)
    assert (nothing.get("t", "", small.id), nothing.size) == (None, 0)


def test_one_that_grew_beyond_the_limit_is_not_kept_as_it_was() -> None:
    cache = StateCache(room(10, 10, 10))
    small = known(10)
    cache.put("t", "", small)
    cache.put("t", "", known(room(10, 10, 10) - ENTRY_BYTES + 1, small.id))
    assert (cache.get("t", "", small.id), cache.size) == (None, 0)


puts = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "forget"]),
        st.integers(0, 3),
        st.integers(0, 6),
        st.integers(0, 60),
    ),
    max_size=60,
)


@given(puts, st.integers(0, 5 * ENTRY_BYTES))
def test_its_size_is_that_of_its_states_and_within_the_limit(steps, limit) -> None:
    cache = StateCache(limit)
    for step, thread, number, size in steps:
        name = f"t{thread}"
        if step == "put":
            cache.put(name, "", known(size, UUID(int=number)))
        elif step == "get":
            cache.get(name, "", UUID(int=number))
        else:
            cache.forget_thread(name)
            assert not [key for key in cache._states if key[0] == name]
        sizes = [len(state.plain) for state in cache._states.values()]
        assert cache.size == room(*sizes) <= limit
        assert set().union(*cache._of_thread.values()) == set(cache._states)


def test_the_head_of_a_branch_is_the_state_that_was_put() -> None:
    cache = StateCache(room(10, 10, 10))
    one = known(10)
    cache.put("t", "", one)
    assert cache.head("t", "", "main") is None
    cache.move_head("t", "", "main", one.id)
    assert cache.head("t", "", "main") is one
    assert cache.head("t", "", "b") is None
    assert cache.head("t", "s", "main") is None
    cache.move_head("t", "", "main", None)
    assert cache.head("t", "", "main") is None
    cache.move_head("t", "", "main", None)


def test_a_head_whose_state_is_gone_is_none() -> None:
    cache = StateCache(room(15))
    one, two = known(10), known(10)
    cache.put("t", "", one)
    cache.move_head("t", "", "main", one.id)
    cache.put("u", "", two)
    assert cache.head("t", "", "main") is None


def test_a_forgotten_thread_has_neither_states_nor_heads() -> None:
    cache = StateCache(room(10, 10, 10, 10))
    for thread in ("t", "u"):
        for namespace in ("", "s"):
            state = known(10)
            cache.put(thread, namespace, state)
            cache.move_head(thread, namespace, "main", state.id)
    cache.forget_thread("t")
    assert cache.size == room(10, 10)
    assert cache.head("t", "", "main") is cache.head("t", "s", "main") is None
    assert cache.head("u", "s", "main") is not None


def test_heads_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cache, "_HEADS", 3)
    cache = StateCache(room(*[1] * 10))
    for number in range(10):
        state = known(1)
        cache.put(f"t{number}", "", state)
        cache.move_head(f"t{number}", "", "main", state.id)
    assert len(cache._heads) == 3
    assert cache.head("t9", "", "main") is not None


@pytest.mark.parametrize("threads", [1, 10_000])
def test_small_states_take_no_more_memory_than_the_limit(threads: int) -> None:
    limit = 4 * 1024 * 1024
    cache = StateCache(limit)
    gc.collect()
    tracemalloc.start()
    try:
        begun, _ = tracemalloc.get_traced_memory()
        for number in range(10_000):
            chain = Chain(anchor=uuid4(), deltas=3, anchor_bytes=1000 + number, delta_bytes=500)
            cache.put(f"t{number % threads}", "", Known(uuid4(), bytes(80), chain, "main"))
        ended, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ended - begun < 1.2 * limit


def test_to_forget_a_thread_looks_at_no_other() -> None:
    class NotLookedThrough(OrderedDict):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            raise AssertionError("all keys are looked through")

    cache = StateCache(room(10, 10, 10))
    for thread in ("t", "u"):
        state = known(10)
        cache.put(thread, "", state)
        cache.move_head(thread, "", "main", state.id)
    cache._states = NotLookedThrough(cache._states.items())
    cache._heads = NotLookedThrough(cache._heads.items())
    cache.forget_thread("t")
    assert cache.head("t", "", "main") is None
    assert cache.head("u", "", "main") is not None
    assert cache.size == room(10)
