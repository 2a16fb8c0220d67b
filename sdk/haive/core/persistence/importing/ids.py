"""Ids of what is imported: the same source gives the same ids, and they are the import's memory.

They are UUIDs of version 8, whose bits are the maker's own (RFC 9562, section 5.8). The tenant is
not in them: every key of the database begins with it.
"""

from __future__ import annotations

from hashlib import blake2b
from uuid import UUID

# A message begins like its conversation: the messages of one stand together in the index of ids,
# and an imported message is told from one that was added later.
_SHARED = 6


def conversation_id(kind: str, source: str, key: str) -> UUID:
    """The id of a conversation.

    Args:
        kind: The format of the file.
        source: The name that the user gave to the source, or nothing.
        key: The source's own id of the conversation.
    """
    texts = (kind, source, key)
    # What is no Unicode is refused elsewhere, with a reason.
    return _uuid8(_digest(*(text.encode(errors="surrogatepass") for text in texts)))


def message_id(conversation: UUID, *key: bytes) -> UUID:
    """The id of a message in its conversation."""
    shared = conversation.bytes[:_SHARED]
    return _uuid8(shared + _digest(conversation.bytes, *key)[_SHARED:])


def is_imported(message: UUID, conversation: UUID) -> bool:
    """Whether `message_id` made the id of a message."""
    return message.version == 8 and message.bytes[:_SHARED] == conversation.bytes[:_SHARED]


def content_key(parts: list[bytes]) -> str:
    """A key for a conversation that has no id: what is said in it."""
    return _digest(*parts).hex()


def _digest(*parts: bytes) -> bytes:
    digest = blake2b(digest_size=16, person=b"haive import")
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))  # "ab", "c" is not "a", "bc"
        digest.update(part)
    return digest.digest()


def _uuid8(data: bytes) -> UUID:
    value = int.from_bytes(data, "big")
    value = value & ~(0xF << 76) | (8 << 76)  # version
    value = value & ~(0x3 << 62) | (2 << 62)  # variant
    return UUID(int=value)
