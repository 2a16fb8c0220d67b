"""States as bytes and back: msgpack, in which types that it has not are tagged data.

A tagged value is either one extension (a date, a UUID) or a list that begins with one:
``[model "app:State", {fields}]``. Lists of a caller never begin with an extension, so nothing has
to be escaped. All nesting is msgpack's own: one call reads it, with its bound on depth, and no
extension holds another one.

What comes back is what went in, except that

- classes come back only if they are allowed; else a model, a dataclass and a named tuple come back
  as the dict of their fields, an enum's member as its value, and a set or a dict whose members or
  keys cannot be hashed any more as a list (of pairs);
- a numpy array comes back as a dict of dtype, shape and data where numpy is not imported;
- subclasses come back as what they extend: a ``defaultdict`` as dict, a text with methods as text;
- ``bytearray`` comes back as bytes: to tell them apart, each value would have to be looked at;
- time zones that are neither ``ZoneInfo`` nor an offset come back as the offset, without a name;
- an array of numpy comes back in C order.
"""

from __future__ import annotations

import sys
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, NamedTuple

import ormsgpack

from haive.core.persistence.checkpointer import _tags as tags
from haive.core.persistence.checkpointer._building import (
    BUILDERS,
    CLASSES,
    HASHED,
    LEAVES,
    UnknownZoneError,
    instance,
)
from haive.core.persistence.checkpointer._forming import OPTIONS, form_of
from haive.core.persistence.checkpointer._held import Held, HeldItems, completed
from haive.core.persistence.checkpointer._tags import kind_of, type_name
from haive.core.persistence.checkpointer._walking import packed_slowly
from haive.core.persistence.errors import (
    ContentTooLargeError,
    CorruptCheckpointError,
    InvalidInputError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

#: The largest state, packed and not compressed.
MAX_STATE_BYTES = 64 * 1024 * 1024

# The extension behind a state while it is read; see `_read`.
_END = 127
#: How a dict begins in msgpack: small ones, and those with their length behind it.
_DICTS = frozenset(bytes((first,)) for first in (*range(0x80, 0x90), 0xDE, 0xDF))

#: The messages of LangChain, which are allowed where they are imported.
_MESSAGES = frozenset(
    f"{role}Message{part}"
    for role in ("AI", "Human", "System", "Tool", "Function", "Chat")
    for part in ("", "Chunk")
) | {"RemoveMessage"}


class Codec:
    """Packs states, and unpacks them without running anything that they name.

    Args:
        types: The classes that may be rebuilt: enums, dataclasses, pydantic models, named tuples.

    Raises:
        InvalidInputError: One is none of these, or two have the same name.
    """

    def __init__(self, types: Iterable[type] = ()) -> None:
        self._types: dict[str, type] = {}
        for cls in types:
            if kind_of(cls) is None:
                raise InvalidInputError(
                    f"{type_name(cls)} is no enum, dataclass, pydantic model or named tuple."
                )
            if self._types.setdefault(type_name(cls), cls) is not cls:
                raise InvalidInputError(f"Two classes are called {type_name(cls)}.")

    def pack(self, value: object) -> bytes:
        """A state as bytes; equal ones of equal order are the same bytes.

        Raises:
            StateError: Something in it cannot be stored; ``path`` says where.
            ContentTooLargeError: It has more than `MAX_STATE_BYTES`.
        """
        try:
            packed = ormsgpack.packb(value, default=form_of, option=OPTIONS)
        except (ormsgpack.MsgpackEncodeError, RecursionError):
            # A key that is no text, or something that cannot be stored: the slow way finds out.
            packed = packed_slowly(value)
        if len(packed) > MAX_STATE_BYTES:
            raise ContentTooLargeError(
                f"The state has {len(packed):,} bytes; at most {MAX_STATE_BYTES:,} are stored.",
                hint="Store the bulk elsewhere and its address here.",
            )
        return packed

    def unpack(
        self, data: bytes, *, holding: AbstractSet[type] = frozenset(), exact: bool = True
    ) -> object:
        """The state that was packed; memory and time are within a constant of what msgpack takes.

        Args:
            data: What `pack` made.
            holding: Allowed classes whose objects come as `Held`, to be made later.
            exact: Objects of classes that have not changed come as they were saved; else all are
                made by their classes, and validated.

        Raises:
            CorruptCheckpointError: The bytes are not what `pack` makes, or do not fit an allowed
                class any more.
        """
        value, tagged = _read(data)
        return self._rebuilt(value, holding, exact=exact) if tagged else value

    def first_class(self, data: bytes) -> type | None:
        """The allowed class that the first item of a packed list is of; None if it is of none."""
        if data[1:2] in _DICTS:  # as most states are: nothing is read for this alone
            return None
        value, _ = _read(data)
        first = value[0] if isinstance(value, list) and value else None
        tag = first[0] if isinstance(first, list) and first else None
        return self._allowed(tag.name) if isinstance(tag, _Tag) else None

    def _rebuilt(self, value: object, holding: AbstractSet[type], *, exact: bool) -> object:
        """The value with its tagged lists as what they stand for, without recursion."""
        root = [value]
        containers: list[Any] = [root]
        tagged: list[tuple[Any, Any, list[Any]]] = []
        for container in containers:  # grows: each comes before what is in it
            listed = type(container) is list
            for place, item in enumerate(container) if listed else container.items():
                kind = type(item)
                if kind is list:
                    containers.append(item)
                    if item and type(item[0]) is _Tag:
                        tagged.append((container, place, item))
                elif kind is dict:
                    containers.append(item)
                elif kind is _Tag and (place != 0 or not listed or container is root):
                    raise CorruptCheckpointError("A tag stands alone.")
        for container, place, node in reversed(tagged):
            container[place] = self._built(node, holding, exact=exact)
        return root[0]

    def _built(self, node: list[Any], holding: AbstractSet[type], *, exact: bool) -> object:
        tag, items = node[0], tuple(node[1:])
        if tag.code in BUILDERS:
            try:
                built = BUILDERS[tag.code](tag.name, *items)
            except (ValueError, TypeError, ArithmeticError):
                raise CorruptCheckpointError("A tag has other data than it should.") from None
            if holding and tag.code in HASHED and type(built) is list:
                return HeldItems(built, HASHED[tag.code])
            return built
        _, shape = CLASSES[tag.code]
        if len(items) != len(shape) or not all(map(isinstance, items, shape)):
            raise CorruptCheckpointError("A tag has other data than it should.")
        cls = self._allowed(tag.name)
        if cls is None or kind_of(cls) != tag.code:
            return {**items[0], **items[2]} if tag.code == tags.MODEL else items[0]
        if cls in holding:
            return _held(cls, tag.code, items, exact=exact)
        try:
            if holding:  # what is held cannot be in an object that is not
                items = tuple(completed(item) for item in items)
            return instance(tag.code, cls, items, exact=exact)
        except Exception:  # noqa: BLE001 - validators and constructors are anybody's code
            raise CorruptCheckpointError(
                f"A {tag.name} was stored that is none as the class is now."
            ) from None

    def _allowed(self, name: str) -> type | None:
        cls = self._types.get(name)
        if cls is None and name.startswith("langchain_core.messages."):
            # The package may load a part of itself for the name, as it does for anybody.
            messages = sys.modules.get("langchain_core.messages")
            simple = name.partition(":")[2]
            if messages is not None and simple in _MESSAGES:
                cls = getattr(messages, simple, None)
        return cls


def _held(cls: Any, code: int, items: tuple[Any, ...], *, exact: bool) -> object:
    """An object of an allowed class that is not made yet; of an enum, what there is of it."""
    if code == tags.ENUM:
        try:
            return cls(items[0])
        except Exception:  # noqa: BLE001 - it may not be a member any more
            return items[0]
    fields, unset, extra = items if code == tags.MODEL else (items[0], [], {})

    def make(given: dict[str, Any], *, unchanged: bool) -> object:
        stored: tuple[Any, ...] = (given,)
        if code == tags.MODEL and unchanged:
            stored = ({n: given[n] for n in fields}, unset, {n: given[n] for n in extra})
        elif code == tags.MODEL:
            stored = (given, [name for name in unset if name in given], {})
        return instance(code, cls, stored, exact=exact and unchanged)

    return Held({**fields, **extra}, make)


class _Tag(NamedTuple):
    code: int
    name: str


class _Reader:
    """What reads the extensions of one state."""

    __slots__ = ("_end", "problem", "tagged")

    def __init__(self, end: bytes) -> None:
        self._end = end
        self.tagged = False
        self.problem = "It is no state, or a part of one."

    def extension(self, code: int, data: bytes) -> object:
        # ormsgpack makes one error of all; what there is to say is kept here.
        leaf = LEAVES.get(code)
        if leaf is not None:
            try:
                return leaf(data)
            except UnknownZoneError as error:
                self.problem = str(error)
                raise
        if code in BUILDERS or code in CLASSES:
            self.tagged = True
            return _Tag(code, str(data, "utf-8"))
        if code == _END and data == self._end:
            return self
        self.problem = "It has a tag that this version does not know."
        raise ValueError


def _read(data: bytes) -> tuple[Any, bool]:
    """The value in the data with its tags as they are, and whether it has any."""
    # Which part of the data the value takes is not told, so it is read as a pair with something
    # nobody can know: if that comes second, then the value ends where the data ends.
    end = token_bytes(16)
    reader = _Reader(end)
    framed = b"".join((b"\x92", data, b"\xd8", bytes((_END,)), end))
    try:
        value, last = ormsgpack.unpackb(framed, ext_hook=reader.extension)
    except ValueError:
        raise CorruptCheckpointError(reader.problem) from None
    if last is not reader:
        raise CorruptCheckpointError("Something follows the state.")
    return value, reader.tagged
