"""Encryption at rest: content leaves the process sealed, with data keys that others wrap.

Each tenant has data keys of its own. They are stored wrapped by a key-encryption key, which the
database does not have: `EnvironmentKey`, `VaultKey` or `KmsKey`. Where the wrapped keys are, a
`KeyStore` says, and which two are taken says what destroying a tenant's keys is worth:

==================  ==============================  ==============================================
key-encryption key  wrapped keys in                 after `DataKeys.destroy`
==================  ==============================  ==============================================
environment, Vault  `DatabaseKeyStore`              unreadable here; a restored backup of the
                                                    database can be read again
environment, Vault  `FileKeyStore`                  unreadable in backups of the database too, if
                                                    nobody kept a copy of the folder
KMS with `destroy`  either                          unreadable everywhere
==================  ==============================  ==============================================
"""

from haive.core.persistence._sealing import Sealer
from haive.core.persistence.encryption._data_keys import DataKeys, Destroyed
from haive.core.persistence.encryption._database_keys import DatabaseKeyStore
from haive.core.persistence.encryption._file_keys import FileKeyStore
from haive.core.persistence.encryption._key_store import KeyStatus, KeyStore, StoredKey
from haive.core.persistence.encryption._rotation import Rotated, drop_unused, rotate
from haive.core.persistence.encryption._wrapping import (
    EnvironmentKey,
    KeyEncryption,
    KmsKey,
    VaultKey,
)

__all__ = [
    "DataKeys",
    "DatabaseKeyStore",
    "Destroyed",
    "EnvironmentKey",
    "FileKeyStore",
    "KeyEncryption",
    "KeyStatus",
    "KeyStore",
    "KmsKey",
    "Rotated",
    "Sealer",
    "StoredKey",
    "VaultKey",
    "drop_unused",
    "rotate",
]
