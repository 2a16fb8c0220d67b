"""What whole states, deltas and splices have zstd do in common."""

from __future__ import annotations

import zstandard

#: Without the magic number: what is stored says nowhere what it is.
FORMAT = zstandard.FORMAT_ZSTD1_MAGICLESS


def dictionary(text: bytes) -> zstandard.ZstdCompressionDict:
    """Bytes as they are for a dictionary."""
    return zstandard.ZstdCompressionDict(text, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def lazy(window_log: int, table_log: int, *, checksum: bool) -> zstandard.ZstdCompressionParameters:
    """Parameters of the lazy search, with tables of so many entries, as a power of two."""
    return zstandard.ZstdCompressionParameters(
        format=FORMAT,
        window_log=window_log,
        hash_log=table_log,
        chain_log=table_log,
        min_match=5,
        search_log=5,
        strategy=zstandard.STRATEGY_LAZY,
        write_content_size=False,
        write_checksum=checksum,
        write_dict_id=False,
    )
