"""Packed states in as few bytes as they take: whole, or as what changed since an older one.

A delta is a splice (see `_splices`) where that is short, and else, as a whole state is, one frame
of zstd without its header, which follows from the sizes: so nothing stored states how much memory
to take. Its checksum finds a delta that is applied to another state. The dictionary of a delta is
the packed state that it is made against, here called its parent. The parameters are fitted to the
sizes; with those of a level, a delta of 4.4 MB is a third of it, as zstd does not look back that
far.

Measured on two cores, messages of 750 bytes, one of them new; by zstd is the delta that a splice
takes the place of:

| state   | delta | by zstd | full    | encode  | by zstd | decode  |
|---------|-------|---------|---------|---------|---------|---------|
| 8 KB    |   360 |     360 |   3,380 | 0.05 ms | 0.05 ms | 0.02 ms |
| 36 KB   |   326 |     345 |  13,968 | 0.15 ms | 0.16 ms | 0.03 ms |
| 150 KB  |   350 |     370 |  53,984 | 0.14 ms | 0.55 ms | 0.06 ms |
| 4.0 MB  |   334 |     745 | 1.3 MB  |  1.6 ms |   13 ms |  2.3 ms |
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from zlib import crc32

import zstandard

from haive.core.persistence.checkpointer import _splices, _zstd
from haive.core.persistence.checkpointer._codec import MAX_STATE_BYTES
from haive.core.persistence.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The codes of a row: not compressed (behind a CRC-32), compressed, compressed against the parent,
#: compressed against a state further back.
PLAIN, FULL, DELTA, BASED = range(4)

_MAGIC = zstandard.MAGIC_NUMBER.to_bytes(4, "little")
# A descriptor (a checksum, and neither a size nor the id of a dictionary) and the window.
_HEADER_BYTES = 2
_CHECKSUM_BYTES = 4
# A level above 3 takes twice as long for one part in forty.
_FULL_LEVEL = 3
# Up to 512 KB with the parent, the lazy search is 15 % smaller and takes the same time; above,
# the fast one is as small in a third of the time.
_LAZY_WINDOW_LOG = 19
# A splice of at most so many bytes, and a sixteenth of the state, is taken without a comparison.
_SHORT_BYTES = 8 * 1024


def encode(plain: bytes, parent: bytes | None, *, compress: bool = True) -> tuple[int, bytes]:
    """The smallest frame of a packed state.

    No full frame is made to compare with a delta of less than a sixteenth of the state: what
    could be saved is less than that, and text alone is compressed to a third, so such a delta has
    used its parent.

    Args:
        plain: The packed state.
        parent: The packed state of the parent, if a delta against it may be returned.
        compress: Whether to compress at all.

    Returns:
        A code and the bytes of the frame.
    """
    if not compress or not plain:
        return _as_it_is(plain)
    delta = None
    if parent is not None:
        delta = _delta(plain, parent)
        if len(delta) * 16 <= len(plain):
            return DELTA, delta
    parameters = _full_parameters(_window_log(len(plain)))
    full = zstandard.ZstdCompressor(compression_params=parameters).compress(plain)[_HEADER_BYTES:]
    best = _as_it_is(plain)
    if delta is not None and len(delta) < len(best[1]):
        best = (DELTA, delta)
    return (FULL, full) if len(full) <= len(best[1]) else best


def _delta(plain: bytes, parent: bytes) -> bytes:
    """What changed since the parent; a splice where that is short, in a fifth of the time."""
    splice = _splices.encode(plain, parent)
    if splice is not None and len(splice) <= min(len(plain) // 16, _SHORT_BYTES):
        return splice
    delta = delta_against(plain, parent)
    return delta if splice is None or len(delta) < len(splice) else splice


def delta_against(plain: bytes, parent: bytes) -> bytes:
    """A packed state against another one by zstd, whatever that takes.

    For states far apart: a line of these is decoded in half the time of one of splices.
    """
    window_log = _window_log(len(parent) + len(plain))
    compressor = zstandard.ZstdCompressor(
        dict_data=_zstd.dictionary(parent), compression_params=_delta_parameters(window_log)
    )
    return compressor.compress(plain)[_HEADER_BYTES:]


def _as_it_is(plain: bytes) -> tuple[int, bytes]:
    return PLAIN, crc32(plain).to_bytes(4, "big") + plain


def decode(code: int, payload: bytes, parent: bytes | None, *, size: int) -> bytes:
    """The packed state of a frame, of exactly ``size`` bytes.

    Nothing in the frame decides how much memory is taken: that is ``size`` for what comes out, and
    at most twice ``size`` and the parent for zstd's window.

    Raises:
        CorruptCheckpointError: The frame is damaged, or of another size, or of another parent.
    """
    return decode_line([(code, payload, size)], parent)


def decode_line(line: Sequence[tuple[int, bytes, int]], parent: bytes | None) -> bytes:
    """The packed state at the end of a line of frames, each after the one before.

    The states between are not made into objects, and hardly checked one by one: what of them is in
    the last state is under the checksum of that one.

    Args:
        line: Code, payload and size of each frame.
        parent: What the first one is a delta against, if it is one.

    Raises:
        CorruptCheckpointError: As `decode` does.
    """
    first = _leading(line)
    state: bytes | bytearray | None = _whole_line(line[:first]) if first else parent
    for place, (code, payload, size) in enumerate(line[first:], first + 1):
        if not 0 <= size <= MAX_STATE_BYTES:
            raise CorruptCheckpointError(f"A state has no {size:,} bytes.")
        last = place == len(line)
        if code in {DELTA, BASED} and state is not None and _splices.is_splice(payload):
            if not isinstance(state, bytearray):
                state = bytearray(state)
            _splices.apply(payload, state, size=size)
            if last:
                _splices.check(payload, state)
        else:
            state = _decoded(code, payload, state, size)
    if state is None:
        raise CorruptCheckpointError
    return bytes(state)


def _leading(line: Sequence[tuple[int, bytes, int]]) -> int:
    """How many frames at the beginning zstd decodes in one go, the last one aside."""
    count = 0
    for code, payload, _ in line[:-1]:
        if code not in ({DELTA, BASED} if count else {FULL}) or _splices.is_splice(payload):
            break
        count += 1
    return count if count > 1 else 0


def _whole_line(line: Sequence[tuple[int, bytes, int]]) -> bytes:
    """What zstd makes of a whole state and deltas; their checksums would be half of the time."""
    sizes = [0, *(size for _, _, size in line)]
    frames: list[bytes | bytearray | memoryview] = [
        _whole_frame(payload, parent_size, size, check=False)
        for parent_size, (_, payload, size) in zip(sizes, line, strict=False)
    ]
    try:
        return zstandard.ZstdDecompressor().decompress_content_dict_chain(frames)
    except zstandard.ZstdError:
        raise CorruptCheckpointError from None


def _decoded(code: int, payload: bytes, parent: bytes | bytearray | None, size: int) -> bytes:
    if code == PLAIN:
        plain = payload[4:]
        if len(plain) != size or payload[:4] != crc32(plain).to_bytes(4, "big"):
            raise CorruptCheckpointError
        return plain
    if code == FULL:
        parent = b""
    elif code not in {DELTA, BASED}:
        raise CorruptCheckpointError(f"No frame has the code {code}.")
    elif parent is None:
        raise CorruptCheckpointError("The parent of a delta is missing.")
    decompressor = zstandard.ZstdDecompressor(
        dict_data=None if code == FULL else _zstd.dictionary(bytes(parent))
    )
    try:
        plain = decompressor.decompress(
            _whole_frame(payload, len(parent), size), allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise CorruptCheckpointError from None
    if len(plain) != size:
        raise CorruptCheckpointError
    return plain


def _whole_frame(payload: bytes, parent_size: int, size: int, *, check: bool = True) -> bytes:
    """A frame with its header; as that states the size, zstd needs no window beside the result.

    Args:
        payload: What is stored.
        parent_size: Bytes of what it is a delta against.
        size: Bytes of the state.
        check: With its checksum, which is half of what decoding takes.
    """
    # What is longer than the state was stored as it is.
    fits = _CHECKSUM_BYTES <= len(payload) <= size + _CHECKSUM_BYTES
    if not 0 < size <= MAX_STATE_BYTES or not fits:
        raise CorruptCheckpointError(f"No frame has a state of {size:,} bytes.")
    window = _window_log(parent_size + size) - zstandard.WINDOWLOG_MIN << 3
    descriptor = 0x84 if check else 0x80
    kept = payload if check else payload[:-_CHECKSUM_BYTES]
    return b"".join((_MAGIC, bytes((descriptor, window)), size.to_bytes(4, "little"), kept))


def _window_log(size: int) -> int:
    """The smallest window, as a power of two, through which all of so many bytes is seen."""
    return max(zstandard.WINDOWLOG_MIN, size.bit_length())


@lru_cache
def _delta_parameters(window_log: int) -> zstandard.ZstdCompressionParameters:
    if window_log <= _LAZY_WINDOW_LOG:
        return _zstd.lazy(window_log, max(window_log - 2, 8), checksum=True)
    return zstandard.ZstdCompressionParameters(
        format=_zstd.FORMAT,
        window_log=window_log,
        hash_log=window_log - 4,
        min_match=6,
        strategy=zstandard.STRATEGY_FAST,
        write_content_size=False,
        write_checksum=True,
        write_dict_id=False,
    )


@lru_cache
def _full_parameters(window_log: int) -> zstandard.ZstdCompressionParameters:
    return zstandard.ZstdCompressionParameters.from_level(
        _FULL_LEVEL,
        source_size=1 << window_log,
        format=_zstd.FORMAT,
        window_log=window_log,
        write_content_size=False,
        write_checksum=True,
        write_dict_id=False,
    )
