"""postgres_changes: changed rows for who may see them."""

from __future__ import annotations

import uuid

import pytest
from realtime.types import RealtimePostgresChangesListenEvent as Event


def notes(event=Event.All, **options):
    """Listen to public.rt_notes."""

    def setup(channel, heard):
        channel.on_postgres_changes(
            event, heard.changes.append, schema="public", table="rt_notes", **options
        )

    return setup


@pytest.fixture
def write(database, room):
    """Write a note into the room, and get its id."""

    async def one(body="hello", amount=1, *, into=room, details=None):
        return await database.fetchval(
            "insert into public.rt_notes (room, body, amount, details) values ($1, $2, $3, $4)"
            " returning id",
            *(into, body, amount, details),
        )

    return one


async def test_inserts_updates_and_deletes_are_told_in_order(
    new_client, join, member, room, write, database, eventually
):
    heard = await join(await new_client(member), "any", private=False, setup=notes())
    note = await write(details='{"tags": [1, 2]}')
    await eventually(lambda: len(heard.changes) == 1)  # policies see the row as it is by then
    await database.execute("update public.rt_notes set amount = 2.5 where id = $1", note)
    await eventually(lambda: len(heard.changes) == 2)
    await database.execute("delete from public.rt_notes where id = $1", note)
    await eventually(lambda: len(heard.changes) == 3)
    assert heard.kinds == ["INSERT", "UPDATE", "DELETE"]
    insert, update, delete = (change["data"] for change in heard.changes)
    assert insert["record"] == {
        "id": note,
        "room": room,
        "body": "hello",
        "amount": 1,
        "details": {"tags": [1, 2]},
    }
    assert (insert["schema"], insert["table"], insert["errors"]) == ("public", "rt_notes", None)
    assert {"name": "amount", "type": "numeric"} in insert["columns"]
    assert (update["record"]["amount"], update["old_record"]) == (2.5, {"id": note})
    assert delete["old_record"] == {"id": note}


async def test_a_subscriber_is_told_that_it_is_one(new_client, join, member, rooms, eventually):
    heard = await join(await new_client(member), "any", private=False, setup=notes())
    await eventually(lambda: heard.system)
    assert heard.system[0].message == "Subscribed to PostgreSQL"


async def test_rows_that_the_policies_hide_are_not_told(
    new_client, join, member, write, eventually, settled
):
    heard = await join(await new_client(member), "any", private=False, setup=notes())
    stranger = await join(
        await new_client(str(uuid.uuid4())), "any", private=False, setup=notes(Event.Insert)
    )
    await write(into="another room")
    await write("mine")
    await eventually(lambda: heard.changes)
    await settled()
    assert [change["data"]["record"]["body"] for change in heard.changes] == ["mine"]
    assert stranger.changes == []


async def test_hiding_is_the_policies_doing(new_client, join, rooms, write, database, eventually):
    """The control: without row level security the stranger of above is told."""
    await database.execute("alter table public.rt_notes disable row level security")
    try:
        stranger = await join(
            await new_client(str(uuid.uuid4())), "any", private=False, setup=notes()
        )
        await write()
        await eventually(lambda: stranger.changes)
    finally:
        await database.execute("alter table public.rt_notes enable row level security")


async def test_columns_that_are_not_granted_are_left_out(
    new_client, join, member, database, room, eventually
):
    heard = await join(await new_client(member), "any", private=False, setup=notes())
    await database.execute("insert into public.rt_notes (room, secret) values ($1, 'hush')", room)
    await eventually(lambda: heard.changes)
    data = heard.changes[0]["data"]
    assert "secret" not in data["record"]
    assert "secret" not in {column["name"] for column in data["columns"]}


async def test_a_role_without_a_grant_is_told_so(new_client, join, write, eventually):
    heard = await join(await new_client(), "any", private=False, setup=notes())
    await write()
    await eventually(lambda: heard.changes)
    data = heard.changes[0]["data"]
    assert (data["record"], data["errors"]) == ({}, ["Error 401: Unauthorized"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("amount=gt.5", ["b", "c, d"]),
        ("amount=gt.5,body=eq.b", ["b"]),
        ('body=in.(a,"c, d")', ["a", "c, d"]),
        ("body=not.in.(a,b)", ["c, d"]),
        ("body=like.c%", ["c, d"]),
        ("details=is.null", ["b", "c, d"]),
        ("details=not.is.null", ["a"]),
        ("body=imatch.^[AB]$", ["a", "b"]),
        ("body=isdistinct.a", ["b", "c, d"]),
    ],
)
async def test_filters(new_client, join, member, write, eventually, settled, text, wanted):
    heard = await join(
        await new_client(member), "any", private=False, setup=notes(Event.Insert, filter=text)
    )
    for body, amount in (("a", 1), ("b", 10), ("c, d", 7)):
        await write(body, amount, details="{}" if body == "a" else None)
    await eventually(lambda: len(heard.changes) >= len(wanted))
    await settled()
    assert [change["data"]["record"]["body"] for change in heard.changes] == wanted


@pytest.mark.parametrize(
    "text",
    [
        "amount=gt.many",
        "nothing=eq.1",
        "secret=eq.x",
        "amount",
        "amount=within.5",
        "id=in.1,2",
        "amount=like.1%",
    ],
)
async def test_a_filter_that_means_nothing_is_refused(
    new_client, join, member, rooms, eventually, text
):
    heard = await join(await new_client(member), "any", private=False, setup=notes(filter=text))
    await eventually(lambda: heard.errors)
    assert "Unable to subscribe to changes with given parameters" in heard.errors[0]
    assert heard.system == []


async def test_a_filter_cannot_leave_its_quotes(new_client, join, member, write, eventually):
    heard = await join(
        await new_client(member),
        "any",
        private=False,
        setup=notes(filter="body=eq.x' or 'a' = 'a"),
    )
    await write("a")
    await write("x' or 'a' = 'a")
    await eventually(lambda: heard.changes)
    assert [change["data"]["record"]["body"] for change in heard.changes] == ["x' or 'a' = 'a"]


async def test_a_table_that_is_not_published_is_refused(
    new_client, join, member, rooms, eventually
):
    def setup(channel, heard):
        channel.on_postgres_changes(
            Event.All, heard.changes.append, schema="public", table="rt_members"
        )

    heard = await join(await new_client(member), "any", private=False, setup=setup)
    await eventually(lambda: heard.errors)
    assert "Unable to subscribe to changes with given parameters" in heard.errors[0]


async def test_chosen_columns_alone_are_sent(new_client, join, member, write, eventually):
    heard = await join(
        await new_client(member), "any", private=False, setup=notes(select=["id", "body"])
    )
    note = await write("short")
    await eventually(lambda: heard.changes)
    assert heard.changes[0]["data"]["record"] == {"id": note, "body": "short"}


async def test_a_wide_value_that_an_update_leaves_as_it_was_is_told_too(
    new_client, join, member, write, database, eventually
):
    wide = "".join(uuid.uuid4().hex for _ in range(500))  # too long to be kept in the row
    note = await write(wide)
    heard = await join(await new_client(member), "any", private=False, setup=notes(Event.Update))
    await database.execute("update public.rt_notes set amount = 3 where id = $1", note)
    await eventually(lambda: heard.changes)
    assert heard.changes[0]["data"]["record"]["body"] == wide


async def test_of_a_row_that_is_too_large_the_short_values_are_sent(
    new_client, join, member, write, eventually
):
    heard = await join(await new_client(member), "any", private=False, setup=notes())
    note = await write("x" * 1_100_000)
    await eventually(lambda: heard.changes)
    data = heard.changes[0]["data"]
    assert data["errors"] == ["Error 413: Payload Too Large"]
    assert data["record"]["id"] == note
    assert "body" not in data["record"]


async def test_a_role_of_the_server_hears_nothing_and_holds_nobody_up(
    new_client, join, member, write, eventually
):
    heard = await join(await new_client(member), "any", private=False, setup=notes())
    forged = await new_client(member, role="postgres")
    refused = await join(forged, "any", private=False, setup=notes())
    await eventually(lambda: refused.errors)
    await write()
    await eventually(lambda: heard.changes)
    assert refused.changes == []


async def test_a_choice_of_columns_that_are_not_granted_is_refused(
    new_client, join, member, rooms, eventually
):
    heard = await join(
        await new_client(member), "any", private=False, setup=notes(select=["id", "secret"])
    )
    await eventually(lambda: heard.errors)
    assert "Unable to subscribe to changes with given parameters" in heard.errors[0]
