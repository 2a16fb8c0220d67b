"""Keys that sign the heads of audit logs: Ed25519, or HMAC-SHA256 where who checks may sign."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from datetime import UTC
from typing import TYPE_CHECKING, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from haive.core.persistence.errors import AuditSignatureError, ConfigurationError

if TYPE_CHECKING:
    from haive.core.persistence.audit.models import AuditHead

_LABEL = "haive audit head v1"
_KEY_BYTES = 32
_VARIABLE = "HAIVE_AUDIT_KEY"
_HINT = "`haive audit key` makes one."


class AuditKey:
    """A key that signs heads, or checks that they were signed.

    Args:
        text: ``ed25519:…`` to sign and check, ``ed25519-public:…`` to check, or ``hmac:…`` for
            both, each with 32 bytes in base64 (``hmac`` 32 or more).

    Raises:
        ConfigurationError: It is no such text.
    """

    def __init__(self, text: str) -> None:
        kind, _, encoded = text.strip().partition(":")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        known = kind in {"ed25519", "ed25519-public", "hmac"}
        if not known or len(raw) < _KEY_BYTES or (kind != "hmac" and len(raw) > _KEY_BYTES):
            raise ConfigurationError("The key of the audit log is no key.", hint=_HINT)
        self._private: Ed25519PrivateKey | None = None
        self._public: Ed25519PublicKey | None = None
        self._secret: bytes | None = None
        if kind == "ed25519":
            self._private = Ed25519PrivateKey.from_private_bytes(raw)
            self._public = self._private.public_key()
        elif kind == "ed25519-public":
            self._public = Ed25519PublicKey.from_public_bytes(raw)
        else:
            self._secret = raw
        self.algorithm: Literal["ed25519", "hmac-sha256"] = (
            "hmac-sha256" if self._public is None else "ed25519"
        )
        # Of a secret by a keyed hash: the id goes out with every head.
        named = (
            self._public.public_bytes_raw()
            if self._public is not None
            else hmac.digest(raw, b"haive audit key id", "sha256")
        )
        self.key_id = hashlib.sha256(named).hexdigest()[:8]

    @classmethod
    def from_environment(cls) -> AuditKey | None:
        """The key of ``HAIVE_AUDIT_KEY``; None where it is not set.

        Raises:
            ConfigurationError: It is no key.
        """
        text = os.environ.get(_VARIABLE, "")
        return cls(text) if text.strip() else None

    @staticmethod
    def generate(kind: Literal["ed25519", "hmac"] = "ed25519") -> str:
        """The text of a new key."""
        return f"{kind}:{base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()}"

    @property
    def public(self) -> str | None:
        """The text of the key that only checks; None for HMAC, which has none."""
        if self._public is None:
            return None
        return f"ed25519-public:{base64.b64encode(self._public.public_bytes_raw()).decode()}"

    def sign(self, head: AuditHead) -> AuditHead:
        """The head with a signature of this key.

        Raises:
            ConfigurationError: The key only checks.
        """
        message = self._message(head)
        if self._private is not None:
            signature = self._private.sign(message)
        elif self._secret is not None:
            signature = hmac.digest(self._secret, message, "sha256")
        else:
            raise ConfigurationError(
                "A public key signs nothing.", hint="Use the key that it is the public part of."
            )
        return head.model_copy(
            update={
                "algorithm": self.algorithm,
                "key_id": self.key_id,
                "signature": base64.b64encode(signature).decode(),
            }
        )

    def check(self, head: AuditHead) -> None:
        """Return if this key signed the head. What it says of its own algorithm decides nothing.

        Raises:
            AuditSignatureError: It did not, or not this.
        """
        try:
            signature = base64.b64decode(head.signature or "", validate=True)
            if self._public is not None:
                self._public.verify(signature, self._message(head))
                return
            expected = hmac.digest(self._secret or b"", self._message(head), "sha256")
            if hmac.compare_digest(signature, expected):
                return
        except (InvalidSignature, binascii.Error, ValueError):
            pass
        raise AuditSignatureError(
            f"The head of {head.tenant} at row {head.seq} is not signed by the key {self.key_id}.",
            hint="Use the key that signed it; if it is, the head was changed.",
        )

    def _message(self, head: AuditHead) -> bytes:
        at = head.at.astimezone(UTC).isoformat(timespec="microseconds")
        parts = [_LABEL, self.algorithm, self.key_id, head.tenant, head.seq, head.hash, at]
        return json.dumps(parts, separators=(",", ":")).encode()

    def __repr__(self) -> str:
        return f"AuditKey({self.algorithm}, {self.key_id})"
