"""How LangGraph's checkpoints lie in ours.

The values of the channels are the state, so that a `Checkpointer` restores, compares and branches
what a graph saved. The rest of the checkpoint, and of its metadata what JSON has not, is kept
beside the state, under the keys ``langgraph`` and ``metadata``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from langchain_core.documents import Document
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.store.base import GetOp, Item
from langgraph.types import (
    Command,
    Interrupt,
    Overwrite,
    PregelTask,
    Send,
    StateSnapshot,
    TimeoutPolicy,
)

from haive.core.persistence._encoding import as_uuid, to_json
from haive.core.persistence.checkpointer._arguments import check_name
from haive.core.persistence.checkpointer._search import shallow
from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig

    from haive.core.persistence.checkpointer._documents import Row, Write

#: What occurs in checkpoints and writes of any graph, beside messages.
TYPES: tuple[type, ...] = (
    Command, Document, GetOp, Interrupt, Item, Overwrite, PregelTask, Send, StateSnapshot,
    TimeoutPolicy, _DeltaSnapshot,
)  # fmt: skip

# The version of LangGraph's format that a state of a `Checkpointer` is shown as.
_FORMAT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """What a config points to."""

    thread_id: str
    namespace: str
    checkpoint_id: UUID | None
    user_id: str | None

    @classmethod
    def of(cls, config: RunnableConfig) -> Address:
        """The address in a config.

        Raises:
            InvalidInputError: It names no thread, a checkpoint whose id is no UUID, or a user who
                cannot be one.
        """
        configurable = config.get("configurable", {})
        thread_id = configurable.get("thread_id")
        if thread_id is None:
            raise InvalidInputError(
                "The config names no thread.", hint='Pass {"configurable": {"thread_id": …}}.'
            )
        return cls(
            thread_id=str(thread_id),
            namespace=configurable.get("checkpoint_ns") or "",
            checkpoint_id=id_in(config),
            user_id=user_in(config),
        )


def id_in(config: RunnableConfig | None) -> UUID | None:
    """The id of the checkpoint that a config points to, if it does."""
    found = (config or {}).get("configurable", {}).get("checkpoint_id")
    return as_uuid(found, "checkpoint_id") if found else None


def user_in(config: RunnableConfig | None) -> str | None:
    """The user whose thread it must be, if a config names one.

    Raises:
        InvalidInputError: It names something else: left out, the thread would be anybody's.
    """
    given = (config or {}).get("configurable", {}).get("user_id")
    if given is None:
        return None
    # As thread ids, which programs give as numbers and UUIDs too.
    is_id = isinstance(given, int | UUID) and not isinstance(given, bool)
    user: str = str(given) if is_id else given
    check_name(user, "user_id")
    return user


def config_of(thread_id: str, namespace: str, checkpoint_id: UUID) -> RunnableConfig:
    """The config that points to a checkpoint."""
    return {
        "configurable": {
            "thread_id": thread_id,
            "checkpoint_ns": namespace,
            "checkpoint_id": str(checkpoint_id),
        }
    }


# -- saving --------------------------------------------------------------------------------------


def taken_apart(
    config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A checkpoint as its state, what is kept beside the state, and metadata as JSON."""
    rest: dict[str, Any] = dict(checkpoint)
    values = rest.pop("channel_values")
    del rest["id"]
    plain, exact = _as_json(get_checkpoint_metadata(config, metadata))
    beside = {"langgraph": rest, "metadata": exact} if exact else {"langgraph": rest}
    return values, beside, plain


def searchable(values: Mapping[str, Any]) -> dict[str, Any]:
    """The channels that a graph declares: those that LangGraph makes say nothing to search by."""
    return {key: value for key, value in values.items() if not key.startswith(("branch:to:", "__"))}


def numbered(writes: Iterable[tuple[str, Any]]) -> dict[int, tuple[str, Any]]:
    """Writes of a task by their places; an exception is written down as what it says."""
    return {
        WRITES_IDX_MAP.get(channel, place): (
            channel,
            repr(value) if isinstance(value, BaseException) else value,
        )
        for place, (channel, value) in enumerate(writes)
    }


def _as_json(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata as JSON, and those items that would come back from it as something else."""
    plain: dict[str, Any] = {}
    exact: dict[str, Any] = {}
    for key, value in metadata.items():
        if not is_exact(key) or not is_exact(value):
            exact[key] = value
            try:
                plain |= json.loads(to_json({key: value}, "metadata"))
            except InvalidInputError:
                continue  # it is not searched by
        else:
            plain[key] = value
    return plain, exact


def is_exact(value: object) -> bool:
    """Whether a value comes back from Postgres's JSON as what it is."""
    kind = type(value)
    if kind is str:
        text = cast("str", value)
        return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
    if kind is float:
        # Postgres writes large and small numbers out, and has no negative zero.
        number = cast("float", value)
        return math.isfinite(number) and "e" not in repr(number) and repr(number) != "-0.0"
    if kind is dict:
        pairs = cast("dict[object, object]", value).items()
        return all(type(key) is str and is_exact(key) and is_exact(item) for key, item in pairs)
    if kind is list:
        return all(map(is_exact, cast("list[object]", value)))
    return value is None or kind in {bool, int}


# -- reading -------------------------------------------------------------------------------------


def put_together(
    row: Row,
    envelope: Sequence[Any],
    metadata: Mapping[str, Any],
    writes: Iterable[tuple[Write, Any]],
) -> CheckpointTuple:
    """A checkpoint as LangGraph has it.

    Args:
        row: The row.
        envelope: The state, and what is kept beside it.
        metadata: What JSON has of the metadata.
        writes: The pending writes with their values, in the order in which a run applies them.
    """
    state, beside = envelope
    if isinstance(beside, dict) and isinstance(beside.get("langgraph"), dict):
        values, rest = state, beside["langgraph"]
        metadata = {**metadata, **beside.get("metadata", {})}
    else:
        values, rest = _of_another(row, state)
        metadata = {"source": "update", "step": 0, "parents": {}, **metadata}
    return CheckpointTuple(
        config=config_of(row.thread_id, row.namespace, row.id),
        checkpoint=cast("Checkpoint", {**rest, "id": str(row.id), "channel_values": values}),
        metadata=cast("CheckpointMetadata", dict(metadata)),
        parent_config=(
            None
            if row.parent_id is None
            else config_of(row.thread_id, row.namespace, row.parent_id)
        ),
        pending_writes=[(str(write.task_id), write.channel, value) for write, value in writes],
    )


def in_order(writes: Iterable[Write]) -> list[Write]:
    """Writes in the order in which a run applies them."""
    return sorted(
        writes, key=lambda write: writes_sort_key(write.task_path, str(write.task_id), write.idx)
    )


def _of_another(row: Row, state: object) -> tuple[dict[Any, Any], dict[str, Any]]:
    """A state that a `Checkpointer` saved, as one that no node has seen."""
    values = shallow(state, containers=True)
    return values, {
        "v": _FORMAT,
        "ts": row.created_at.isoformat(),
        "channel_versions": dict.fromkeys(values, 1),
        "versions_seen": {},
        "updated_channels": None,
    }
