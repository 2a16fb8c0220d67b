"""Opens what is to be imported: a file, standard input, compressed or in a ChatGPT export."""

from __future__ import annotations

import gzip
import io
import re
import sys
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

HEAD_SIZE = 1 << 16
_BUFFER = 1 << 18
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_BOM = b"\xef\xbb\xbf"
_MEMBER = re.compile(r"(.*/)?conversations(-\d+)?\.json")

#: What reading a damaged or cut off file raises.
DAMAGE = (EOFError, OSError, zlib.error, zipfile.BadZipFile)


class Source:
    """The bytes of a file, unpacked.

    ```python
    with closing(Source.open("export.zip")) as source:
        for stream in source.streams():
            ...
    ```

    Args:
        origin: A path, ``-`` for standard input, or an open binary file.
    """

    def __init__(self, origin: str | Path | BinaryIO) -> None:
        self._origin = origin
        self._exit = ExitStack()
        self._raw: _Counted | None = None
        self._zip: zipfile.ZipFile | None = None
        self._rest: IO[bytes] = io.BytesIO()
        #: The first bytes, unpacked: enough to tell the format.
        self.head = b""
        #: Bytes of the file as it lies there; None where nobody knows.
        self.size: int | None = None

    @property
    def bytes_read(self) -> int:
        """How many bytes of the file were read, packed ones if it is packed."""
        return self._raw.count if self._raw else 0

    @classmethod
    def open(cls, origin: str | Path | BinaryIO) -> Source:
        """Open it and read its head; `close` it in the end.

        Raises:
            InvalidInputError: It cannot be read.
        """
        source = cls(origin)
        try:
            source._open()
        except DAMAGE as error:
            source.close()
            reason = error.strerror if isinstance(error, OSError) else None
            raise InvalidInputError(
                f"{source._name} cannot be read: {reason or 'it is damaged or cut off'}."
            ) from error
        except BaseException:
            source.close()
            raise
        return source

    def close(self) -> None:
        """Close what `open` opened; a file of the caller's stays open."""
        self._exit.close()

    def streams(self) -> Iterator[IO[bytes]]:
        """Return the files in it one after the other: one, save for an export in pieces."""
        yield io.BufferedReader(_Joined(self.head, self._rest), _BUFFER)
        for name in self._members()[1:]:
            with self._member(name) as member:
                yield member

    @property
    def _name(self) -> str:
        return str(self._origin) if isinstance(self._origin, str | Path) else "The file"

    def _open(self) -> None:
        file: BinaryIO
        if not isinstance(self._origin, str | Path):
            file = self._origin
        elif str(self._origin) == "-":
            # Not sys.stdin.buffer: its lock, held by a thread that waits for input, would be fatal
            # to the interpreter when it ends.
            file = io.FileIO(sys.stdin.fileno(), closefd=False)
        else:
            path = Path(self._origin)
            file = self._exit.enter_context(path.open("rb", buffering=0))
            self.size = path.stat().st_size if path.is_file() else None
        self._raw = _Counted(file)
        stream: io.BufferedReader[Any] = io.BufferedReader(self._raw, _BUFFER)
        magic = stream.peek(4)[:4]
        if magic.startswith(_GZIP):
            self._rest = cast("IO[bytes]", gzip.GzipFile(fileobj=stream))
        elif magic == _ZIP:
            self._rest = self._open_zip(stream)
        else:
            self._rest = stream
        self.head = self._rest.read(HEAD_SIZE).removeprefix(_BOM)

    def _open_zip(self, stream: io.BufferedReader[Any]) -> IO[bytes]:
        if not stream.seekable():
            raise InvalidInputError(
                "A .zip cannot come through a pipe.", hint="Pass its path in place of `-`."
            )
        self._zip = self._exit.enter_context(zipfile.ZipFile(stream))
        members = self._members()
        if not members:
            raise InvalidInputError(
                f"There is no conversations.json in {self._name}.",
                hint="Of the .zip files, only ChatGPT's data export is known.",
            )
        return self._exit.enter_context(self._member(members[0]))

    def _members(self) -> list[str]:
        if self._zip is None:
            return []
        return sorted(name for name in self._zip.namelist() if _MEMBER.fullmatch(name))

    def _member(self, name: str) -> IO[bytes]:
        assert self._zip is not None  # only a zip has members # noqa: S101 # nosec B101
        try:
            return self._zip.open(name)
        except (RuntimeError, NotImplementedError) as error:
            raise InvalidInputError(
                f"{name} in {self._name} is encrypted or packed in an unknown way."
            ) from error


class _Counted(io.RawIOBase):
    """A file that counts what is read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        # read1 where there is one: a pipe is read as it fills.
        read: Any = getattr(self._file, "read1", self._file.read)
        data = read(len(view)) or b""
        view[: len(data)] = data
        self.count += len(data)
        return len(data)


class _Joined(io.RawIOBase):
    """The head that was read to tell the format, and then the rest."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        data = self._head[: len(view)]
        if data:
            self._head = self._head[len(data) :]
        else:
            data = self._rest.read(len(view))
        view[: len(data)] = data
        return len(data)
