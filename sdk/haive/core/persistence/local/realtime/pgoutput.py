"""Decoding what the plugin pgoutput (protocol version 1) says of a transaction's rows."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH: Final = struct.Struct("!I")
_COUNT: Final = struct.Struct("!H")
_BEGIN: Final = struct.Struct("!QQI")
_OLD_ROW: Final = ord("O")
_OLD_KEY: Final = ord("K")
#: Microseconds from 1970 to 2000, where Postgres' time begins.
_EPOCH: Final = 946_684_800_000_000


class Unchanged:
    """A wide value that an update has left as it was, and that the log does not repeat."""


UNCHANGED: Final = Unchanged()
Value = bytes | None | Unchanged
Values = list[Value]


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it was when its rows changed."""

    schema: str
    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One changed row: each value is the text that Postgres writes for it."""

    kind: str
    """INSERT, UPDATE or DELETE."""
    relation: Relation
    new: Values | None
    old: Values | None
    """Of an update or delete."""
    old_is_whole: bool
    """Whether ``old`` is all of the row; else it is the replica identity, and the rest null."""
    xid: int
    """The transaction's id, without its epoch."""
    committed_at: int
    """Microseconds since 1970."""


class Decoder:
    """Turns the messages of one stream into changes.

    Args:
        on_change: Gets each changed row, in the order of commits.
    """

    def __init__(self, on_change: Callable[[Change], None]) -> None:
        self._on_change = on_change
        self._relations: dict[int, Relation] = {}
        self._xid = 0
        self._committed_at = 0

    def feed(self, message: bytes) -> None:
        """Take one message."""
        kind = message[:1]
        if kind == b"I":
            relation = self._relations[_LENGTH.unpack_from(message, 1)[0]]
            new, _ = _values(message, 6)
            self._emit("INSERT", relation, new)
        elif kind == b"U":
            relation = self._relations[_LENGTH.unpack_from(message, 1)[0]]
            at, old, whole = 5, None, message[5] == _OLD_ROW
            if whole or message[5] == _OLD_KEY:
                old, at = _values(message, at + 1)
            new, _ = _values(message, at + 1)
            self._emit("UPDATE", relation, new, old, whole=whole)
        elif kind == b"D":
            relation = self._relations[_LENGTH.unpack_from(message, 1)[0]]
            old, _ = _values(message, 6)
            self._emit("DELETE", relation, None, old, whole=message[5] == _OLD_ROW)
        elif kind == b"B":
            _, committed_at, self._xid = _BEGIN.unpack_from(message, 1)
            self._committed_at = committed_at + _EPOCH
        elif kind == b"R":
            self._relations[_LENGTH.unpack_from(message, 1)[0]] = _relation(message)
        # Commits, types, origins and truncations tell nothing that a client hears of.

    def _emit(
        self,
        kind: str,
        relation: Relation,
        new: Values | None,
        old: Values | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self._on_change(Change(kind, relation, new, old, whole, self._xid, self._committed_at))


def _values(message: bytes, at: int) -> tuple[Values, int]:
    """Return the values of a row that begins somewhere in a message, and where it ends."""
    count = _COUNT.unpack_from(message, at)[0]
    at += 2
    values: Values = []
    for _ in range(count):
        kind = message[at]
        at += 1
        if kind == 0x74:  # t: text
            size = _LENGTH.unpack_from(message, at)[0]
            at += 4
            values.append(message[at : at + size])
            at += size
        elif kind == 0x6E:  # n: null
            values.append(None)
        else:
            values.append(UNCHANGED)
    return values, at


def _relation(message: bytes) -> Relation:
    schema, at = _string(message, 5)
    table, at = _string(message, at)
    count = _COUNT.unpack_from(message, at + 1)[0]  # past the replica identity
    at += 3
    columns = []
    for _ in range(count):
        name, at = _string(message, at + 1)  # past the flags
        columns.append(name)
        at += 8  # type and modifier
    return Relation(schema, table, tuple(columns))


def _string(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(0, at)
    return message[at:end].decode(), end + 1
