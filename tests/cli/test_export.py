from __future__ import annotations

import json
import os
import stat

import pytest
from pydantic import SecretStr

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.cli.export import Format, LineWriter, opened
from haive.core.persistence.cli.session_lines import SessionLines
from haive.core.persistence.models import NewMessage


@pytest.fixture
async def store(stack, tenant):
    url = SecretStr(stack.database_url)
    async with PostgresStore(PersistenceConfig(connection_string=url, tenant=tenant)) as store:
        yield store


@pytest.fixture
def written():
    return bytearray()


@pytest.fixture
def writer_of(store, written):
    def make(file_format=Format.HAIVE):
        return LineWriter(store, SessionLines(store, ()), written.extend, file_format)

    return make


async def _said(store, *contents, role="user"):
    one = await store.create_conversation("agent", "ada")
    if contents:
        await store.add_messages(
            [NewMessage(conversation_id=one.id, role=role, content=text) for text in contents]
        )
    return await store.get_conversation(one.id, include_messages=True, message_limit=10)


def test_a_file_is_its_owner_s_alone_to_read(tmp_path):
    earlier = os.umask(0)
    try:
        for name in ("state.json", "lines.jsonl.gz"):
            with opened(str(tmp_path / name)) as file:
                file.write(b"{}")
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    finally:
        os.umask(earlier)


def test_two_exports_to_one_file_do_not_mix(tmp_path):
    path = tmp_path / "out.jsonl"
    with opened(str(path)) as first, opened(str(path)) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first", "it ended last"
    assert list(tmp_path.iterdir()) == [path]


async def test_what_is_deleted_before_its_line_begins_is_left_out(store, writer_of, written):
    gone, there = await _said(store, *map(str, range(20))), await _said(store, "1")
    await store.delete_conversation(gone.id)
    writer = writer_of()
    for one in (gone, there):
        await writer.add(one)
    (line,) = written.splitlines()
    assert json.loads(line)["id"] == str(there.id)
    assert (writer.conversations, writer.messages) == (1, 1)
    assert writer.left_out() == ["1 conversation deleted meanwhile"]


async def test_what_is_deleted_while_it_is_written_ends_its_line_early(
    store, writer_of, written, monkeypatch
):
    one, other = await _said(store, *map(str, range(1_100))), await _said(store, "1")
    page_of = store.get_messages

    async def deleting(conversation_id, **options):
        page = await page_of(conversation_id, **options)
        await store.delete_conversation(conversation_id)
        return page

    monkeypatch.setattr(store, "get_messages", deleting)
    writer = writer_of()
    for each in (one, other):
        await writer.add(each)
    first, second = map(json.loads, written.splitlines())
    assert (first["id"], second["id"]) == (str(one.id), str(other.id))
    assert 0 < len(first["messages"]) < 1_100
    assert writer.left_out() == ["the end of 1 conversation deleted meanwhile"]


def _call(name):
    return {"type": "tool_call", "id": name, "name": "look", "arguments": {}}


def _result(name):
    return {"type": "tool_result", "tool_call_id": name, "content": "seen"}


async def test_openai_s_format_has_answers_behind_their_calls_alone(store, writer_of, written):
    one = await store.create_conversation("agent", "ada")
    messages = [
        ("tool", "an answer that names no call"),
        ("tool", [_result("never called")]),
        ("assistant", [_result("b"), _call("a"), _call("b")]),
        ("tool", [_result("a")]),
        ("user", "thanks"),
    ]
    await store.add_messages(
        [NewMessage(conversation_id=one.id, role=role, content=said) for role, said in messages]
    )
    writer = writer_of(Format.OPENAI)
    await writer.add(await store.get_conversation(one.id, include_messages=True))
    (line,) = written.splitlines()
    found = json.loads(line)["messages"]
    assert [(each["role"], each.get("tool_call_id")) for each in found] == [
        ("assistant", None),
        ("tool", "b"),
        ("tool", "a"),
        ("user", None),
    ]
    assert [call["id"] for call in found[0]["tool_calls"]] == ["a", "b"]
    assert writer.messages == 3
    assert writer.left_out() == ["2 answers of tools without a call"]


async def test_openai_s_format_has_no_conversations_without_messages(store, writer_of, written):
    empty, answer = await _said(store), await _said(store, "an answer", role="tool")
    writer = writer_of(Format.OPENAI)
    for one in (empty, answer):
        await writer.add(one)
    assert written == b""
    assert writer.conversations == 0
    assert writer.left_out() == [
        "2 conversations without messages",
        "1 answer of tools without a call",
    ]


def test_the_closing_sentence_says_what_was_left_out(haive):
    record = {"haive": 1, "agent_id": "a", "messages": []}
    assert haive("import", "-", stdin=json.dumps(record)).returncode == 0
    done = haive("conversations", "export", "--format", "openai")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "Exported 0 conversations, 0 messages. Left out: 1 conversation without messages.\n"
    )
