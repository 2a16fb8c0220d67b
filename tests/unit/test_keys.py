"""Keys: what they seal opens for the same tenant, key and row, and for nothing else."""

from __future__ import annotations

import base64
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence import _keys
from haive.core.persistence._keys import KeyRing, TenantKeys, context
from haive.core.persistence.errors import (
    ConfigurationError,
    DecryptionError,
    KeyMissingError,
)

OLD, NEW = bytes(range(32)), bytes(range(100, 132))
ROW = context("default", "thread", 7, None, b"payload")


def tenant(*keys: bytes, name: str = "default") -> TenantKeys:
    return KeyRing(*keys).for_tenant(name)


# ── context ──────────────────────────────────────────────────────────────────────────────────

part = st.none() | st.text(max_size=4) | st.binary(max_size=4) | st.integers()
parts = st.lists(part, max_size=4)


@given(parts, parts)
def test_other_parts_give_another_context(one: list[object], other: list[object]) -> None:
    assert (context(*one) == context(*other)) == (one == other)  # type: ignore[arg-type]


def test_parts_cannot_be_moved_from_one_to_the_next() -> None:
    found = {
        context(), context(None), context(""), context(b""), context("ab", "c"), context("a", "bc"),
        context("abc"), context("1"), context(1), context(b"1"), context("a", None, "bc"),
        context(context("a"), "bc"), context("\udc80"),
    }  # fmt: skip
    assert len(found) == 13


# ── keys ─────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_the_same_however_it_is_written() -> None:
    raw = bytes([255, 254, 253] * 10 + [62, 63])
    texts = (
        raw.hex(), raw.hex().upper(), base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode().rstrip("="),
        f"  {raw.hex()}\n",
    )  # fmt: skip
    assert {KeyRing(text).for_tenant("t").key_id for text in texts} == {tenant(raw).key_id}


@pytest.mark.parametrize("key", [
    "", " ", "secret", "secret" * 11, b"", b"secret", b"k" * 31, b"k" * 33, "é" * 32, "s" * 44,
    f"{OLD.hex()}0", base64.b64encode(OLD[:31]).decode(), base64.b64encode(OLD + b"x").decode(),
    base64.b64encode(OLD),
])  # fmt: skip
def test_what_is_no_key_is_refused_and_not_shown(key: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="haive checkpoints key") as caught:
        KeyRing(key)
    if key.strip():
        assert str(key) not in str(caught.value)


def test_a_made_key_is_a_key_and_another_one_each_time() -> None:
    made = KeyRing.generate()
    assert len(base64.b64decode(made)) == 32
    assert made != KeyRing.generate()
    assert KeyRing(made)


def test_keys_are_read_from_a_text_the_first_one_first() -> None:
    ring = KeyRing.parse(f"{NEW.hex()}, {base64.b64encode(OLD).decode()}")
    assert ring.for_tenant("t").key_id == tenant(NEW).key_id
    for text in ("", ",", f"{NEW.hex()},", f"{NEW.hex()},,{OLD.hex()}", f"{NEW.hex()} {OLD.hex()}"):
        with pytest.raises(ConfigurationError):
            KeyRing.parse(text)


def test_a_key_is_in_a_ring_once() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        KeyRing(NEW, OLD, NEW.hex())


def test_a_ring_shows_the_ids_of_its_keys_and_nothing_else() -> None:
    ring = KeyRing(NEW, OLD)
    ids = f"({tenant(NEW).key_id}, {tenant(OLD).key_id})"
    assert repr(ring) == str(ring) == f"KeyRing{ids}"
    assert repr(ring.for_tenant("t")) == f"TenantKeys{ids}"


def test_what_is_derived_stays_the_same_in_later_versions() -> None:
    keys = tenant(OLD)
    assert keys.key_id == "abc6174d"
    assert keys.blind("$.status", b"done") == "egRn3FWLjHyglu0fuSoViQ"
    sealed = bytes.fromhex("000102030405060708090a0b95903c1fcfb595f37ed61c53019ed8cb370f72b019")
    assert keys.open(keys.key_id, sealed, context("row")) == b"hello"
    assert (
        keys.seal_content(b"hello", context("row")).hex()
        == "64271734f20e1ed9bd8f3d608d09111ce78a7aedaeb030f2189b36c5d345883582"
    )


def test_the_id_of_a_key_is_8_hex_characters_and_the_same_for_all_tenants() -> None:
    found = {tenant(OLD, name=name).key_id for name in ("a", "b", "")}
    assert len(found) == 1
    assert len(bytes.fromhex(found.pop())) == 4


def test_keys_of_a_tenant_are_derived_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing(NEW, OLD)
    keys = ring.for_tenant("a")
    monkeypatch.delattr(_keys, "HKDF")
    assert ring.for_tenant("a") is keys
    keys.seal(b"data", ROW)
    keys.blinds("$", b"data")


# ── sealing ──────────────────────────────────────────────────────────────────────────────────


@given(st.binary(max_size=100), st.binary(max_size=20), st.text(max_size=10))
def test_what_is_sealed_opens(data: bytes, row: bytes, name: str) -> None:
    keys = tenant(NEW, name=name)
    sealed = keys.seal(data, row)
    assert len(sealed) == len(data) + 28
    assert keys.open(keys.key_id, sealed, row) == data
    assert keys.seal(data, row) != sealed


def test_what_an_older_key_sealed_opens() -> None:
    before = tenant(OLD)
    sealed = before.seal(b"data", ROW)
    after = tenant(NEW, OLD)
    assert after.key_id != before.key_id
    assert after.open(before.key_id, sealed, ROW) == b"data"


def test_a_key_that_is_not_in_the_ring_is_named_as_the_cause() -> None:
    before = tenant(OLD)
    sealed = before.seal(b"data", ROW)
    with pytest.raises(KeyMissingError):
        tenant(NEW).open(before.key_id, sealed, ROW)


def test_a_key_does_not_open_what_another_one_sealed() -> None:
    keys = tenant(NEW, OLD)
    with pytest.raises(DecryptionError):
        keys.open(tenant(OLD).key_id, keys.seal(b"data", ROW), ROW)


def test_a_tenant_does_not_open_what_another_one_sealed() -> None:
    sealed = tenant(NEW, name="a").seal(b"data", ROW)
    other = tenant(NEW, name="b")
    with pytest.raises(DecryptionError):
        other.open(other.key_id, sealed, ROW)


def test_rows_cannot_be_swapped() -> None:
    keys = tenant(NEW)
    rows = [context("default", "thread", 1), context("default", "thread", 2)]
    sealed = [keys.seal(b"first", rows[0]), keys.seal(b"second", rows[1])]
    for place in (0, 1):
        with pytest.raises(DecryptionError):
            keys.open(keys.key_id, sealed[1 - place], rows[place])


def test_a_changed_byte_and_a_missing_one_are_found_everywhere() -> None:
    keys = tenant(NEW)
    sealed = keys.seal(b"data", ROW)
    for place in range(len(sealed)):
        for bit in range(8):
            flipped = bytearray(sealed)
            flipped[place] ^= 1 << bit
            with pytest.raises(DecryptionError):
                keys.open(keys.key_id, bytes(flipped), ROW)
        with pytest.raises(DecryptionError):
            keys.open(keys.key_id, sealed[:place], ROW)
    for forged in (sealed + b"\x00", os.urandom(40), pickle.dumps("data"), b"data"):
        with pytest.raises(DecryptionError):
            keys.open(keys.key_id, forged, ROW)


# ── content ──────────────────────────────────────────────────────────────────────────────────


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_the_same_content_of_the_same_row_has_the_same_bytes(data: bytes, row: bytes) -> None:
    keys = tenant(NEW)
    sealed = keys.seal_content(data, row)
    assert keys.open_content(keys.key_id, sealed, row) == data
    assert tenant(NEW, OLD).seal_content(data, row) == sealed
    for other in (
        keys.seal_content(data + b"x", row), keys.seal_content(data, row + b"x"),
        tenant(OLD).seal_content(data, row), tenant(NEW, name="b").seal_content(data, row),
    ):  # fmt: skip
        assert other[:12] != sealed[:12]


def test_states_and_content_have_keys_of_their_own() -> None:
    keys = tenant(NEW)
    with pytest.raises(DecryptionError):
        keys.open(keys.key_id, keys.seal_content(b"data", ROW), ROW)
    with pytest.raises(DecryptionError):
        keys.open_content(keys.key_id, keys.seal(b"data", ROW), ROW)


# ── blind tokens ─────────────────────────────────────────────────────────────────────────────


def test_a_token_is_the_same_for_the_same_value_only() -> None:
    keys = tenant(NEW)
    token = keys.blind("$.status", b"done")
    assert token == tenant(NEW, OLD).blind("$.status", b"done")
    assert len(base64.urlsafe_b64decode(token + "==")) == 16
    others = {
        keys.blind("$.status", b"open"), keys.blind("$.state", b"done"),
        keys.blind("$.statusd", b"one"), tenant(NEW, name="b").blind("$.status", b"done"),
        tenant(OLD).blind("$.status", b"done"),
    }  # fmt: skip
    assert len(others | {token}) == 6


def test_a_value_is_searched_by_the_tokens_of_each_key() -> None:
    keys = tenant(NEW, OLD)
    assert keys.blinds("$.a", b"1") == [keys.blind("$.a", b"1"), tenant(OLD).blind("$.a", b"1")]
