"""Ids that the same memory always has."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

#: Of what has no time.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def derived_id(when: datetime, *parts: str) -> str:
    """The id of what is made at a time from something: a UUIDv7 whose random bits are a hash.

    So a call that is repeated writes the same rows, and ids still lie in order of time.

    Args:
        when: Its time, to the millisecond.
        parts: What tells it from all others: what it is, and the ids that it is made of.
    """
    digest = hashlib.sha256("\x1f".join(parts).encode(errors="surrogatepass")).digest()
    milliseconds = max((when - EPOCH) // timedelta(milliseconds=1), 0) & (1 << 48) - 1
    bits = int.from_bytes(digest[:10], "big")
    value = milliseconds << 80 | bits
    # The version and the variant, as RFC 9562 places them.
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(UUID(int=value))
