"""What is kept of data keys, and what a place for them does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class KeyStatus(StrEnum):
    """What a data key is for."""

    NEXT = "next"
    """Will be the active one, when all who read know it."""
    ACTIVE = "active"
    """Seals, and opens."""
    RETIRED = "retired"
    """Opens what it sealed once."""
    DESTROYED = "destroyed"
    """Is no more; what it sealed cannot be read."""


@dataclass(frozen=True, kw_only=True)
class StoredKey:
    """A data key as it is stored."""

    key_id: str
    wrapped: bytes | None
    """None once it was destroyed."""
    kek_id: str
    status: KeyStatus
    created_at: datetime


class KeyStore(Protocol):
    """Keeps wrapped data keys."""

    in_database: ClassVar[bool]
    """Whether a backup of the database has them."""

    async def read(self, tenant: str) -> Sequence[StoredKey]:
        """The keys of a tenant, oldest first."""

    async def put(self, tenant: str, key: StoredKey, was: KeyStatus | None) -> bool:
        """Add a key, or change one that still is what the caller knows.

        Making a key the active one retires the one that was, at once.

        Args:
            tenant: Whose key.
            key: As it shall be.
            was: Its status before; None adds it.

        Returns:
            Whether it was written. Not where it is another by now, where there is a next key or,
            for one that is added, an active one already, or where the keys were destroyed.
        """

    async def drop(self, tenant: str, key_id: str) -> bool:
        """Remove a key that seals nothing any more; never the active one."""

    async def destroy(self, tenant: str) -> int:
        """Destroy all keys of a tenant, for good, and return how many those were."""
