"""Key-encryption keys: what data keys are wrapped with, and where it comes from."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haive.core.persistence._keys import context, derived, key_id_of, parse_key
from haive.core.persistence.errors import ConfigurationError, DecryptionError, KeyMissingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from haive.core.persistence.postgres import PostgresStore

_LABEL = "haive data key v1"
_ID_BYTES, _NONCE_BYTES = 4, 12


class KeyEncryption(Protocol):
    """Wraps the data keys of tenants, and unwraps them."""

    async def kek_id(self) -> str:
        """Which key wraps from now on: 1 to 200 characters, written beside what it wraps."""

    async def wrap(self, tenant: str, key_id: str, data_key: bytes) -> bytes:
        """A data key as it may be stored, bound to the tenant and its id."""

    async def unwrap(self, tenant: str, key_id: str, wrapped: bytes) -> bytes:
        """What `wrap` wrapped.

        Raises:
            DecryptionError: It was changed, is another tenant's or key's, or was wrapped by a key
                that is not at hand.
        """

    async def destroy(self, tenant: str) -> bool:
        """Make all that was wrapped for a tenant useless, copies of it too.

        Returns:
            Whether that is so now. A key that wraps for all tenants cannot be destroyed for one.
        """


class _MasterKeys:
    """Wraps with the first of some keys, and unwraps with all of them."""

    def __init__(self, masters: Sequence[bytes]) -> None:
        self._masters = {key_id_of(master): master for master in masters}
        self.kek_id = next(iter(self._masters))

    def wrap(self, tenant: str, key_id: str, data_key: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher(self.kek_id).encrypt(
            nonce, data_key, _bound(self.kek_id, tenant, key_id)
        )
        return bytes.fromhex(self.kek_id) + nonce + sealed

    def unwrap(self, tenant: str, key_id: str, wrapped: bytes) -> bytes:
        kek_id = wrapped[:_ID_BYTES].hex()
        if kek_id not in self._masters:
            raise KeyMissingError(
                f"A data key of the tenant was wrapped by the key {kek_id}, which is not set.",
                hint="Set it after the one that wraps now, separated by a comma.",
            )
        nonce, sealed = wrapped[_ID_BYTES:][:_NONCE_BYTES], wrapped[_ID_BYTES + _NONCE_BYTES :]
        try:
            return self._cipher(kek_id).decrypt(nonce, sealed, _bound(kek_id, tenant, key_id))
        except (InvalidTag, ValueError):
            raise DecryptionError(
                "A data key of the tenant does not unwrap: it was changed, or is another's."
            ) from None

    def _cipher(self, kek_id: str) -> AESGCM:
        # Not the master key itself, which may be a key of checkpoints as well.
        return AESGCM(derived(self._masters[kek_id], _LABEL))


def _bound(kek_id: str, tenant: str, key_id: str) -> bytes:
    return context(_LABEL, kek_id, tenant, key_id)


def _parsed(text: str, name: str) -> _MasterKeys:
    try:
        return _MasterKeys([parse_key(each) for each in text.split(",")])
    except ConfigurationError:
        raise ConfigurationError(
            f"{name} is no key: 32 bytes as hex or base64, or several, separated by commas.",
            hint="A passphrase is none. `haive checkpoints key` makes a key.",
        ) from None


class EnvironmentKey:
    """A key-encryption key of all tenants, from an environment variable.

    The variable holds 32 bytes as hex or base64. To change the key, put a new one before it, with
    a comma between, have `DataKeys.rewrap` wrap all data keys with it, and remove the old one.

    Args:
        variable: Its name.
        environ: Where it is, if not in the environment.

    Raises:
        ConfigurationError: It is not set, or holds no key; a passphrase is none.
    """

    def __init__(
        self, variable: str = "TENANT_MASTER_KEY", *, environ: Mapping[str, str] | None = None
    ) -> None:
        text = (os.environ if environ is None else environ).get(variable)
        if text is None:
            raise ConfigurationError(
                f"{variable} is not set: the data keys of tenants cannot be unwrapped.",
                hint="`haive checkpoints key` makes one. Keep a copy: without it nothing opens.",
            )
        self._keys = _parsed(text, variable)

    async def kek_id(self) -> str:
        """See `KeyEncryption.kek_id`."""
        return self._keys.kek_id

    async def wrap(self, tenant: str, key_id: str, data_key: bytes) -> bytes:
        """See `KeyEncryption.wrap`."""
        return self._keys.wrap(tenant, key_id, data_key)

    async def unwrap(self, tenant: str, key_id: str, wrapped: bytes) -> bytes:
        """See `KeyEncryption.unwrap`."""
        return self._keys.unwrap(tenant, key_id, wrapped)

    async def destroy(self, tenant: str) -> bool:
        """Nothing: it wraps for the other tenants too."""
        return False


class VaultKey:
    """A key-encryption key of all tenants, from Supabase Vault.

    It is read from ``vault.decrypted_secrets``, so the store needs a direct connection as a user
    who may read that view: each time that something is wrapped, for the secret may have changed,
    and to unwrap where what was read last does not do it. The secret is the text that
    `EnvironmentKey` takes: ``select vault.create_secret('…', 'haive_master_key')``. Vault keeps
    it in the same database, encrypted by a key that is not in its backups; who may read the view
    reads it, so it protects backups and copies, and not from the owner of the database.

    Args:
        store: A direct connection.
        name: The name of the secret.
    """

    def __init__(self, store: PostgresStore, name: str = "haive_master_key") -> None:
        self._store = store
        self._name = name
        self._loaded: _MasterKeys | None = None

    async def _read(self) -> _MasterKeys:
        rows = await self._store.execute(
            "select decrypted_secret from vault.decrypted_secrets where name = $1", self._name
        )
        if not rows:
            raise ConfigurationError(
                f"Vault has no secret {self._name}.",
                hint="Make one with vault.create_secret(secret, name).",
            )
        self._loaded = _parsed(str(rows[0]["decrypted_secret"]), f"The secret {self._name}")
        return self._loaded

    async def kek_id(self) -> str:
        """See `KeyEncryption.kek_id`."""
        return (await self._read()).kek_id

    async def wrap(self, tenant: str, key_id: str, data_key: bytes) -> bytes:
        """See `KeyEncryption.wrap`."""
        return (await self._read()).wrap(tenant, key_id, data_key)

    async def unwrap(self, tenant: str, key_id: str, wrapped: bytes) -> bytes:
        """See `KeyEncryption.unwrap`."""
        try:
            return (self._loaded or await self._read()).unwrap(tenant, key_id, wrapped)
        except KeyMissingError:  # the secret was changed since
            return (await self._read()).unwrap(tenant, key_id, wrapped)

    async def destroy(self, tenant: str) -> bool:
        """Nothing: it wraps for the other tenants too."""
        return False


class KmsKey:
    """Key-encryption keys that never leave a key management service.

    Args:
        kek_id: What names the key of the service, 1 to 200 characters.
        wrap: Tenant, key id and data key to what is stored: the service's ``encrypt``, with tenant
            and key id as its context, so that it unwraps with the same ones only.
        unwrap: Tenant, key id and what is stored to the data key.
        destroy: Destroys the service's key of one tenant, where each has its own. Without it
            nothing of the service is destroyed with a tenant.
    """

    def __init__(
        self,
        kek_id: str,
        *,
        wrap: Callable[[str, str, bytes], Awaitable[bytes]],
        unwrap: Callable[[str, str, bytes], Awaitable[bytes]],
        destroy: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        if not 0 < len(kek_id) <= 200:
            raise ConfigurationError("A kek_id has 1 to 200 characters.")
        self._kek_id = kek_id
        self._wrap = wrap
        self._unwrap = unwrap
        self._destroy = destroy

    async def kek_id(self) -> str:
        """See `KeyEncryption.kek_id`."""
        return self._kek_id

    async def wrap(self, tenant: str, key_id: str, data_key: bytes) -> bytes:
        """See `KeyEncryption.wrap`."""
        return await self._wrap(tenant, key_id, data_key)

    async def unwrap(self, tenant: str, key_id: str, wrapped: bytes) -> bytes:
        """See `KeyEncryption.unwrap`."""
        return await self._unwrap(tenant, key_id, wrapped)

    async def destroy(self, tenant: str) -> bool:
        """Destroy the tenant's key, if that was set."""
        if self._destroy is None:
            return False
        await self._destroy(tenant)
        return True
