"""Reading page by page equals reading at once."""

from __future__ import annotations

import json

import asyncpg
import pytest

_ORDERS = ("created_at", "last_message_at", "message_count", "updated_at")


async def _pages(client, **arguments):
    """Return the ids of all pages."""
    found, page_after = [], None
    while True:
        answer = await client.fetchval(
            "select haive.query_conversations(order_by => $1, ascending => $2, page_size => $3,"
            " page_after => $4)",
            *(arguments["order_by"], arguments["ascending"], arguments["page_size"], page_after),
        )
        page = json.loads(answer)
        found += [row["id"] for row in page["conversations"]]
        page_after = page["next_page"]
        if page_after is None:
            return found


@pytest.fixture
async def library(writer, postgres):
    """Thirteen conversations, several of them alike in what they are ordered by."""
    for _ in range(13):
        await writer.conversation()
    await postgres.execute(
        """
        with numbered as (select id, row_number() over () as n from haive.conversations)
        update haive.conversations as c set
          message_count = n % 4,
          created_at = created_at + (n % 5) * interval '1 microsecond',
          updated_at = updated_at - (n % 3) * interval '1 day',
          last_message_at = last_message_at + (n % 5) * interval '50 minutes'
        from numbered where numbered.id = c.id
        """
    )


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("settings", ["ISO", "SQL, DMY", "German", "Postgres, MDY"])
@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("order_by", _ORDERS)
async def test_pages_of_any_size_make_the_whole(client, postgres, settings, ascending, order_by):
    await client.execute(f"set datestyle = '{settings}'; set timezone = 'Asia/Kathmandu'")
    direction = "asc" if ascending else "desc"
    rows = await postgres.fetch(
        f"select id::text from haive.conversations order by {order_by} {direction}, id {direction}"
    )
    for size in (1, 4, 13, 100):
        found = await _pages(client, order_by=order_by, ascending=ascending, page_size=size)
        assert found == [row["id"] for row in rows]


@pytest.mark.parametrize("size", [0, -1, 10001, None])
@pytest.mark.parametrize("function", ["get_messages($2,", "query_conversations("])
async def test_a_page_has_a_size_within_bounds(client, writer, function, size):
    conversation = await writer.conversation()
    unused = "" if "$2" in function else ", page_after => left($2::uuid::text, 0)"
    query = f"select haive.{function} page_size => $1{unused})"
    with pytest.raises(asyncpg.PostgresError, match="page_size") as caught:
        await client.fetchval(query, size, conversation)
    assert caught.value.sqlstate == "PT422"


@pytest.mark.parametrize("last", [True, False])
async def test_messages_are_read_on_from_both_ends(client, writer, message, last):
    conversation = await writer.conversation()
    await writer.many([message(conversation) for _ in range(10)])
    query = (
        "select haive.get_messages($1, before => $2, page_size => 3, last => true)"
        if last
        else "select haive.get_messages($1, after => $2, page_size => 3)"
    )
    found, cursor = [], None if last else 0
    while page := json.loads(await client.fetchval(query, conversation, cursor)):
        seqs = [row["seq"] for row in page]
        found = seqs + found if last else found + seqs
        cursor = seqs[0] if last else seqs[-1]
    assert found == list(range(1, 11))
