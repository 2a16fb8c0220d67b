"""Writes a zip of JSON, in constant memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import zipfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import orjson

from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# Bytes that are gathered before they are packed, in a thread of its own.
_LARGE = 256 * 1024


@dataclass
class _Part:
    """A file of the archive while it is written."""

    file: IO[bytes]
    records: int = 0
    waiting: bytearray = field(default_factory=bytearray)
    digest: Any = field(default_factory=hashlib.sha256)

    async def write(self, text: bytes) -> None:
        """Add bytes of a record."""
        self.waiting += text
        if len(self.waiting) >= _LARGE:
            await asyncio.to_thread(self.flush)

    async def record(self, text: bytes) -> None:
        """Add a record, which is a line."""
        await self.write(text + b"\n")
        self.records += 1

    def flush(self) -> None:
        """Pack what waits."""
        self.digest.update(self.waiting)
        self.file.write(self.waiting)
        self.waiting.clear()


class Archive:
    """A zip of files of JSON lines, with a manifest that counts and hashes them."""

    def __init__(self, packed: zipfile.ZipFile) -> None:
        self._packed = packed
        self._parts: dict[str, dict[str, Any]] = {}

    @property
    def counts(self) -> dict[str, int]:
        """Records by file, without the ending."""
        return {name.removesuffix(".jsonl"): one["records"] for name, one in self._parts.items()}

    @asynccontextmanager
    async def part(self, name: str) -> AsyncIterator[_Part]:
        """Open the next file."""
        with self._packed.open(f"{name}.jsonl", "w", force_zip64=True) as file:
            part = _Part(file)
            yield part
            await asyncio.to_thread(part.flush)
        self._parts[f"{name}.jsonl"] = {
            "records": part.records,
            "sha256": part.digest.hexdigest(),
        }

    def close(self, about: dict[str, Any]) -> None:
        """Write the manifest, which is the last file."""
        manifest = {**about, "files": self._parts}
        self._packed.writestr("manifest.json", orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


@asynccontextmanager
async def archive(path: Path) -> AsyncIterator[Archive]:
    """A zip that takes its name when it is whole, and that only its owner reads.

    Raises:
        InvalidInputError: The file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        # Whoever it is about, it is nobody else's to read.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with (
            os.fdopen(descriptor, "wb") as raw,
            zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            yield Archive(packed)
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InvalidInputError(f"{path} cannot be written: {error.strerror}.") from error
        raise
