"""Wrapped data keys in a folder outside of the database."""

from __future__ import annotations

import asyncio
import os
import re
from base64 import b64decode, b64encode
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from haive.core.persistence.encryption._key_store import KeyStatus, StoredKey
from haive.core.persistence.errors import ConfigurationError, DecryptionError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class FileKeyStore:
    """Keeps the wrapped keys of each tenant in a file, in a folder of its own.

    Backups of the database do not have them, so destroying a tenant's keys holds for those too:
    unless somebody copied the folder, which is then as good as a backup, or the disk keeps what
    was overwritten. All processes that work in the tenant need the folder, and so does whoever
    restores a backup: keep copies of it where they can be deleted. It must be on one machine, or
    on a network file system that locks and renames as a local one does.

    Args:
        path: The folder, made if it is not there, that only its owner may enter.

    Raises:
        ConfigurationError: Others may enter it.
    """

    in_database: ClassVar[bool] = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.stat().st_mode & 0o077:
            raise ConfigurationError(
                "Others may enter the folder of the keys.", hint="chmod 700 is what it needs."
            )

    async def read(self, tenant: str) -> Sequence[StoredKey]:
        """See `KeyStore.read`."""
        return await asyncio.to_thread(self._read, self._file(tenant))

    async def put(self, tenant: str, key: StoredKey, was: KeyStatus | None) -> bool:
        """See `KeyStore.put`."""

        def change() -> bool:
            with self._locked(tenant) as file:
                keys = _after_put(self._read(file), key, was)
                if keys is not None:
                    self._write(file, keys)
                return keys is not None

        return await asyncio.to_thread(change)

    async def drop(self, tenant: str, key_id: str) -> bool:
        """See `KeyStore.drop`."""

        def change() -> bool:
            with self._locked(tenant) as file:
                keys = self._read(file)
                left = [
                    key
                    for key in keys
                    if key.key_id != key_id or key.status not in {KeyStatus.NEXT, KeyStatus.RETIRED}
                ]
                if len(left) < len(keys):
                    self._write(file, left)
                return len(left) < len(keys)

        return await asyncio.to_thread(change)

    async def destroy(self, tenant: str) -> int:
        """See `KeyStore.destroy`."""

        def change() -> int:
            with self._locked(tenant) as file:
                keys = self._read(file)
                count = sum(key.status is not KeyStatus.DESTROYED for key in keys)
                if count:
                    _overwrite(file)
                    gone = [replace(key, wrapped=None, status=KeyStatus.DESTROYED) for key in keys]
                    self._write(file, gone)
                return count

        return await asyncio.to_thread(change)

    def _file(self, tenant: str) -> Path:
        if not _TENANT.fullmatch(tenant):  # it becomes the name of a file
            raise InvalidInputError("The id of a tenant is no slug.")
        return self.path / f"{tenant}.json"

    @contextmanager
    def _locked(self, tenant: str) -> Iterator[Path]:
        """The file of a tenant, for one process at a time; the lock ends with the process."""
        import fcntl  # noqa: PLC0415 - Unix alone has it

        file = self._file(tenant)
        descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(descriptor)

    def _read(self, file: Path) -> list[StoredKey]:
        try:
            documents = loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return []
        except ValueError:
            raise DecryptionError("The file of the tenant's keys is damaged.") from None
        return [_from_document(document) for document in documents]

    def _write(self, file: Path, keys: Sequence[StoredKey]) -> None:
        """Put a whole new file in its place: after a crash it is the old one or the new one."""
        text = dumps([_document(key) for key in keys], indent=1)
        new = file.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _after_put(
    keys: Sequence[StoredKey], new: StoredKey, was: KeyStatus | None
) -> list[StoredKey] | None:
    """The keys with a new one, or a changed one; None where that may not be."""
    now = next((key for key in keys if key.key_id == new.key_id), None)
    others = [key for key in keys if key.key_id != new.key_id]
    taken = {key.status for key in others}
    if (now.status if now else None) is not was or KeyStatus.DESTROYED in taken | {was}:
        return None
    if new.status in taken and (new.status is KeyStatus.NEXT or was is None):
        return None
    if new.status is KeyStatus.ACTIVE:
        others = [
            replace(key, status=KeyStatus.RETIRED) if key.status is KeyStatus.ACTIVE else key
            for key in others
        ]
    added = replace(new, created_at=now.created_at) if now else new
    return sorted([*others, added], key=lambda key: (key.created_at, key.key_id))


def _overwrite(file: Path) -> None:
    """Write over what is there: on most disks, that is what a file's blocks held."""
    size = file.stat().st_size
    with file.open("r+b") as out:
        out.write(b"\x00" * size)
        out.flush()
        os.fsync(out.fileno())


def _document(key: StoredKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "wrapped": None if key.wrapped is None else b64encode(key.wrapped).decode("ascii"),
        "kek_id": key.kek_id,
        "status": key.status.value,
        "created_at": key.created_at.isoformat(),
    }


def _from_document(document: dict[str, Any]) -> StoredKey:
    try:
        wrapped = document["wrapped"]
        return StoredKey(
            key_id=document["key_id"],
            wrapped=None if wrapped is None else b64decode(wrapped),
            kek_id=document["kek_id"],
            status=KeyStatus(document["status"]),
            created_at=datetime.fromisoformat(document["created_at"]),
        )
    except (KeyError, TypeError, ValueError):
        raise DecryptionError("The file of the tenant's keys is damaged.") from None
