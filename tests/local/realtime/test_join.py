"""Who may join a channel is what the policies on realtime.messages say."""

from __future__ import annotations

import uuid

import pytest

DENIED = "Unauthorized: You do not have permissions to read from this Channel topic"


async def test_a_member_joins_a_private_channel(new_client, join, member, room):
    heard = await join(await new_client(member), room)
    assert heard.states == ["SUBSCRIBED"]


async def test_a_stranger_is_told_why_not(new_client, join, room, member):
    heard = await join(await new_client(str(uuid.uuid4())), room)
    assert heard.states == ["CHANNEL_ERROR"]
    assert f"{DENIED}: {room}" in heard.errors[0]


async def test_a_key_alone_opens_no_private_channel(new_client, join, room, member):
    heard = await join(await new_client(), room)
    assert DENIED in heard.errors[0]


async def test_a_secret_key_opens_every_channel(stack, new_client, join, room, rooms):
    heard = await join(await new_client(key=stack.secret_key), room)
    assert heard.states == ["SUBSCRIBED"]


async def test_a_public_channel_is_open(new_client, join, room):
    heard = await join(await new_client(), room, private=False)
    assert heard.states == ["SUBSCRIBED"]


async def test_the_denial_is_the_policies_doing(new_client, join, room, member, database):
    """The control: with the policy out of the way, the stranger of above is let in."""
    await database.execute(
        "create policy everyone on realtime.messages for select to authenticated using (true)"
    )
    try:
        heard = await join(await new_client(str(uuid.uuid4())), room)
    finally:
        await database.execute("drop policy everyone on realtime.messages")
    assert heard.states == ["SUBSCRIBED"]


async def test_a_policy_that_fails_lets_nobody_in(new_client, join, room, database):
    await database.execute(
        "create policy broken on realtime.messages for select to authenticated"
        " using ((1 / (length((select realtime.topic())) * 0))::boolean)"
    )
    try:
        heard = await join(await new_client(str(uuid.uuid4())), room)
    finally:
        await database.execute("drop policy broken on realtime.messages")
    assert DENIED in heard.errors[0]
    assert "division" not in heard.errors[0]


async def test_asking_the_policies_leaves_no_row(new_client, join, room, member, database):
    await join(await new_client(member), room)
    query = "select count(*) from realtime.messages where topic = $1"
    assert await database.fetchval(query, room) == 0


@pytest.mark.parametrize("role", ["postgres", "supabase_admin", "nobody_at_all"])
async def test_a_token_cannot_name_a_role_of_the_server(new_client, join, room, member, role):
    heard = await join(await new_client(member, role=role), room)
    assert "InvalidJWTToken" in heard.errors[0]


async def test_a_token_of_another_secret_is_refused(new_client, join, room):
    client = await new_client()
    forged = (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
        ".eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjo5OTk5OTk5OTk5fQ"
        ".2bA0mYl0WAVWeJ2nC9mJ3oI4j7cZ2Y0Qkq1sQ1m2Zrs"
    )
    await client.realtime.set_auth(forged)
    heard = await join(client, room)
    assert "JwtSignatureError" in heard.errors[0]


async def test_legacy_keys_connect_too(stack, new_client, join, room):
    from haive.core.persistence.local import keys  # noqa: PLC0415 - needs the extra "local"

    claims = {"role": "anon", "exp": 9_999_999_999}
    heard = await join(
        await new_client(key=keys.sign(claims, stack.jwt_secret)), room, private=False
    )
    assert heard.states == ["SUBSCRIBED"]


async def test_a_channel_that_is_left_can_be_joined_again(
    new_client, join, member, room, eventually
):
    client = await new_client(member)
    first = await join(client, room)
    await first.channel.unsubscribe()
    await eventually(lambda: first.states == ["SUBSCRIBED", "CLOSED"])
    assert (await join(client, room)).states == ["SUBSCRIBED"]
