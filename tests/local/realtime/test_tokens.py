"""Tokens end, are renewed, and lose what they were good for."""

from __future__ import annotations

import time


async def test_a_channel_ends_with_its_token(new_client, join, member, room, eventually):
    client = await new_client(member, exp=int(time.time()) + 3)
    heard = await join(client, room)
    await eventually(lambda: heard.states[-1] == "CLOSED")
    assert heard.states == ["SUBSCRIBED", "CHANNEL_ERROR", "CLOSED"]
    assert "Token has expired 0 seconds ago" in heard.errors[0]


async def test_a_new_token_lets_a_channel_live_on(
    stack, new_client, join, member, room, database, eventually
):
    client = await new_client(member, exp=int(time.time()) + 3)
    heard = await join(client, room)
    await client.realtime.set_auth(stack.mint_user_token(member))
    other = await join(await new_client(member, exp=int(time.time()) + 3), room)
    await eventually(lambda: other.states[-1] == "CLOSED")  # as this one would have
    await database.execute("select realtime.send('{}', 'later', $1)", room)
    await eventually(lambda: heard.events == ["later"])
    assert heard.states == ["SUBSCRIBED"]


async def test_an_expired_token_joins_nothing(new_client, join, member, room):
    heard = await join(await new_client(member, exp=int(time.time()) - 60), room)
    assert "InvalidJWTToken: Token has expired 6" in heard.errors[0]


async def test_who_is_no_member_any_more_is_out_at_the_next_token(
    stack, new_client, join, member, room, database, eventually, settled
):
    client = await new_client(member)
    heard = await join(client, room)
    await database.execute("delete from public.rt_members where user_id = $1", member)
    await client.realtime.set_auth(stack.mint_user_token(member, session_id="next"))
    await eventually(lambda: heard.states[-1] == "CLOSED")
    assert "You do not have permissions to read from this Channel topic" in heard.errors[0]
    await database.execute("select realtime.send('{}', 'secret', $1)", room)
    await settled()
    assert heard.broadcasts == []


async def test_a_bad_token_ends_a_channel(new_client, join, member, room, eventually):
    client = await new_client(member)
    heard = await join(client, room)
    await client.realtime.set_auth("not.a.token")
    await eventually(lambda: heard.states[-1] == "CLOSED")
    assert "The token provided is not a valid JWT" in heard.errors[0]


async def test_what_one_may_send_is_asked_again_with_a_new_token(
    stack, new_client, join, member, admit, room, database, eventually, settled
):
    client = await new_client(member)
    sender = await join(client, room)
    listener = await join(await new_client(await admit(room)), room)
    await sender.channel.send_broadcast("before", {})
    await eventually(lambda: listener.events == ["before"])
    await database.execute(
        "create policy hush on realtime.messages as restrictive for insert to authenticated"
        " with check (false)"
    )
    try:
        await client.realtime.set_auth(stack.mint_user_token(member, session_id="next"))
        await sender.channel.send_broadcast("after", {})
        await settled()
    finally:
        await database.execute("drop policy hush on realtime.messages")
    assert listener.events == ["before"]
