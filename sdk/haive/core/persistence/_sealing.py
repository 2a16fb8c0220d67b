"""Content is sealed on its way out and opened on its way in: the server sees no word of it."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode, b64encode
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

import zstandard

from haive.core.persistence._encoding import (
    MAX_JSON_BYTES,
    MAX_PARTS_BYTES,
    object_to_json,
    to_json,
)
from haive.core.persistence._keys import context
from haive.core.persistence._rows import MessageRow
from haive.core.persistence.errors import (
    DecryptionError,
    InvalidInputError,
    KeyMissingError,
    PersistenceError,
    UnsupportedOperationError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from haive.core.persistence._keys import KeyRing, TenantKeys

# Below, zstd saves nothing worth its time.
_COMPRESS_FROM = 200
_PLAIN, _ZSTD = b"\x00", b"\x01"
# The largest content: parts, metadata, and what JSON puts around them.
_MOST = MAX_PARTS_BYTES + MAX_JSON_BYTES + 1024
_VERSION = 1
# From so many rows on a thread seals and opens them: each takes 30 µs.
_MANY = 500

# What haive_private.json_object and message_parts allow.
_LEVELS, _LARGEST = 100, 10**400
_MANY_DIGITS = re.compile(r"\d{400}")

T = TypeVar("T")

#: What of a conversation is sealed; the rest is what it is found and ordered by.
SEALED_FIELDS = ("title", "context", "settings")


class KeySource(Protocol):
    """Where the keys of tenants come from."""

    async def ring(self, tenant: str) -> KeyRing:
        """The data keys of a tenant, the active one first.

        Raises:
            KeyDestroyedError: They were destroyed.
        """


class Sealed(NamedTuple):
    """What a row has in place of its content."""

    data: bytes
    key_id: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Sealed:
        """From the JSON of the database.

        Raises:
            DecryptionError: It is something else.
        """
        try:
            return cls(b64decode(document["sealed"]), str(document["sealed_with"]))
        except (KeyError, TypeError, ValueError):
            raise DecryptionError from None

    def document(self) -> dict[str, str]:
        """As the functions of the database take it."""
        return {"sealed": b64encode(self.data).decode("ascii"), "sealed_with": self.key_id}


class ContentKeys:
    """Seals and opens the rows of one tenant with the keys of one moment.

    What is sealed is bound to the tenant, table, row and columns, and, of a message, to who
    speaks: a row that was moved, or whose role was changed, does not open.

    Args:
        tenant: Whose rows.
        keys: The keys of that tenant.
        allow_plain: Whether rows that are not sealed are taken as they are.
    """

    def __init__(self, tenant: str, keys: TenantKeys, *, allow_plain: bool = False) -> None:
        self.tenant = tenant
        self.keys = keys
        self._allow_plain = allow_plain

    # -- messages --------------------------------------------------------------------------------

    def seal_message(self, row: MessageRow) -> MessageRow:
        """The row as it leaves the process; a row that is sealed already stays as it is."""
        if row.sealed is not None:
            return row
        for text in (row.parts, row.metadata):
            if text is not None:
                check_readable(text)
        sealed = self._seal_text(
            _message_text(row.text, row.parts, row.metadata),
            *_message_place(row.conversation_id, row.id, row.role.value),
        )
        return MessageRow(
            conversation_id=row.conversation_id,
            id=row.id,
            role=row.role,
            text="",
            content=row.content,
            parts=None,
            metadata=None,
            usage=row.usage,
            created_at=row.created_at,
            sealed=sealed.data,
            sealed_with=sealed.key_id,
            plain=row,
        )

    def open_message(self, document: dict[str, Any]) -> dict[str, Any]:
        """A message of the database's with its content.

        Raises:
            DecryptionError: It does not open, or is not sealed though it should be.
        """
        content = document["content"]
        if not isinstance(content, dict):
            self._plain_is_allowed("message")
            return document
        place = (UUID(document["conversation_id"]), UUID(document["id"]), document["role"])
        opened = self._open_list(2, Sealed.of(content), *_message_place(*place))
        return {**document, "content": opened[0], "metadata": opened[1]}

    def reseal_message(
        self,
        conversation_id: UUID,
        message_id: UUID,
        role: str,
        sealed: Sealed | None,
        *,
        content: str | None,
        parts: str | None,
        metadata: str | None,
    ) -> Sealed:
        """A message sealed with the key of now: what is sealed, or what is stored in the clear."""
        place = _message_place(conversation_id, message_id, role)
        if sealed is None:
            text = _message_text(content or "", parts, metadata)
        else:
            text = self._open_text(sealed, *place)
        return self._seal_text(text, *place)

    def seal_messages(self, rows: Sequence[MessageRow]) -> list[MessageRow]:
        """Many of them."""
        return [self.seal_message(row) for row in rows]

    def open_messages(self, documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Many of them."""
        return [self.open_message(document) for document in documents]

    # -- conversations ---------------------------------------------------------------------------

    def seal_conversation(self, conversation_id: UUID, fields: Mapping[str, str]) -> Sealed:
        """Title, context and settings as one, each from its JSON."""
        for name in SEALED_FIELDS:
            check_readable(fields[name])
        text = f"[{','.join(fields[name] for name in SEALED_FIELDS)}]"
        return self._seal_text(text, *_conversation_place(conversation_id))

    def reseal_conversation(
        self, conversation_id: UUID, sealed: Sealed | None, fields: Mapping[str, str]
    ) -> Sealed:
        """A conversation sealed with the key of now; see `reseal_message`."""
        if sealed is None:
            return self.seal_conversation(conversation_id, fields)
        place = _conversation_place(conversation_id)
        return self._seal_text(self._open_text(sealed, *place), *place)

    def open_conversation(self, document: dict[str, Any]) -> dict[str, Any]:
        """A conversation of the database's with its title, context, settings and messages.

        Raises:
            DecryptionError: It does not open, or is not sealed though it should be.
        """
        metadata = dict(document["metadata"])
        sealed = metadata.pop("sealed", None)
        if sealed is None:
            self._plain_is_allowed("conversation")
        else:
            place = _conversation_place(UUID(document["id"]))
            opened = self._open_list(len(SEALED_FIELDS), Sealed.of(sealed), *place)
            metadata.update(zip(SEALED_FIELDS, opened, strict=True))
        messages = document.get("messages")
        return {
            **document,
            "metadata": metadata,
            "messages": messages and [self.open_message(each) for each in messages],
        }

    def open_conversations(self, documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Many of them."""
        return [self.open_conversation(document) for document in documents]

    def open_page(self, page: dict[str, Any]) -> dict[str, Any]:
        """A page of them, and where the next one begins."""
        return {**page, "conversations": self.open_conversations(page["conversations"])}

    # -- any text --------------------------------------------------------------------------------

    def _seal_text(self, text: str, *place: str | bytes) -> Sealed:
        bound = context(_VERSION, self.tenant, *place)
        return Sealed(self.keys.seal_content(_packed(text.encode()), bound), self.keys.key_id)

    def _open_text(self, sealed: Sealed, *place: str | bytes) -> str:
        bound = context(_VERSION, self.tenant, *place)
        data = self.keys.open_content(sealed.key_id, sealed.data, bound)
        try:
            return _unpacked(data).decode()
        except ValueError:
            raise DecryptionError from None

    def _open_list(self, length: int, sealed: Sealed, *place: str | bytes) -> list[Any]:
        try:
            opened = json.loads(self._open_text(sealed, *place))
        except (ValueError, RecursionError):
            raise DecryptionError from None
        if not isinstance(opened, list) or len(opened) != length:
            raise DecryptionError
        return opened

    def _plain_is_allowed(self, kind: str) -> None:
        if not self._allow_plain:
            raise DecryptionError(
                f"A {kind} is not sealed, though the tenant's content is.",
                hint="If it was stored before: rotate the keys, which seals all that there is.",
            )


class Sealer:
    """The keys of a tenant at hand, and as new as ``max_age`` says.

    Args:
        tenant: Whose rows are sealed.
        source: Where the keys are.
        max_age: Seconds after which they are asked for anew. A rotation waits that long for all
            to know a new key, and again for all to use it.
        allow_plain: Take rows that are not sealed as they are: while the rows of a tenant that
            was not encrypted are being sealed.
    """

    def __init__(
        self, tenant: str, source: KeySource, *, max_age: float = 60.0, allow_plain: bool = False
    ) -> None:
        self.tenant = tenant
        self.source = source
        self.max_age = max_age
        self.allow_plain = allow_plain
        self._at_hand: ContentKeys | None = None
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def ready(self) -> ContentKeys:
        """The keys, to seal with.

        Raises:
            KeyDestroyedError: They were destroyed.
        """
        if self._at_hand is not None and monotonic() < self._until:
            return self._at_hand
        async with self._asking:
            if self._at_hand is None or monotonic() >= self._until:
                await self._ask()
        return self.at_hand

    async def refresh(self) -> ContentKeys:
        """The keys, asked for now."""
        async with self._asking:
            await self._ask()
        return self.at_hand

    def forget(self) -> None:
        """Have no keys at hand: they are asked for when they are needed next."""
        self._at_hand = None
        self._until = 0.0

    @property
    def at_hand(self) -> ContentKeys:
        """The keys as they were asked for last."""
        if self._at_hand is None:
            raise PersistenceError("The keys were not asked for yet.")
        return self._at_hand

    async def sealed(self, rows: Sequence[MessageRow]) -> Sequence[MessageRow]:
        """Rows as they leave the process."""
        keys = await self.ready()
        return await _away(keys.seal_messages, rows)

    async def opened(self, answer: Any, opens: Callable[[ContentKeys, Any], Any]) -> Any:
        """An answer of the database, opened by a method of `ContentKeys`.

        Raises:
            DecryptionError: Something in it does not open; then nothing of it is given out.
        """
        try:
            return await _away(partial(opens, await self.ready()), answer)
        except KeyMissingError:  # sealed with a newer key than those at hand
            return await _away(partial(opens, await self.refresh()), answer)

    async def _ask(self) -> None:
        # From before the question: what was answered may be as old as that.
        until = monotonic() + self.max_age
        self._at_hand = None
        ring = await self.source.ring(self.tenant)
        self._at_hand = ContentKeys(
            self.tenant, ring.for_tenant(self.tenant), allow_plain=self.allow_plain
        )
        self._until = until


def check_readable(text: str) -> None:
    """Refuse JSON that the columns would refuse: parsers end at some depth and size of number.

    Raises:
        InvalidInputError: It has 100 levels, or a number beyond 1e400.
    """
    if text.count("[") + text.count("{") < _LEVELS and not _MANY_DIGITS.search(text):
        return
    try:
        level = [json.loads(text)]
        for _ in range(_LEVELS):
            if any(type(item) is int and abs(item) > _LARGEST for item in level):
                break
            level = [
                child
                for item in level
                if isinstance(item, dict | list)
                for child in (item.values() if isinstance(item, dict) else item)
            ]
            if not level:
                return
    except (ValueError, RecursionError):
        pass
    raise InvalidInputError("JSON has less than 100 levels, and no number beyond 1e400.")


def json_of_sealed(fields: Mapping[str, Any]) -> dict[str, str]:
    """Those fields that are sealed where content is, as JSON.

    Raises:
        InvalidInputError: One cannot be stored.
    """
    return {
        name: to_json(fields[name], name) if name == "title" else object_to_json(fields[name], name)
        for name in SEALED_FIELDS
        if name in fields
    }


def check_filters(filters: Mapping[str, Any]) -> None:
    """Refuse what the database can only look for where it can read.

    Raises:
        UnsupportedOperationError: A filter is one of these.
    """
    asked = [name for name in ("context", "text", "title") if filters.get(name) is not None]
    if asked:
        raise UnsupportedOperationError(
            f"The tenant's content is sealed: the database cannot look for {', '.join(asked)}.",
            hint="Filter by user_id, agent_id, tags, participants, counts and times, and look "
            "through what comes back.",
        )


async def _away(doing: Callable[[Any], T], items: Any) -> T:
    """Do something with items, in a thread where there are many."""
    return doing(items) if len(items) < _MANY else await asyncio.to_thread(doing, items)


def _message_text(content: str, parts: str | None, metadata: str | None) -> str:
    text = json.dumps(content, ensure_ascii=False) if parts is None else parts
    return f"[{text},{metadata or '{}'}]"


def _message_place(conversation_id: UUID, message_id: UUID, role: str) -> tuple[str | bytes, ...]:
    return "messages", "content, parts, metadata", conversation_id.bytes, message_id.bytes, role


def _conversation_place(conversation_id: UUID) -> tuple[str | bytes, ...]:
    return "conversations", "title, context, settings", conversation_id.bytes


def _packed(data: bytes) -> bytes:
    if len(data) >= _COMPRESS_FROM:
        packed = zstandard.ZstdCompressor(level=3).compress(data)
        if len(packed) < len(data):
            return _ZSTD + packed
    return _PLAIN + data


def _unpacked(data: bytes) -> bytes:
    kind, packed = data[:1], data[1:]
    if kind == _PLAIN:
        return packed
    if kind != _ZSTD:
        raise DecryptionError
    try:
        # The size stands in the frame, and the memory for it is taken at once.
        if not 0 <= zstandard.frame_content_size(packed) <= _MOST:
            raise DecryptionError
        return zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError:
        raise DecryptionError from None
