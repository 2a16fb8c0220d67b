"""Rows as they leave the process, and as they come back."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence import _sealing
from haive.core.persistence._keys import KeyRing
from haive.core.persistence._rows import MessageRow, message_row
from haive.core.persistence._sealing import ContentKeys, Sealed
from haive.core.persistence.errors import DecryptionError
from haive.core.persistence.models import MessageRole

KEYS = ContentKeys("tenant", KeyRing(bytes(range(32))).for_tenant("tenant"))
CONVERSATION, MESSAGE = UUID(int=1), UUID(int=2)

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=300)
scalar = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text
values = st.recursive(scalar, lambda of: st.lists(of, max_size=3) | st.dictionaries(text, of))
content = text | st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": text}), max_size=3
)


def row_of(said: Any, metadata: dict[str, Any] | None, role: str = "user") -> MessageRow:
    return message_row(CONVERSATION, role, said, metadata, None, MESSAGE, None)


def answered(row: MessageRow) -> dict[str, Any]:
    """The row as the database answers with it."""
    return {
        "id": str(row.id), "conversation_id": str(row.conversation_id), "role": row.role.value,
        "content": Sealed(row.sealed or b"", row.sealed_with or "").document(), "metadata": {},
    }  # fmt: skip


@given(content, st.dictionaries(text, values, max_size=3), st.sampled_from(list(MessageRole)))
def test_what_was_sealed_comes_back(said: Any, metadata: dict[str, Any], role: MessageRole) -> None:
    sealed = KEYS.seal_message(row_of(said, metadata, role))
    assert (sealed.text, sealed.parts, sealed.metadata) == ("", None, None)
    opened = KEYS.open_message(answered(sealed))
    assert (opened["content"], opened["metadata"]) == (said, metadata)
    assert KEYS.seal_message(row_of(said, metadata, role)).sealed == sealed.sealed
    assert KEYS.seal_message(sealed) is sealed


def test_long_content_is_smaller_when_it_is_sealed() -> None:
    sealed = KEYS.seal_message(row_of("all the same " * 1_000, None)).sealed
    assert sealed is not None
    assert len(sealed) < 200


def sealed_as(payload: bytes) -> dict[str, Any]:
    """A message whose seal is right and whose payload is not."""
    row = KEYS.seal_message(row_of("", None))
    bound = _sealing.context(1, "tenant", *_sealing._message_place(CONVERSATION, MESSAGE, "user"))
    row.sealed = KEYS.keys.seal_content(payload, bound)
    return answered(row)


def test_a_payload_that_is_none_is_refused() -> None:
    whole = zstandard.ZstdCompressor().compress(json.dumps(["x" * 500, {}]).encode())
    assert KEYS.open_message(sealed_as(b"\x01" + whole))["content"] == "x" * 500
    for payload in (
        b"", b"\x00", b"\x02[]", b"\x00[1]", b"\x00{}", b"\x00\xff", b"\x01", b"\x01abc",
        b"\x01" + whole[:-1], b"\x01" + whole + b"x", b"\x00" + b"[" * 10,
    ):  # fmt: skip
        with pytest.raises(DecryptionError):
            KEYS.open_message(sealed_as(payload))


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    for size in (64 * 1024 * 1024, 1 << 40):
        bomb = bytearray(zstandard.ZstdCompressor().compress(b"x" * 300))
        # The size in the header of the frame: eight bytes, whatever comes after them.
        bomb = bytearray(b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + bomb[6:])
        with pytest.raises(DecryptionError):
            KEYS.open_message(sealed_as(b"\x01" + bytes(bomb)))
