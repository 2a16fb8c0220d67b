from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

_DIALOGUES = [
    {"id": "a", "services": ["Trains"], "turns": [{"speaker": "user", "text": "To Basel"}]},
    {
        "id": "b",
        "turns": [
            {"speaker": "user", "text": "[bold]hello[/bold] \x1b[31mred"},
            {"speaker": "bot", "text": "How can I help?"},
        ],
    },
]
_LINES = "".join(json.dumps(record) + "\n" for record in _DIALOGUES)

_CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}
_TOOLS = {
    "id": "t",
    "title": "With tools",
    "messages": [
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "seen"},
    ],
}


@pytest.fixture
def filled(haive):
    """Two dialogues and one with tools."""
    for stdin in (_LINES, json.dumps(_TOOLS)):
        done = haive("import", "-", "--user", "ada", "--quiet", stdin=stdin)
        assert done.returncode == 0, done.stderr
    return haive


def _listed(haive, *filters):
    listed = haive("conversations", "list", "--json", *filters)
    assert listed.returncode == 0, listed.stderr
    return json.loads(listed.stdout)


def _id(haive, *filters):
    (one,) = _listed(haive, *filters)
    return one["id"]


def test_import_says_what_it_did_and_twice_that_it_was_there(haive):
    first = haive("import", "-", stdin=_LINES)
    assert (first.returncode, first.stderr) == (0, "")
    assert "Imported 2 conversations, 3 messages in" in first.stdout
    again = haive("import", "-", "--json", stdin=_LINES + "{broken")
    report = json.loads(again.stdout)
    assert again.returncode == 0
    assert report["messages"] == 0
    assert report["already_there"] == {"conversations": 2, "messages": 3}
    assert [(s["reason"], s["count"], s["examples"]) for s in report["skipped"]] == [
        ("not JSON", 1, ["line 3"])
    ]


def test_list_shows_a_line_for_each_and_json_all_fields(filled):
    table = filled("conversations", "list")
    assert table.returncode == 0, table.stderr
    assert "With tools" in table.stdout
    every = _listed(filled)
    assert all(one["id"] in table.stdout for one in every)
    assert {one["user_id"] for one in every} == {"ada"}


def test_list_takes_filters(filled):
    expected = {
        ("--user", "ada"): 3,
        ("--user", "bob"): 0,
        ("--agent", "imported"): 3,
        ("--tag", "Trains"): 1,
        ("--text", "basel"): 1,
        ("--since", "1h"): 3,
        ("--since", "2999-01-01"): 0,
        ("--limit", "2"): 2,
    }
    assert {filters: len(_listed(filled, *filters)) for filters in expected} == expected


def test_show_prints_the_parts_and_no_foreign_escapes_or_markup(filled):
    shown = filled("conversations", "show", _id(filled, "--text", "hello"))
    assert "[bold]hello[/bold] \N{REPLACEMENT CHARACTER}[31mred" in shown.stdout
    assert "assistant #2" in shown.stdout
    tools = filled("conversations", "show", _id(filled, "--text", "With tools")).stdout
    assert 'calls look({"at":"it"})' in tools
    assert "answers c1: seen" in tools


def test_json_moves_no_terminal_and_is_read_back_as_it_was(haive):
    text = "a\x1b[31m \x7f \x9b31m \x85 é"
    record = {"id": "c", "turns": [{"speaker": "user", "text": text}]}
    assert haive("import", "-", stdin=json.dumps(record)).returncode == 0
    shown = haive("conversations", "show", _id(haive), "--json").stdout
    assert not {"\x1b", "\x7f", "\x9b", "\x85"} & set(shown)
    assert "é" in shown
    assert json.loads(shown)["messages"][0]["content"] == text


def test_show_has_the_last_messages_alone_if_asked(filled):
    one = _id(filled, "--text", "hello")
    shown = filled("conversations", "show", one, "--last", "1", "--json")
    messages = json.loads(shown.stdout)["messages"]
    assert [(m["seq"], m["content"]) for m in messages] == [(2, "How can I help?")]


def test_show_of_an_unknown_conversation_is_a_sentence(haive):
    shown = haive("conversations", "show", "00000000-0000-0000-0000-000000000000")
    assert shown.returncode == 1
    assert shown.stderr.startswith("Error: ")
    assert "Traceback" not in shown.stderr


def test_export_and_import_are_each_others_reverse(filled, tmp_path):
    done = filled("conversations", "export", "--output", "out.jsonl.gz")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Exported 3 conversations, 5 messages." in done.stderr
    lines = gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).splitlines()
    assert [json.loads(line)["haive"] for line in lines] == [1, 1, 1]
    assert not (tmp_path / "out.jsonl.gz.part").exists()
    again = json.loads(filled("import", "out.jsonl.gz", "--json").stdout)
    assert again["format"] == "haive"
    assert again["already_there"] == {"conversations": 3, "messages": 5}


def test_numbers_beyond_64_bits_are_shown_and_exported_whole(haive):
    number = 6022 * 10**20
    parts = [
        {"type": "tool_call", "id": "c", "name": "f", "arguments": {"n": number}},
        {"type": "tool_result", "tool_call_id": "c", "content": {"avogadro": 6.022e23}},
    ]
    messages = [{"role": "assistant", "content": parts}]
    record = {"haive": 1, "agent_id": "agent", "metadata": {"context": {"n": number}}}
    assert haive("import", "-", stdin=json.dumps(record | {"messages": messages})).returncode == 0
    (one,) = _listed(haive)
    assert one["metadata"]["context"] == {"n": number}
    shown = haive("conversations", "show", one["id"]).stdout
    assert f'calls f({{"n":{number}}})' in shown
    assert f'answers c: {{"avogadro":{number}}}' in shown
    as_json = json.loads(haive("conversations", "show", one["id"], "--json").stdout)
    exported = json.loads(haive("conversations", "export", "-q").stdout)
    for found in (as_json, exported):
        call, result = found["messages"][0]["content"]
        assert call["arguments"] == {"n": number}
        assert result["content"] == {"avogadro": number}
    line = haive("conversations", "export", "-q", "--format", "openai").stdout
    call, result = json.loads(line)["messages"]
    assert json.loads(result["content"]) == {"avogadro": number}
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"n": number}


def test_export_takes_ids_filters_and_openai_s_format(filled):
    one = _id(filled, "--tag", "Trains")
    by_id = filled("conversations", "export", one, "--format", "openai", "--quiet")
    by_filter = filled("conversations", "export", "--tag", "Trains", "-f", "openai", "-q")
    expected = '{"messages":[{"role":"user","content":"To Basel"}]}\n'
    assert (by_id.stdout, by_filter.stdout) == (expected, expected)
    tools = filled("conversations", "export", "--text", "With tools", "-f", "openai", "-q").stdout
    assert [m["role"] for m in json.loads(tools)["messages"]] == ["assistant", "tool"]
    assert filled("conversations", "export", one, "--tag", "x").returncode == 2


def test_a_conversation_longer_than_a_page_is_exported_whole(haive):
    turns = [{"speaker": "user", "text": str(number)} for number in range(1_201)]
    haive("import", "-", stdin=json.dumps({"id": "long", "turns": turns}))
    exported = json.loads(haive("conversations", "export", "-q").stdout)
    assert [m["content"] for m in exported["messages"]] == [turn["text"] for turn in turns]


def test_an_export_that_cannot_be_written_leaves_nothing(filled, tmp_path):
    done = filled("conversations", "export", "-o", "no/such/place.jsonl")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_migrate_installs_once(bare_haive, new_database):
    database = await new_database()
    dry = bare_haive("migrate", "--dry-run", "--json", DATABASE_URL=database)
    planned = json.loads(dry.stdout)
    assert planned["applied"]
    assert planned["dry_run"] is True
    done = bare_haive("migrate", "--database-url", database)
    assert all(f"applied {name}" in done.stdout for name in planned["applied"])
    again = json.loads(bare_haive("migrate", "--json", DATABASE_URL=database).stdout)
    assert again["applied"] == []


async def test_migrate_takes_another_schema(bare_haive, new_database):
    database = await new_database()
    environment = {"DATABASE_URL": database, "HAIVE_SCHEMA": "other"}
    assert json.loads(bare_haive("migrate", "--json", **environment).stdout)["schema"] == "other"
    assert _listed(lambda *a: bare_haive(*a, **environment)) == []
    missing = bare_haive("conversations", "list", DATABASE_URL=database)
    assert missing.returncode == 1
    assert "haive migrate" in missing.stderr


def test_a_dotenv_names_the_database(bare_haive, stack, tmp_path: Path):
    (tmp_path / ".env").write_text(f"DATABASE_URL={stack.database_url}\n")
    assert bare_haive("conversations", "list").returncode == 0
    other = bare_haive("conversations", "list", DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert other.returncode == 1, "the environment goes before .env"


def test_an_unknown_tenant_is_named_once_and_not_for_each_record(haive):
    done = haive("import", "-", "--tenant", "nobody", stdin=_LINES)
    assert done.returncode == 1
    assert done.stderr == "Error: no tenant nobody\nCreate it with create_tenant.\n"


def test_migrate_without_a_direct_connection_names_the_way_out(bare_haive):
    done = bare_haive("migrate", SUPABASE_URL="https://x.supabase.co", SUPABASE_KEY="k")
    assert done.returncode == 1
    assert "DATABASE_URL" in done.stderr


def test_an_import_of_nothing_usable_is_exit_code_1(bare_haive, tmp_path: Path):
    (tmp_path / "bad.jsonl").write_text('{"id": 1, "turns": []}\n')
    done = bare_haive("import", "bad.jsonl", "--dry-run")
    assert done.returncode == 1
    assert "no messages" in done.stdout
    assert "Nothing in the file" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"), [("hello", "--format"), ("", "empty"), (None, "No such file")]
)
def test_a_file_that_cannot_be_read_is_a_sentence(bare_haive, tmp_path: Path, content, said):
    if content is not None:
        (tmp_path / "file").write_text(content)
    done = bare_haive("import", "file", "--dry-run")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in bare_haive("import", "file", "--dry-run", HAIVE_DEBUG="1").stderr
