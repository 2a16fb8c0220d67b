"""Changes how whole threads are stored, and nothing of what they say: pruning, new keys, copies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from haive.core.persistence._encoding import to_json
from haive.core.persistence.checkpointer._bytes import to_base64
from haive.core.persistence.checkpointer._calls import is_call, is_lost, is_waiting
from haive.core.persistence.checkpointer._chains import (
    Chain,
    anchor_of,
    delta_of,
    open_frame,
    seal_state,
)
from haive.core.persistence.checkpointer._codec import Codec
from haive.core.persistence.checkpointer._documents import (
    BRANCHES,
    COUNT,
    REWRITTEN,
    SCHEMA,
    THREADS,
    WRITES,
)
from haive.core.persistence.checkpointer._engine import ANY, blinded, place_of
from haive.core.persistence.checkpointer._replayed import (
    absent_keys,
    replayed_from,
    replayed_keys,
)
from haive.core.persistence.checkpointer._retention import Retention, adopted, expired, surviving
from haive.core.persistence.checkpointer._sealing import Sealer
from haive.core.persistence.errors import (
    CheckpointError,
    ConflictError,
    ContentTooLargeError,
    CorruptCheckpointError,
    NotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from uuid import UUID

    from haive.core.persistence.checkpointer._chains import Known
    from haive.core.persistence.checkpointer._documents import (
        BranchRow,
        Found,
        Frame,
        Row,
        Write,
    )
    from haive.core.persistence.checkpointer._engine import Engine

# How often a rewrite is planned anew when the thread changes meanwhile.
_ATTEMPTS = 10
# Rows of metadata, and of states, that are read at once.
_ROWS, _STATES = 1000, 50
# What the elements of an array of jsonb may come to.
_LIMIT = 268_435_455

_Items = list[dict[str, Any]]
# From the rows of a thread, newest first, its heads and the time of the database, to those that go.
Choice = Callable[["Sequence[Row]", "AbstractSet[UUID]", "datetime"], "set[UUID]"]


class Removal(NamedTuple):
    """What a rewrite removed of a thread.

    Attributes:
        removed: How many went.
        rewritten: How many were stored anew.
        left: Those that stayed, as the thread was when the rewrite was planned.
    """

    removed: int
    rewritten: int
    left: list[Row]


class Rewriter:
    """Plans a rewrite from what a thread has, and does it in one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- pruning ---------------------------------------------------------------------------------

    async def prune(
        self, thread_id: str, namespace: str, *, most: int | None, dry_run: bool = False
    ) -> Removal:
        """Apply the retention of the configuration; see also `remove_lost_calls`."""
        config = self._engine.config
        days = config.retention_days
        rule = Retention(
            most=most,
            age=None if days is None else timedelta(days=days),
            keep_minimum=config.keep_minimum,
            keep_failed=config.keep_failed_states,
        )
        return await self.remove(
            thread_id,
            namespace,
            lambda rows, heads, now: expired(rows, heads, now, rule),
            keep_replayed=True,
            dry_run=dry_run,
        )

    async def remove_lost_calls(self, thread_id: str) -> int:
        """Remove what calls of subgraphs saved that were made from checkpoints that are gone.

        Returns:
            How many checkpoints they had.
        """
        lost = await self.lost_calls(thread_id)
        return sum([await self.remove_call(thread_id, namespace) for namespace in lost])

    async def lost_calls(self, thread_id: str) -> list[str]:
        """The namespaces of calls that were made from checkpoints that are gone, newest first."""
        if not any(map(is_call, await self.namespaces(thread_id))):
            return []
        sealer = await self._engine.sealer()
        saved: dict[str, dict[UUID, int]] = {}
        calls: dict[str, Row] = {}
        async for found in self._pages(thread_id, ANY, page_size=_ROWS):
            for row in found.checkpoints:
                saved.setdefault(row.namespace, {})[row.id] = row.seq
                if is_call(row.namespace):
                    calls.setdefault(row.namespace, row)
        lost = []
        for namespace, last in calls.items():
            # Where it was called from cannot be known of what no key opens.
            with suppress(CheckpointError):
                metadata, _, _ = self._engine.open_details(sealer, last)
                if is_lost(metadata, last.seq, saved):
                    lost.append(namespace)
        return lost

    async def remove_call(self, thread_id: str, namespace: str) -> int:
        """Remove a call that waits for nothing; return how many checkpoints it had."""
        last = await self._engine.find(
            thread_id=thread_id, namespace=namespace, page_size=1, details=False, writes=True
        )
        if is_waiting(last):
            return 0
        try:
            return (await self.remove(thread_id, namespace, _all)).removed
        except NotFoundError:  # another process was faster
            return 0

    async def remove(
        self,
        thread_id: str,
        namespace: str,
        choose: Choice,
        *,
        keep_replayed: bool = False,
        dry_run: bool = False,
    ) -> Removal:
        """Remove what is chosen of a thread, and store anew what was a delta against it.

        Args:
            thread_id: Which thread.
            namespace: Which part of it.
            choose: Says what goes. A branch whose head is chosen goes back to what is left of its
                history, and goes itself if it has nothing of its own any more.
            keep_replayed: Spare what survivors are replayed from; see `replayed_from`.
            dry_run: Remove nothing.
        """
        for attempt in range(_ATTEMPTS):
            rows: list[Row] = []
            async for found in self._pages(
                thread_id, namespace, details=keep_replayed, page_size=_ROWS
            ):
                rows += found.checkpoints
            branches = await self.branches(thread_id, namespace)
            heads = {branch.head_id for branch in branches if branch.head_id}
            gone = choose(rows, heads, found.now)
            if gone and keep_replayed:
                gone -= await self._replayed(thread_id, namespace, rows, gone)
            left = [row for row in rows if row.id not in gone]
            if not gone:
                return Removal(0, 0, left)
            parents = {row.id: row.parent_id for row in rows}
            # And those that are stored against what goes.
            orphans = {row.id: row.parent_id for row in left if row.base_id in gone} | adopted(
                parents, gone
            )
            if dry_run:
                return Removal(len(gone), len(orphans), left)
            moved: _Items = [
                {
                    "branch_id": branch.branch_id,
                    "was_head_id": branch.head_id,
                    "head_id": surviving(parents, gone, branch.head_id),
                }
                for branch in branches
                if branch.head_id in gone
            ]
            try:
                replace = await self._adopted(thread_id, namespace, rows, orphans, gone)
                done = await self._rewrite(
                    thread_id, namespace, gone=list(gone), replace=replace, branches=moved
                )
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                self._engine.cache.forget_thread(thread_id)
                return Removal(*done, left)
        raise AssertionError

    async def _replayed(
        self, thread_id: str, namespace: str, rows: Sequence[Row], gone: AbstractSet[UUID]
    ) -> set[UUID]:
        """What of that which shall go the survivors are replayed from."""
        engine = self._engine
        sealer = await engine.sealer()
        keys: set[str] = set()
        for row in rows:
            metadata, _, _ = engine.open_details(sealer, row)
            keys |= replayed_keys(metadata)
        if not keys:
            return set()
        # Of whatever classes: only which channels there are is looked at.
        plain = Codec()
        absent: dict[UUID, frozenset[str]] = {}
        async for found in self._pages(thread_id, namespace, details=False, states=True):
            for checkpoint_id, known in (await engine.states(found)).items():
                absent[checkpoint_id] = absent_keys(plain.unpack(known.plain), keys)
        parents = {row.id: row.parent_id for row in rows}
        return replayed_from(parents, absent, parents.keys() - gone)

    async def _adopted(
        self,
        thread_id: str,
        namespace: str,
        rows: Sequence[Row],
        orphans: Mapping[UUID, UUID | None],
        gone: AbstractSet[UUID],
    ) -> list[dict[str, Any]]:
        """Orphans as they are stored after their new parents."""
        engine = self._engine
        sealer = await engine.sealer()
        compress = engine.config.compression == "zstd"
        replace = []
        for row in rows:
            if row.id not in orphans:
                continue
            parent_id = orphans[row.id]
            same_base = row.base_id is not None and row.base_id not in gone
            wanted = [row.id] if same_base or parent_id is None else [row.id, parent_id]
            known: dict[UUID, Known] = {}
            frames: dict[UUID, Frame] = {}
            for checkpoint_id in wanted:
                found = await engine.find(
                    thread_id=thread_id,
                    namespace=namespace,
                    checkpoint_id=checkpoint_id,
                    details=False,
                    states=True,
                )
                known |= await engine.states(found)
                frames |= {frame.id: frame for frame in found.frames or ()}
            if known.keys() != set(wanted):
                raise ConflictError("The thread was changed meanwhile.")
            plain, depth = known[row.id].plain, row.depth
            if same_base:
                packed = open_frame(sealer, thread_id, namespace, frames[row.id])
                if packed.base != row.base_id:
                    raise ConflictError("The thread was changed meanwhile.")
            else:
                parent = None if parent_id is None else known[parent_id]
                # No deeper than it was: the chains that go on from it would become too long.
                if parent is not None and parent.chain.depth >= row.depth:
                    parent = None
                packed = delta_of(plain, parent, compress=compress) or anchor_of(
                    plain, Chain(), None
                )
                chain = parent.chain if parent else Chain()
                depth = chain.after(packed.code, len(packed.data), row.id).depth
            payload = seal_state(
                sealer, thread_id, namespace, row.id, parent_id, packed, key_id=row.key_id
            )
            replace.append({
                "id": row.id, "parent_id": parent_id, "was_parent_id": row.parent_id,
                "was_key_id": row.key_id, "codec": packed.code, "base_id": packed.base,
                "size": len(plain),
                "depth": depth, "key_id": row.key_id, "payload": to_base64(payload),
            })  # fmt: skip
        return replace

    # -- keys and copies -------------------------------------------------------------------------

    async def rotate(self, thread_id: str, namespace: str, *, seal_plain: bool) -> int:
        """Seal everything of a thread with the writing key; return how many checkpoints were."""
        sealer = await self._engine.sealer()

        def old(key_id: str | None) -> bool:
            return key_id != sealer.key_id and (key_id is not None or seal_plain)

        total = 0
        for _ in range(_ATTEMPTS):
            missed = 0
            async for part in self._sealed(
                thread_id, namespace, thread_id, old=old, seal_plain=seal_plain
            ):
                _, count = await self._rewrite(thread_id, namespace, gone=(), **part)
                total += count
                missed += len(part.get("replace", ())) - count
            # What was changed meanwhile was left alone: once more, for those.
            if not missed:
                break
        return total

    async def copy(self, thread_id: str, namespace: str, new_thread_id: str) -> int:
        """Copy a namespace of a thread; what is sealed is sealed again, for its new place."""
        for attempt in range(_ATTEMPTS):
            checkpoints: _Items = []
            writes: _Items = []
            branches: _Items = []
            async for part in self._sealed(
                thread_id, namespace, new_thread_id, old=lambda key_id: key_id is not None
            ):
                checkpoints += part.get("replace", ())
                writes += part.get("writes", ())
                branches += part.get("branches", ())
            if max(_payload(checkpoints), _payload(writes)) > _LIMIT:
                raise ContentTooLargeError(
                    "A sealed thread of more than about 190 MB cannot be copied.",
                    hint="Prune it first.",
                )
            try:
                count: int = await self._engine.call(
                    "copy_thread",
                    {
                        "thread_id": thread_id,
                        "namespace": namespace,
                        "new_thread_id": new_thread_id,
                        "checkpoints": to_json(checkpoints, "checkpoints", _LIMIT),
                        "writes": to_json(writes, "writes", _LIMIT),
                        "branches": to_json(branches, "branches", _LIMIT),
                    },
                    COUNT,
                    safe=False,
                )
            except ConflictError:  # somebody saved to it meanwhile
                if not checkpoints or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return count
        raise AssertionError

    async def _sealed(
        self,
        thread_id: str,
        namespace: str,
        new_thread_id: str,
        *,
        old: Callable[[str | None], bool],
        seal_plain: bool = False,
    ) -> AsyncIterator[dict[str, _Items]]:
        """What is sealed anew as its key is old, page by page, by the names of `_rewrite`."""
        engine = self._engine
        sealer = await engine.sealer()
        plain = Sealer(sealer.tenant, None)

        def opened(key_id: str | None, data: bytes, kind: str, *place: Any) -> bytes:
            passing = key_id is None and seal_plain
            return (plain if passing else sealer).open(key_id, data, kind, *place)

        hashes: set[str] = set()
        async for found in self._pages(thread_id, namespace, states=True):
            checkpoints: _Items = []
            rows = {row.id: row for row in found.checkpoints}
            # Of all: a rotation may have been killed between checkpoints and their schemas. A copy
            # has the same ones.
            if new_thread_id == thread_id:
                hashes |= {row.schema_hash for row in found.checkpoints if row.schema_hash}
            for frame in found.frames or []:
                row = rows.get(frame.id)
                if row is None or not old(frame.key_id):
                    continue
                passing = frame.key_id is None and seal_plain
                packed = open_frame(plain if passing else sealer, thread_id, namespace, frame)
                metadata, tags, terms = (
                    (row.metadata or {}, tuple(row.tags or ()), row_terms(row))
                    if frame.key_id is None
                    else engine.open_details(sealer, row)
                )
                kept = {"metadata": metadata, "tags": list(tags), "terms": terms}
                details = (new_thread_id, namespace, row.id.bytes)
                checkpoints.append({
                    "id": frame.id, "parent_id": frame.parent_id,
                    "was_parent_id": frame.parent_id, "was_key_id": frame.key_id,
                    "codec": frame.codec, "base_id": frame.base_id, "size": frame.size,
                    "depth": row.depth,
                    "key_id": sealer.key_id, "search": blinded(sealer, kept)[0],
                    "was_sealed": None if row.sealed is None else to_base64(row.sealed),
                    "payload": to_base64(
                        seal_state(
                            *(sealer, new_thread_id, namespace, frame.id, frame.parent_id), packed
                        )
                    ),
                    "sealed": to_base64(sealer.seal(engine.codec.pack(kept), "details", *details)),
                })  # fmt: skip
            if checkpoints:
                yield {"replace": checkpoints}
        async for page in self._writes(thread_id, namespace):
            writes = [
                {
                    "checkpoint_id": write.checkpoint_id, "task_id": write.task_id,
                    "idx": write.idx, "was_key_id": write.key_id, "codec": write.codec,
                    "size": write.size, "key_id": sealer.key_id,
                    "payload": to_base64(
                        sealer.seal(
                            opened(
                                write.key_id, write.payload, "write",
                                *place_of(thread_id, namespace, write),
                            ),
                            "write", *place_of(new_thread_id, namespace, write),
                        )
                    ),
                }
                for write in page
                if old(write.key_id)
            ]  # fmt: skip
            if writes:
                yield {"writes": writes}
        branches: _Items = []
        for branch in await self.branches(thread_id, namespace):
            if not old(branch.key_id) or (branch.sealed is None and branch.metadata is None):
                continue
            new_id = branch.branch_id if new_thread_id == thread_id else uuid4()
            data = (
                engine.codec.pack(branch.metadata)
                if branch.key_id is None
                else opened(
                    *(branch.key_id, branch.sealed or b"", "branch", thread_id, namespace),
                    branch.branch_id.bytes,
                )
            )
            branches.append({
                "branch_id": branch.branch_id, "new_branch_id": new_id,
                "was_key_id": branch.key_id, "key_id": sealer.key_id,
                "sealed": to_base64(
                    sealer.seal(data, "branch", new_thread_id, namespace, new_id.bytes)
                ),
            })  # fmt: skip
        schemas: _Items = []
        for hash_ in sorted(hashes):
            schema = await engine.call(
                "get_checkpoint_schema", {"hash": bytes.fromhex(hash_)}, SCHEMA, safe=True
            )
            if schema is not None and old(schema.key_id):
                schemas.append(resealed_schema(sealer, hash_, schema.key_id, schema.payload))
        if branches or schemas:
            yield {"branches": branches, "schemas": schemas}

    # -- the database ----------------------------------------------------------------------------

    async def namespaces(self, thread_id: str) -> tuple[str, ...]:
        """The namespaces that a thread has."""
        rows = await self._engine.call("list_threads", {"thread_id": thread_id}, THREADS, safe=True)
        return tuple(rows[0].namespaces) if rows else ()

    async def branches(self, thread_id: str, namespace: str) -> list[BranchRow]:
        """The branches of a thread."""
        rows: list[BranchRow] = await self._engine.call(
            "list_branches", {"thread_id": thread_id, "namespace": namespace}, BRANCHES, safe=True
        )
        return rows

    async def _pages(
        self, thread_id: str, namespace: object, *, page_size: int = _STATES, **wanted: bool
    ) -> AsyncIterator[Found]:
        before = None
        while True:
            found = await self._engine.find(
                thread_id=thread_id,
                namespace=namespace,
                before_seq=before,
                page_size=page_size,
                **wanted,
            )
            yield found
            before = found.next_seq
            if before is None:
                return

    async def _writes(self, thread_id: str, namespace: str) -> AsyncIterator[list[Write]]:
        """The pending writes of a thread, also those whose checkpoint is not saved yet."""
        after: dict[str, Any] = {}
        while True:
            page = await self._engine.call(
                "list_checkpoint_writes",
                {"thread_id": thread_id, "namespace": namespace, **after},
                WRITES,
                safe=True,
            )
            if not page:
                return
            yield page
            last = page[-1]
            after = {
                "after_checkpoint_id": last.checkpoint_id,
                "after_task_id": last.task_id,
                "after_idx": last.idx,
            }

    async def _rewrite(
        self,
        thread_id: str,
        namespace: str,
        *,
        gone: Sequence[UUID] = (),
        replace: Sequence[dict[str, Any]] = (),
        writes: Sequence[dict[str, Any]] = (),
        branches: Sequence[dict[str, Any]] = (),
        schemas: Sequence[dict[str, Any]] = (),
    ) -> tuple[int, int]:
        done = await self._engine.call(
            "rewrite_checkpoints",
            {
                "thread_id": thread_id,
                "namespace": namespace,
                "remove": list(gone),
                "replace": to_json(list(replace), "replace", _LIMIT),
                "writes": to_json(list(writes), "writes", _LIMIT),
                "branches": to_json(list(branches), "branches", _LIMIT),
                "schemas": to_json(list(schemas), "schemas", _LIMIT),
            },
            REWRITTEN,
            safe=False,
        )
        return done.removed, done.replaced


def _all(rows: Sequence[Row], _heads: object, _now: datetime) -> set[UUID]:
    return {row.id for row in rows}


def resealed_schema(
    sealer: Sealer, hash_: str, key_id: str | None, payload: bytes
) -> dict[str, Any]:
    """A schema sealed with the key of now: what is sealed, or what is stored in the clear."""
    place = ("schema", bytes.fromhex(hash_))
    data = payload if key_id is None else sealer.open(key_id, payload, *place)
    return {
        "hash": hash_, "was_key_id": key_id, "key_id": sealer.key_id,
        "payload": to_base64(sealer.seal(data, *place)),
    }  # fmt: skip


def _payload(items: _Items) -> int:
    return sum(len(item["payload"]) for item in items)


def row_terms(row: Row) -> dict[str, Any]:
    """The search terms of a plain row."""
    if row.search is None:
        return {}
    if not isinstance(row.search, dict):
        raise CorruptCheckpointError("The search terms of a plain checkpoint are none.")
    return row.search
