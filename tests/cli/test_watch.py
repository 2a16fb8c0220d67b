from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import pytest
from typer.testing import CliRunner

from haive.core.persistence import PersistenceConfig, PostgresStore, SupabaseStore
from haive.core.persistence.cli import watch
from haive.core.persistence.cli.app import app
from haive.core.persistence.session import SessionManager

_PROGRAM = "from haive.core.persistence.cli import main; main()"
_OURS = ("DATABASE_URL", "SUPABASE_", "HAIVE_")


@pytest.fixture
async def store(stack, tenant):
    config = PersistenceConfig(connection_string=stack.database_url, tenant=tenant)
    async with PostgresStore(config) as opened:
        yield opened


@pytest.fixture
def run(way):
    async def one(*arguments, **environment):
        hidden = dict.fromkeys(name for name in os.environ if name.startswith(_OURS))
        return await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["watch", *map(str, arguments)],
            env={**hidden, **way, **environment},
        )

    return one


async def test_it_shows_what_has_happened_after_a_cursor(run, store):
    conversation = await store.create_conversation("agent")
    await store.add_message(conversation.id, "user", "hello \x1b[31m[red]there")
    shown = await run("--after", "0", "--limit", 2, "--messages")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert "conversation.created" in lines[0]
    assert str(conversation.id) in lines[0]
    assert "messages.added" in lines[1]
    assert lines[2].split() == ["1", "user", "hello", "\N{REPLACEMENT CHARACTER}[31m[red]there"]


async def test_json_is_an_event_a_line_with_the_messages(run, store):
    conversation = await store.create_conversation("agent")
    other = await store.create_conversation("agent")
    await store.add_message(other.id, "user", "not this")
    await store.add_message(conversation.id, "user", "hello")
    options = ("--conversation", conversation.id, "--json", "--quiet")
    shown = await run(*options, "--after", "0", "--limit", 2, "--messages")
    first, second = map(json.loads, shown.stdout.splitlines())
    assert (first["kind"], first["messages"]) == ("conversation.created", [])
    assert [message["content"] for message in second["messages"]] == ["hello"]
    again = await run(*options, "--after", first["cursor"], "--limit", 1)
    assert json.loads(again.stdout)["first_seq"] == 1
    assert "messages" not in json.loads(again.stdout)
    assert again.stderr == ""


async def test_json_moves_no_terminal(run, store):
    text = "a\x1b[31m \x7f \x9b31m \x85 é"
    conversation = await store.create_conversation("agent")
    await store.add_message(conversation.id, "user", text)
    shown = await run("--json", "--messages", "--after", "0", "--limit", 2)
    assert not {"\x1b", "\x7f", "\x9b", "\x85"} & set(shown.stdout)
    last = json.loads(shown.stdout.splitlines()[-1])
    assert last["messages"][0]["content"] == text


async def test_json_has_numbers_beyond_64_bits(run, store):
    conversation = await store.create_conversation("agent")
    await store.add_message(conversation.id, "user", "hello", metadata={"n": 10**23})
    options = ("--conversation", conversation.id, "--json", "--messages", "--after", "0")
    shown = await run(*options, "--limit", 2)
    assert shown.exit_code == 0, shown.output
    first, second = map(json.loads, shown.stdout.splitlines())
    assert second["messages"][0]["metadata"] == {"n": 10**23}
    assert second["created_at"][:11] == first["created_at"][:11]
    assert second["conversation_id"] == str(conversation.id)


async def test_a_thread_and_a_session_are_watched_by_name(run, store):
    from haive.core.persistence.checkpointer import Checkpointer  # noqa: PLC0415

    await Checkpointer(store).save("trip", {"step": 1})
    conversation = await store.create_conversation("agent")
    shown = await run("--thread", "trip", "--after", "0", "--limit", 1, "--json")
    assert json.loads(shown.stdout)["thread"] == "trip"
    shown = await run("--session", conversation.id, "--after", "0", "--limit", 1, "--json")
    assert json.loads(shown.stdout)["conversation_id"] == str(conversation.id)
    shown = await run("--session", conversation.id, "--thread", "trip")
    assert shown.exit_code == 2
    assert "exclude" in shown.output


async def test_what_is_hidden_does_not_end_what_an_event_tells_of(
    stack, store, tenant, monkeypatch
):
    monkeypatch.setattr(watch, "_PAGE", 2)
    user = f"{tenant}-ada"
    await store.set_member(user, "member")
    manager = SessionManager(store)
    session = await manager.create_collaborative_session([user], {user: ["read"]})
    said = [{"role": "user", "content": f"{n}"} for n in range(6)]
    for message in (await manager.add_messages(session.id, said))[2:4]:
        await manager.hide_message(session.id, message.id)
    token = stack.mint_user_token(user)
    async with SupabaseStore(stack.url, stack.publishable_key, access_token=token) as theirs:
        async with theirs.subscribe(f"session:{session.id}", after="0") as events:
            async for event in events:
                if event.kind == "messages.added":
                    break
        found = await watch._said(theirs, event)
    assert [message.text for message in found] == ["0", "1", "4", "5"]


async def test_it_follows_until_ctrl_c(stack, store, tenant):
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, "watch", "--json", "--tenant", tenant),
        *("--database-url", stack.database_url),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stderr is not None
    async with asyncio.timeout(60):
        assert await program.stderr.readline() == b"Watching tenant. Ctrl-C ends.\n"
        conversation = await store.create_conversation("agent")
        event = json.loads(await program.stdout.readline())
        assert event["conversation_id"] == str(conversation.id)
        program.send_signal(signal.SIGINT)
        out, err = await program.communicate()
    assert (program.returncode, out, err) == (0, b"", b"")
