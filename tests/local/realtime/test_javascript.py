"""The real supabase-js, run by Deno, in both versions of the protocol."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from haive.core.persistence.local import LocalStack
from haive.core.persistence.local.parts import cached, find_deno

_HERE = Path(__file__).parent
_FILES = ("deno.json", "deno.lock", "client.ts")


@pytest.fixture(scope="session")
async def supabase_js() -> Path:
    """A directory with supabase-js, downloaded once as pinned in deno.lock."""

    async def install(target: Path) -> None:
        for name in _FILES:
            shutil.copyfile(_HERE / name, target / name)
        environment = {
            "DENO_TLS_CA_STORE": "system,mozilla",
            **os.environ,
            "DENO_DIR": str(target / ".deno"),
        }
        command = [await find_deno(), "install", "--frozen", "--quiet"]
        process = await asyncio.create_subprocess_exec(*command, cwd=target, env=environment)
        assert await process.wait() == 0
        shutil.rmtree(target / ".deno")

    digest = hashlib.sha256()
    for name in _FILES:
        digest.update((_HERE / name).read_bytes())
    return await cached(f"supabase-js-{digest.hexdigest()[:16]}", install)


@dataclass
class Script:
    """A running client.ts."""

    process: asyncio.subprocess.Process
    said: list[dict[str, Any]] = field(default_factory=list)

    async def listen(self) -> None:
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))

    def tell(self, command: str, **given: Any) -> None:
        self.process.stdin.write(json.dumps({"command": command, **given}).encode() + b"\n")

    def has_said(self, **what: Any) -> bool:
        return any(what.items() <= said.items() for said in self.said)


Start = Callable[..., Awaitable[Script]]


@pytest.fixture(params=["1.0.0", "2.0.0"])
async def start(
    request: pytest.FixtureRequest, supabase_js: Path, stack: LocalStack, rooms: None
) -> AsyncIterator[Start]:
    """Start a client: `await start(user)`."""
    async with AsyncExitStack() as started:

        async def start_one(user: str) -> Script:
            token = stack.mint_user_token(user)
            command = [
                *(await find_deno(), "run", "--no-prompt", "--quiet", "--allow-net=127.0.0.1"),
                *("--allow-env", "--cached-only", "client.ts"),
                *(stack.url, stack.publishable_key, token, request.param),
            ]
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=supabase_js,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            script = Script(process)
            listening = asyncio.create_task(script.listen())

            async def end() -> None:
                process.stdin.close()
                try:
                    await asyncio.wait_for(process.wait(), 10)
                except TimeoutError:
                    process.kill()
                    await process.wait()
                await listening

            started.push_async_callback(end)
            return script

        yield start_one


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
