"""postgres_changes: changed rows for who may see them."""

from __future__ import annotations

import asyncio
import json
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


async def told(websocket, event):
    """The next frame of an event."""
    while True:
        frame = await asyncio.wait_for(websocket.recv(), 10)
        if json.loads(frame)["event"] == event:
            return frame


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


async def test_a_policy_that_fails_for_one_silences_nobody_else(
    new_client, join, member, write, eventually
):
    heard = await join(await new_client(member), "any", private=False, setup=notes())
    # auth.uid() fails for it.
    alice = await join(await new_client("alice"), "any", private=False, setup=notes())
    note = await write()
    await eventually(lambda: heard.changes and alice.changes)
    assert heard.changes[0]["data"]["record"]["id"] == note
    data = alice.changes[0]["data"]
    assert (data["record"], data["errors"]) == ({}, ["Error 401: Unauthorized"])


@pytest.fixture
async def publish(database):
    """Publish a table that all may read: `await publish("id int primary key")`, its name."""
    names = []

    async def make(columns):
        names.append(f"rt_{uuid.uuid4().hex[:8]}")
        await database.execute(
            f"create table public.{names[-1]} ({columns});"
            f"grant select on public.{names[-1]} to anon, authenticated;"
            f"alter publication supabase_realtime add table public.{names[-1]}"
        )
        return names[-1]

    yield make
    for name in names:
        await database.execute(f"drop table public.{name}")


def rows(table, **options):
    """Listen to a table."""

    def setup(channel, heard):
        channel.on_postgres_changes(
            Event.All, heard.changes.append, schema="public", table=table, **options
        )

    return setup


@pytest.mark.parametrize("select", [None, ["id", "tree"]])
async def test_values_that_are_nested_deeply_are_told(connect, joining, publish, database, select):
    asked = {"event": "*", "schema": "public", "select": select}
    asked["table"] = await publish("id int primary key, n int, tree jsonb")
    table = f"public.{asked['table']}"
    # Too long to be kept in the row: an update of another column leaves it out of the log.
    wide = "".join(uuid.uuid4().hex for _ in range(500))
    tree = "[" * 250 + f'"{wide}"' + "]" * 250
    async with connect() as websocket:
        await websocket.send(joining("x", postgres_changes=[asked]))
        await told(websocket, "system")
        await database.execute(f"insert into {table} values (1, 1, $1)", tree)
        assert tree in await told(websocket, "postgres_changes")
        await database.execute(f"update {table} set n = 2")
        assert tree in await told(websocket, "postgres_changes")
        await database.execute(f"delete from {table}")
        assert '"type":"DELETE"' in await told(websocket, "postgres_changes")


async def test_chosen_numbers_keep_all_their_digits(connect, joining, publish, database):
    table = await publish("id numeric primary key, n numeric, text text")
    asked = {"event": "*", "schema": "public", "table": table, "select": ["id", "n"]}
    async with connect() as websocket:
        await websocket.send(joining("x", postgres_changes=[asked]))
        await told(websocket, "system")
        await database.execute(
            f"insert into public.{table} values (123456789012345678901234567890, 1.10, '{{}}')"
        )
        frame = await told(websocket, "postgres_changes")
    assert '"record":{"n":1.10,"id":123456789012345678901234567890}' in frame


async def test_columns_of_a_domain_that_is_never_null(
    new_client, join, publish, database, eventually
):
    await database.execute("create domain public.rt_email as text not null")
    try:
        table = await publish("id int primary key, n int, mail public.rt_email")
        heard = await join(await new_client(), "any", private=False, setup=rows(table))
        filtered = await join(
            await new_client(), "any", private=False, setup=rows(table, filter="mail=eq.b@c")
        )
        wide = "".join(uuid.uuid4().hex for _ in range(500))
        for number, statement in enumerate(
            [
                f"insert into public.{table} values (1, 1, 'a@b')",
                f"update public.{table} set mail = 'b@c'",
                f"update public.{table} set mail = '{wide}'",
                f"update public.{table} set n = 2",
                f"update public.{table} set id = 2",
                f"delete from public.{table}",
            ]
        ):
            await database.execute(statement)
            await eventually(lambda number=number: len(heard.changes) > number)
        assert heard.changes[3]["data"]["record"]["mail"] == wide
        assert [change["data"].get("old_record") for change in heard.changes] == [
            None,
            *3 * [{"id": 1}],
            {"id": 1},
            {"id": 2},
        ]
        assert filtered.kinds == ["UPDATE", "DELETE"]
    finally:
        await database.execute("drop domain public.rt_email cascade")


async def test_columns_of_types_that_the_subscriber_may_not_name(
    connect, joining, publish, database
):
    await database.execute(
        "create schema rt_hidden; create type rt_hidden.kind as enum ('bug', 'wish')"
    )
    try:
        name = await publish("kind rt_hidden.kind, id int, n int, primary key (kind, id)")
        asked = {"event": "*", "schema": "public", "table": name, "filter": "kind=eq.bug"}
        async with connect() as websocket:
            await websocket.send(joining("x", postgres_changes=[asked]))
            await told(websocket, "system")
            for statement in (
                f"insert into public.{name} values ('bug', 1, 1)",
                f"update public.{name} set n = 2",
                f"delete from public.{name}",
            ):
                await database.execute(statement)
                data = json.loads(await told(websocket, "postgres_changes"))["payload"]["data"]
                assert data["errors"] is None
        assert data["old_record"] == {"kind": "bug", "id": 1}
    finally:
        await database.execute("drop schema rt_hidden cascade")


async def test_a_domain_that_is_never_null_may_be_left_out_of_the_publication(
    connect, joining, publish, database
):
    await database.execute("create domain public.rt_tag as text not null")
    try:
        name = await publish("id int primary key, tag public.rt_tag")
        await database.execute(
            f"alter publication supabase_realtime drop table public.{name};"
            f"alter publication supabase_realtime add table public.{name} (id)"
        )
        asked = {"event": "*", "schema": "public", "table": name}
        async with connect() as websocket:
            await websocket.send(joining("x", postgres_changes=[asked]))
            await told(websocket, "system")
            await database.execute(f"insert into public.{name} values (1, 'a')")
            assert '"record":{"id": 1}' in await told(websocket, "postgres_changes")
    finally:
        await database.execute("drop domain public.rt_tag cascade")


async def test_changes_of_a_table_that_is_locked_are_told_when_it_is_free(
    connect, joining, publish, database
):
    name = await publish("id int primary key")
    # A sequence remembers what a transaction that failed did: the first look meets a lock.
    await database.execute(f"""
        create sequence public.{name}_looks owned by public.{name}.id;
        grant usage on public.{name}_looks to anon;
        create function public.{name}_free() returns boolean language plpgsql as $$
        begin
          if nextval('public.{name}_looks') = 1 then raise lock_not_available; end if;
          return true;
        end $$;
        alter table public.{name} enable row level security;
        create policy free on public.{name} using (public.{name}_free())
    """)
    async with connect() as websocket:
        asked = {"event": "*", "schema": "public", "table": name}
        await websocket.send(joining("x", postgres_changes=[asked]))
        await told(websocket, "system")
        await database.execute(f"insert into public.{name} values (1)")
        data = json.loads(await told(websocket, "postgres_changes"))["payload"]["data"]
    assert (data["record"], data["errors"]) == ({"id": 1}, None)
    await database.execute(f"drop function public.{name}_free() cascade")


async def test_two_thousand_filters_of_one_role_are_told(connect, joining, publish, database):
    table = await publish("id int primary key")
    asked = [
        {"event": "*", "schema": "public", "table": table, "filter": f"id=eq.{number}"}
        for number in range(2000)
    ]
    async with connect() as websocket:
        for number in range(20):
            those = asked[100 * number : 100 * (number + 1)]
            await websocket.send(joining(f"x{number}", postgres_changes=those))
            assert "Subscribed to PostgreSQL" in await told(websocket, "system")
        await database.execute(f"insert into public.{table} values (1999)")
        frame = json.loads(await told(websocket, "postgres_changes"))
    assert frame["topic"] == "realtime:x19"
    assert frame["payload"]["data"]["record"] == {"id": 1999}


@pytest.mark.parametrize("left_out", ["schema", "event"])
async def test_what_is_left_out_has_a_usual_value(connect, joining, publish, database, left_out):
    asked = {"event": "*", "schema": "public", "table": await publish("id int primary key")}
    table = asked["table"]
    del asked[left_out]
    async with connect() as websocket:
        await websocket.send(joining("x", postgres_changes=[asked]))
        assert "Subscribed to PostgreSQL" in await told(websocket, "system")
        await database.execute(f"insert into public.{table} values (7)")
        assert '"record":{"id": 7}' in await told(websocket, "postgres_changes")
