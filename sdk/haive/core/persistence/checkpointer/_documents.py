"""The answers of the database, as they come."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Any
from uuid import UUID  # noqa: TC003 - likewise

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter

from haive.core.persistence.checkpointer._bytes import from_base64

Bytes = Annotated[bytes, BeforeValidator(from_base64)]
# What is large has no line ends, and pydantic decodes it: 60 KB in 0.03 ms, not 0.17.
_PACKED = ConfigDict(val_json_bytes="base64")


class Row(BaseModel):
    """One checkpoint without its state."""

    id: UUID
    thread_id: str
    namespace: str
    thread_key: UUID
    branch: str
    seq: int
    parent_id: UUID | None
    created_at: datetime
    size: int
    bytes: int
    depth: int
    failed: bool
    key_id: str | None
    schema_hash: str | None
    tags: list[str] | None
    metadata: dict[str, Any] | None
    search: Any = None
    sealed: Bytes | None


class Frame(BaseModel):
    """A packed state."""

    model_config = _PACKED

    thread_key: UUID
    id: UUID
    parent_id: UUID | None
    codec: int
    size: int
    key_id: str | None
    payload: bytes


class Write(BaseModel):
    """A packed pending write."""

    model_config = _PACKED

    thread_key: UUID
    checkpoint_id: UUID
    task_id: UUID
    idx: int
    channel: str
    task_path: str
    codec: int
    size: int
    key_id: str | None
    payload: bytes


class Found(BaseModel):
    """What ``find_checkpoints`` answers."""

    checkpoints: list[Row]
    now: datetime
    next_seq: int | None
    frames: list[Frame] | None
    writes: list[Write] | None


class Saved(BaseModel):
    """What ``save_checkpoint`` answers."""

    branch: str
    conflict: bool = False
    head_id: UUID | None = None
    seq: int = 0
    created_at: datetime | None = None
    count: int | None = None


class BranchRow(BaseModel):
    """One branch."""

    branch_id: UUID
    name: str
    head_id: UUID | None
    root_id: UUID | None
    metadata: dict[str, Any] | None
    sealed: Bytes | None
    key_id: str | None
    created_at: datetime
    updated_at: datetime


class ThreadRow(BaseModel):
    """One thread."""

    thread_id: str
    user_id: str | None
    namespaces: list[str]
    branches: int
    checkpoints: int
    bytes: int
    created_at: datetime
    updated_at: datetime | None


class NewBranch(BaseModel):
    """What ``create_branch`` answers."""

    branch_id: UUID
    name: str
    thread_id: str
    namespace: str
    created_at: datetime


class Rewritten(BaseModel):
    """What ``rewrite_checkpoints`` answers."""

    removed: int
    replaced: int


class Schema(BaseModel):
    """A packed JSON Schema."""

    payload: Bytes
    key_id: str | None


class Tenant(BaseModel):
    """Whose data this is."""

    tenant: str


_SEALED = Row | Frame | Write | BranchRow | Schema

FOUND = TypeAdapter(Found)
WRITES = TypeAdapter(list[Write])
SAVED = TypeAdapter(Saved)
BRANCHES = TypeAdapter(list[BranchRow])
THREADS = TypeAdapter(list[ThreadRow])
NEW_BRANCH = TypeAdapter(NewBranch)
REWRITTEN = TypeAdapter(Rewritten)
SCHEMA = TypeAdapter(Schema | None)
COUNT = TypeAdapter(int)
FLAG = TypeAdapter(bool)
TENANT = TypeAdapter(Tenant)


def key_ids(answer: object) -> set[str]:
    """The keys that an answer was sealed with."""
    if isinstance(answer, Found):
        rows: list[object] = [*answer.checkpoints, *(answer.frames or ()), *(answer.writes or ())]
    else:
        rows = answer if isinstance(answer, list) else [answer]
    return {row.key_id for row in rows if isinstance(row, _SEALED) and row.key_id is not None}
