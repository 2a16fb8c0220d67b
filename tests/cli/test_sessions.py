from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.cli.app import app
from haive.core.persistence.session import Session, SessionManager

_PROGRAM = "from haive.core.persistence.cli import main; main()"
_OURS = ("DATABASE_URL", "SUPABASE_", "HAIVE_")
_HOSTILE = "[red]x[/] \x1b]0;title\x07 \x9b31m \u202e"

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def manager(stack, tenant):
    """What fills the tenant; the commands go their own way."""
    config = PersistenceConfig(connection_string=SecretStr(stack.database_url), tenant=tenant)
    async with PostgresStore(config) as opened:
        yield SessionManager(opened)


@pytest.fixture
def run(way) -> Run:
    """Run `haive sessions` in this process: a test has many commands."""

    async def one(*arguments: object, stdin: str | None = None, **environment: str) -> Result:
        hidden = dict.fromkeys(name for name in os.environ if name.startswith(_OURS))
        return await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["sessions", *map(str, arguments)],
            input=stdin,
            env={**hidden, **way, **environment},
        )

    return one


@pytest.fixture
async def ok(run):
    """Run a command that succeeds; what it prints."""

    async def one(*arguments: object, **options: str) -> str:
        done = await run(*arguments, **options)
        assert done.exit_code == 0, done.output
        return done.stdout

    return one


@dataclass(frozen=True)
class Family:
    """A session of six messages, a branch after four of them, and a branch of that."""

    root: Session
    branch: Session
    deep: Session

    def named(self, text: str) -> str:
        """Text with names in place of ids, and without ages."""
        for name in ("root", "branch", "deep"):
            identity = getattr(self, name).id
            text = text.replace(str(identity), f"<{name}>")
            text = text.replace(identity.hex[-8:], f"{name:<8}")
        return re.sub(r" {2,}(just now|\d+ min ago)", "  now", text)


async def _say(manager: SessionManager, session: Session, *texts: str) -> None:
    roles = ("user", "assistant")
    await manager.add_messages(
        session.id, [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    )


@pytest.fixture
async def family(manager) -> Family:
    root = await manager.create_session("ada", "support", title="A broken grinder")
    await _say(manager, root, "It is loud.", "Since when?", "Since Monday.", "Clean the burrs.")
    branch = await manager.branch_session(root.id, 4, {"reason": "a new one"})
    await _say(manager, branch, "What does a new grinder cost?", "A new grinder costs 80 euros.")
    deep = await manager.branch_session(branch.id)
    await _say(manager, root, "What does a new grinder cost?", "A new grinder costs 90 euros.")
    return Family(root, branch, deep)


async def test_list_shows_the_latest_first_by_filters(ok, manager, family):
    other = await manager.create_collaborative_session(["bob"], title="The team")
    await manager.close(other.id)
    lines = (await ok("list")).splitlines()
    assert [line[:36] for line in lines[1:]] == [
        str(one.id) for one in (other, family.deep, family.branch, family.root)
    ]
    assert "closed" in lines[1]
    for filters, expected in (
        (("--user", "ada", "--limit", "1"), [family.deep]),
        (("--participant", "bob"), [other]),
        (("--agent", "support", "--status", "closed"), []),
        (("--status", "closed", "--status", "merged"), [other]),
        (("--as-user", "ada"), [family.deep, family.branch, family.root]),
    ):
        found = json.loads(await ok("list", "--json", *filters))
        assert [one["id"] for one in found] == [str(one.id) for one in expected]
    assert "There are more" in await ok("list", "--limit", "2")
    assert "No sessions" in await ok("list", "--user", "nobody")


async def test_show_says_who_said_what_and_where_it_is_from(ok, family):
    shown = family.named(await ok("show", family.branch.id))
    assert "a new one" in shown
    assert "branch of   <root>, after its message 4" in shown
    assert re.search(r"assistant #4 · of root .*\nClean the burrs.", shown)
    assert re.search(r"user #5 · \d.*\nWhat does a new grinder cost\?", shown)
    record = json.loads(await ok("show", family.branch.id, "--json", "--last", "1"))
    assert record["context"] == {"reason": "a new one"}
    assert [(one["index"], one["seq"]) for one in record["messages"]] == [(6, 2)]
    assert json.loads(await ok("show", family.branch.id, "--json", "--last", "0"))["messages"] == []


async def test_a_tree_shows_branches_merges_and_successors(ok, manager, family):
    merged = await manager.merge_sessions(family.root.id, family.branch.id, "primary_wins")
    assert merged.merge is not None
    successor = await manager.continue_session(family.root.id)
    aside = await manager.branch_session(successor.id, 0)
    drawn = family.named(await ok("tree", family.deep.id))
    ids = {successor.id.hex[-8:]: "next    ", aside.id.hex[-8:]: "aside   "}
    for short, name in ids.items():
        drawn = drawn.replace(short, name)
    assert [line.rstrip() for line in drawn.splitlines()] == [
        "○      root      6 messages  continued  now  A broken grinder  ada",
        "├─╮    after 4",
        "│ ○    branch    6 messages  merged  now  a new one  ada",
        "│ ╰─╮  after 6",
        "│   ●  deep      6 messages  open  now  ada  ◂",
        "├─╯    merged, primary_wins: 0 messages came, 2 left out, 1 conflict",
        "┆      goes on in",
        "●      next      0 messages  open  now  A broken grinder  ada",
        "╰─╮    after 0",
        "  ●    aside     0 messages  open  now  ada",
    ]
    record = json.loads(await ok("tree", family.root.id, "--json"))
    assert len(record["sessions"]) == 5
    assert [one["id"] for one in record["merges"]] == [str(merged.merge.id)]


async def test_a_tree_is_drawn_in_ascii_where_the_terminal_has_no_more(bare_haive, way, family):
    done = bare_haive("sessions", "tree", str(family.root.id), **way, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "+-." in done.stdout or "'-." in done.stdout


async def test_a_session_begins_branches_closes_opens_and_goes(ok, run, manager):
    made = json.loads(
        await ok("create", "--user", "ada", "--title", "T", "--tag", "x", "--ttl", "never",
                 "--max-messages", "7", "--context", '{"mode": "fast"}', "--json")
    )  # fmt: skip
    session = await manager.get_session(made["id"])
    assert (session.user_id, session.title, session.tags) == ("ada", "T", ["x"])
    assert (session.ttl, session.max_messages, session.context) == (None, 7, {"mode": "fast"})
    await _say(manager, session, "one", "two")
    branch = json.loads(await ok("branch", session.id, "--at", "1", "--ttl", "2h", "--json"))
    assert (branch["branch_index"], branch["ttl"]) == (1, 7200)
    assert "Closed" in await ok("close", session.id)
    assert (await manager.get_session(session.id)).status == "closed"
    assert "Open again" in await ok("resume", session.id)
    refused = await run("delete", session.id, stdin="n\n")
    assert refused.exit_code == 1
    assert "1 branch loses what is shared with it" in refused.output
    assert "2 messages of its own" in await ok("delete", session.id, "--yes")
    assert (await run("show", session.id)).exit_code == 1
    assert json.loads(await ok("show", branch["id"], "--json"))["messages"] == []


async def test_a_merge_says_in_words_what_was_left_out_and_why(ok, family):
    said = family.named(await ok("merge", family.root.id, family.branch.id))
    assert "the same    4 messages at the beginning" in said
    assert re.search(
        r"left out    “A new grinder costs 80 euros.”\s+contradicts “A new grinder costs 90", said
    )
    assert "conflict    numbers: kept primary, found by heuristic" in said
    assert said.splitlines()[:1] == ["<branch> merged into <root>"]
    listed = await ok("merges", family.root.id)
    assert "A new grinder costs 80 euros." in listed
    assert "Undone: the session has 6 messages again." in await ok("undo", family.root.id)
    assert ", undone " in await ok("merges", family.root.id)
    (record,) = json.loads(await ok("merges", family.root.id, "--json"))
    assert record["secondary_id"] == str(family.branch.id)


async def test_a_merge_takes_the_strategy_and_the_resolution(ok, run, family):
    merged = json.loads(
        await ok("merge", family.root.id, family.branch.id, "--strategy", "intelligent",
                 "--resolution", "secondary_wins", "--json")
    )  # fmt: skip
    assert merged["merge"]["conflict_resolution"] == "secondary_wins"
    messages = json.loads(await ok("show", family.root.id, "--json"))["messages"]
    assert "A new grinder costs 80 euros." in {one["content"] for one in messages}
    undone = json.loads(
        await ok("undo", family.root.id, "--merge", merged["merge"]["id"], "--json")
    )
    assert undone["message_count"] == 6
    none = await run("undo", family.root.id)
    assert none.exit_code == 1
    assert "no merge to undo" in none.stderr
    assert "No merges" in await ok("merges", family.branch.id)


async def test_participants_are_set_and_removed_by_moderators_alone(ok, run, manager):
    session = await manager.create_collaborative_session(
        ["bob", "mod"], {"bob": ["read"], "mod": ["read", "moderate"]}
    )
    shown = await ok("participants", session.id, "--set", "eve=write", "--as-user", "mod")
    assert re.search(r"^read +bob$", shown, re.MULTILINE)
    assert re.search(r"^read, write +eve$", shown, re.MULTILINE)
    refused = await run("participants", session.id, "--set", "bob=write", "--as-user", "bob")
    assert refused.exit_code == 1
    assert "may not moderate" in refused.stderr
    left = json.loads(await ok("participants", session.id, "--remove", "bob", "--json"))
    assert left == {
        "owner": None,
        "permissions": {"mod": ["read", "moderate"], "eve": ["read", "write"]},
    }
    assert "eve has left" in await ok(
        "participants", session.id, "--remove", "eve", "--as-user", "eve"
    )
    assert (await run("participants", session.id, "--set", "zoe=rule")).exit_code == 2


async def test_who_leaves_removes_all_they_named_and_is_told_who_stays(ok, manager):
    everybody = ["mod", "bob", "eve", "zoe"]
    session = await manager.create_collaborative_session(
        everybody, {"mod": ["read", "moderate"], "bob": ["read"], "eve": ["read"], "zoe": ["read"]}
    )
    removed = ("--remove", "mod", "--remove", "bob", "--remove", "eve")
    said = await ok("participants", session.id, *removed, "--as-user", "mod", "--json")
    assert json.loads(said) == {"owner": None, "permissions": {"zoe": ["read"]}}
    found = await manager.get_session(session.id)
    assert found.permissions == {"zoe": ["read"]}


async def test_a_moderator_hides_a_message_by_its_index_and_shows_it(ok, run, manager):
    session = await manager.create_collaborative_session(
        ["eve", "mod"], {"eve": ["read", "write"], "mod": ["read", "moderate"]}
    )
    rude = await manager.add_message(session.id, "user", "This is rude.", as_user="eve")
    assert "Hidden" in await ok("hide", session.id, 1, "--as-user", "mod")
    assert "This is rude." not in await ok("show", session.id)
    assert "by eve · hidden" in await ok("show", session.id, "--hidden", "--as-user", "mod")
    assert (await run("show", session.id, "--hidden", "--as-user", "eve")).exit_code == 1
    again = json.loads(await ok("hide", session.id, rude.id, "--json"))
    assert again == {"id": str(rude.id), "changed": False}
    assert "Shown again" in await ok("show-message", session.id, 1)
    assert "This is rude." in await ok("show", session.id, "--as-user", "eve")
    assert (await run("hide", session.id, 1, "--as-user", "eve")).exit_code == 1
    assert "no message 9" in (await run("hide", session.id, 9)).stderr
    assert (await run("hide", session.id, "x")).exit_code == 2


async def _expired(manager: SessionManager) -> Session:
    session = await manager.create_session("ada", ttl=1)
    await asyncio.sleep(1.1)
    return session


async def test_expire_closes_what_has_expired(ok, manager):
    session = await _expired(manager)
    assert "1 session expired" in await ok("expire")
    assert (await manager.get_session(session.id)).closed_at is not None
    assert json.loads(await ok("expire", "--json")) == {"expired": 0}


async def test_one_expire_is_at_work_in_a_tenant(ok, run, way, manager):
    async with manager.store._transport.alone(f"haive {way['HAIVE_TENANT']} expire") as is_alone:
        assert is_alone
        done = await run("expire")
        if "DATABASE_URL" in way:
            assert done.exit_code == 1
            assert "Another expire is at work" in done.stderr
        else:  # the API has no session that could hold a lock
            assert done.exit_code == 0
    await ok("expire")


@pytest.fixture
def job(way):
    """`haive sessions expire --every 1s`, once it is asked for, in a process of its own."""
    started = []

    def start() -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        path = os.pathsep.join(filter(None, sys.path))
        command = ["sessions", "expire", "--every", "1s"]
        process = subprocess.Popen(
            [sys.executable, "-u", "-W", "error", "-c", _PROGRAM, *command],
            env={**inherited, "PYTHONPATH": path, **way},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def test_expire_every_so_often_runs_until_it_is_stopped(job, manager):
    await _expired(manager)
    running = job()
    assert "1 session expired" in await asyncio.to_thread(running.stdout.readline)
    assert "0 sessions expired" in await asyncio.to_thread(running.stdout.readline)
    running.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(running.wait, 20) == 130
    assert "Traceback" not in running.stderr.read()


@pytest.mark.parametrize("way", ["postgres"], indirect=True)
async def test_a_second_expire_waits_for_its_turn(job, way, manager):
    await _expired(manager)
    async with manager.store._transport.alone(f"haive {way['HAIVE_TENANT']} expire"):
        running = job()
        assert "Another expire is at work" in await asyncio.to_thread(running.stderr.readline)
    assert "1 session expired" in await asyncio.to_thread(running.stdout.readline)


async def test_a_short_id_is_the_beginning_or_the_end_of_one(ok, run, family):
    end, beginning = family.root.id.hex[-8:], str(family.root.id)[:20]
    assert json.loads(await ok("show", end, "--json"))["id"] == str(family.root.id)
    shared = str(family.root.id)[:6]  # of some hours
    for text, expected in (
        (shared, "3 sessions begin or end with"),
        (uuid4().hex[:12], "No session begins or ends with"),
        ("xyz", "is no id of a session"),
        ("abc", "is no id of a session"),
    ):
        done = await run("show", text)
        assert done.exit_code == 1
        assert expected in done.stderr
    if beginning not in str(family.branch.id):
        assert json.loads(await ok("show", beginning, "--json"))["id"] == str(family.root.id)


async def test_what_is_wrong_is_said(run, family):
    for arguments in (
        ("create", "--context", "no"),
        ("create", "--ttl", "soon"),
        ("expire", "--every", "soon"),
        ("list", "--status", "lost"),
        ("merge", family.root.id, family.branch.id, "--strategy", "guess"),
    ):
        assert (await run(*arguments)).exit_code == 2
    for arguments, expected in (
        (("branch", family.root.id, "--at", "99"), "not between 0 and 6"),
        (("merge", family.root.id, family.root.id), "not merged with itself"),
        (("show", family.root.id, "--as-user", "eve"), "no session"),
        (("close", family.root.id, "--as-user", "eve"), "no session"),
    ):
        done = await run(*arguments)
        assert done.exit_code == 1
        assert expected in done.stderr


async def test_what_others_wrote_commands_no_terminal(ok, manager):
    text = _HOSTILE
    session = await manager.create_session(text[:60], text, {text: text}, title=text)
    await manager.add_message(session.id, "user", text)
    branch = await manager.branch_session(session.id, 0, {"reason": text})
    await manager.add_message(branch.id, "user", text)
    for arguments in (
        ("list",),
        ("list", "--json"),
        ("show", session.id),
        ("show", session.id, "--json"),
        ("tree", branch.id),
        ("participants", session.id),
        ("merge", session.id, branch.id),
        ("merges", session.id),
        ("delete", session.id, "--yes"),
    ):
        shown = await ok(*arguments)
        assert not {"\x1b", "\x07", "\x9b"} & set(shown), arguments


async def test_more_messages_than_a_page_has_are_a_wrong_option(run, manager):
    session = await manager.create_session("ada", "agent")
    done = await run("show", session.id, "--last", "20000")
    assert done.exit_code == 2
    assert "--last" in done.output
    assert "10000" in done.output


async def test_sessions_are_exported_whole_and_what_is_hidden_stays_so(
    manager, haive, stack, tenant, tmp_path
):
    session = await manager.create_session("ada", "agent")
    said = await manager.add_messages(
        session.id, [{"role": "user", "content": text} for text in ("one", "insult", "three")]
    )
    await manager.hide_message(session.id, said[1].id)
    branch = await manager.branch_session(session.id)
    await manager.add_message(branch.id, "user", "four")
    plain = await manager.store.create_conversation("agent", "ada")
    await manager.store.add_message(plain.id, "user", "five")

    done = haive("conversations", "export", "--output", "out.jsonl")
    assert "Exported 3 conversations, 7 messages." in done.stderr
    text = (tmp_path / "out.jsonl").read_text("utf-8")
    lines = {line["id"]: line for line in map(json.loads, text.splitlines())}
    told = lines[str(branch.id)]
    assert told["session"] == {
        "status": "open", "parent_id": str(session.id), "branch_index": 3,
    }  # fmt: skip
    assert [
        (one["seq"], one["content"], one.get("hidden"), one.get("conversation_id"))
        for one in told["messages"]
    ] == [
        (1, "one", None, str(session.id)),
        (3, "three", None, str(session.id)),
        (4, "four", None, None),
    ]
    assert [one.get("hidden") for one in lines[str(session.id)]["messages"]] == [None, True, None]
    assert "session" not in lines[str(plain.id)]
    chat = haive("conversations", "export", str(branch.id), "--format", "openai", "-q").stdout
    assert [one["content"] for one in json.loads(chat)["messages"]] == ["one", "three", "four"]

    other = f"{tenant}-copy"
    owner = await asyncpg.connect(stack.database_url)
    await owner.execute("insert into haive.tenants (tenant_id, name) values ($1, $1)", other)
    await owner.close()
    for already in (0, 3):  # and again
        report = json.loads(haive("import", "out.jsonl", "--json", "--tenant", other).stdout)
        assert report["already_there"]["conversations"] == already
        assert [(one["reason"], one["count"]) for one in report["skipped"]] == [
            ("hidden by a moderator", 1)
        ]
    for one, kept in ((session, ["one", "three"]), (branch, ["one", "three", "four"])):
        shown = haive("conversations", "show", str(one.id), "--json", "--tenant", other)
        assert [message["content"] for message in json.loads(shown.stdout)["messages"]] == kept
