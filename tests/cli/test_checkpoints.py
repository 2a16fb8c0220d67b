from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from pydantic import BaseModel, SecretStr
from typer.testing import CliRunner, Result

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer, KeyRing
from haive.core.persistence.cli.app import app
from haive.core.persistence.cli.output import safe_json
from haive.core.persistence.errors import InvalidInputError

_PROGRAM = "from haive.core.persistence.cli import main; main()"
_OURS = ("DATABASE_URL", "SUPABASE_", "HAIVE_", "CHECKPOINT_KEY")
_HOSTILE = "[red]x[/] \x1b]0;title\x07 \x9b31m \u202e"

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def store(stack, tenant):
    """What fills the tenant; the commands go their own way."""
    config = PersistenceConfig(connection_string=SecretStr(stack.database_url), tenant=tenant)
    async with PostgresStore(config) as opened:
        yield opened


@pytest.fixture
def run(way) -> Run:
    """Run `haive checkpoints` in this process: a test has many commands."""

    async def one(*arguments: object, stdin: str | None = None, **environment: str) -> Result:
        hidden = dict.fromkeys(name for name in os.environ if name.startswith(_OURS))
        return await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["checkpoints", *map(str, arguments)],
            input=stdin,
            env={**hidden, **way, **environment},
        )

    return one


@dataclass(frozen=True)
class Workflow:
    """Six checkpoints on main, one on the branch `try`, which begins at the third."""

    checkpointer: Checkpointer
    ids: list[UUID]


async def _workflow(store: PostgresStore, key: str | None = None) -> Workflow:
    checkpointer = Checkpointer(store, CheckpointConfig(encryption_key=key))
    state = {"status": "running", "messages": [], "plan": {"stage": 1}}
    ids = []
    for step in range(6):
        message = {"role": "user", "content": f"step {step}"}
        state = {**state, "messages": [*state["messages"], message]}
        ids.append(await checkpointer.save("wf", state, {"node": f"node-{step}", "step": step}))
    await checkpointer.tag(ids[2], "milestone")
    await checkpointer.mark_failed(ids[4])
    branch = await checkpointer.create_branch(ids[2], "try", {"purpose": "a test"})
    other = {**state, "status": "done", "plan": {"stage": 2}}
    ids.append(await checkpointer.save("wf", other, {"node": "other"}, branch=branch))
    return Workflow(checkpointer, ids)


@pytest.fixture
async def workflow(store) -> Workflow:
    return await _workflow(store)


def _json(done: Result):
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


async def test_threads_has_a_line_for_each_and_json_all_fields(run, workflow):
    table = await run("threads")
    assert re.search(r"^wf +7 +2 ", table.stdout, re.MULTILINE)
    (thread,) = _json(await run("threads", "--json"))
    assert thread.keys() == {
        "thread_id", "user_id", "namespaces", "branches", "checkpoints", "stored_bytes",
        "created_at", "updated_at",
    }  # fmt: skip
    assert (thread["thread_id"], thread["namespaces"], thread["checkpoints"]) == ("wf", [""], 7)
    assert _json(await run("threads", "--json", "--user", "nobody")) == []


async def test_list_shows_the_history_and_json_all_fields(run, workflow):
    table = await run("list", "wf", "--failed")
    assert all(str(one) in table.stdout for one in workflow.ids)
    assert re.search(rf"^{workflow.ids[4]}.* main +node-4 .* failed", table.stdout, re.MULTILINE)
    assert "#milestone" in table.stdout
    assert "There are more" not in table.stdout
    some = await run("list", "wf", "--limit", "5")
    assert "There are more" in some.stdout
    listed = _json(await run("list", "wf", "--json"))
    assert [one["id"] for one in listed] == [
        str(workflow.ids[place]) for place in (6, 5, 3, 2, 1, 0)
    ]
    assert listed[3].keys() == {
        "id", "thread_id", "namespace", "branch", "seq", "parent_id", "created_at", "failed",
        "tags", "metadata", "size", "stored_bytes", "depth", "encrypted", "schema_hash",
    }  # fmt: skip
    assert (listed[3]["tags"], listed[3]["metadata"]["step"]) == (["milestone"], 2)


async def test_list_of_a_branch_goes_back_beyond_its_beginning(run, workflow):
    listed = _json(await run("list", "wf", "--branch", "try", "--json"))
    assert [one["branch"] for one in listed] == ["try", "main", "main", "main"]
    gone = await run("list", "wf", "--branch", "none")
    assert (gone.exit_code, gone.stderr) == (
        1,
        "Error: The thread has no branch 'none'.\nIt has main, try.\n",
    )


async def test_tree_draws_the_branches(run, workflow):
    drawn = await run("tree", "wf")
    text = drawn.stdout
    for place, one in enumerate(workflow.ids):
        text = text.replace(one.hex[-8:], f"id-{place}")
    assert [line.rstrip() for line in text.splitlines()] == [
        "  ●  id-6    just now    194 B  other  [try]",
        "● │  id-5    just now    197 B  node-5  [main]",
        "✕ │  id-4    just now    171 B  node-4  failed",
        "● │  id-3    just now    145 B  node-3",
        "├─╯",
        "◆    id-2    just now    119 B  node-2  #milestone",
        "●    id-1    just now     93 B  node-1",
        "●    id-0    just now     67 B  node-0",
    ]


async def test_tree_as_json_has_the_branches_and_the_checkpoints(run, workflow):
    told = _json(await run("tree", "wf", "--json"))
    main, other = told["branches"]
    ids = [str(one) for one in workflow.ids]
    assert (main["name"], main["root_id"], main["head_id"]) == ("main", None, ids[5])
    assert (other["name"], other["root_id"], other["head_id"]) == ("try", ids[2], ids[6])
    assert other["metadata"] == {"purpose": "a test"}
    assert [one["id"] for one in told["checkpoints"]] == ids[::-1]
    assert told["more"] is False
    assert _json(await run("tree", "wf", "--json", "--limit", "3"))["more"] is True


async def test_tree_folds_what_nothing_happened_in_unless_asked(run, store):
    checkpointer = Checkpointer(store)
    for step in range(12):
        await checkpointer.save("wf", {"step": step}, {"step": step})
    folded = (await run("tree", "wf")).stdout
    assert "more" in folded
    assert "step 11" in folded
    full = (await run("tree", "wf", "--full")).stdout
    assert [f"step {step}" in full for step in range(12)] == [True] * 12
    assert "There are more" in (await run("tree", "wf", "--limit", "3")).stdout


async def test_show_tells_what_is_known_and_the_state_if_asked(run, workflow):
    shown = await run("show", workflow.ids[2])
    assert re.search(r"^tags +milestone$", shown.stdout, re.MULTILINE)
    assert "messages" not in shown.stdout
    with_state = await run("show", workflow.ids[2], "--state")
    state = json.loads(with_state.stdout.partition("\n\n")[2])
    assert [message["content"] for message in state["messages"]] == ["step 0", "step 1", "step 2"]
    record = _json(await run("show", workflow.ids[2], "--state", "--json"))
    assert (record["state"], record["parent_id"]) == (state, str(workflow.ids[1]))


async def test_a_part_of_an_id_will_do_where_the_thread_is_named(run, workflow):
    one = workflow.ids[3]
    for part in (one.hex[-8:], one.hex[-5:].upper(), str(one)[:-1], one.hex):
        assert _json(await run("show", part, "--thread", "wf", "--json"))["id"] == str(one)
    for arguments, said in {
        (one.hex[-8:],): "--thread",
        (one.hex[:4], "--thread", "wf"): "7 checkpoints begin or end with",
        ("xyz",): "is no id",
        ("abc", "--thread", "wf"): "is no id",
        ("ffffffffffff", "--thread", "wf"): "No checkpoint of the thread",
        (one.hex[-8:], "--thread", "wf", "--namespace", "x"): "has no namespace 'x'",
    }.items():
        done = await run("show", *arguments)
        assert done.exit_code == 1
        assert done.stderr.startswith("Error: ")
        assert said in done.stderr


async def test_diff_shows_what_changed_and_its_exit_code_says_whether_anything_did(run, workflow):
    a, b = workflow.ids[1], workflow.ids[6]
    done = await run("diff", a, b)
    assert done.exit_code == 0
    assert [line.rstrip() for line in done.stdout.splitlines()] == [
        f"{a} → {b} · 93 B → 194 B",
        '4 added, 2 changed: status "running" -> "done"; messages +4; plan.stage 1 -> 2',
        "",
        '~ status  "running" → "done"',
        "messages",
        '  + [2]  {"role": "user", "content": "step 2"}',
        '  + [3]  {"role": "user", "content": "step 3"}',
        '  + [4]  {"role": "user", "content": "step 4"}',
        '  + [5]  {"role": "user", "content": "step 5"}',
        "~ plan.stage  1 → 2",
    ]
    assert (await run("diff", a, b, "--exit-code")).exit_code == 1
    same = await run("diff", a, a, "--exit-code")
    assert (same.exit_code, "No difference." in same.stdout) == (0, True)
    assert (await run("diff", a, "0" * 32, "--exit-code")).exit_code == 2
    assert (await run("diff", a, "0" * 32)).exit_code == 1
    told = _json(await run("diff", a, b, "--json"))
    assert (told["added"], told["changed"], told["identical"]) == (4, 2, False)
    assert told["changes"][0] == {
        "path": "$.status",
        "kind": "changed",
        "before": "running",
        "after": "done",
    }


async def test_restore_writes_the_state_as_json(run, workflow, tmp_path: Path):
    state = await workflow.checkpointer.restore(workflow.ids[6])
    assert _json(await run("restore", workflow.ids[6])) == state
    file = tmp_path / "state.json.gz"
    done = await run("restore", workflow.ids[6], "--output", file)
    assert (done.exit_code, done.stdout) == (0, "")
    assert json.loads(gzip.decompress(file.read_bytes())) == state
    lost = await run("restore", workflow.ids[6], "-o", tmp_path / "no" / "file")
    assert (lost.exit_code, "cannot be written" in lost.stderr) == (1, True)


class Plan(BaseModel):
    stage: int


async def test_restore_validates_against_the_schema_if_asked(run, store):
    saved = await Checkpointer(store).save("wf", Plan.model_construct(stage="two"))
    assert _json(await run("restore", saved)) == {"stage": "two"}
    done = await run("restore", saved, "--validate")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "$.stage" in done.stderr


async def test_branch_begins_at_a_checkpoint(run, workflow):
    made = _json(
        await run("branch", workflow.ids[0], "again", "--metadata", '{"why": 1}', "--json")
    )
    (branch,) = [
        one for one in await workflow.checkpointer.list_branches("wf") if one.name == "again"
    ]
    assert made == {"id": str(branch.id), "name": "again", "root_id": str(workflow.ids[0])}
    assert branch.metadata == {"why": 1}
    taken = await run("branch", workflow.ids[0], "again")
    assert (taken.exit_code, taken.stderr.startswith("Error: ")) == (1, True)
    assert (await run("branch", workflow.ids[0], "x", "--metadata", "[1]")).exit_code == 2
    assert (await run("branch", workflow.ids[0], "x", "--metadata", "{")).exit_code == 2


async def test_tag_untag_and_fail_change_what_is_said_of_a_checkpoint(run, workflow):
    one = workflow.ids[0]
    for arguments, expected in {
        ("tag", "a", "b"): (("a", "b"), False),
        ("untag", "a"): (("b",), False),
        ("fail",): (("b",), True),
        ("fail", "--undo"): (("b",), False),
    }.items():
        command, *rest = arguments
        done = await run(command, one, *rest)
        assert (done.exit_code, done.output) == (0, "")
        found = await workflow.checkpointer.get(one)
        assert (found.tags, found.failed) == expected


async def test_prune_removes_what_its_dry_run_told(run, workflow):
    dry = _json(await run("prune", "--keep", "2", "--dry-run", "--json"))
    assert dry == {
        "dry_run": True,
        "removed": 4,
        "rewritten": 2,
        "threads": [{"thread_id": "wf", "removed": 4, "rewritten": 2}],
    }
    assert "wf: 4 checkpoints" in (await run("prune", "--keep", "2", "--dry-run")).stdout
    assert len(await workflow.checkpointer.get_history("wf", include_failed=True)) == 7
    assert _json(await run("prune", "wf", "--keep", "2", "--json")) == {**dry, "dry_run": False}
    left = await workflow.checkpointer.get_history("wf", include_failed=True, include_state=True)
    assert [one.id for one in left] == [workflow.ids[place] for place in (6, 5, 4)]
    assert len(left[0].state["messages"]) == 6
    assert "0 checkpoints of 0 threads went" in (await run("prune", "--keep", "2")).stdout
    failed = _json(await run("prune", "--keep", "2", "--failed", "--json"))
    assert failed["removed"] == 1


async def test_prune_by_age_keeps_the_newest(run, workflow):
    done = _json(
        await run("prune", "--days", "0.0000001", "--keep-minimum", "3", "--failed", "--json")
    )
    assert done["removed"] == 4


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--keep", "0"),
        ("--days", "0"),
        ("--days", "-1"),
        ("--days", "nan"),
        ("--days", "1e9"),
        ("--keep", "2", "--keep-minimum", "3"),
        ("--keep", "2", "--every", "x"),
    ],
)
async def test_prune_says_what_is_wrong_with_its_options(run, arguments):
    assert (await run("prune", *arguments)).exit_code == 2


async def test_one_prune_is_at_work_in_a_tenant(run, way, store, workflow):
    async with store._transport.alone(f"haive {way['HAIVE_TENANT']} prune") as is_alone:
        assert is_alone
        done = await run("prune", "--keep", "2")
        if "DATABASE_URL" in way:
            assert done.exit_code == 1
            assert "Another prune is at work" in done.stderr
        else:  # the API has no session that could hold a lock
            assert done.exit_code == 0
        assert (await run("prune", "--keep", "2", "--dry-run")).exit_code == 0
    assert (await run("prune", "--keep", "2")).exit_code == 0


@pytest.fixture
def job(way):
    """Start `haive checkpoints` in a process of its own."""
    started = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        path = os.pathsep.join(filter(None, sys.path))
        process = subprocess.Popen(
            [sys.executable, "-u", "-W", "error", "-c", _PROGRAM, "checkpoints", *arguments],
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


async def test_prune_every_so_often_runs_until_it_is_stopped(job, workflow):
    running = job("prune", "--keep", "2", "--every", "1s", "--json")
    lines = iter(running.stdout.readline, "")
    # Of all threads, of the one that something went of, and of all the next time.
    removed = (re.search(r'"removed": (\d+)', line) for line in lines)
    counts = (int(found[1]) for found in removed if found)
    assert [next(counts) for _ in range(3)] == [4, 4, 0]
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=20) == 130
    assert "Traceback" not in running.stderr.read()


@pytest.mark.parametrize("way", ["postgres"], indirect=True)
async def test_a_second_prune_waits_for_its_turn(job, way, store, workflow):
    async with store._transport.alone(f"haive {way['HAIVE_TENANT']} prune"):
        running = job("prune", "--keep", "2", "--every", "1s")
        assert "Another prune is at work" in await asyncio.to_thread(running.stderr.readline)
    assert "4 checkpoints of 1 thread went" in await asyncio.to_thread(running.stdout.readline)


async def test_prune_names_a_damaged_thread_after_the_others_and_a_job_goes_on(
    run, job, store, stack, tenant, workflow
):
    checkpointer = Checkpointer(store)
    for n in range(4):
        await checkpointer.save("damaged", {"n": n, "text": "x" * 500})
    owner = await asyncpg.connect(stack.database_url)
    await owner.execute(
        "update haive.checkpoints as c set payload = 'x' from haive.threads as t"
        " where c.tenant_id = $1 and t.thread_key = c.thread_key and t.thread_id = 'damaged'",
        tenant,
    )
    await owner.close()
    running = job("prune", "--keep", "2", "--every", "1s")
    for line in ("4 checkpoints of 1 thread went", "0 checkpoints of 0 threads went"):
        assert line in await asyncio.to_thread(running.stdout.readline)
        assert "'damaged'" in await asyncio.to_thread(running.stderr.readline)
    done = await run("prune", "--keep", "2")
    assert (done.exit_code, "'damaged'" in done.stderr) == (1, True)
    assert "0 checkpoints of 0 threads went" in done.stdout


async def test_rotate_names_a_thread_that_no_key_opens_and_goes_on(run, store):
    old, new = KeyRing.generate(), KeyRing.generate()
    await Checkpointer(store, CheckpointConfig(encryption_key=KeyRing.generate())).save("lost", 1)
    await _sealed_thread(store, old)
    done = await run("rotate", CHECKPOINT_KEY=f"{new},{old}")
    assert (done.exit_code, "'lost'" in done.stderr) == (1, True)
    assert "2 checkpoints of 2 threads sealed anew" in done.stdout


async def test_rotate_seals_with_the_new_key_and_what_was_plain_if_asked(run, store, workflow):
    old, new = KeyRing.generate(), KeyRing.generate()
    await _sealed_thread(store, old)
    both = f"{new},{old}"
    done = await run("rotate", "sealed", CHECKPOINT_KEY=both)
    assert "2 checkpoints of 1 thread sealed anew" in done.stdout
    assert _json(await run("rotate", "--json", CHECKPOINT_KEY=both)) == {"threads": 2, "sealed": 0}
    assert _json(await run("rotate", "--seal-plain", "--json", CHECKPOINT_KEY=new))["sealed"] == 7
    restored = await run("restore", workflow.ids[6], CHECKPOINT_KEY=new)
    assert _json(restored)["status"] == "done"
    missing = await run("rotate")
    assert (missing.exit_code, "Set CHECKPOINT_KEY" in missing.stderr) == (1, True)


async def _sealed_thread(store: PostgresStore, key: str) -> UUID:
    checkpointer = Checkpointer(store, CheckpointConfig(encryption_key=key))
    await checkpointer.save("sealed", {"n": 1}, {"node": "a"}, ["t"])
    return await checkpointer.save("sealed", {"n": 2}, {"node": "b"})


async def test_keys_come_from_the_environment_or_a_file_and_errors_name_both(
    run, store, tmp_path: Path
):
    key = KeyRing.generate()
    saved = await _sealed_thread(store, key)
    for arguments in (("list", "sealed"), ("show", saved), ("tree", "sealed"), ("restore", saved)):
        assert (await run(*arguments, CHECKPOINT_KEY=key)).exit_code == 0
        for environment in ({}, {"CHECKPOINT_KEY": KeyRing.generate()}):
            done = await run(*arguments, **environment)
            assert done.exit_code == 1
            assert "CHECKPOINT_KEY" in done.stderr
            assert "--key-file" in done.stderr
    file = tmp_path / "keys"
    file.write_text(f"{KeyRing.generate()}\n{key}\n")
    assert _json(await run("restore", saved, "--key-file", file)) == {"n": 2}
    for content, said in (("", "is empty"), ("short", "no key"), (None, "cannot be read")):
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
        done = await run("restore", saved, "--key-file", file)
        assert done.exit_code == 1
        assert said.replace("no key", "not 32 bytes") in done.stderr


async def test_no_option_takes_a_key_of_checkpoints(run, workflow):
    done = await run("list", "wf", "--encryption-key", KeyRing.generate())
    assert done.exit_code == 2


async def test_key_prints_a_new_key(run):
    first, second = [(await run("key")).stdout.strip() for _ in range(2)]
    assert first != second
    KeyRing.parse(f"{first},{second}")


async def test_copy_and_delete_work_on_whole_threads(run, workflow):
    assert "Copied 7 checkpoints to other." in (await run("copy", "wf", "other")).stdout
    there = await run("copy", "wf", "other")
    assert (there.exit_code, there.stderr.startswith("Error: ")) == (1, True)
    twice = await run("show", workflow.ids[0])
    assert (twice.exit_code, "thread" in twice.stderr) == (1, True)
    for command in (("show",), ("restore",), ("diff", workflow.ids[1]), ("fail",), ("tag",)):
        done = await run(*command, workflow.ids[0], *(["x"] if command == ("tag",) else []))
        assert (done.exit_code, "Say with --thread of which one." in done.stderr) == (1, True)
    assert (await run("show", workflow.ids[0], "--thread", "other")).exit_code == 0
    asked = await run("delete", "other", stdin="n\n")
    assert asked.exit_code == 1
    assert "Delete 7 checkpoints of the thread other?" in asked.stdout
    assert "Deleted 7 checkpoints." in (await run("delete", "other", stdin="y\n")).stdout
    assert "Deleted 7 checkpoints." in (await run("delete", "wf", "--yes")).stdout
    assert (await run("threads")).stdout == "No threads.\n"


async def test_what_is_not_there_is_a_sentence_and_what_to_do_next(run):
    for arguments in (
        ("list", "none"),
        ("tree", "none"),
        ("delete", "none", "--yes"),
        ("copy", "none", "new"),
        ("prune", "none", "--keep", "1"),
        ("rotate", "none"),
        ("show", "abcdef", "--thread", "none"),
        ("show", "0" * 32),
        ("tag", "0" * 32, "x"),
        ("fail", "0" * 32),
        ("branch", "0" * 32, "x"),
        ("restore", "0" * 32),
        ("diff", "0" * 32, "1" * 32),
    ):
        done = await run(*arguments, CHECKPOINT_KEY=KeyRing.generate())
        assert (done.exit_code, done.stdout) == (1, ""), arguments
        assert re.match(r"Error: (There is )?no ", done.stderr), done.stderr
        assert len(done.stderr.splitlines()) == 2, arguments


async def test_text_of_others_neither_commands_the_terminal_nor_is_markup(run, store):
    checkpointer = Checkpointer(store)
    a = await checkpointer.save(_HOSTILE, {_HOSTILE: _HOSTILE}, {"node": _HOSTILE}, [_HOSTILE])
    b = await checkpointer.save(_HOSTILE, {_HOSTILE: "other"}, {"node": _HOSTILE})
    await checkpointer.create_branch(b, _HOSTILE)
    await checkpointer.save(_HOSTILE, {"x": 1}, {"node": _HOSTILE}, branch=_HOSTILE)
    for arguments in (
        ("threads",),
        ("threads", "--json"),
        ("list", _HOSTILE),
        ("list", _HOSTILE, "--json"),
        ("tree", _HOSTILE),
        ("show", a, "--state"),
        ("show", a, "--state", "--json"),
        ("diff", a, b),
        ("diff", a, b, "--json"),
        ("restore", a),
        ("prune", "--keep", "1", "--dry-run"),
        ("branch", a, f"{_HOSTILE}2"),
        ("copy", _HOSTILE, f"{_HOSTILE}2"),
        ("list", f"{_HOSTILE}3"),
    ):
        done = await run(*arguments)
        shown = done.stdout + done.stderr
        assert not set(shown) & {"\x1b", "\x07", "\x9b"}, arguments
        assert "[red]x[/]" in shown, arguments
    assert _json(await run("restore", a, "--thread", _HOSTILE)) == {_HOSTILE: _HOSTILE}


def test_json_of_any_state_is_printable_and_says_the_same():
    value = {"\x1b[2J\x7f\x9b": ["\u202eab", "é 你 👍", 10**400, -1.5, None, True]}
    text = safe_json(value)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "é 你 👍" in text
    assert json.loads(text) == value
    with pytest.raises(InvalidInputError):
        safe_json(10**5_000)
