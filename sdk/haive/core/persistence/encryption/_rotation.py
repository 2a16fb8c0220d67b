"""Sealing all that a tenant has with one key: a new one, or its first."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from haive.core.persistence._encoding import to_json
from haive.core.persistence._sealing import Sealed
from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.checkpointer._rewriting import resealed_schema
from haive.core.persistence.checkpointer._sealing import Sealer as CheckpointSealer
from haive.core.persistence.encryption._key_store import KeyStatus
from haive.core.persistence.errors import CheckpointError, ConflictError, DecryptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from haive.core.persistence._sealing import ContentKeys, Sealer
    from haive.core.persistence.checkpointer import CheckpointConfig
    from haive.core.persistence.encryption._data_keys import DataKeys
    from haive.core.persistence.store import Store

    Progress = Callable[[str, int], None]


class _Use(BaseModel):
    table: str
    key_id: str | None
    rows: int


_USES = TypeAdapter(list[_Use])
_ROWS = TypeAdapter(list[dict[str, Any]])
_COUNT = TypeAdapter(int)

# A batch of rows comes with at most 16 MiB and goes with little more.
_LIMIT = 128 * 1024 * 1024
# How often all rows are gone through without an end before somebody must be writing with an old
# key all the time.
_PASSES = 20


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """What a rotation did."""

    key_id: str
    """The key that everything is sealed with now."""
    began: bool
    """Whether this made the key. Else rows were on older ones, or in the clear: an earlier
    rotation, or the tenant's encryption, was finished."""
    rows: int
    """Messages and conversations that were sealed anew."""
    checkpoints: int
    """Checkpoints that were."""


async def rotate(
    store: Store,
    sealer: Sealer,
    keys: DataKeys,
    *,
    batch: int = 500,
    checkpoints: CheckpointConfig | None = None,
    progress: Progress | None = None,
) -> Rotated:
    """Seal everything of a tenant with a new key, while it is read and written.

    What is left of an earlier call, which was killed or failed, is finished first: nothing is
    kept of a rotation but the keys and the rows themselves, each of which names its key. Rows in
    the clear, of a tenant that was not encrypted, are sealed likewise, with the key that is there.
    Rows that do not open stay as they are, and keep nobody from a new key.

    A new key is used when all must know it, and the rows are gone through until all must use it:
    each is ``max_age`` of the sealers, which must be the same in all processes. The old key stays,
    for writes that are still on their way; `drop_unused` and the next rotation remove it.

    Args:
        store: The tenant's store, of a trusted caller.
        sealer: The store's.
        keys: Where the sealer has its keys from.
        batch: Rows that are read, sealed and written at once, 1 to 1,000.
        checkpoints: How checkpoints are read; only what matters to storing them counts.
        progress: Told after each batch: which table, and how many rows so far.

    Raises:
        ConflictError: Somebody else rotates the tenant's keys, or writes with an old one.
        CheckpointError: Threads could not be read, and which; all others are done.
        DecryptionError: Rows do not open; all others are done.
    """
    transport = store._transport
    async with transport.alone(f"haive rotate {transport.schema} {sealer.tenant}") as alone:
        if not alone:
            raise ConflictError(
                f"The keys of tenant {sealer.tenant} are being rotated by somebody else.",
                hint="Wait for that to end.",
            )
        job = _Rotation(
            store=store,
            sealer=sealer,
            keys=keys,
            batch=batch,
            checkpoints=checkpoints,
            progress=progress,
        )
        return await job.run()


async def drop_unused(store: Store, sealer: Sealer, keys: DataKeys) -> list[str]:
    """Remove the retired keys that seal no row any more, and return their ids.

    A write that was sealed before a rotation ended must have arrived: wait some minutes.

    Args:
        store: The tenant's store, of a trusted caller.
        sealer: The store's.
        keys: Where the sealer has its keys from.
    """
    used = {use.key_id for use in await _uses(store)}
    dropped = [
        key.key_id
        for key in await keys.stored(sealer.tenant)
        if key.status is KeyStatus.RETIRED
        and key.key_id not in used
        and await keys.drop(sealer.tenant, key.key_id)
    ]
    if dropped:
        await sealer.refresh()
    return dropped


async def has_plain(store: Store) -> bool:
    """Whether a tenant has rows in the clear."""
    return any(use.key_id is None for use in await _uses(store))


async def _uses(store: Store) -> list[_Use]:
    return await store._transport.call("count_sealed", {}, _USES, safe=True)


@dataclass(kw_only=True)
class _Rotation:
    store: Store
    sealer: Sealer
    keys: DataKeys
    batch: int
    checkpoints: CheckpointConfig | None
    progress: Progress | None
    done: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    unread: CheckpointError | None = None

    async def run(self) -> Rotated:
        active, began = await self._turn()
        settled = monotonic() + self.sealer.max_age
        late = 0
        while True:
            is_settled = monotonic() >= settled
            if await self._pass(active) and is_settled:
                break
            if not is_settled:
                # All who have the older key at hand ask anew by then.
                await asyncio.sleep(max(0.0, settled - monotonic()))
            elif (late := late + 1) > _PASSES:
                raise ConflictError(
                    "Rows are written with an old key all the time.",
                    hint="Give all sealers of the tenant the same max_age.",
                )
        if self.damaged:
            raise DecryptionError(
                f"{len(self.damaged)} rows do not open and stay as they are: "
                f"{', '.join(sorted(self.damaged)[:5])}.",
                hint="All others are done.",
            ) from self.unread
        if self.unread is not None:
            raise self.unread
        done = self.done
        return Rotated(
            key_id=active,
            began=began,
            rows=done.get("messages", 0) + done.get("conversations", 0),
            checkpoints=done.get("checkpoints", 0),
        )

    async def _turn(self) -> tuple[str, bool]:
        """Have a key that all is to be sealed with; say which, and whether it was made now."""
        tenant = self.sealer.tenant
        active = await self.keys.create(tenant)
        await self.sealer.refresh()
        waiting = any(key.status is KeyStatus.NEXT for key in await self.keys.stored(tenant))
        began = not waiting and await self._pass(active)
        if began:
            await drop_unused(self.store, self.sealer, self.keys)
            await self.keys.add_next(tenant)
        if began or waiting:
            await self.sealer.refresh()
            # Who reads must know the key before anybody writes with it.
            await asyncio.sleep(self.sealer.max_age)
            await self.keys.activate_next(tenant)
            await self.sealer.refresh()
        return self.sealer.at_hand.keys.key_id, began

    async def _pass(self, active: str) -> bool:
        """Go through all that has another key, or none; whether it had nothing to do.

        Neither had it where all that there was does not open: whoever may write can leave rows of
        which that is so, and must not thereby keep the tenant from a new key.
        """
        self.damaged.clear()
        self.unread = None
        stale = await self._stale(active)
        if not stale:
            return True
        await self._reseal(active, {use.table for use in stale})
        failed = bool(self.damaged) or self.unread is not None
        return failed and await self._stale(active) == stale

    async def _stale(self, active: str) -> list[_Use]:
        """What is on another key, or in the clear."""
        return [use for use in await _uses(self.store) if use.key_id != active]

    async def _reseal(self, active: str, tables: set[str]) -> None:
        if "conversations" in tables:
            await self._conversations(active)
        if "messages" in tables:
            await self._messages(active)
        if "checkpoint_schemas" in tables:
            await self._schemas(active)
        if tables - {"conversations", "messages", "checkpoint_schemas"}:
            checkpointer = Checkpointer(self.store, self.checkpoints)
            try:
                count = await checkpointer.rotate_keys(seal_plain=True)
            except CheckpointError as error:
                self.unread = error
            else:
                self._tell("checkpoints", count)

    async def _messages(self, active: str) -> None:
        after: dict[str, Any] = {}
        while rows := await self._read("find_stale_messages", active, after):
            after = {
                "after_conversation": UUID(rows[-1]["conversation_id"]),
                "after_seq": rows[-1]["seq"],
            }
            await self._write("messages", rows, _resealed_message)

    async def _conversations(self, active: str) -> None:
        after: dict[str, Any] = {}
        while rows := await self._read("find_stale_conversations", active, after):
            after = {"after": UUID(rows[-1]["id"])}
            await self._write("conversations", rows, _resealed_conversation)

    async def _schemas(self, active: str) -> None:
        # Also those that no checkpoint has any more: a save may be about to name one of them.
        after: dict[str, Any] = {}
        while rows := await self._read("find_stale_checkpoint_schemas", active, after):
            after = {"after": bytes.fromhex(rows[-1]["hash"])}
            await self._write("checkpoint_schemas", rows, _resealed_schema)

    async def _read(
        self, function: str, active: str, after: dict[str, Any]
    ) -> list[dict[str, Any]]:
        arguments = {"key_id": active, "page_size": self.batch, **after}
        return await self.store._transport.call(function, arguments, _ROWS, safe=True)

    async def _write(
        self,
        table: str,
        rows: list[dict[str, Any]],
        resealed: Callable[[ContentKeys, dict[str, Any]], dict[str, Any]],
    ) -> None:
        keys = await self.sealer.ready()

        def reseal() -> list[dict[str, Any]]:
            documents = []
            for row in rows:
                try:
                    documents.append(resealed(keys, row))
                except (CheckpointError, DecryptionError):
                    self.damaged.add(f"{table} {row.get('id') or row['hash']}")
            return documents

        documents = await asyncio.to_thread(reseal)
        if documents:
            count = await self.store._transport.call(
                f"reseal_{table}", {table: to_json(documents, table, _LIMIT)}, _COUNT, safe=True
            )
            self._tell(table, count)

    def _tell(self, table: str, count: int) -> None:
        self.done[table] = self.done.get(table, 0) + count
        if self.progress is not None:
            self.progress(table, self.done[table])


def _resealed_message(keys: ContentKeys, row: dict[str, Any]) -> dict[str, Any]:
    sealed = keys.reseal_message(
        UUID(row["conversation_id"]),
        UUID(row["id"]),
        row["role"],
        None if row["sealed"] is None else Sealed.of(row),
        content=row["content"],
        parts=row["parts"],
        metadata=row["metadata"],
    )
    return {
        "conversation_id": row["conversation_id"],
        "seq": row["seq"],
        "id": row["id"],
        "was_sealed_with": row["sealed_with"],
        **sealed.document(),
    }


def _resealed_conversation(keys: ContentKeys, row: dict[str, Any]) -> dict[str, Any]:
    sealed = keys.reseal_conversation(
        UUID(row["id"]),
        None if row["sealed"] is None else Sealed.of(row),
        {"title": to_json(row["title"], "title"), **{k: row[k] for k in ("context", "settings")}},
    )
    return {
        "id": row["id"],
        "was_sealed_with": row["sealed_with"],
        "was_updated_at": row["updated_at"],
        **sealed.document(),
    }


def _resealed_schema(keys: ContentKeys, row: dict[str, Any]) -> dict[str, Any]:
    sealer = CheckpointSealer(keys.tenant, keys.keys)
    return resealed_schema(sealer, row["hash"], row["key_id"], b64decode(row["payload"]))
