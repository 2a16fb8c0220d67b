"""The answers of the database, as they come."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from uuid import UUID, SafeUUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter
from pydantic_core import from_json

from haive.core.persistence.checkpointer._bytes import from_base64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Bytes = Annotated[bytes, BeforeValidator(from_base64)]
# What is large has no line ends, and pydantic decodes it: 60 KB in 0.03 ms, not 0.17.
_PACKED = ConfigDict(val_json_bytes="base64")


class Row(NamedTuple):
    """One checkpoint without its state, in the order of the columns of ``find_checkpoints``."""

    id: UUID
    thread_id: str
    namespace: str
    thread_key: UUID
    branch: str
    seq: int
    parent_id: UUID | None
    base_id: UUID | None
    created_at: datetime
    size: int
    bytes: int
    depth: int
    failed: bool
    key_id: str | None
    schema_hash: str | None
    tags: list[str] | None
    metadata: dict[str, Any] | None
    search: Any
    sealed: Bytes | None


class Frame(NamedTuple):
    """A packed state; likewise."""

    thread_key: UUID
    id: UUID
    parent_id: UUID | None
    base_id: UUID | None
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


class Found(NamedTuple):
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

FOUND = TypeAdapter(Found, config=_PACKED)
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


def found_by_column(columns: Sequence[Any], *, states: bool) -> Found:
    """What ``find_checkpoints`` answers by column.

    Args:
        columns: Those of the rows, the time, the next page, those of the frames, and writes.
        states: Whether frames were asked for.
    """
    width, tail = len(Row._fields), len(columns) - len(Frame._fields) - 1
    rows = list(columns[:width])
    now, next_seq = columns[width:tail]
    frames, writes = list(columns[tail:-1]), columns[-1]
    plain = _plain_ids()
    count = len(rows[0] or ())
    for place, kind in enumerate(_ROW_KINDS):
        if rows[place] is None:
            rows[place] = [None] * count
        elif kind is not None:
            rows[place] = kind(plain, rows[place])
    for place in _FRAME_IDS:
        frames[place] = _uuids(plain, frames[place] or ())
    return Found(
        checkpoints=[Row._make(row) for row in zip(*rows, strict=True)],
        now=now,
        next_seq=next_seq,
        frames=[Frame._make(f) for f in zip(*(c or () for c in frames), strict=True)]
        if states
        else None,
        writes=None if writes is None else WRITES.validate_json(writes),
    )


# An id of asyncpg's is of a class of its own: callers get a UUID, one for each id that there is.
_Ids = dict[UUID | None, UUID | None]
_set = object.__setattr__
# Once: on the class it is looked up by Python code.
_SAFETY = SafeUUID.unknown


def _plain_ids() -> _Ids:
    return {None: None}


def _uuids(plain: _Ids, column: Iterable[UUID | None]) -> list[UUID | None]:
    ids = []
    for value in column:
        found = plain.get(value)
        if found is None and value is not None:
            # What the constructor checks is so: a third of its time.
            found = plain[value] = UUID.__new__(UUID)
            _set(found, "int", value.int)
            _set(found, "is_safe", _SAFETY)
        ids.append(found)
    return ids


def _hexes(_: _Ids, column: Iterable[bytes | None]) -> list[str | None]:
    return [None if value is None else value.hex() for value in column]


def _jsons(_: _Ids, column: Iterable[str | None]) -> Any:
    return from_json(f"[{','.join([value or 'null' for value in column])}]")


_KINDS: dict[str, Callable[[_Ids, Any], Any]] = {
    **dict.fromkeys(("id", "thread_key", "parent_id", "base_id"), _uuids),
    **dict.fromkeys(("tags", "metadata", "search"), _jsons),
    "schema_hash": _hexes,
}
_ROW_KINDS = [_KINDS.get(name) for name in Row._fields]
_FRAME_IDS = [place for place, name in enumerate(Frame._fields) if name in _KINDS]
