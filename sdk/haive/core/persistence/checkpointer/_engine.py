"""Packs states, calls the database, and unpacks what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from haive.core.persistence._encoding import check_text, object_to_json, to_json
from haive.core.persistence.checkpointer import _frames
from haive.core.persistence.checkpointer._arguments import check_arguments
from haive.core.persistence.checkpointer._bytes import to_base64
from haive.core.persistence.checkpointer._cache import StateCache
from haive.core.persistence.checkpointer._chains import (
    Chain,
    Known,
    Packed,
    anchor_of,
    delta_of,
    seal_state,
    unpacked,
)
from haive.core.persistence.checkpointer._codec import Codec
from haive.core.persistence.checkpointer._documents import (
    COUNT,
    FOUND,
    SAVED,
    TENANT,
    found_by_column,
    key_ids,
)
from haive.core.persistence.checkpointer._paths import child
from haive.core.persistence.checkpointer._sealing import Sealer
from haive.core.persistence.checkpointer._search import MAX_SEARCH_BYTES, blind_terms
from haive.core.persistence.errors import (
    BranchConflict,
    CorruptCheckpointError,
    InvalidInputError,
    NotFoundError,
    StateError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from pydantic import TypeAdapter

    from haive.core.persistence._sealing import Sealer as ContentSealer
    from haive.core.persistence.checkpointer._documents import Found, Row, Write
    from haive.core.persistence.checkpointer._search import Terms
    from haive.core.persistence.checkpointer.config import CheckpointConfig
    from haive.core.persistence.store import Store

T = TypeVar("T")

#: Asks for any namespace, where the default is that of the main graph.
ANY = object()

# States from this size on are packed and unpacked in a thread: zstd lets go of the interpreter, and
# the event loop has other things to do (256 KB take about a millisecond).
_LARGE = 256 * 1024
# Decoding is faster (4 MB a millisecond), and a thread of its own takes memory anew each time.
_LARGE_CHAIN = 4 * 1024 * 1024
# How often a save that names no parent follows a head that others keep moving.
_ATTEMPTS = 20
# The domain haive_private.labels.
_TAGS, _TAG_BYTES = 1000, 200_000
# What one call may carry of pending writes, in base64.
_MOST_WRITTEN = 128 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a checkpoint goes."""

    thread_id: str
    namespace: str = ""
    branch: str = "main"


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a checkpoint went."""

    id: UUID
    branch: str
    count: int | None
    """How many the thread has now, where that is limited."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewCheckpoint:
    """What is saved beside the packed state."""

    id: UUID
    plain: bytes
    metadata: Mapping[str, Any]
    tags: Sequence[str] = ()
    terms: Terms = field(default_factory=dict)
    failed: bool = False
    schema_hash: bytes | None = None
    schema: bytes | None = None
    sealer: Sealer | None = None
    """What the schema was sealed by: all of a checkpoint has one key."""


class Engine:
    """What `Checkpointer` and the adapters are made of."""

    def __init__(self, store: Store, config: CheckpointConfig) -> None:
        self.store = store
        self.config = config
        self.codec = Codec(config.types)
        # The classes whose objects an upcaster gets as plain data.
        self.held = frozenset(config.types)
        self.cache = StateCache(config.cache_bytes)
        self._sealer: Sealer | None = None
        # Whether a save answers how many checkpoints the thread has, and failed ones among them.
        bounded = config.max_checkpoints_per_thread is not None
        self._count_failed = not config.keep_failed_states if bounded else None

    async def call(
        self,
        function: str,
        arguments: dict[str, Any],
        returns: TypeAdapter[T],
        *,
        safe: bool,
        null: Sequence[str] = (),
    ) -> T:
        """Call a function of the schema; arguments that are None are left to their defaults.

        Args:
            function: Which.
            arguments: Those of the function, by name.
            returns: What it answers.
            safe: It may be repeated.
            null: Names of arguments that are null, where the default is something else.
        """
        given = _given(arguments, null)
        answer = await self.store._transport.call(function, given, returns, safe=safe)
        await self._know_keys(answer)
        return answer

    async def _know_keys(self, answer: object) -> None:
        content = self._content
        if content is not None and not key_ids(answer) <= set((await content.ready()).keys.key_ids):
            await content.refresh()  # sealed with a newer key than those at hand

    @property
    def _content(self) -> ContentSealer | None:
        """What seals the content of the store, whose keys are taken unless there is a key."""
        return self.store._sealer if self.config.encryption_key is None else None

    async def sealer(self) -> Sealer:
        """What seals for the tenant of the store; without a key nothing has to be asked for it."""
        content = self._content
        if content is not None:
            # Not kept: the keys change while this is in use.
            return Sealer(content.tenant, (await content.ready()).keys, content)
        if self._sealer is None:
            ring = self.config.encryption_key
            if ring is None:
                self._sealer = Sealer("", None)
            else:
                tenant = (await self.call("current_tenant", {}, TENANT, safe=True)).tenant
                self._sealer = Sealer(tenant, ring.for_tenant(tenant))
        return self._sealer

    # -- saving ----------------------------------------------------------------------------------

    def pack(self, state: object, beside: object = None) -> bytes:
        """A state and what an adapter keeps beside it, packed.

        Raises:
            StateError: Something in it cannot be stored; ``path`` begins at the state.
        """
        try:
            return self.codec.pack([state, beside])
        except StateError as error:
            if not error.path.startswith("$[0]"):
                raise
            raise _moved(error, error.path.replace("$[0]", "$", 1)) from None

    async def append(
        self, place: Place, new: NewCheckpoint, *, skip_same: bool, user_id: str | None
    ) -> Placed:
        """Save after the head of the branch, whichever that is.

        Args:
            place: Where to.
            new: What.
            skip_same: Save nothing if the head has this state already, and is not a failed one.
            user_id: Whose the thread is, if this begins it.
        """
        known = self.cache.head(place.thread_id, place.namespace, place.branch)
        for attempt in range(_ATTEMPTS):
            fresh = known is None and (attempt > 0 or not self._may_be_new(place, new))
            row = None
            if fresh:
                row, known = await self.head(place)
            if skip_same and known is not None and known.plain == new.plain:
                row = row or await self.head_row(place)
                if row is None or row.id != known.id:
                    # Another process has moved on from the head that is at hand.
                    known = None
                    continue
                if not row.failed:
                    return Placed(known.id, place.branch, None)
            try:
                return await self.save(place, new, parent=known, fork=None, user_id=user_id)
            except BranchConflict:
                known = None
            except NotFoundError:
                if fresh:
                    raise
                if known is not None:
                    # Another process has deleted the thread: this begins it anew.
                    self.cache.forget_thread(place.thread_id)
                known = None
        raise BranchConflict(
            "Others save to the branch all the time.",
            hint="Save to branches of your own, or name the parent.",
        )

    def _may_be_new(self, place: Place, new: NewCheckpoint) -> bool:
        """Whether a branch that is not at hand is taken for a new one, until a save says otherwise.

        Who goes on with a thread has read it, as far as it is remembered. Other branches are made
        by other calls, and a large state is not sent to find out.
        """
        return place.branch == "main" and len(new.plain) <= min(_LARGE, self.cache.limit)

    async def save(
        self,
        place: Place,
        new: NewCheckpoint,
        *,
        parent: Known | None,
        fork: str | None,
        user_id: str | None,
    ) -> Placed:
        """Save after a parent.

        Raises:
            BranchConflict: The parent is not the head of the branch, and no fork is named.
            NotFoundError: The parent is gone.
        """
        packed = await self._pack(place, new.plain, parent)
        try:
            return await self._save(place, new, packed, parent=parent, fork=fork, user_id=user_id)
        except NotFoundError:
            if packed.base is None:
                raise
            # It may be the anchor that is gone, pruned by another process.
            packed = anchor_of(new.plain, Chain(), None)
            return await self._save(place, new, packed, parent=parent, fork=fork, user_id=user_id)

    async def _save(
        self,
        place: Place,
        new: NewCheckpoint,
        packed: Packed,
        *,
        parent: Known | None,
        fork: str | None,
        user_id: str | None,
    ) -> Placed:
        sealer = new.sealer or await self.sealer()
        parent_id = parent.id if parent else None
        chain = (parent.chain if parent else Chain()).after(packed.code, len(packed.data), new.id)
        payload = seal_state(sealer, place.thread_id, place.namespace, new.id, parent_id, packed)
        saved = await self.call(
            "save_checkpoint",
            {
                "thread_id": place.thread_id,
                "id": new.id,
                "payload": payload,
                "size": len(new.plain),
                "namespace": place.namespace,
                "branch": place.branch,
                "fork": fork,
                "parent_id": parent_id,
                "codec": packed.code,
                "depth": chain.depth,
                **self.details(sealer, place, new),
                "key_id": sealer.key_id,
                "schema_hash": new.schema_hash,
                "schema": new.schema,
                "failed": new.failed or None,
                "user_id": user_id,
                "count_failed": self._count_failed,
                "base_id": packed.base,
            },
            SAVED,
            safe=True,
            # Said even so, and last: another statement would be prepared first, in a round trip.
            null=() if packed.base else ("base_id",),
        )
        if saved.conflict:
            self.cache.move_head(place.thread_id, place.namespace, place.branch, None)
            raise BranchConflict(
                f"The branch {place.branch!r} has another head: {saved.head_id}.",
                winner=saved.head_id,
                hint="Restore it and go on from there, or save to a branch of your own.",
            )
        known = Known(new.id, new.plain, chain, saved.branch)
        self.cache.put(place.thread_id, place.namespace, known)
        self.cache.move_head(place.thread_id, place.namespace, saved.branch, new.id)
        return Placed(new.id, saved.branch, saved.count)

    async def _pack(self, place: Place, plain: bytes, parent: Known | None) -> Packed:
        compress = self.config.compression == "zstd"
        large = len(plain) > _LARGE
        chain = parent.chain if parent else Chain()
        # Asked for each time, so that it stays at hand until the next anchor is made against it.
        last = None
        if chain.anchor is not None:
            last = self.cache.get(place.thread_id, place.namespace, chain.anchor)

        def delta() -> Packed | None:
            return delta_of(plain, parent, compress=compress)

        packed = await (asyncio.to_thread(delta) if large else _ready(delta()))
        if packed is not None:
            return packed
        if last is None and chain.anchor is not None:
            with suppress(NotFoundError):
                last = await self.known(place, chain.anchor)

        def anchor() -> Packed:
            return anchor_of(plain, chain, last)

        return await (asyncio.to_thread(anchor) if large else _ready(anchor()))

    def details(self, sealer: Sealer, place: Place, new: NewCheckpoint) -> dict[str, Any]:
        """Metadata, tags and search terms as arguments: in plain, or sealed and hashed."""
        metadata = object_to_json(new.metadata, "metadata")
        tags = checked_tags(new.tags)
        if sealer.keys is None:
            return {
                "metadata": metadata if new.metadata else None,
                "tags": tags or None,
                "search": to_json(new.terms, "search", MAX_SEARCH_BYTES) if new.terms else None,
            }
        kept = {"metadata": json.loads(metadata), "tags": tags, "terms": new.terms}
        return {
            "sealed": sealer.seal(
                self.codec.pack(kept), "details", place.thread_id, place.namespace, new.id.bytes
            ),
            "search": to_json(blinded(sealer, kept)[0], "search"),
        }

    async def put_writes(
        self,
        place: Place,
        checkpoint_id: UUID,
        task_id: UUID,
        task_path: str,
        writes: Mapping[int, tuple[str, object]],
        *,
        user_id: str | None,
    ) -> None:
        """Keep what a task wrote after a checkpoint.

        Args:
            place: The thread and the namespace; the branch is that of the checkpoint.
            checkpoint_id: It need not be saved yet.
            task_id: The task.
            task_path: What its writes are ordered by.
            writes: Channel and value by place. Of the places below zero the last one stays, of
                the others the first.
            user_id: Whose the thread is, if this begins it.

        Raises:
            StateError: A value holds something that cannot be stored; ``path`` says where, and
                begins at the channel.
        """
        sealer = await self.sealer()
        compress = self.config.compression == "zstd"
        documents = []
        for idx, (channel, value) in writes.items():
            try:
                plain = self.codec.pack(value)
            except StateError as error:
                raise _moved(error, child("$", channel) + error.path[1:]) from None
            codec, packed = _frames.encode(plain, None, compress=compress)
            bound = write_place(
                place.thread_id, place.namespace, checkpoint_id, task_id, idx, channel, codec
            )
            documents.append({
                "idx": idx, "channel": channel, "size": len(plain), "codec": codec,
                "key_id": sealer.key_id, "payload": to_base64(sealer.seal(packed, "write", *bound)),
            })  # fmt: skip
        await self.call(
            "put_checkpoint_writes",
            {
                "thread_id": place.thread_id,
                "checkpoint_id": checkpoint_id,
                "task_id": task_id,
                "writes": to_json(documents, "writes", _MOST_WRITTEN),
                "namespace": place.namespace,
                "task_path": task_path,
                "user_id": user_id,
            },
            COUNT,
            safe=True,
        )

    # -- reading ---------------------------------------------------------------------------------

    async def find(self, **arguments: Any) -> Found:
        """Call ``find_checkpoints``; the namespace may be `ANY`."""
        null = [name for name, value in arguments.items() if value is ANY]
        wanted = {name: value for name, value in arguments.items() if value is not ANY}
        given = _given(wanted, null)
        rows = await self.store._transport.rows("find_checkpoints", given)
        if rows is None:
            return await self.call("find_checkpoints", wanted, FOUND, safe=True, null=null)
        (columns,) = rows
        found = found_by_column(columns, states=bool(given.get("states")))
        await self._know_keys(found)
        return found

    async def head(self, place: Place) -> tuple[Row, Known] | tuple[None, None]:
        """The head of a branch with its state; None where the branch has none yet."""
        found = await self.find(
            thread_id=place.thread_id,
            namespace=place.namespace,
            branch=place.branch,
            page_size=1,
            states=True,
        )
        if not found.checkpoints:
            return None, None
        row = found.checkpoints[0]
        known = (await self.states(found))[row.id]
        self.cache.move_head(place.thread_id, place.namespace, place.branch, known.id)
        return row, known

    async def head_row(self, place: Place) -> Row | None:
        """The head of a branch, by the database and not by what is at hand."""
        found = await self.find(
            thread_id=place.thread_id,
            namespace=place.namespace,
            branch=place.branch,
            page_size=1,
            details=False,
        )
        return found.checkpoints[0] if found.checkpoints else None

    async def is_good_head(self, place: Place, checkpoint_id: UUID) -> bool:
        """Whether a branch has this head, and it is not a failed one."""
        row = await self.head_row(place)
        return row is not None and row.id == checkpoint_id and not row.failed

    async def known(self, place: Place, checkpoint_id: UUID) -> Known:
        """A checkpoint of a thread as the parent of the next.

        Raises:
            NotFoundError: The thread has no such checkpoint.
        """
        known = self.cache.get(place.thread_id, place.namespace, checkpoint_id)
        if known is None:
            found = await self.find(
                thread_id=place.thread_id,
                namespace=place.namespace,
                checkpoint_id=checkpoint_id,
                states=True,
            )
            known = (await self.states(found)).get(checkpoint_id)
        if known is None:
            raise NotFoundError(
                f"The thread has no checkpoint {checkpoint_id}.",
                hint="A parent is of the same thread; it may have been pruned.",
            )
        return known

    async def states(self, found: Found) -> dict[UUID, Known]:
        """The packed states of what was found, within one thread.

        Raises:
            CorruptCheckpointError: A frame is damaged or missing.
            CheckpointKeyError: No key opens one.
        """
        sealer = await self.sealer()
        frames = found.frames or []
        if not found.checkpoints:
            return {}
        row = found.checkpoints[0]
        branches = {row.id: row.branch for row in found.checkpoints}

        def unpack() -> dict[UUID, Known]:
            return unpacked(frames, branches, sealer, row.thread_id, row.namespace)

        large = sum(frame.size for frame in frames) > _LARGE_CHAIN
        known = await (asyncio.to_thread(unpack) if large else _ready(unpack()))
        for state in reversed(known.values()):  # the newest shall stay the longest
            self.cache.put(row.thread_id, row.namespace, state)
        return known

    def open_details(
        self, sealer: Sealer, row: Row
    ) -> tuple[dict[str, Any], tuple[str, ...], Terms]:
        """Metadata, tags and search terms of a row."""
        if sealer.takes(row.key_id):
            return row.metadata or {}, tuple(row.tags or ()), {}
        opened = sealer.open(
            row.key_id, row.sealed or b"", "details", row.thread_id, row.namespace, row.id.bytes
        )
        kept = self.codec.unpack(opened)
        if not isinstance(kept, dict) or kept.keys() != {"metadata", "tags", "terms"}:
            raise CorruptCheckpointError("The sealed metadata of a checkpoint is none.")
        return kept["metadata"], tuple(kept["tags"]), kept["terms"]

    def open_write(self, sealer: Sealer, row: Row, write: Write) -> object:
        """The value of a pending write."""
        return self.codec.unpack(self.packed_write(sealer, row, write))

    def packed_write(self, sealer: Sealer, row: Row, write: Write) -> bytes:
        """The value of a pending write, packed."""
        bound = place_of(row.thread_id, row.namespace, write)
        packed = sealer.open(write.key_id, write.payload, "write", *bound)
        return _frames.decode(write.codec, packed, None, size=write.size)


def _moved(error: StateError, path: str) -> StateError:
    """The same error with another path."""
    message = error.message.replace(error.path, path, 1)
    return StateError(message, path=path, hint=error.hint)


def _given(arguments: Mapping[str, Any], null: Sequence[str]) -> dict[str, Any]:
    """Arguments that are not left to their defaults, checked."""
    given = {name: value for name, value in arguments.items() if value is not None}
    check_arguments(given)
    return given | dict.fromkeys(null)


def write_place(  # noqa: PLR0917 - in the order in which they are bound
    thread_id: str,
    namespace: str,
    checkpoint_id: UUID,
    task_id: UUID,
    idx: int,
    channel: str,
    codec: int,
) -> tuple[str | bytes | int, ...]:
    """What a pending write is bound to."""
    return thread_id, namespace, checkpoint_id.bytes, task_id.bytes, idx, channel, codec


def place_of(thread_id: str, namespace: str, write: Write) -> tuple[str | bytes | int, ...]:
    """What a stored write is bound to."""
    return write_place(
        thread_id, namespace, write.checkpoint_id, write.task_id, write.idx, write.channel,
        write.codec,
    )  # fmt: skip


def blinded(sealer: Sealer, kept: Mapping[str, Any]) -> list[list[str]]:
    """The search tokens of sealed details, for each key of the ring."""
    if sealer.keys is None:
        raise ValueError("nothing is blinded without a key")
    columns = [
        blind_terms(sealer.keys, "state", kept["terms"]),
        blind_terms(sealer.keys, "metadata", scalars(kept["metadata"])),
        blind_terms(sealer.keys, "tag", dict.fromkeys(kept["tags"], True)),
    ]
    return [
        sorted(token for column in columns if column for token in column[place])
        for place in range(len(sealer.keys.key_ids))
    ]


def blinded_by(sealer: Sealer, key_id: str | None, kept: Mapping[str, Any]) -> list[str]:
    """The search tokens of sealed details by the key that they are sealed with."""
    columns = blinded(sealer, kept)
    ids = sealer.keys.key_ids if sealer.keys else ()
    return columns[ids.index(key_id)] if key_id in ids else columns[0]


def scalars(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The part of metadata that can be searched when it is sealed."""
    return {
        key: value
        for key, value in metadata.items()
        if value is None or isinstance(value, str | int | float | bool)
    }


def checked_tags(tags: Iterable[object]) -> list[str]:
    """Tags, each once.

    Raises:
        InvalidInputError: One is no text, empty or longer than 200 characters, or there are more
            than are stored.
    """
    if isinstance(tags, str | bytes):
        raise InvalidInputError("tags is a list of text.")
    if not isinstance(tags, Iterable):
        raise InvalidInputError("tags is a list of text.")
    checked: dict[str, None] = {}
    for tag in tags:
        if not isinstance(tag, str) or not 0 < len(tag) <= 200:
            raise InvalidInputError("A tag is text of 1 to 200 characters.")
        checked[check_text(str(tag), "A tag", 800)] = None
    if len(checked) > _TAGS:
        raise InvalidInputError(f"There are {len(checked):,} tags; at most {_TAGS:,} are stored.")
    size = sum(len(tag.encode()) for tag in checked)
    if size > _TAG_BYTES:
        raise InvalidInputError(f"The tags have {size:,} bytes; at most {_TAG_BYTES:,} are stored.")
    return list(checked)


async def _ready(value: T) -> T:
    return value
