"""Keys that rows are sealed with, and sub-keys of each tenant.

From a master key come, by HKDF-SHA256 with a label for each, an id, which is stored beside what
the key seals, and for each tenant: a key of AES-256-GCM for states and one for content, a key of
HMAC-SHA256 for tokens by which sealed values are found, and one for nonces of content. The first
key of a ring seals; all of them open.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from haive.core.persistence.errors import (
    ConfigurationError,
    DecryptionError,
    KeyMissingError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bytes of a master key, and of every key that is derived from one.
KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_BLIND_BYTES = 16
# Part of every label, so it never changes; checkpoints were sealed first.
_VERSION = "haive checkpoint v1"
_HINT = "`haive checkpoints key` makes one."

_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{43}=?")


def context(*parts: str | bytes | int | None) -> bytes:
    """What identifies a row, as bytes: other parts never give the same."""
    encoded: list[bytes] = []
    for part in parts:
        if part is None:
            kind, data = b"n", b""
        elif isinstance(part, str):
            kind, data = b"s", part.encode("utf-8", "surrogatepass")
        elif isinstance(part, int):
            kind, data = b"i", b"%d" % part
        else:
            kind, data = b"b", part
        encoded += (kind, len(data).to_bytes(8, "big"), data)
    return b"".join(encoded)


class Derived(NamedTuple):
    """What one master key is for one tenant."""

    seal: bytes
    blind: bytes
    content: bytes
    nonce: bytes


class KeyRing:
    """The master keys: the first one seals, and all of them open.

    Args:
        primary: 32 bytes, or their text in hex or base64.
        *older: Keys that were the first one once.

    Raises:
        ConfigurationError: One is no key, or two are the same.
    """

    def __init__(self, primary: str | bytes, *older: str | bytes) -> None:
        masters = [parse_key(key) for key in (primary, *older)]
        self._masters = {key_id_of(master): master for master in masters}
        if len(self._masters) < len(masters):
            raise ConfigurationError("A key is in the ring of encryption keys twice.")
        # Of the tenants that were used last: deriving takes some 10 µs a key.
        self._tenants = lru_cache(maxsize=4096)(self._derive)

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """The ring of the keys in a text, separated by commas.

        Raises:
            ConfigurationError: One is no key, or two are the same.
        """
        return cls(*(key.strip() for key in text.split(",")))

    @staticmethod
    def generate() -> str:
        """A new key, in base64."""
        return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()

    def for_tenant(self, tenant: str) -> TenantKeys:
        """The keys of a tenant."""
        return self._tenants(tenant)

    def _derive(self, tenant: str) -> TenantKeys:
        return TenantKeys(
            {
                key_id: Derived(*(derived(master, label, tenant) for label in Derived._fields))
                for key_id, master in self._masters.items()
            }
        )

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._masters)})"


class TenantKeys:
    """What seals and opens for one tenant.

    A nonce is random, or as good as that, so a tenant's key is good for 2³² seals: change it
    before.

    Args:
        keys: By key id, what the key is for this tenant; the first one is used for what is new.

    Attributes:
        key_id: The id of the key that seals: 8 hex characters, the same for all tenants.
        key_ids: The ids of all keys, that one first.
    """

    def __init__(self, keys: Mapping[str, Derived]) -> None:
        self.key_id = next(iter(keys))
        self.key_ids = tuple(keys)
        self._states = {key_id: AESGCM(key.seal) for key_id, key in keys.items()}
        self._contents = {key_id: AESGCM(key.content) for key_id, key in keys.items()}
        self._nonce = keys[self.key_id].nonce
        self._blinds = [key.blind for key in keys.values()]

    def seal(self, data: bytes, context: bytes, key_id: str | None = None) -> bytes:
        """A nonce of 12 bytes, the data by AES-256-GCM, and its tag of 16 bytes.

        Args:
            data: What to seal.
            context: What it belongs to; it opens with the same context only.
            key_id: By which key of the ring; if not given, the one that seals.

        Raises:
            KeyMissingError: No key of the ring has this id.
        """
        key_id = key_id or self.key_id
        cipher = self._states.get(key_id)
        if cipher is None:
            raise KeyMissingError
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, data, _bound(key_id, context))

    def open(self, key_id: str, sealed: bytes, context: bytes) -> bytes:
        """What `seal` sealed.

        Raises:
            KeyMissingError: No key of the ring has this id.
            DecryptionError: It was changed, or sealed for another context.
        """
        return _opened(self._states.get(key_id), key_id, sealed, context)

    def seal_content(self, data: bytes, context: bytes) -> bytes:
        """As `seal`, but the same data of the same context gives the same bytes.

        A write that is repeated after a lost answer must be equal in the database, which cannot
        open it. So the nonce is no random number but an HMAC, under a key of its own, of all that
        is sealed and bound: a pseudo-random function, whose values for different messages collide
        no sooner than random ones do. Nobody learns more than that a row says what it said.
        """
        bound = _bound(self.key_id, context)
        nonce = _nonce(self._nonce, bound, data)
        return nonce + self._contents[self.key_id].encrypt(nonce, data, bound)

    def open_content(self, key_id: str, sealed: bytes, context: bytes) -> bytes:
        """What `seal_content` sealed.

        Raises:
            KeyMissingError: No key of the ring has this id.
            DecryptionError: It was changed, or sealed for another context.
        """
        return _opened(self._contents.get(key_id), key_id, sealed, context)

    def blind(self, path: str, value: bytes) -> str:
        """A token for a value at a path, by which it is found and from which it cannot be read.

        Returns:
            16 bytes of HMAC-SHA256 in base64 for URLs, 22 characters.
        """
        return _blinded(self._blinds[0], path, value)

    def blinds(self, path: str, value: bytes) -> list[str]:
        """The tokens by each key of the ring, that of the first key first."""
        return [_blinded(key, path, value) for key in self._blinds]

    def __repr__(self) -> str:
        return f"TenantKeys({', '.join(self.key_ids)})"


def parse_key(key: str | bytes) -> bytes:
    """The 32 bytes of a key, from themselves or their text in hex or base64.

    Raises:
        ConfigurationError: It is no key; a passphrase is none.
    """
    if isinstance(key, bytes):
        if len(key) == KEY_BYTES:
            return key
    elif _HEX.fullmatch(text := key.strip()):
        return bytes.fromhex(text)
    elif _BASE64.fullmatch(text):
        try:
            return base64.urlsafe_b64decode(
                text.removesuffix("=").replace("+", "-").replace("/", "_") + "="
            )
        except binascii.Error:
            pass
    raise ConfigurationError(
        "An encryption key is not 32 bytes, nor their text in hex or base64.", hint=_HINT
    )


def key_id_of(master: bytes) -> str:
    """The id of a key: 8 hex characters, which tell nothing else of it."""
    return derived(master, "id", length=4).hex()


def derived(master: bytes, *label: str, length: int = KEY_BYTES) -> bytes:
    """A key for one purpose, by HKDF-SHA256."""
    info = context(_VERSION, *label)
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(master)


def _bound(key_id: str, identity: bytes) -> bytes:
    return context(_VERSION, key_id, identity)


def _opened(cipher: AESGCM | None, key_id: str, sealed: bytes, context: bytes) -> bytes:
    if cipher is None:
        raise KeyMissingError
    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        raise DecryptionError
    nonce, data = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return cipher.decrypt(nonce, data, _bound(key_id, context))
    except InvalidTag:
        raise DecryptionError from None


def _nonce(key: bytes, bound: bytes, data: bytes) -> bytes:
    # The length parts the two, and the data is not copied: it may be megabytes.
    mac = hmac.new(key, len(bound).to_bytes(8, "big"), "sha256")
    mac.update(bound)
    mac.update(data)
    return mac.digest()[:_NONCE_BYTES]


def _blinded(key: bytes, path: str, value: bytes) -> str:
    digest = hmac.digest(key, context(path, value), "sha256")[:_BLIND_BYTES]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
