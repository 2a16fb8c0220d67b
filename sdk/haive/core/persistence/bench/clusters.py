"""Made-up vectors in clusters, whose they are and what filters select by, and queries near them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import uuid_utils

from haive.core.persistence.vector.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

#: Which share of all rows some tenants have, and filters select; the rest is another tenant's.
SHARES = {"01": 0.001, "1": 0.01, "10": 0.1, "50": 0.5}
#: Tenants by their place in `Data.owners`.
TENANTS = (*SHARES, "rest", "few")
#: So many rows has the tenant with few.
FEW = 300
_SIZE = 500  # of a cluster
_CHUNK = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Rows, the same in each run but for their ids."""

    vectors: Vectors
    """Of length 1, a row each."""
    queries: Vectors
    """Likewise; each is close to a vector."""
    ids: list[str]
    owners: NDArray[np.int64]
    """Of each row the place of its tenant in `TENANTS`."""
    chance: NDArray[np.float64]
    """Of each row, what filters select by: even in 0 to 1."""

    def of(self, tenant: str) -> NDArray[np.int64]:
        """The places of a tenant's rows."""
        return np.flatnonzero(self.owners == TENANTS.index(tenant))

    def metadata(self, place: Any) -> dict[str, Any]:
        """Of a row: a number, and the names of the shares that it is in."""
        chance = float(self.chance[place])
        return {
            "importance": chance,
            "parts": [name for name, share in SHARES.items() if chance < share],
        }

    def records(self, places: NDArray[np.int64]) -> list[Record]:
        """Rows as memories."""
        return [
            Record(id=self.ids[n], metadata=self.metadata(n), vector=self.vectors[n])
            for n in places
        ]

    def nearest(self, query: int, among: NDArray[np.int64], limit: int) -> set[str]:
        """The ids of the true nearest of a query."""
        if len(among) == len(self.ids):
            likeness = self.vectors @ self.queries[query]
        else:
            likeness = self.vectors[among] @ self.queries[query]
        near = np.argpartition(-likeness, min(limit, len(among)) - 1)[:limit]
        return {self.ids[place] for place in among[near]}


def make(number: int, dimensions: int, *, queries: int) -> Data:
    """Clusters of some 500, with a spread of 0.6 of their distance from the middle.

    A query is a vector with a noise of 0.4 of its length: a cosine of 0.93.
    """
    rng = np.random.default_rng(1)
    centers = rng.standard_normal((max(1, number // _SIZE), dimensions), dtype=np.float32)
    vectors = np.empty((number, dimensions), np.float32)
    for rows in _chunks(number):
        some = centers[rng.integers(0, len(centers), rows.stop - rows.start)]
        some += 0.6 * rng.standard_normal(some.shape, dtype=np.float32)
        vectors[rows] = _unit(some)
    asked = vectors[rng.integers(0, number, queries)]
    noise = rng.standard_normal(asked.shape, dtype=np.float32)
    owners = np.searchsorted(np.cumsum(list(SHARES.values())), rng.random(number))
    owners[rng.choice(np.flatnonzero(owners == TENANTS.index("rest")), FEW, replace=False)] = (
        TENANTS.index("few")
    )
    return Data(
        vectors=vectors,
        queries=_unit(asked + 0.4 * _unit(noise)),
        ids=[str(UUID(bytes=uuid_utils.uuid7().bytes)) for _ in range(number)],
        owners=owners,
        chance=rng.random(number),
    )


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _chunks(number: int) -> Iterator[slice]:
    for start in range(0, number, _CHUNK):
        yield slice(start, min(start + _CHUNK, number))
