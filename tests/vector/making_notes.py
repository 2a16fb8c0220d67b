"""Tenants, collections and memories for the tests of pgvector."""

from __future__ import annotations

import itertools
from typing import Any
from uuid import UUID

import asyncpg
import numpy as np
import uuid_utils

from haive.core.persistence.vector.config import IndexType
from haive.core.persistence.vector.records import Collection, Record

WIDTH = 4
_numbers = itertools.count(1)


async def make_tenant(owner: asyncpg.Connection, **settings: Any) -> str:
    name = f"memories-{next(_numbers)}"
    columns = "".join(f", {column}" for column in settings)
    values = "".join(f", ${place}" for place in range(2, len(settings) + 2))
    await owner.execute(
        f"insert into haive.tenants (tenant_id, name{columns}) values ($1, $1{values})",
        *(name, *settings.values()),
    )
    return name


def collection_of(**changes: Any) -> Collection:
    facts: dict[str, Any] = {
        "name": f"notes-{next(_numbers)}", "model": "m", "dimensions": WIDTH, "metric": "cosine",
        "language": "english", "index_type": IndexType.HNSW, "m": 16, "ef_construction": 64,
    }  # fmt: skip
    return Collection(**{**facts, **changes})


def unit(seed: int, width: int = WIDTH) -> Any:
    vector = np.random.default_rng(seed).standard_normal(width)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def memory(text: str = "", *, seed: int | None = 0, width: int = WIDTH, **metadata: Any) -> Record:
    return Record(
        id=str(UUID(bytes=uuid_utils.uuid7().bytes)),
        metadata={"text": text, **metadata},
        vector=None if seed is None else unit(seed, width),
    )
