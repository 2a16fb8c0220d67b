"""Changes what is said of a checkpoint: its tags, and whether it is one of a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import as_uuid, to_json
from haive.core.persistence.checkpointer._documents import FLAG
from haive.core.persistence.checkpointer._engine import blinded_by, checked_tags
from haive.core.persistence.errors import ConflictError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from haive.core.persistence.checkpointer._engine import Engine
    from haive.core.persistence.checkpointer._reading import Reader

# How often tags are sealed again when somebody else changes them meanwhile.
_ATTEMPTS = 10
# What Postgres says where all tags together are more than the column takes.
_CHECK_VIOLATION = "23514"


class Tagger:
    """What `Checkpointer` tags with."""

    def __init__(self, engine: Engine, reader: Reader) -> None:
        self._engine = engine
        self._reader = reader

    async def annotate(
        self,
        checkpoint_id: UUID | str,
        thread_id: str | None,
        namespace: str,
        changes: dict[str, Any],
    ) -> bool:
        """Change it; return whether the checkpoint was as the changes expect it."""
        done: bool = await self._engine.call(
            "annotate_checkpoint",
            {
                "checkpoint_id": as_uuid(checkpoint_id, "checkpoint_id"),
                "thread_id": thread_id,
                "namespace": namespace,
                **changes,
            },
            FLAG,
            safe=True,
        )
        return done

    async def retag(
        self,
        checkpoint_id: UUID | str,
        thread_id: str | None,
        namespace: str,
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
    ) -> None:
        """Add and remove tags, in plain or sealed again."""
        sealer = await self._engine.sealer()
        if sealer.keys is None:
            changes = {"add_tags": list(add), "remove_tags": list(remove)}
            try:
                done = await self.annotate(checkpoint_id, thread_id, namespace, changes)
            except InvalidInputError as error:
                if error.sqlstate != _CHECK_VIOLATION:
                    raise
                raise InvalidInputError(
                    "With these a checkpoint would have more than 1,000 tags, or 200,000 bytes.",
                    hint="Take some off first: untag does.",
                ) from None
            if not done:
                raise ConflictError(
                    "The checkpoint is sealed.", hint="Pass CheckpointConfig(encryption_key=…)."
                )
            return
        for _ in range(_ATTEMPTS):
            found = await self._reader.one(checkpoint_id, thread_id, namespace)
            row = found.checkpoints[0]
            metadata, tags, terms = self._engine.open_details(sealer, row)
            wanted = checked_tags(tag for tag in [*tags, *add] if tag not in remove)
            kept = {"metadata": metadata, "tags": wanted, "terms": terms}
            changed: dict[str, Any] = {
                "sealed": sealer.seal_again(
                    row.key_id,
                    self._engine.codec.pack(kept),
                    *("details", row.thread_id, row.namespace, row.id.bytes),
                ),
                "was_sealed": row.sealed,
                "search": to_json(blinded_by(sealer, row.key_id, kept), "search"),
            }
            if await self.annotate(row.id, row.thread_id, row.namespace, changed):
                return
        raise ConflictError("The tags are changed by others all the time.", hint="Try again.")
