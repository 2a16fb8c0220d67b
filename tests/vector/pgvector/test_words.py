"""By which words a search finds, and what it tells of the words of others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from making_notes import memory

from haive.core.persistence import SupabaseStore
from haive.core.persistence.local import LocalStack
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.config import RetrievalWeights
from haive.core.persistence.vector.filters import parse
from haive.core.persistence.vector.records import Hit, Query

pytestmark = pytest.mark.parametrize("transport", ["postgres"], indirect=True)


async def _search(backend: PgvectorBackend, text: str, where: Any = None, **more: Any) -> list[Hit]:
    facts = {
        "vector": None, "limit": 3, "filter": parse(where), "now": datetime.now(UTC), "parts": True,
        "weights": RetrievalWeights(recency=1), **more,
    }  # fmt: skip
    return await backend.search(Query(text=text, **facts))


async def _crowd(
    owner: asyncpg.Connection, backend: PgvectorBackend, tenant: str, text: str
) -> None:
    """5,000 memories of another user."""
    await owner.execute(
        f'insert into vecs."{backend.collection.name}" (id, tenant_id, metadata)'
        " select gen_random_uuid(), $1, jsonb_build_object('text', $2::text, 'user_id', 'bob')"
        " from generate_series(1, 5000)",
        *(tenant, text),
    )


@pytest.fixture
async def ann(
    stack: LocalStack, backend: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> AsyncIterator[PgvectorBackend]:
    """The backend of a member."""
    user = f"ann of {tenant}"
    await owner.execute(
        "insert into haive.members (tenant_id, user_id, role) values ($1, $2, 'member')",
        *(tenant, user),
    )
    token = stack.mint_user_token(user)
    async with SupabaseStore(stack.url, stack.publishable_key, access_token=token) as store:
        backend_of_ann = PgvectorBackend(store)
        backend_of_ann._opened = backend.collection
        yield backend_of_ann


async def test_a_word_that_is_common_among_others_still_finds_ones_own(
    backend: PgvectorBackend, ann: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    await _crowd(owner, backend, tenant, "coffee in the morning")
    user = f"ann of {tenant}"
    wanted = memory("coffee with Zoe", user_id=user, seed=None)
    later = [memory(f"number {n}", user_id=user, seed=None) for n in range(5)]
    await backend.put([wanted, memory("coffee", user_id="bob", seed=None), *later])
    found = await _search(backend, "morning coffee", {"user_id": user})
    assert found[0].record.id == wanted.id
    assert found[0].parts["words"] > 0
    assert (await _search(ann, "morning coffee"))[0].record.id == wanted.id


async def test_a_member_does_not_learn_which_words_others_have(
    backend: PgvectorBackend, ann: PgvectorBackend, owner: asyncpg.Connection, tenant: str
) -> None:
    user = f"ann of {tenant}"
    texts = ("a secret grinder", "secret", "a grinder of coffee", "tea", "tea and coffee")
    await backend.put([memory(text, user_id=user, seed=None) for text in texts])

    now = datetime.now(UTC)

    async def answers(of: PgvectorBackend) -> list[Any]:
        asked = ("secret grinder", "merger", "merger tea coffee")
        hits = [await _search(of, text, {"user_id": user}, now=now) for text in asked]
        return [[(hit.record.id, hit.score, hit.parts) for hit in each] for each in hits]

    alone, to_the_service = await answers(ann), await answers(backend)
    await _crowd(owner, backend, tenant, "the secret merger, and tea")
    assert await answers(ann) == alone
    # The control: to whom all is shown all counts, and the scores are others.
    assert await answers(backend) != to_the_service


@pytest.mark.parametrize(
    "odd",
    [
        {"seq": 2**63 - 1, "kind": "turn", "conversation_id": "c"},
        {"seq": -(2**63), "kind": "turn", "conversation_id": "c"},
        {"timestamp": "infinity"},
        {"timestamp": "-infinity"},
        {"created_at": "now"},
        {"speaker": "cat " * 100_000},
    ],
    ids=["largest", "smallest", "infinity", "before all", "now", "speaker"],
)
async def test_odd_metadata_of_one_memory_spoils_no_search(
    backend: PgvectorBackend, odd: dict[str, Any]
) -> None:
    one = memory("a cat", **odd)
    usual = [memory("a cat", kind="turn", conversation_id="c", seq=n) for n in range(2)]
    await backend.put([one, *usual])
    found = await _search(backend, "cat")
    assert {hit.record.id for hit in found} == {one.id, *(each.id for each in usual)}
    if "seq" not in odd and "speaker" not in odd:
        parts = next(hit.parts for hit in found if hit.record.id == one.id)
        assert parts["recency"] == 0
