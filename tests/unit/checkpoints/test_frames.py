"""Packed states, compressed and back."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import ormsgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence._keys import KeyRing, context
from haive.core.persistence.checkpointer._chains import (
    MAX_DEPTH,
    Chain,
    Known,
    anchor_of,
    delta_of,
)
from haive.core.persistence.checkpointer._codec import MAX_STATE_BYTES, Codec
from haive.core.persistence.checkpointer._frames import (
    BASED,
    DELTA,
    FULL,
    PLAIN,
    decode,
    decode_line,
    encode,
)
from haive.core.persistence.errors import CorruptCheckpointError

_RANDOM = random.Random(7)
_WORDS = [
    "".join(_RANDOM.choices("abcdefghijklmnopqrst", k=_RANDOM.randint(2, 9))) for _ in range(4000)
]


def message() -> dict[str, Any]:
    return {
        "id": f"{_RANDOM.getrandbits(128):032x}",
        "role": "user",
        "content": " ".join(_RANDOM.choices(_WORDS, k=110)),
    }


MESSAGES = [message() for _ in range(201)]


def state(count: int) -> bytes:
    return ormsgpack.packb({"messages": MESSAGES[:count], "step": count})


PARENT, STATE = state(10), state(11)
FRAMES = {
    "plain": encode(STATE, None, compress=False),
    "full": encode(STATE, None),
    "delta": encode(STATE, PARENT),
}


def test_the_frames_are_of_the_three_kinds() -> None:
    assert [code for code, _ in FRAMES.values()] == [PLAIN, FULL, DELTA] == [0, 1, 2]


@given(st.binary(max_size=3000), st.none() | st.binary(max_size=3000), st.booleans())
def test_a_state_comes_back_exactly(plain: bytes, parent: bytes | None, compress: bool) -> None:
    code, payload = encode(plain, parent, compress=compress)
    assert decode(code, payload, parent, size=len(plain)) == plain
    assert len(payload) <= len(plain) + 4


@pytest.mark.parametrize("size", [2**k + d for k in range(6, 21, 2) for d in (-1, 0, 1)])
def test_a_state_of_any_size_comes_back_by_itself_and_from_its_parent(size: int) -> None:
    like = _RANDOM.randbytes(size // 2) * 2
    for plain in (like + b"more", b"less" + like[: size // 2], b"a" * size):
        for parent in (None, b"", like):
            code, payload = encode(plain, parent)
            assert decode(code, payload, parent, size=len(plain)) == plain


def test_one_more_message_takes_little_more_than_its_text_compressed() -> None:
    for count in (10, 50, 200):
        code, payload = encode(state(count + 1), state(count))
        assert code == DELTA
        assert len(payload) < 500


def test_one_edit_in_a_large_state_takes_less_than_4_kb() -> None:
    messages = [{**MESSAGES[i % 200], "id": f"{i:032x}"} for i in range(5900)]
    parent = _RANDOM.randbytes(200_000).hex().encode() * 2 + ormsgpack.packb(messages)
    messages[3000]["content"] = "edited"
    plain = parent[:800_000] + ormsgpack.packb([message(), *messages])
    assert len(plain) > 4_700_000
    code, payload = encode(plain, parent)
    assert code == DELTA
    assert len(payload) < 4096
    assert decode(code, payload, parent, size=len(plain)) == plain


def test_a_parent_that_is_of_no_use_gives_a_full_frame() -> None:
    plain = ormsgpack.packb([{"a": i % 7, "b": i * i % 50} for i in range(3000)])
    code, payload = encode(plain, _RANDOM.randbytes(1_000_000))
    assert code == FULL
    assert decode(code, payload, None, size=len(plain)) == plain


@given(st.binary(max_size=500), st.integers(1, 50), st.binary(max_size=500), st.booleans())
def test_a_frame_is_never_larger_than_a_full_one_by_more_than_a_sixteenth_of_the_state(
    piece: bytes, times: int, other: bytes, related: bool
) -> None:
    plain = piece * times
    _, payload = encode(plain, plain[::2] + other if related else other)
    assert len(payload) <= max(len(encode(plain, None)[1]), len(plain) / 16)


def test_what_does_not_compress_is_stored_as_it_is() -> None:
    code, payload = encode(noise := _RANDOM.randbytes(1000), None)
    assert code == PLAIN
    assert payload[4:] == noise


def test_the_parent_is_not_looked_at_where_it_is_not_needed() -> None:
    for name in ("plain", "full"):
        assert decode(*FRAMES[name], b"something else", size=len(STATE)) == STATE


# ── what is hostile ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("code", "payload"), FRAMES.values(), ids=FRAMES)
class TestDamage:
    def test_a_truncated_frame_is_refused_at_each_length(self, code: int, payload: bytes) -> None:
        for size in range(len(payload)):
            with pytest.raises(CorruptCheckpointError):
                decode(code, payload[:size], PARENT, size=len(STATE))

    def test_a_flipped_bit_never_gives_another_state(self, code: int, payload: bytes) -> None:
        # A few bits mean nothing, such as those that fill the last byte of a bit stream.
        meant = 0
        for place in range(len(payload)):
            for bit in range(8):
                flipped = bytearray(payload)
                flipped[place] ^= 1 << bit
                try:
                    assert decode(code, bytes(flipped), PARENT, size=len(STATE)) == STATE
                except CorruptCheckpointError:
                    meant += 1
        assert meant > len(payload) * 8 * 0.99

    def test_data_behind_a_frame_is_refused(self, code: int, payload: bytes) -> None:
        for more in (b"\x00", payload):
            with pytest.raises(CorruptCheckpointError):
                decode(code, payload + more, PARENT, size=len(STATE))

    def test_another_size_is_refused(self, code: int, payload: bytes) -> None:
        for size in (0, 1, len(STATE) - 1, len(STATE) + 1, 2 * len(STATE), -1, MAX_STATE_BYTES + 1):
            with pytest.raises(CorruptCheckpointError):
                decode(code, payload, PARENT, size=size)

    def test_another_code_never_gives_another_state(self, code: int, payload: bytes) -> None:
        for other in {PLAIN, FULL, DELTA, BASED, 4, -1} - {code}:
            # A whole one is a delta that makes no use of its parent; and deltas against what is
            # given here are the same, whatever it is to them.
            if code in {FULL, DELTA} and other in {DELTA, BASED}:
                assert decode(other, payload, PARENT, size=len(STATE)) == STATE
                continue
            with pytest.raises(CorruptCheckpointError):
                decode(other, payload, PARENT, size=len(STATE))


_LINE = [state(count) for count in range(10, 16)]
_FRAMES_OF_LINE = [
    (*encode(plain, parent), len(plain))
    for plain, parent in zip(_LINE, [None, *_LINE], strict=False)
]


def test_a_line_of_deltas_is_decoded_in_one_go() -> None:
    assert [code for code, _, _ in _FRAMES_OF_LINE] == [FULL, *[DELTA] * 5]
    for end in range(1, len(_LINE) + 1):
        assert decode_line(_FRAMES_OF_LINE[:end], None) == _LINE[end - 1]


@pytest.mark.parametrize("place", range(len(_LINE)))
def test_damage_anywhere_in_a_line_never_gives_another_state(place: int) -> None:
    code, payload, size = _FRAMES_OF_LINE[place]
    refused = 0
    for at in range(len(payload)):
        line = _FRAMES_OF_LINE.copy()
        line[place] = (code, payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :], size)
        try:
            assert decode_line(line, None) == _LINE[-1]
        except CorruptCheckpointError:
            refused += 1
    # What is not refused is its own checksum, where it is not the last one, and what nobody copied.
    assert refused > len(payload) * 0.9
    with pytest.raises(CorruptCheckpointError):
        decode_line(
            [*_FRAMES_OF_LINE[:place], (code, b"", size), *_FRAMES_OF_LINE[place + 1 :]], None
        )


def test_a_delta_on_another_parent_or_on_none_is_refused() -> None:
    others = (None, b"", PARENT[:-1], PARENT + b"x", STATE, bytes(len(PARENT)))
    changed = bytearray(PARENT)
    changed[1000] ^= 1  # text that the delta's state shares
    for parent in (*others, bytes(changed)):
        with pytest.raises(CorruptCheckpointError):
            decode(*FRAMES["delta"], parent, size=len(STATE))


@given(st.sampled_from([PLAIN, FULL, DELTA, BASED]), st.binary(max_size=100), st.integers(1, 200))
def test_any_bytes_are_refused(code: int, payload: bytes, size: int) -> None:
    with pytest.raises(CorruptCheckpointError):
        decode(code, payload, PARENT, size=size)


BOMBS = r"""
def frame(header):
    # 8,192 blocks of 128 KiB of one byte: 1 GiB in 32 KB.
    block = lambda last: ((1 << 17) << 3 | 1 << 1 | last).to_bytes(3, "little") + b"a"
    return header + block(0) * 8191 + block(1) + b"\0\0\0\0"

claimed = b"\xa4" + (1 << 30).to_bytes(4, "little")      # one segment of 1 GiB
small = b"\x24\x64"                                      # one segment of 100 bytes
window = b"\x04" + bytes(((31 - 10) << 3,))              # no size, and a window of 2 GiB
magic = b"\x28\xb5\x2f\xfd"
for header in (b"", claimed, small, window, magic + claimed, magic + window):
    for code, size in ((FULL, 100), (DELTA, 1_000_000), (FULL, 8_000_000)):
        refused(code, frame(header), b"parent", size)
"""


@pytest.mark.timed
def test_a_bomb_is_refused_in_little_time_and_memory(defuse) -> None:
    defuse(BOMBS)


def test_a_frame_of_zstd_with_its_header_is_none_of_ours() -> None:
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(STATE)
    with pytest.raises(CorruptCheckpointError):
        decode(FULL, whole, None, size=len(STATE))


# ── chains ───────────────────────────────────────────────────────────────────────────────────


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=200) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
edits = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(), values),
        st.tuples(st.just("insert"), st.integers(), values),
        st.tuples(st.just("set"), st.integers(), values),
        st.tuples(st.just("remove"), st.integers(), st.none()),
        st.tuples(st.just("double"), st.integers(), st.none()),
    ),
    max_size=80,
)


def edited(items: list[Any], edit: tuple[str, int, Any]) -> list[Any]:
    kind, number, value = edit
    place = number % (len(items) or 1)
    match kind:
        case "append":
            return [*items, value]
        case "insert":
            return [*items[:place], value, *items[place:]]
        case "set":
            return [*items[:place], value, *items[place + 1 :]]
        case "remove":
            return [*items[:place], *items[place + 1 :]]
    return items * 2 if len(items) < 100 else items


@pytest.mark.parametrize("sealed", [False, True], ids=("plain", "sealed"))
@given(edits)
def test_each_state_of_a_chain_of_edits_comes_back(sealed: bool, edits: list[Any]) -> None:
    codec = Codec()
    keys = KeyRing(b"k" * 32).for_tenant("default") if sealed else None
    states: list[list[Any]] = [list(MESSAGES[:3])]
    for edit in edits:
        states.append(edited(states[-1], edit))
    rows: list[tuple[int, bytes, int, int | None]] = []
    parent: Known | None = None
    known: dict[UUID, int] = {}
    anchor: Known | None = None
    for number, each in enumerate(states):
        plain = codec.pack(each)
        chain = parent.chain if parent else Chain()
        packed = delta_of(plain, parent, compress=True) or anchor_of(plain, chain, anchor)
        parent = Known(
            *(UUID(int=number), plain),
            chain.after(packed.code, len(packed.data), UUID(int=number)),
            "main",
        )
        assert parent.chain.depth <= MAX_DEPTH
        anchor = parent if parent.chain.anchor == parent.id else anchor
        known[parent.id] = number
        row = context("thread", number, packed.code)
        stored = keys.seal(packed.data, row) if keys else packed.data
        before = number - 1 if packed.code == DELTA else packed.base and known[packed.base]
        rows.append((packed.code, stored, len(plain), before))
    plains: list[bytes] = []
    for number, ((code, stored, size, before), each) in enumerate(zip(rows, states, strict=True)):
        row = context("thread", number, code)
        payload = keys.open(keys.key_id, stored, row) if keys else stored
        plains.append(decode(code, payload, None if before is None else plains[before], size=size))
        assert codec.unpack(plains[-1]) == each
