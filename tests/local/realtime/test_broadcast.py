"""Broadcasts go from those who may send to those who may receive, and from the database."""

from __future__ import annotations

import json

import asyncpg
import httpx
import pytest
from realtime.exceptions import RealtimeHTTPError


@pytest.fixture
async def two(new_client, join, member, admit, room):
    """Two members in a room."""
    first = await join(await new_client(member), room)
    second = await join(await new_client(await admit(room)), room)
    return first, second


async def test_a_client_reaches_the_others_and_not_itself(two, eventually, settled):
    first, second = two
    await first.channel.send_broadcast("hello", {"n": 1, "text": "Grüezi 👋"})
    await eventually(lambda: second.broadcasts)
    await settled()
    assert second.broadcasts[0]["payload"] == {"n": 1, "text": "Grüezi 👋"}
    assert first.broadcasts == []


async def test_a_client_hears_itself_where_it_wants_to(new_client, join, room, eventually):
    heard = await join(await new_client(), room, private=False, hear_myself=True)
    await heard.channel.send_broadcast("hello", {})
    await eventually(lambda: heard.events == ["hello"])


async def test_a_broadcast_is_acknowledged_where_that_is_wanted(new_client, join, room, eventually):
    heard = await join(await new_client(), room, private=False, acknowledge=True)
    answers = []
    message = {"type": "broadcast", "event": "hello", "payload": {}}
    push = await heard.channel.push("broadcast", message)
    push.receive("ok", answers.append)
    await eventually(lambda: answers)


async def test_who_may_not_send_is_not_heard_and_not_answered(
    new_client, join, admit, eventually, settled, room
):
    quiet = f"silent-{room}"  # its policy lets members receive only
    listener = await join(await new_client(await admit(quiet)), quiet)
    sender = await join(await new_client(await admit(quiet)), quiet, acknowledge=True)
    answers = []
    push = await sender.channel.push(
        "broadcast", {"type": "broadcast", "event": "x", "payload": {}}
    )
    push.receive("ok", answers.append).receive("error", answers.append)
    await settled()
    assert listener.broadcasts == []
    assert answers == []


async def test_rooms_of_one_name_are_two_when_one_is_private(
    new_client, join, two, room, eventually, settled
):
    first, second = two
    public = await join(await new_client(), room, private=False)
    await public.channel.send_broadcast("from outside", {})
    await first.channel.send_broadcast("from inside", {})
    await eventually(lambda: second.broadcasts)
    await settled()
    assert second.events == ["from inside"]
    assert public.broadcasts == []


async def test_the_database_reaches_a_room(two, database, room, eventually):
    first, second = two
    await database.execute("""select realtime.send('{"n": 1}', 'counted', $1)""", room)
    await eventually(lambda: first.broadcasts and second.broadcasts)
    (message,) = first.broadcasts
    assert message["event"] == "counted"
    assert message["payload"]["n"] == 1
    assert message["payload"]["id"] == message["meta"]["id"]


async def test_a_trigger_reaches_a_room_with_the_row(two, database, room, eventually):
    first, _ = two
    await database.execute(
        "insert into public.rt_notes (room, body, amount) values ($1, 'hello', 1.50)", room
    )
    await eventually(lambda: first.broadcasts)
    payload = first.broadcasts[0]["payload"]
    assert (payload["operation"], payload["table"]) == ("INSERT", "rt_notes")
    assert payload["record"]["body"] == "hello"
    assert payload["old_record"] is None


async def test_what_is_rolled_back_is_not_sent(two, database, room, eventually, settled):
    first, _ = two
    transaction = database.transaction()
    await transaction.start()
    await database.execute("select realtime.send('{}', 'undone', $1)", room)
    await transaction.rollback()
    await database.execute("select realtime.send('{}', 'done', $1)", room)
    await eventually(lambda: first.broadcasts)
    await settled()
    assert first.events == ["done"]


async def test_the_order_of_commits_is_kept(two, database, room, eventually):
    first, _ = two
    await database.execute(
        "select realtime.send(jsonb_build_object('n', n), 'n', $1)"
        " from generate_series(1, 500) as n",
        room,
    )
    await eventually(lambda: len(first.broadcasts) == 500)
    assert [message["payload"]["n"] for message in first.broadcasts] == [*range(1, 501)]


async def test_a_failing_send_is_a_warning_and_no_error(database, room):
    warnings = []
    database.add_log_listener(lambda _, message: warnings.append(message.message))
    await database.execute("select realtime.send('{}', 'event', null)")
    await database.execute("""select realtime.send('"no object"', 'event', $1)""", room)
    assert all("WarnSendingBroadcastMessage" in warning for warning in warnings)
    assert len(warnings) == 2


async def test_the_past_is_replayed_to_who_asks(new_client, member, database, room, eventually):
    for number in range(1, 6):
        payload = json.dumps({"n": number})
        await database.execute("select realtime.send($1, 'past', $2)", payload, room)
    client = await new_client(member)
    broadcast = {"self": False, "ack": False, "replay": {"since": 0, "limit": 3}}
    config = {"private": True, "broadcast": broadcast, "presence": {"key": "", "enabled": False}}
    heard = []
    channel = client.channel(room, {"config": config})
    channel.on_broadcast("past", heard.append)
    await channel.subscribe()
    await eventually(lambda: len(heard) == 3)
    assert [message["payload"]["n"] for message in heard] == [3, 4, 5]
    assert all(message["meta"]["replayed"] for message in heard)


async def test_http_reaches_a_room(two, eventually):
    first, second = two
    await first.channel.http_send("by http", {"n": 1})
    await eventually(lambda: second.events == ["by http"])
    assert second.broadcasts[0]["payload"] == {"n": 1}


async def test_http_asks_the_policies_too(new_client, room, member):
    stranger = await new_client("00000000-0000-4000-8000-000000000000")
    channel = stranger.channel(room, {"config": {"private": True}})
    with pytest.raises(RealtimeHTTPError) as refused:
        await channel.http_send("by http", {})
    assert refused.value.status == 403


async def test_http_sends_a_batch_and_leaves_out_what_is_not_allowed(
    stack, two, new_client, join, room, eventually, settled
):
    first, _ = two
    public = await join(await new_client(), room, private=False)
    messages = [
        {"topic": room, "event": "private", "payload": {}, "private": True},
        {"topic": room, "event": "public", "payload": {}},
    ]
    async with httpx.AsyncClient(base_url=stack.url) as api:
        answer = await api.post(
            "/realtime/v1/api/broadcast",
            json={"messages": messages},
            headers={"apikey": stack.publishable_key},
        )
    assert answer.status_code == 202
    await eventually(lambda: public.events == ["public"])
    await settled()
    assert first.broadcasts == []


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, "{}", 401),
        ({"apikey": "sb_publishable_wrong"}, "{}", 401),
        ({"apikey": None, "Authorization": "Bearer a.b.c"}, "{}", 401),
        ({"apikey": None}, "not json", 422),
        ({"apikey": None}, json.dumps({"messages": [{"topic": 1}]}), 422),
        ({"apikey": None}, "x" * 3_200_000, 413),
    ],
)
async def test_http_refuses_what_is_wrong(stack, headers, body, status):
    headers = {name: value or stack.publishable_key for name, value in headers.items()}
    async with httpx.AsyncClient(base_url=stack.url) as api:
        answer = await api.post("/realtime/v1/api/broadcast", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["message"]


async def test_api_roles_cannot_read_what_was_sent(stack, database, room):
    await database.execute("select realtime.send('{}', 'kept', $1)", room)
    await database.execute("set role authenticated")
    assert await database.fetch("select * from realtime.messages where topic = $1", room) == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.execute("delete from realtime.messages")
    await database.execute("reset role")
