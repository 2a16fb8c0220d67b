"""The statistics of words are what a recount says, whoever writes, and nobody waits for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from counting import differences
from making_notes import memory

from haive.core.persistence.local import LocalStack
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend

_WORDS = [
    "cat",
    "dog",
    "grinder",
    "coffee",
    "Basel",
    "Rome",
    "train",
    "the",
    "of",
    "stops",
    "stopping",
    "café",
    "Zürich",
    "42",
]


def _text(source: random.Random) -> str:
    return " ".join(source.choices(_WORDS, k=source.randint(0, 12)))


@pytest.mark.parametrize("seed", range(3))
async def test_after_random_writes_they_are_what_a_recount_says(
    backend: PgvectorBackend, owner: asyncpg.Connection, seed: int
) -> None:
    source = random.Random(seed)
    name = backend.collection.name
    known = [memory(_text(source), context=_text(source)) for _ in range(20)]
    for _ in range(15):
        some = source.sample(known, source.randint(1, 8))
        if source.random() < 0.6:
            await backend.put(
                [
                    type(each)(
                        id=each.id, metadata={"text": _text(source), "context": _text(source)}
                    )
                    for each in some
                ]
            )
        elif source.random() < 0.5:
            await backend.delete([each.id for each in some])
        else:  # as vecs does: the owner, who names no tenant
            await owner.execute(
                f'insert into vecs."{name}" (id, metadata) values ($1, $2), ($3, $2)'
                " on conflict (id) do update set metadata = excluded.metadata",
                some[0].id,
                f'{{"text": "{_text(source)}"}}',
                f"vecs-{source.randint(1, 3)}",
            )
        assert await differences(owner, name) == []
    await owner.execute(f'delete from vecs."{name}"')
    assert await differences(owner, name) == []
    rest = "select count(*) from haive_private.memory_words where collection = $1"
    assert await owner.fetchval(rest, name) == 0


async def test_a_statistic_that_is_wrong_is_noticed(
    backend: PgvectorBackend, owner: asyncpg.Connection
) -> None:
    # The control of the comparison: it does find what there is to find.
    name = backend.collection.name
    await backend.put([memory("a cat")])
    await owner.execute(f'alter table vecs."{name}" disable trigger count_removed')
    await owner.execute(f'delete from vecs."{name}"')
    assert len(await differences(owner, name)) == 2


@pytest.mark.parametrize("transport", ["postgres"], indirect=True)
async def test_eight_writers_of_the_same_words_and_memories_neither_wait_in_a_circle_nor_miscount(
    backend: PgvectorBackend,
    open_backend: Callable[..., Awaitable[PgvectorBackend]],
    owner: asyncpg.Connection,
    stack: LocalStack,
) -> None:
    shared = [memory(" ".join(_WORDS[:5])) for _ in range(6)]
    backends = [await open_backend() for _ in range(4)]

    async def write(number: int) -> None:
        source = random.Random(number)
        for _ in range(15):
            some = [*source.sample(shared, 3), memory(_text(source))]
            some = [
                type(each)(id=each.id, metadata={"text": _text(source), "context": _text(source)})
                for each in some
            ]
            source.shuffle(some)
            if source.random() < 0.2:
                await backends[number % 4].delete([each.id for each in some])
            else:
                await backends[number % 4].put(some)

    async def write_as_owner(number: int) -> None:
        # Outside of the functions, two statements a transaction, some of them undone.
        source = random.Random(100 + number)
        connection = await asyncpg.connect(stack.database_url)
        table = f'vecs."{backend.collection.name}"'
        for turn in range(15):
            transaction = connection.transaction()
            await transaction.start()
            for part in "ab":
                await connection.execute(
                    f"insert into {table} (id, metadata) values ($1, $2)",
                    f"{number}-{turn}-{part}",
                    f'{{"text": "{_text(source)}"}}',
                )
            await (transaction.rollback() if turn % 3 == 0 else transaction.commit())
        await connection.close()

    writers = [write(number) for number in range(5)] + [write_as_owner(n) for n in range(3)]
    await asyncio.gather(*writers)
    assert await differences(owner, backend.collection.name) == []


async def test_who_waits_for_nobody_leaves_parts_which_the_next_one_gathers(
    backend: PgvectorBackend, owner: asyncpg.Connection, stack: LocalStack
) -> None:
    name = backend.collection.name
    other = await asyncpg.connect(stack.database_url)
    transaction = other.transaction()
    await transaction.start()
    tenant = backend._store._transport.tenant
    await other.execute(
        f'insert into vecs."{name}" (id, metadata, tenant_id) values ($1, $2, $3)',
        *("held", '{"text": "a cat"}', tenant),
    )
    await backend.put([memory("a cat")])  # the lock is held, and this does not wait for it
    parts = "select count(*) from haive_private.memory_words where collection = $1 and part <> 0"
    assert await owner.fetchval(parts, name) == 1
    await transaction.commit()
    await other.close()
    await backend.put([memory("a dog")])
    assert await owner.fetchval(parts, name) == 0
    assert await differences(owner, name) == []
