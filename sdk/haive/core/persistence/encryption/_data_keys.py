"""The data keys of tenants: made, unwrapped, turned and destroyed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from haive.core.persistence._keys import KEY_BYTES, KeyRing, key_id_of
from haive.core.persistence.encryption._key_store import KeyStatus, StoredKey
from haive.core.persistence.errors import (
    ConflictError,
    DecryptionError,
    KeyDestroyedError,
    KeyMissingError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.encryption._key_store import KeyStore
    from haive.core.persistence.encryption._wrapping import KeyEncryption

# The order of a ring: the first one seals.
_ORDER = {KeyStatus.ACTIVE: 0, KeyStatus.NEXT: 1, KeyStatus.RETIRED: 2}


@dataclass(frozen=True, kw_only=True)
class Destroyed:
    """What destroying the keys of a tenant came to."""

    keys: int
    """How many data keys were destroyed now."""
    backups_stay_readable: bool
    """Whether a backup of the database can still be read: it has the wrapped keys, and what
    unwraps them was not destroyed. See the table at `haive.core.persistence.encryption`."""


class DataKeys:
    """The data keys of tenants, unwrapped when they are needed.

    Args:
        encryption: What wraps them.
        store: Where the wrapped ones are.
    """

    def __init__(self, encryption: KeyEncryption, store: KeyStore) -> None:
        self.encryption = encryption
        self.store = store

    async def ring(self, tenant: str) -> KeyRing:
        """The keys of a tenant, the active one first.

        Raises:
            KeyDestroyedError: They were destroyed.
            KeyMissingError: It has none; see `create`.
            DecryptionError: One does not unwrap.
        """
        keys = await self.stored(tenant)
        if not any(key.status is KeyStatus.ACTIVE for key in keys):
            raise KeyMissingError(
                f"The tenant {tenant} has no data key.", hint="Make one with DataKeys.create."
            )
        keys = sorted(keys, key=lambda key: _ORDER[key.status])
        return KeyRing(*[await self._unwrapped(tenant, key) for key in keys])

    async def stored(self, tenant: str) -> Sequence[StoredKey]:
        """The keys of a tenant as they are stored, oldest first.

        Raises:
            KeyDestroyedError: They were destroyed.
        """
        keys = await self.store.read(tenant)
        if any(key.status is KeyStatus.DESTROYED for key in keys):
            raise KeyDestroyedError
        return keys

    async def create(self, tenant: str) -> str:
        """Make the first data key of a tenant, if it has none, and return the id of the active one.

        Raises:
            KeyDestroyedError: The tenant's keys were destroyed: it gets no new ones.
        """
        if not await self.stored(tenant):
            await self._add(tenant, KeyStatus.ACTIVE)
        # Somebody else may have been first.
        for key in await self.stored(tenant):
            if key.status is KeyStatus.ACTIVE:
                return key.key_id
        raise KeyMissingError(f"The tenant {tenant} has no active data key.")

    async def add_next(self, tenant: str) -> str:
        """Make the key that will be the active one, if there is none yet, and return its id."""
        await self._add(tenant, KeyStatus.NEXT)
        for key in await self.stored(tenant):
            if key.status is KeyStatus.NEXT:
                return key.key_id
        raise ConflictError("Somebody else has changed the tenant's keys.", hint="Begin anew.")

    async def activate_next(self, tenant: str) -> None:
        """Seal with the next key from now on, and only open with the one that was active."""
        for key in await self.stored(tenant):
            if key.status is KeyStatus.NEXT:
                await self.store.put(tenant, replace(key, status=KeyStatus.ACTIVE), KeyStatus.NEXT)

    async def rewrap(self, tenant: str) -> int:
        """Wrap the data keys with the key-encryption key of now; return how many were.

        No row changes: only those few bytes are new.
        """
        kek_id = await self.encryption.kek_id()
        count = 0
        for key in await self.stored(tenant):
            if key.kek_id == kek_id:
                continue
            data_key = await self._unwrapped(tenant, key)
            wrapped = await self.encryption.wrap(tenant, key.key_id, data_key)
            count += await self.store.put(
                tenant, replace(key, wrapped=wrapped, kek_id=kek_id), key.status
            )
        return count

    async def drop(self, tenant: str, key_id: str) -> bool:
        """Remove a key that seals nothing any more; see `drop_unused`."""
        return await self.store.drop(tenant, key_id)

    async def destroy(self, tenant: str) -> Destroyed:
        """Destroy all keys of a tenant: what they sealed cannot be read any more.

        Other processes have them at hand for as long as ``max_age`` of their `Sealer` says.
        """
        everywhere = await self.encryption.destroy(tenant)
        count = await self.store.destroy(tenant)
        return Destroyed(
            keys=count, backups_stay_readable=self.store.in_database and not everywhere
        )

    async def _add(self, tenant: str, status: KeyStatus) -> None:
        known = {key.key_id for key in await self.stored(tenant)}
        data_key = secrets.token_bytes(KEY_BYTES)
        while (key_id := key_id_of(data_key)) in known:  # one of 2³² has the same
            data_key = secrets.token_bytes(KEY_BYTES)
        # Asked first, as in `rewrap`: where it changes now, the key is merely wrapped once more.
        kek_id = await self.encryption.kek_id()
        key = StoredKey(
            key_id=key_id,
            wrapped=await self.encryption.wrap(tenant, key_id, data_key),
            kek_id=kek_id,
            status=status,
            created_at=datetime.now(UTC),
        )
        await self.store.put(tenant, key, None)

    async def _unwrapped(self, tenant: str, key: StoredKey) -> bytes:
        data_key = await self.encryption.unwrap(tenant, key.key_id, key.wrapped or b"")
        # Whatever wrapped it: a key of another tenant, or another key of this one, is not it.
        if len(data_key) != KEY_BYTES or key_id_of(data_key) != key.key_id:
            raise DecryptionError("A data key of the tenant is not the one that it is stored as.")
        return data_key
