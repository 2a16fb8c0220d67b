"""What leaves the process is sealed here, if there is a key, and bound to where it belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haive.core.persistence.checkpointer._keys import context
from haive.core.persistence.errors import CheckpointKeyError, CorruptCheckpointError

if TYPE_CHECKING:
    from uuid import UUID

    from haive.core.persistence.checkpointer._keys import TenantKeys

Part = str | bytes | int | None


class Sealer:
    """Seals and opens for one tenant. Without keys everything passes as it is.

    Args:
        tenant: Whose data it is; part of what every seal is bound to.
        keys: The keys of that tenant, or None.
    """

    def __init__(self, tenant: str, keys: TenantKeys | None) -> None:
        self.tenant = tenant
        self.keys = keys

    @property
    def key_id(self) -> str | None:
        """What is written beside what is sealed."""
        return self.keys.key_id if self.keys else None

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
        return self.keys.seal(data, context(kind, self.tenant, *place), key_id)

    def open(self, key_id: str | None, data: bytes, kind: str, *place: Part) -> bytes:
        """Open what lies at a place.

        Raises:
            CheckpointKeyError: No key of the ring opens it.
            CorruptCheckpointError: It is damaged, lies where it does not belong, or is not sealed
                though there is a key.
        """
        if key_id is None and self.keys is None:
            return data
        if self.keys is None:
            raise CheckpointKeyError(
                f"A checkpoint is sealed with the key {key_id}, and no key is set.",
                hint="Pass CheckpointConfig(encryption_key=…).",
            )
        if key_id is None:
            raise CorruptCheckpointError(
                "A checkpoint is not sealed, though a key is set.",
                hint="If you saved it before you had one: `haive checkpoints rotate --seal-plain`.",
            )
        return self.keys.open(key_id, data, context(kind, self.tenant, *place))


def state_place(
    thread_id: str, namespace: str, checkpoint_id: UUID, parent_id: UUID | None, codec: int
) -> tuple[Part, ...]:
    """What a state is bound to."""
    parent = None if parent_id is None else parent_id.bytes
    return (thread_id, namespace, checkpoint_id.bytes, parent, codec)
