from __future__ import annotations

import asyncio
import io
import json
import sys
import tracemalloc
from asyncio.subprocess import PIPE

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.importing import import_file
from haive.core.persistence.importing.depth import MAX_DEPTH, Bounded, TooDeepError, TooLongError
from haive.core.persistence.importing.detect import detect
from haive.core.persistence.importing.formats import DRAFTERS
from haive.core.persistence.importing.prepare import ImportSettings, prepare
from haive.core.persistence.importing.records import UnusableError
from haive.core.persistence.importing.source import HEAD_SIZE
from haive.core.persistence.importing.values import line_json

# Keys and words that the formats know, so that junk gets past the first check.
_WORDS = st.sampled_from(
    [
        "id", "turns", "speaker", "text", "user", "system", "messages", "role", "content", "type",
        "tool_calls", "function", "name", "arguments", "mapping", "parent", "children", "message",
        "author", "parts", "content_type", "current_node", "haive", "metadata", "token_usage",
        "created_at", "create_time", "tags", "image_url", "url", "assistant", "tool", "a", "b",
        "agent_id", "user_id", "title", "context", "settings", "participants", "model", "services",
    ]
)  # fmt: skip
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.characters(categories=["Cs", "Cc"])
    | _WORDS
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=6),
    max_leaves=25,
)
_RECORD = st.dictionaries(_WORDS, _JSON, max_size=10) | _JSON


@pytest.mark.parametrize("kind", sorted(DRAFTERS))
@given(record=_RECORD, source=st.sampled_from(["", "named"]))
@settings(deadline=None, max_examples=150)
def test_any_json_is_a_conversation_or_unusable(kind, record, source):
    wanted = {
        "chatgpt": "mapping",
        "dialogues": "turns",
        "haive": "messages",
        "openai": "messages",
    }[kind]
    for value in (record, {**record, wanted: record} if isinstance(record, dict) else [record]):
        try:
            prepared = prepare(
                DRAFTERS[kind](value, "line 1"), 1, ImportSettings(format=kind, source=source)
            )
        except UnusableError:
            pass  # the only way out that is allowed
        else:
            assert prepared.conversation.id == prepared.id
            assert all(message.conversation_id == prepared.id for message in prepared.messages)


_GOOD = json.dumps({"id": "1", "turns": [{"speaker": "user", "text": "hi"}]}).encode()


@given(junk=st.lists(st.binary(max_size=60) | _JSON.map(lambda v: json.dumps(v).encode())))
@settings(deadline=None)
async def test_a_good_line_gets_through_whatever_stands_around_it(junk):
    lines = [line.replace(b"\n", b" ") for line in junk]
    report = await import_file(
        io.BytesIO(b"\n".join([_GOOD, *lines, _GOOD])), None, format="dialogues", dry_run=True
    )
    assert report.conversations >= 2


@pytest.mark.parametrize("kind", ["auto", *sorted(DRAFTERS)])
@given(data=st.binary(max_size=300) | _JSON.map(lambda v: json.dumps(v).encode()))
@settings(deadline=None)
async def test_any_bytes_are_imported_skipped_or_refused(kind, data):
    try:
        report = await import_file(io.BytesIO(data), None, format=kind, dry_run=True)
    except InvalidInputError:
        pass  # the only way out that is allowed
    else:
        assert report.usable or report.skipped or not data.strip(b" \t\r\n[]\x00\xef\xbb\xbf")


async def test_a_record_that_is_nested_too_deeply_is_skipped():
    deep = '{"id": "deep", "x": ' + "[" * 900 + "]" * 900 + ', "turns": []}\n'
    deeper = '{"id": "deeper", "x": ' + "[" * 100_000 + "]" * 100_000 + ', "turns": []}\n'
    data = deep.encode() + deeper.encode() + _GOOD
    report = await import_file(io.BytesIO(data), None, format="dialogues", dry_run=True)
    assert report.conversations == 1
    assert sum(entry.count for entry in report.skipped) == 2


async def test_a_message_over_the_limit_is_skipped_as_too_large():
    turns = [
        {"speaker": "user", "text": "x" * (8 * 1024 * 1024 + 1)},
        {"speaker": "bot", "text": "?"},
    ]
    data = json.dumps({"id": "1", "turns": turns}).encode()
    report = await import_file(io.BytesIO(data), None, dry_run=True)
    assert report.messages == 1
    assert [(e.what, e.reason) for e in report.skipped] == [("message", "too large")]


_DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("content", "format_name"),
    [
        (_DEEP, "chatgpt"),
        (b'[{"id": "x", "mapping": ' + _DEEP, "auto"),
        (b'[{"id": "x", "mapping": {}, "more": ' + b'{"a": [' * 50_000, "auto"),
    ],
)
async def test_a_file_of_brackets_takes_no_memory(content, format_name):
    # In a process of its own, which may take 1 GiB more than it has: it would take 10.
    script = (
        "import asyncio, io, resource, sys\n"
        "from haive.core.persistence.importing import import_file\n"
        "import haive.core.persistence.importing.importer, ijson\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "most = pages * resource.getpagesize() + (1 << 30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "file = io.BytesIO(sys.stdin.buffer.read())\n"
        f"report = asyncio.run(import_file(file, None, format={format_name!r}, dry_run=True))\n"
        "print([(one.what, one.reason) for one in report.skipped])\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    said, wrong = await process.communicate(content)
    assert said.decode().strip() == "[('file', 'nested too deeply from here on')]", wrong.decode()


_CUT_OFF = (
    b'{"id": "x", "turns": [' + b'{"speaker": "user", "text": "hi \\ud83d\\ude00"}, ' * 170_000
)


@pytest.mark.parametrize("line", [b"[" * (8 << 20), _CUT_OFF, b'["\\ud83d", ' + b"[" * (8 << 20)])
def test_a_broken_line_takes_no_more_memory_than_its_parser(line):
    def taken(parse):
        tracemalloc.start()
        try:
            with pytest.raises(orjson.JSONDecodeError):
                parse(line)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    parser = taken(orjson.loads)
    assert taken(line_json) < parser + 2 * len(line)


def test_a_head_of_brackets_is_in_no_format():
    with pytest.raises(InvalidInputError, match="no format"):
        detect(_DEEP[:HEAD_SIZE], "auto")


@given(
    text=st.text(alphabet=st.sampled_from('"\\[]{}ab')),
    depth=st.integers(MAX_DEPTH - 8, MAX_DEPTH + 8),
    size=st.integers(1, 40),
)
@settings(deadline=None)
def test_brackets_in_texts_do_not_count_however_the_stream_is_cut(text, depth, size):
    content = "[" * (depth - 1) + json.dumps({text: f"[[{text}"}) + "]" * (depth - 1)
    stream = Bounded(io.BytesIO(content.encode()))
    read = b""
    try:
        while piece := stream.read(size):
            read += piece
    except TooDeepError:
        assert depth > MAX_DEPTH
    else:
        assert depth <= MAX_DEPTH
        assert read.decode() == content


@given(digits=st.integers(4_290, 4_310), size=st.integers(1, 5_000))
@settings(deadline=None)
def test_digits_are_counted_however_the_stream_is_cut(digits, size):
    stream = Bounded(io.BytesIO(b'["' + b"9" * 9_000 + b'", -' + b"9" * digits + b"]"))
    try:
        while stream.read(size):
            pass
    except TooLongError:
        assert digits > 4_300
    else:
        assert digits <= 4_300


@pytest.mark.parametrize("rest", [{}, {"id": "y", "turns": []}])
async def test_what_stands_behind_the_array_is_reported(rest):
    turns = [{"speaker": "USER", "text": 'a {"'}]
    array = json.dumps([{"id": "x", "turns": turns}])
    reason = "something stands outside of the array"
    for text, skipped in ((array + json.dumps(rest), [reason]), (array * 2, [])):
        report = await import_file(io.BytesIO(text.encode()), None, dry_run=True)
        assert [one.reason for one in report.skipped] == skipped
        assert report.conversations
