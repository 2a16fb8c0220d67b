"""Deltas that say what is kept, taken out and put in."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.checkpointer import _splices
from haive.core.persistence.checkpointer._frames import (
    DELTA,
    FULL,
    decode,
    decode_line,
    encode,
)
from haive.core.persistence.errors import CorruptCheckpointError

_RANDOM = random.Random(11)
_WORDS = ["".join(_RANDOM.choices("abcdefghijklmnop", k=6)) for _ in range(3000)]
MESSAGES = [
    {"role": "user", "content": " ".join(_RANDOM.choices(_WORDS, k=110))} for _ in range(121)
]


def delta(plain: bytes, parent: bytes) -> bytes:
    """The frame of a state against its parent."""
    code, payload = encode(plain, parent)
    assert code == DELTA
    return payload


def state(count: int) -> bytes:
    return ormsgpack.packb({"messages": MESSAGES[:count], "step": count, "status": "running"})


PARENT, STATE = state(100), state(101)
SPLICE = delta(STATE, PARENT)
LONGER = state(104)
LONG = delta(LONGER, PARENT)
# Put in, in place of nothing: too short to become shorter.
SHORT = delta(PARENT[:40_000] + b"news" + PARENT[40_000:], PARENT)


def applied(payload: bytes, parent: bytes, size: int) -> bytes:
    """What a splice makes of its parent."""
    changed = bytearray(parent)
    _splices.apply(payload, changed, size=size)
    _splices.check(payload, changed)
    return bytes(changed)


def test_one_more_message_is_put_in() -> None:
    assert SPLICE[0] == _splices.DEFLATED
    assert len(SPLICE) < 400
    assert decode(DELTA, SPLICE, PARENT, size=len(STATE)) == STATE
    assert _splices._hunks(STATE, PARENT)[0][1:] == (1, 1)  # how many there are


def test_what_takes_zlib_long_is_packed_by_zstd() -> None:
    assert LONG[0] == _splices.ZSTD
    assert decode(DELTA, LONG, PARENT, size=len(LONGER)) == LONGER


def test_what_does_not_become_shorter_is_put_in_as_it_is() -> None:
    assert SHORT[0] == _splices.PLAIN
    assert len(SHORT) < 20


def test_a_small_state_is_left_to_zstd() -> None:
    assert not _splices.is_splice(delta(state(11), state(10)))


def test_what_has_moved_is_found_by_zstd() -> None:
    moved = PARENT[20_000:] + PARENT[:20_000]
    payload = delta(moved, PARENT)
    assert not _splices.is_splice(payload)
    assert len(payload) < 200
    assert decode(DELTA, payload, PARENT, size=len(moved)) == moved


def test_a_line_of_them_is_decoded_in_one_go() -> None:
    states = [state(count) for count in range(90, 121)]
    frames = [encode(states[0], None)]
    frames += [encode(new, old) for old, new in pairwise(states)]
    assert all(_splices.is_splice(payload) for _, payload in frames[1:])
    line = [(*frame, len(plain)) for frame, plain in zip(frames, states, strict=True)]
    assert line[0][0] == FULL
    assert decode_line(line, None) == states[-1]
    assert decode_line(line[1:], states[0]) == states[-1]
    for place in range(1, len(line) - 1):
        with pytest.raises(CorruptCheckpointError):
            decode_line([*line[:place], *line[place + 1 :]], None)


def test_damage_within_a_line_never_gives_another_state() -> None:
    states = [state(count) for count in range(60, 64)]
    line = [(*encode(new, old), len(new)) for old, new in pairwise(states)]
    code, payload, size = line[1]
    for place in range(len(payload)):
        damaged = payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :]
        try:
            assert decode_line([line[0], (code, damaged, size), line[2]], states[0]) == states[-1]
        except CorruptCheckpointError:
            continue
        assert 1 <= place <= 4  # its own checksum, which is that of a state nobody asked for


def test_a_change_in_a_large_state_is_found_in_little_time() -> None:
    parent = _RANDOM.randbytes(5_000_000)
    plain = parent[:2_000_000] + b"edited" + parent[2_000_001:]
    splice = _splices.encode(plain, parent)
    assert splice is not None
    assert len(splice) < 30
    assert applied(splice, parent, len(plain)) == plain


@given(st.data())
def test_any_state_comes_back_or_is_left_to_zstd(data) -> None:
    parent = data.draw(st.binary(max_size=200)) * data.draw(st.integers(0, 30))
    parent += bytes(32 * 1024) if data.draw(st.booleans()) else PARENT
    plain = bytearray(parent)
    for _ in range(data.draw(st.integers(0, 12))):
        place = data.draw(st.integers(0, len(plain)))
        out = data.draw(st.integers(0, 40))
        plain[place : place + out] = data.draw(st.binary(max_size=80))
    splice = _splices.encode(bytes(plain), parent)
    if splice is not None:
        assert applied(splice, parent, len(plain)) == plain


def test_more_than_is_put_in_at_once_is_left_to_zstd() -> None:
    assert _splices.encode(PARENT + _RANDOM.randbytes(64 * 1024), PARENT) is not None
    assert _splices.encode(PARENT + _RANDOM.randbytes(64 * 1024 + 1), PARENT) is None


# ── what is hostile ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("payload", "size"),
    [(SPLICE, len(STATE)), (LONG, len(LONGER)), (SHORT, len(PARENT) + 4)],
    ids=["deflated", "zstd", "plain"],
)
class TestDamage:
    def test_a_truncated_one_is_refused_at_each_length(self, payload: bytes, size: int) -> None:
        for length in range(len(payload)):
            with pytest.raises(CorruptCheckpointError):
                decode(DELTA, payload[:length], PARENT, size=size)

    def test_a_flipped_bit_never_gives_another_state(self, payload: bytes, size: int) -> None:
        right, meant = decode(DELTA, payload, PARENT, size=size), 0
        for place in range(len(payload)):
            for bit in range(8):
                flipped = bytearray(payload)
                flipped[place] ^= 1 << bit
                try:
                    assert decode(DELTA, bytes(flipped), PARENT, size=size) == right
                except CorruptCheckpointError:
                    meant += 1
        assert meant > len(payload) * 8 * 0.98

    def test_data_behind_it_is_refused(self, payload: bytes, size: int) -> None:
        for more in (b"\x00", payload):
            with pytest.raises(CorruptCheckpointError):
                decode(DELTA, payload + more, PARENT, size=size)

    def test_another_size_or_parent_is_refused(self, payload: bytes, size: int) -> None:
        for other in (0, size - 1, size + 1, 2 * size):
            with pytest.raises(CorruptCheckpointError):
                decode(DELTA, payload, PARENT, size=other)
        for parent in (b"", PARENT[:-1], PARENT + b"x", STATE, bytes(len(PARENT))):
            with pytest.raises(CorruptCheckpointError):
                decode(DELTA, payload, parent, size=size)

    def test_it_is_no_whole_state(self, payload: bytes, size: int) -> None:
        with pytest.raises(CorruptCheckpointError):
            decode(FULL, payload, PARENT, size=size)


@given(st.sampled_from([6, 7, 14]), st.binary(max_size=60), st.integers(0, 300))
def test_any_bytes_are_refused(mark: int, rest: bytes, size: int) -> None:
    with pytest.raises(CorruptCheckpointError):
        decode(DELTA, bytes([mark]) + rest, PARENT, size=size)


_ENDLESS = {
    "a number": SPLICE[:6] + b"\x80" * 50_000_000,
    "plain": bytes((6, 0, 0, 0, 0, 1, 0, 0, 1)) + bytes(50_000_000),
    "behind a stream": bytes((7, 0, 0, 0, 0, 1, 0, 0, 1, 3, 0)) + bytes(50_000_000),
    "stored blocks": bytes((7, 0, 0, 0, 0, 1, 0, 0, 1)) + b"\0\0\0\xff\xff" * 10_000_000,
    "raw blocks": bytes((14, 0, 0, 0, 0, 1, 0, 0, 1)) + bytes(50_000_001),
    "raw blocks of a frame": bytes(50_000_001),
}


@pytest.mark.timed
@pytest.mark.parametrize("payload", _ENDLESS.values(), ids=_ENDLESS)
def test_what_is_longer_than_what_it_makes_is_refused_at_once(payload: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(CorruptCheckpointError):
        decode(DELTA, payload, PARENT, size=len(PARENT) + 1)
    assert time.perf_counter() - began < 0.02


def _of_hunks(*hunks: tuple[int, int, int]) -> bytes:
    numbers = bytes(number for hunk in hunks for number in hunk)
    put = bytes(sum(put_in for _, _, put_in in hunks))
    return bytes((_splices.PLAIN, 0, 0, 0, 0, len(hunks))) + numbers + put


def test_a_state_is_moved_once_by_a_splice_however_many_hunks_it_has() -> None:
    changed = bytearray(PARENT)
    _splices.apply(_of_hunks(*[(1, 1, 1)] * 7, (1, 0, 1)), changed, size=len(PARENT) + 1)
    for forged in (_of_hunks(*[(1, 1, 1)] * 9), _of_hunks((1, 0, 1), (1, 1, 0))):
        with pytest.raises(CorruptCheckpointError):
            _splices.apply(forged, bytearray(PARENT), size=len(PARENT))


BOMB = r"""
import zlib

# Short enough for what is put in at most: longer ones are refused before they are looked into.
packer = zlib.compressobj(wbits=-15)
deflated = b"".join(packer.compress(bytes(1 << 20)) for _ in range(32)) + packer.flush()
assert len(deflated) < 65_536
# 1,024 blocks of 128 KiB of one byte.
block = lambda last: ((1 << 17) << 3 | 1 << 1 | last).to_bytes(3, "little") + b"a"
blocks = block(0) * 1023 + block(1)
parent = bytes(40_000)
for mark, bomb in ((7, deflated), (14, blocks)):
    for size in (1, 800, 65_536, 60_000_000):
        put_in = bytes((*(size >> shift & 127 | 128 for shift in (0, 7, 14)), size >> 21))
        payload = bytes([mark]) + b"\0\0\0\0\1\0\0" + put_in + bomb
        refused(DELTA, payload, parent, 40_000 + size)
"""


@pytest.mark.timed
def test_a_bomb_is_refused_in_little_time_and_memory(defuse) -> None:
    defuse(BOMB)
