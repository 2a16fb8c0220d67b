"""Wrapped data keys in the database that they seal."""

from __future__ import annotations

from base64 import b64decode
from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, TypeAdapter

from haive.core.persistence.encryption._key_store import KeyStatus, StoredKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haive.core.persistence.store import Store

T = TypeVar("T")


class _Row(BaseModel):
    key_id: str
    wrapped: str | None
    kek_id: str
    status: KeyStatus
    created_at: datetime

    def key(self) -> StoredKey:
        return StoredKey(
            key_id=self.key_id,
            wrapped=None if self.wrapped is None else b64decode(self.wrapped),
            kek_id=self.kek_id,
            status=self.status,
            created_at=self.created_at,
        )


_ROWS = TypeAdapter(list[_Row])
_FLAG = TypeAdapter(bool)
_COUNT = TypeAdapter(int)


class DatabaseKeyStore:
    """Keeps wrapped keys in ``haive_private.tenant_keys``, beside what they seal.

    Nothing has to be kept but the key-encryption key, and all processes see the same keys. But a
    backup of the database has them: where the key-encryption key survives, destroying a tenant's
    keys makes its data unreadable here, and not in a backup that was taken before.

    Args:
        store: An open store of a trusted caller: a direct connection or a secret key.
    """

    in_database: ClassVar[bool] = True

    def __init__(self, store: Store) -> None:
        self._store = store

    async def _call(
        self, function: str, tenant: str, arguments: Mapping[str, Any], returns: TypeAdapter[T]
    ) -> T:
        transport = self._store._transport.scoped(tenant=tenant)
        # All of them: a call that is repeated finds that it was done, and says no; see `DataKeys`.
        return await transport.call(function, arguments, returns, safe=True)

    async def read(self, tenant: str) -> Sequence[StoredKey]:
        """See `KeyStore.read`."""
        rows = await self._call("list_tenant_keys", tenant, {}, _ROWS)
        return [row.key() for row in rows]

    async def put(self, tenant: str, key: StoredKey, was: KeyStatus | None) -> bool:
        """See `KeyStore.put`."""
        arguments = {
            "key_id": key.key_id,
            "wrapped": key.wrapped,
            "kek_id": key.kek_id,
            "status": key.status.value,
            "was_status": None if was is None else was.value,
        }
        return await self._call("put_tenant_key", tenant, arguments, _FLAG)

    async def drop(self, tenant: str, key_id: str) -> bool:
        """See `KeyStore.drop`."""
        return await self._call("drop_tenant_key", tenant, {"key_id": key_id}, _FLAG)

    async def destroy(self, tenant: str) -> int:
        """See `KeyStore.destroy`."""
        return await self._call("destroy_tenant_keys", tenant, {}, _COUNT)
