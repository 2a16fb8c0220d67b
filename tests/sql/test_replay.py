"""A write may be repeated: the same content is the same row, other content is a conflict."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import asyncpg
import pytest

_OTHER = {
    "role": "assistant",
    "content": "other",
    "parts": '[{"type": "text", "text": "hello"}]',
    "metadata": '{"a": 1}',
    "model": "other",
    "cost": Decimal("0.2"),
    "created_at": datetime(2020, 1, 1, tzinfo=UTC),
}


@pytest.fixture
async def first(writer, message):
    return message(
        await writer.conversation(), model="m", cost=Decimal("0.1"), input_tokens=1, output_tokens=2
    )


async def _write(writer, how, message):
    if how == "one":
        return await writer.one(message)
    return (await writer.many([message]))[0]


@pytest.mark.parametrize("how", ["one", "many"])
async def test_a_repeated_message_is_answered_as_before_and_written_once(
    writer, postgres, broken, first, how
):
    before = await _write(writer, how, first)
    events = await postgres.fetchval("select count(*) from haive.events")
    for _ in range(3):
        assert await _write(writer, how, first) == before
    assert await postgres.fetchval("select count(*) from haive.messages") == 1
    assert await postgres.fetchval("select count(*) from haive.events") == events
    assert await broken() == {}


@pytest.mark.parametrize("how", ["one", "many"])
@pytest.mark.parametrize("changed", _OTHER)
async def test_other_content_at_the_same_id_is_a_conflict_and_changes_nothing(
    writer, postgres, broken, first, how, changed
):
    await writer.one(first)
    rows = "select * from haive.messages"
    before = await postgres.fetch(rows)
    found = await _write(writer, how, first.but(**{changed: _OTHER[changed]}))
    assert found == (None, None, "PT409")
    assert await postgres.fetch(rows) == before
    assert await broken() == {}


@pytest.mark.parametrize("how", ["one", "many"])
async def test_the_same_id_in_another_conversation_is_a_conflict(writer, broken, first, how):
    await writer.one(first)
    elsewhere = first.but(conversation_id=await writer.conversation())
    assert await _write(writer, how, elsewhere) == (None, None, "PT409")
    assert await broken() == {}


async def test_metadata_that_is_left_out_equals_empty_metadata(writer, first):
    before = await writer.one(first)
    assert await writer.one(first.but(metadata="{}")) == before


async def test_a_batch_that_is_partly_there_is_completed_in_order(writer, broken, first):
    batch = [first.but(id=uuid4(), content=str(number)) for number in range(6)]
    assert [row[0] for row in await writer.many(batch[1:3])] == [1, 2]
    assert [row[0] for row in await writer.many(batch)] == [3, 1, 2, 4, 5, 6]
    assert [row[0] for row in await writer.many(batch)] == [3, 1, 2, 4, 5, 6]
    assert await broken() == {}


async def test_a_message_twice_in_a_batch_is_one_message(writer, broken, first):
    second = first.but(id=uuid4())
    answers = await writer.many([first, second, first])
    assert [(seq, failure) for seq, _, failure in answers] == [(1, None), (2, None), (1, None)]
    assert await broken() == {}


async def test_of_two_contents_at_one_id_in_a_batch_the_first_is_written(writer, broken, first):
    answers = await writer.many([first, first.but(content="other")])
    assert [(seq, failure) for seq, _, failure in answers] == [(1, None), (None, "PT409")]
    assert await broken() == {}


async def test_an_unknown_conversation_fails_alone(writer, broken, first):
    lost = first.but(id=uuid4(), conversation_id=uuid4())
    answers = await writer.many([lost, first])
    assert [(seq, failure) for seq, _, failure in answers] == [(None, "PT404"), (1, None)]
    assert (await writer.one(lost))[2] == "PT404"
    assert await broken() == {}


async def test_the_same_id_lives_in_every_tenant(writer, client, postgres, broken, first):
    await writer.one(first)
    await postgres.execute("insert into haive.tenants values ('red', 'Red')")
    await client.execute("set persistence.tenant = 'red'")
    document = json.dumps([{"id": str(first.conversation_id), "agent_id": "a", "user_id": "u"}])
    await client.fetchval("select haive.create_conversations($1)", document)
    assert (await writer.one(first.but(content="in red")))[0] == 1
    assert await broken() == {}


async def _create(client, *documents):
    answer = await client.fetchval("select haive.create_conversations($1)", json.dumps(documents))
    return json.loads(answer)


async def test_a_repeated_conversation_is_answered_as_before_with_one_event(client, postgres):
    document = {"id": str(uuid4()), "agent_id": "a", "user_id": "u", "title": "first"}
    before = await _create(client, document)
    assert await _create(client, document) == before
    assert await _create(client, document, document) == before * 2
    assert await postgres.fetchval("select count(*) from haive.events") == 1


@pytest.mark.parametrize("changed", ["agent_id", "user_id", "created_at"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_another_conversation_at_the_same_id_is_a_conflict(
    client, postgres, changed, at_once
):
    document = {"id": str(uuid4()), "agent_id": "a", "user_id": "u", "created_at": "2020-01-01"}
    other = document | {changed: "2021-01-01"}
    if not at_once:
        await _create(client, document)
    with pytest.raises(asyncpg.PostgresError, match="another conversation") as caught:
        await _create(client, document, other)
    assert caught.value.sqlstate == "PT409"
    expected = 0 if at_once else 1
    assert await postgres.fetchval("select count(*) from haive.conversations") == expected
