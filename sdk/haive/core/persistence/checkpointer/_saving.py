"""Saves states: where they go, what they follow, and what is kept beside them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from haive.core.persistence._encoding import as_uuid, new_id
from haive.core.persistence.checkpointer import _schemas
from haive.core.persistence.checkpointer._arguments import check_branch_name, check_place
from haive.core.persistence.checkpointer._engine import NewCheckpoint, Place
from haive.core.persistence.checkpointer._search import search_terms
from haive.core.persistence.errors import InvalidInputError, PersistenceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from haive.core.persistence.checkpointer._branching import Branches
    from haive.core.persistence.checkpointer._chains import Known
    from haive.core.persistence.checkpointer._engine import Engine, Placed
    from haive.core.persistence.checkpointer._rewriting import Rewriter
    from haive.core.persistence.checkpointer._sealing import Sealer

K = TypeVar("K")
V = TypeVar("V")

_log = logging.getLogger("haive.core.persistence.checkpointer")

# The key in metadata that names the parent, as the documentation writes it.
PARENT = "parent_checkpoint"
# Most threads of which is known what a prune had to leave.
_REMEMBERED = 10_000
# Most lost calls of a thread that are known, and how many of them a save removes, each in four
# calls of the database: one that has pruned, for its process may end soon, and others. A call has
# saved once at least, so that more go than come.
_LOST, _AT_PRUNING, _REMOVED = 1000, 8, 2


class Saver:
    """What `Checkpointer` saves with."""

    def __init__(self, engine: Engine, rewriter: Rewriter, branches: Branches) -> None:
        self._engine = engine
        self._rewriter = rewriter
        self._branches = branches
        self._schemas: dict[tuple[type, str | None], tuple[bytes, bytes]] = {}
        self._stored_schemas: set[bytes] = set()
        # How many a prune had to leave, by thread and namespace, where that fills the bound: heads
        # and what is replayed. Each save would prune again, in 3 to 7 calls, for next to nothing.
        self._left: dict[tuple[str, str], int] = {}
        # Calls of subgraphs, by thread, that were made from what a prune took.
        self._lost: dict[str, list[str]] = {}

    async def save(
        self,
        thread_id: str,
        state: object,
        metadata: dict[str, Any],
        tags: Sequence[str],
        *,
        parent: UUID | str | None = None,
        branch: UUID | str | None = None,
        fork: str | None = None,
        namespace: str = "",
        failed: bool = False,
        user_id: str | None = None,
        skip_same: bool,
    ) -> tuple[UUID, bool]:
        """Save as `Checkpointer.save` says; with ``skip_same`` not what is there already.

        Returns:
            The id of the checkpoint, and whether it is new.
        """
        check_place(thread_id, namespace, branch)
        if fork is not None:
            check_branch_name(fork, "fork")
        parent_id = _parent(parent, metadata)
        place, known = await self._place(thread_id, namespace, branch, parent_id)
        sealer = await self._engine.sealer()
        plain = self._engine.pack(state)
        new = NewCheckpoint(
            id=new_id(),
            plain=plain,
            metadata=metadata,
            tags=tags,
            terms=search_terms(state, self._engine.config.search_paths),
            failed=failed,
            sealer=sealer,
            **self._schema_of(state, sealer),
        )
        if known is None:
            placed = await self._engine.append(place, new, skip_same=skip_same, user_id=user_id)
        elif (
            skip_same
            and fork is None
            and known.plain == plain
            and await self._engine.is_good_head(place, known.id)
        ):
            return known.id, False
        else:
            placed = await self._engine.save(place, new, parent=known, fork=fork, user_id=user_id)
        if new.schema_hash is not None and placed.id == new.id:
            self._stored_schemas.add(new.schema_hash)
        await self.keep_within(placed, thread_id, namespace)
        return placed.id, placed.id == new.id

    async def _place(
        self, thread_id: str, namespace: str, branch: UUID | str | None, parent_id: UUID | None
    ) -> tuple[Place, Known | None]:
        name = (
            None if branch is None else await self._branches.name_of(thread_id, namespace, branch)
        )
        place = Place(thread_id=thread_id, namespace=namespace, branch=name or "main")
        if parent_id is None:
            return place, None
        known = await self._engine.known(place, parent_id)
        if name is None:
            place = Place(thread_id=thread_id, namespace=namespace, branch=known.branch)
        return place, known

    def _schema_of(self, state: object, sealer: Sealer) -> dict[str, bytes | None]:
        """The hash of the state's JSON Schema, with the schema itself where it is new here."""
        if not isinstance(state, BaseModel):
            return {}
        cls = type(state)
        kept = cls, sealer.key_id
        if kept not in self._schemas:
            schema = _schemas.schema_of(cls)
            # A plain hash of a schema that is sealed would tell which one it is.
            hash_ = _schemas.hash_of(schema)
            if sealer.keys is not None:
                hash_ = sealer.keys.blind("schema", hash_).encode()
            self._schemas[kept] = hash_, sealer.seal(schema, "schema", hash_)
        hash_, sealed = self._schemas[kept]
        return {
            "schema_hash": hash_,
            "schema": None if hash_ in self._stored_schemas else sealed,
        }

    async def keep_within(self, placed: Placed, thread_id: str, namespace: str) -> None:
        """Prune when a thread has become too long: a tenth at once, so that it is seldom.

        Calls of subgraphs that are lost by it go with this save and those that come, a few with
        each.
        """
        try:
            has_pruned = await self._prune(placed, thread_id, namespace)
            await self._remove_lost(thread_id, _AT_PRUNING if has_pruned else _REMOVED)
        except PersistenceError as error:
            # What was to be saved is; the next save prunes again.
            _log.warning("A thread could not be pruned: %s", type(error).__name__)

    async def _prune(self, placed: Placed, thread_id: str, namespace: str) -> bool:
        """Whether there was something to prune."""
        config = self._engine.config
        most, count = config.max_checkpoints_per_thread, placed.count
        if most is None or count is None:
            return False
        where = (thread_id, namespace)
        left = self._left.pop(where, 0)
        if left and left <= count <= left + max(1, left // 10):
            self._left[where] = left
            return False
        if count <= most:
            return False
        fewer = max(most - most // 10, config.keep_minimum)
        done = await self._rewriter.prune(thread_id, namespace, most=fewer)
        if done.removed and (lost := await self._rewriter.lost_calls(thread_id)):
            _remember(self._lost, thread_id, lost[-_LOST:])
        # Not what is over of the count: another may have pruned in between.
        left = sum(not (row.failed and config.keep_failed_states) for row in done.left)
        if left > fewer and left >= most:
            _remember(self._left, where, left)
        return True

    async def _remove_lost(self, thread_id: str, most: int) -> None:
        """Remove the oldest of the calls of subgraphs that a thread has lost."""
        lost = self._lost.get(thread_id, [])
        for _ in range(most):
            if lost:  # another save may be at it too
                await self._rewriter.remove_call(thread_id, lost.pop())
        if not self._lost.get(thread_id, True):
            del self._lost[thread_id]


def _remember(known: dict[K, V], key: K, value: V) -> None:
    """Keep what is known of a thread; of too many the first are forgotten."""
    known[key] = value
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]


def _parent(parent: UUID | str | None, metadata: Mapping[str, Any]) -> UUID | None:
    """The parent that a call names, in either place."""
    named = [
        as_uuid(value, "parent") for value in (parent, metadata.get(PARENT)) if value is not None
    ]
    if len(set(named)) > 1:
        raise InvalidInputError(f"parent and metadata[{PARENT!r}] name different checkpoints.")
    return named[0] if named else None
