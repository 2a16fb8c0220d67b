"""The real supabase-js, run by Deno, in both versions of the protocol."""

from __future__ import annotations

from functools import partial

import pytest


@pytest.fixture(params=["1.0.0", "2.0.0"])
def start(request: pytest.FixtureRequest, supabase_js, rooms: None):
    """Start a client in a version of the protocol: `await start(user)`."""
    return partial(supabase_js, version=request.param)


async def test_supabase_js_speaks_with_supabase_py(
    start, new_client, join, admit, room, database, eventually
):
    user = await admit(room)
    script = await start(user)
    heard = await join(await new_client(await admit(room)), room, presence_key="python")
    script.tell("join", topic=room, private=True, key="javascript")
    await eventually(lambda: script.has_said(state="SUBSCRIBED"))

    script.tell("send", event="hello", payload={"n": 1, "text": "Grüezi 👋"})
    await eventually(lambda: heard.broadcasts)
    assert heard.broadcasts[0]["event"] == "hello"
    assert heard.broadcasts[0]["payload"] == {"n": 1, "text": "Grüezi 👋"}
    await eventually(lambda: script.has_said(sent="ok"))

    await heard.channel.send_broadcast("answer", {"n": 2})
    await eventually(lambda: script.has_said(heard="answer", payload={"n": 2}))
    await database.execute("""select realtime.send('{"id": "x"}', 'counted', $1)""", room)
    await eventually(lambda: script.has_said(heard="counted", payload={"id": "x"}))

    script.tell("track", payload={"mood": "calm"})
    await heard.channel.track({"mood": "curious"})
    await eventually(lambda: script.has_said(present=["javascript", "python"]))
    await eventually(lambda: set(heard.channel.presence_state()) == {"javascript", "python"})

    script.tell("http", event="by http", payload={"n": 3})
    await eventually(lambda: "by http" in heard.events)
    await eventually(lambda: script.has_said(http={"success": True}))

    insert = "insert into public.rt_notes (room, body, amount) values ($1, $2, $3)"
    await database.execute(insert, room, "small", 1)
    await database.execute(insert, room, "large", 10)
    await eventually(lambda: script.has_said(changed="INSERT"))
    (change,) = [said for said in script.said if "changed" in said]
    assert (change["new"]["body"], change["new"]["amount"]) == ("large", 10)


async def test_supabase_js_is_told_why_it_may_not_join(start, room, eventually):
    script = await start("00000000-0000-4000-8000-000000000000")
    script.tell("join", topic=room, private=True, key="")
    await eventually(lambda: script.has_said(state="CHANNEL_ERROR"))
    refused = next(said for said in script.said if said.get("state") == "CHANNEL_ERROR")
    assert "Unauthorized: You do not have permissions to read" in refused["error"]


@pytest.mark.parametrize("start", ["2.0.0"], indirect=True)
async def test_bytes_are_broadcast_as_they_are(start, admit, room, database, eventually):
    sender, listener = await start(await admit(room)), await start(await admit(room))
    for script in (sender, listener):
        script.tell("join", topic=room, private=True, key="")
        await eventually(lambda script=script: script.has_said(state="SUBSCRIBED"))
    sender.tell("send", event="raw", bytes=[0, 1, 255])
    await eventually(lambda: listener.has_said(heard="raw", payload={"bytes": [0, 1, 255]}))
    await database.execute(
        "insert into realtime.messages (topic, extension, event, private, binary_payload)"
        r" values ($1, 'broadcast', 'stored', true, '\x0102')",
        room,
    )
    await eventually(lambda: listener.has_said(heard="stored", payload={"bytes": [1, 2]}))
    sender.tell("send", event="kept", payload={}, persist=True)
    await eventually(lambda: "persist is not supported" in str(sender.said[-1].get("sent")))
    assert not listener.has_said(heard="kept")
