"""The branches of threads: their names, and what is kept about them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from haive.core.persistence._encoding import as_uuid, new_id, object_to_json
from haive.core.persistence.checkpointer._arguments import check_branch_name, is_uuid
from haive.core.persistence.checkpointer._documents import NEW_BRANCH
from haive.core.persistence.checkpointer.models import Branch
from haive.core.persistence.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haive.core.persistence.checkpointer._documents import BranchRow
    from haive.core.persistence.checkpointer._engine import Engine
    from haive.core.persistence.checkpointer._reading import Reader
    from haive.core.persistence.checkpointer._rewriting import Rewriter
    from haive.core.persistence.checkpointer._sealing import Sealer

# Most names that are remembered; they are read again when they are needed.
_NAMES = 10_000


class Branches:
    """What `Checkpointer` makes and knows branches with."""

    def __init__(self, engine: Engine, reader: Reader, rewriter: Rewriter) -> None:
        self._engine = engine
        self._reader = reader
        self._rewriter = rewriter
        self._names: dict[tuple[str, str, UUID], str] = {}

    async def create(
        self,
        from_checkpoint: UUID | str,
        branch_name: str,
        metadata: Mapping[str, Any] | None,
        thread_id: str | None,
        namespace: str,
    ) -> UUID:
        """Begin a branch at a checkpoint, and return its id."""
        checked = object_to_json(metadata or {}, "metadata")
        check_branch_name(branch_name, "branch_name")
        sealer = await self._engine.sealer()
        branch_id = new_id()
        sealed = None
        if sealer.keys is not None:
            row = (await self._reader.one(from_checkpoint, thread_id, namespace)).checkpoints[0]
            thread_id, namespace = row.thread_id, row.namespace
            sealed = sealer.seal(
                self._engine.codec.pack(json.loads(checked)),
                *("branch", thread_id, namespace, branch_id.bytes),
            )
        created = await self._engine.call(
            "create_branch",
            {
                "from_checkpoint": as_uuid(from_checkpoint, "from_checkpoint"),
                "name": branch_name,
                "thread_id": thread_id,
                "namespace": namespace,
                "branch_id": branch_id,
                "metadata": checked if metadata and sealed is None else None,
                "sealed": sealed,
                "key_id": sealer.key_id,
            },
            NEW_BRANCH,
            safe=True,
        )
        self._remember(created.thread_id, created.namespace, {created.branch_id: created.name})
        return branch_id

    async def all_of(self, thread_id: str, namespace: str) -> list[Branch]:
        """The branches of a thread, oldest first."""
        sealer = await self._engine.sealer()
        rows = await self._rewriter.branches(thread_id, namespace)
        return [
            Branch(
                id=row.branch_id,
                name=row.name,
                head_id=row.head_id,
                root_id=row.root_id,
                metadata=self._metadata(sealer, thread_id, namespace, row),
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
            for row in rows
        ]

    async def name_of(self, thread_id: str, namespace: str, branch: UUID | str) -> str:
        """The name of a branch, which may be given by its id."""
        if not isinstance(branch, UUID) and not is_uuid(branch):
            return branch
        branch_id = as_uuid(branch, "branch")
        key = (thread_id, namespace, branch_id)
        if key not in self._names:
            rows = await self._rewriter.branches(thread_id, namespace)
            self._remember(thread_id, namespace, {row.branch_id: row.name for row in rows})
        if key not in self._names:
            raise NotFoundError(
                f"The thread has no branch {branch_id}.",
                hint="create_branch makes one, from any checkpoint.",
            )
        return self._names[key]

    def _remember(self, thread_id: str, namespace: str, names: Mapping[UUID, str]) -> None:
        if len(self._names) > _NAMES:
            self._names.clear()
        self._names |= {(thread_id, namespace, key): name for key, name in names.items()}

    def _metadata(
        self, sealer: Sealer, thread_id: str, namespace: str, row: BranchRow
    ) -> dict[str, Any]:
        if row.sealed is None and row.key_id is None and row.metadata is None:
            return {}
        opened = sealer.open(
            row.key_id,
            row.sealed or b"",
            *("branch", thread_id, namespace, row.branch_id.bytes),
        )
        if sealer.takes(row.key_id):
            return row.metadata or {}
        metadata: dict[str, Any] = self._engine.codec.unpack(opened)  # type: ignore[assignment]
        return metadata
