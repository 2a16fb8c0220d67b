"""What each state is stored against: parents, then anchors, then nothing."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from haive.core.persistence.checkpointer import _frames
from haive.core.persistence.checkpointer._chains import (
    MAX_ANCHORS,
    MAX_DELTAS,
    MAX_DEPTH,
    Chain,
    Known,
    Packed,
    anchor_of,
    delta_of,
)
from haive.core.persistence.checkpointer._frames import BASED, DELTA, FULL, PLAIN

ONE, TWO, THREE = (UUID(int=n) for n in range(1, 4))


def test_a_chain_begins_with_a_whole_state() -> None:
    for code in (PLAIN, FULL):
        assert Chain().after(code, 100, ONE) == Chain(anchor=ONE, anchor_bytes=100)


def test_a_chain_counts_what_has_to_be_read() -> None:
    chain = Chain().after(FULL, 100, ONE).after(DELTA, 60, TWO)
    assert chain == Chain(anchor=ONE, deltas=1, anchor_bytes=100, delta_bytes=60)
    assert chain.depth == 1
    based = chain.after(BASED, 70, THREE)
    assert based == Chain(anchor=THREE, anchors=1, anchor_bytes=170)
    assert based.depth == 1
    assert based.after(DELTA, 5, TWO).depth == 2
    assert based.after(FULL, 50, ONE) == Chain(anchor=ONE, anchor_bytes=50)


def test_an_anchor_comes_when_the_deltas_are_more_than_all_before_them() -> None:
    chain = Chain().after(FULL, 100_000, ONE).after(DELTA, 60_000, TWO)
    assert not chain.wants_anchor(40_000)
    assert chain.wants_anchor(40_001)


def test_few_bytes_are_no_reason_for_an_anchor() -> None:
    chain = Chain().after(FULL, 100, ONE)
    for _ in range(MAX_DELTAS):
        assert not chain.wants_anchor(350)
        chain = chain.after(DELTA, 350, TWO)
    assert chain.wants_anchor(1)


def test_a_chain_is_never_deeper_than_its_bound() -> None:
    chain = Chain().after(FULL, 1_000_000, ONE)
    deepest = 0
    for _ in range(3 * MAX_ANCHORS * MAX_DELTAS):
        code = DELTA
        if chain.wants_anchor(1):
            code = BASED if chain.takes_anchor(1, 1_000_000) else FULL
        chain = chain.after(code, 1, TWO)
        deepest = max(deepest, chain.depth)
    assert deepest == MAX_DEPTH


def test_a_whole_state_is_taken_where_reading_would_cost_more_than_twice_as_much() -> None:
    chain = Chain().after(FULL, 1_000, ONE)
    assert chain.takes_anchor(999, 1_000)
    assert not chain.takes_anchor(1_000, 1_000)
    chain = chain.after(BASED, 700, TWO)
    assert chain.takes_anchor(300, 1_000)
    assert not chain.takes_anchor(301, 1_000)


def saved(plains: list[bytes]) -> list[Packed]:
    """How states are stored, one after the other."""
    packed: list[Packed] = []
    known: dict[UUID, Known] = {}
    parent: Known | None = None
    for number, plain in enumerate(plains):
        chain = parent.chain if parent else Chain()
        last = known.get(chain.anchor) if chain.anchor else None
        packed.append(delta_of(plain, parent, compress=True) or anchor_of(plain, chain, last))
        here = UUID(int=number)
        after = chain.after(packed[-1].code, len(packed[-1].data), here)
        parent = known[here] = Known(here, plain, after, "main")
    return packed


def test_what_accumulates_is_stored_twice_and_not_once_for_each_anchor() -> None:
    chance = random.Random(1)
    parts = [chance.randbytes(300) for _ in range(200)]
    stored = saved([b"".join(parts[: n + 1]) for n in range(200)])
    assert [p.code for p in stored].count(FULL) + [p.code for p in stored].count(PLAIN) == 1
    assert sum(len(p.data) for p in stored) < 2.2 * 200 * 300


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_what_is_replaced_is_never_read_through_many_anchors(share: float) -> None:
    chance = random.Random(2)
    parts = [chance.randbytes(100) for _ in range(200)]
    plains = []
    for _ in range(150):
        for place in chance.sample(range(200), int(200 * share)):
            parts[place] = chance.randbytes(100)
        plains.append(b"".join(parts))
    chain = Chain()
    for packed, plain in zip(saved(plains), plains, strict=True):
        chain = chain.after(packed.code, len(packed.data), ONE)
        assert chain.anchor_bytes <= 2.1 * len(plain)
        assert chain.delta_bytes <= max(chain.anchor_bytes, 8_192)


def test_without_its_last_anchor_at_hand_a_state_is_stored_whole() -> None:
    plain = random.Random(3).randbytes(1_000)
    chain = Chain(anchor=ONE, deltas=MAX_DELTAS, anchor_bytes=500)
    assert anchor_of(plain, chain, None).base is None
    other = Known(TWO, plain, Chain(), "main")
    assert anchor_of(plain, chain, other).base is None
    assert anchor_of(plain, chain, Known(ONE, plain, Chain(), "main")).base == ONE


def test_where_an_anchor_is_due_no_delta_is_made_that_is_not_stored(monkeypatch) -> None:
    made, delta_against = [], _frames.delta_against

    def noted(plain: bytes, parent: bytes) -> bytes:
        made.append(parent)
        return delta_against(plain, parent)

    monkeypatch.setattr(_frames, "delta_against", noted)
    chance = random.Random(1)
    words = [bytes(chance.choices(b"abcdefgh", k=6)) for _ in range(2_000)]
    plain = b" ".join(words)
    anchor = Known(ONE, plain[:9_000], Chain().after(FULL, 4_000, ONE), "main")
    chain = Chain(anchor=ONE, deltas=MAX_DELTAS, anchor_bytes=4_000, delta_bytes=10)
    parent = Known(TWO, plain[:-6], chain, "main")
    assert delta_of(plain, parent, compress=True) is None
    assert anchor_of(plain, chain, anchor).code == BASED
    assert made == [anchor.plain]
    assert delta_of(plain, parent, compress=False).code == PLAIN
