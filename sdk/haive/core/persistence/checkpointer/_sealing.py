"""What leaves the process is sealed here, if there is a key, and bound to where it belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haive.core.persistence._keys import context
from haive.core.persistence.errors import (
    CheckpointKeyError,
    CorruptCheckpointError,
    DecryptionError,
    KeyMissingError,
)

if TYPE_CHECKING:
    from uuid import UUID

    from haive.core.persistence._keys import TenantKeys
    from haive.core.persistence._sealing import Sealer as ContentSealer

# What is told of a part that is not one of the checkpoint itself.
_KINDS = {"branch": "The metadata of a branch", "schema": "A schema", "write": "A pending write"}

Part = str | bytes | int | None


class Sealer:
    """Seals and opens for one tenant. Without keys everything passes as it is.

    Args:
        tenant: Whose data it is; part of what every seal is bound to.
        keys: The keys of that tenant, or None.
        content: Where the keys are those that the store has: it may have newer ones by the time
            that something is opened.
    """

    def __init__(
        self, tenant: str, keys: TenantKeys | None, content: ContentSealer | None = None
    ) -> None:
        self.tenant = tenant
        self.keys = keys
        self._content = content

    @property
    def key_id(self) -> str | None:
        """What is written beside what is sealed."""
        return self.keys.key_id if self.keys else None

    def takes(self, key_id: str | None) -> bool:
        """Whether what has this key is in the clear, and may be."""
        allowed = self._content is not None and self._content.allow_plain
        return key_id is None and (self.keys is None or allowed)

    def seal(self, data: bytes, kind: str, *place: Part) -> bytes:
        """Seal what lies at a place."""
        return self.keys.seal(data, context(kind, self.tenant, *place)) if self.keys else data

    def seal_again(self, key_id: str | None, data: bytes, kind: str, *place: Part) -> bytes:
        """Seal a part of a row anew by the key of its other parts, for a row names but one key.

        Raises:
            CheckpointKeyError: No key of the ring has this id.
        """
        if self.keys is None:
            return data
        try:
            return self.keys.seal(data, context(kind, self.tenant, *place), key_id)
        except KeyMissingError:
            raise CheckpointKeyError from None

    def open(self, key_id: str | None, data: bytes, kind: str, *place: Part) -> bytes:
        """Open what lies at a place.

        Raises:
            CheckpointKeyError: No key of the ring opens it.
            CorruptCheckpointError: It is damaged, lies where it does not belong, or is not sealed
                though there is a key.
        """
        if self.takes(key_id):
            return data
        if self.keys is None:
            raise CheckpointKeyError(
                f"A checkpoint is sealed with the key {key_id}, and no key is set.",
                hint="Pass CheckpointConfig(encryption_key=…).",
            )
        if key_id is None:
            raise CorruptCheckpointError(
                f"{_KINDS.get(kind, 'A checkpoint')} is not sealed, though a key is set.",
                hint="If you saved it before you had one: `haive checkpoints rotate --seal-plain`.",
            )
        keys = self.keys
        if self._content is not None and key_id not in keys.key_ids:
            keys = self._content.at_hand.keys
        try:
            return keys.open(key_id, data, context(kind, self.tenant, *place))
        except KeyMissingError:
            raise CheckpointKeyError from None
        except DecryptionError:
            raise CorruptCheckpointError from None


def state_place(  # noqa: PLR0917 - in the order in which they are bound
    thread_id: str,
    namespace: str,
    checkpoint_id: UUID,
    parent_id: UUID | None,
    codec: int,
    base: UUID | None = None,
) -> tuple[Part, ...]:
    """What a state is bound to; to ``base`` where it is stored against that."""
    parent = None if parent_id is None else parent_id.bytes
    place = (thread_id, namespace, checkpoint_id.bytes, parent, codec)
    return place if base is None else (*place, base.bytes)
