"""Many writers on the same conversations at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from decimal import Decimal

import asyncpg
import pytest

_WRITERS = 8
_ROUNDS = 150


async def test_eight_writers_in_any_order_leave_no_gap_and_no_deadlock(
    connect, postgres, writer, writer_of, message, broken
):
    conversations = [await writer.conversation() for _ in range(6)]
    accepted: dict[str, list] = {}
    failures: Counter[str] = Counter()

    async def write(one, dice):
        batches = []
        for _ in range(_ROUNDS):
            if batches and dice.random() < 0.2:
                batch = dice.choice(batches)  # a retry after a lost answer, some of it reordered
                batch = dice.sample(batch, len(batch))
            else:
                batch = [
                    message(
                        dice.choice(conversations),
                        content=str(dice.random()),
                        input_tokens=dice.randrange(9),
                        output_tokens=1,
                        cost=Decimal(dice.randrange(9)) / 1000,
                    )
                    for _ in range(dice.choice([1, 1, 2, 5, 12]))
                ]
                batches.append(batch)
            try:
                if len(batch) == 1:
                    answers = [await one.one(batch[0])]
                else:
                    answers = await one.many(batch)
            except asyncpg.PostgresError as error:
                failures[error.sqlstate] += 1
                continue
            for sent, (seq, _, failure) in zip(batch, answers, strict=True):
                assert failure is None
                accepted.setdefault(str(sent.id), []).append((str(sent.conversation_id), seq))

    writers = [writer_of(await connect("haive_client")) for _ in range(_WRITERS)]
    runs = (write(one, random.Random(seed)) for seed, one in enumerate(writers))
    await asyncio.gather(*runs)

    assert failures == {}
    assert await broken() == {}
    rows = await postgres.fetch("select id::text, conversation_id::text, seq from haive.messages")
    assert {row[0]: {(row[1], row[2])} for row in rows} == {
        message_id: set(places) for message_id, places in accepted.items()
    }


async def test_one_message_sent_by_all_at_once_is_one_message(
    connect, postgres, writer, writer_of, message, broken
):
    conversation = await writer.conversation()
    writers = [writer_of(await connect("haive_client")) for _ in range(_WRITERS)]
    for _ in range(10):
        same = message(conversation)
        answers = await asyncio.gather(*(one.one(same) for one in writers))
        assert len(set(answers)) == 1
        batch = [message(conversation), message(conversation)]
        many = await asyncio.gather(*(one.many(batch) for one in writers))
        assert len(set(map(tuple, many))) == 1
    assert await postgres.fetchval("select count(*) from haive.messages") == 30
    assert await broken() == {}


@pytest.mark.parametrize(
    "sabotage", ["seq = seq + 1000 where seq = 2", "input_tokens = 7, output_tokens = 0"]
)
async def test_the_invariants_notice_sabotage(writer, postgres, message, broken, sabotage):
    conversation = await writer.conversation()
    await writer.many([message(conversation) for _ in range(3)])
    assert await broken() == {}
    await postgres.execute(f"update haive.messages set {sabotage}")
    assert await broken() != {}
