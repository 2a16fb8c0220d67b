from __future__ import annotations

import json

import pytest

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.importing.detect import detect
from haive.core.persistence.importing.source import HEAD_SIZE

_MESSAGE = {"role": "user", "content": "hello"}
_CHAT = {"title": "t", "create_time": 1.5, "mapping": {}, "current_node": "x"}
_DIALOGUE = {"id": "1", "services": [], "turns": []}
_OURS = {"haive": 1, "id": "x", "messages": []}


def _lines(*records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def _array(*records):
    """One record a line, as many programs write arrays."""
    return b"[\n" + b",\n".join(_lines(record).rstrip() for record in records) + b"\n]\n"


def _indented(record):
    return json.dumps(record, indent=2).encode()


def _cut_off(record):
    return json.dumps(record).encode()[:-2] + b"\n"


_TURNS_ON = b'{"id": "1", "turns": [{"speaker": "user", "text": "hi"},\n'


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (_lines(_DIALOGUE, _DIALOGUE), ("dialogues", "lines")),
        (_lines(_OURS), ("haive", "lines")),
        (_lines({"messages": [_MESSAGE]}, {"messages": [_MESSAGE]}), ("openai", "lines")),
        (_lines([_MESSAGE], [_MESSAGE]), ("openai", "lines")),
        (_lines([_MESSAGE]).rstrip(), ("openai", "lines")),
        (_indented([_MESSAGE, _MESSAGE]), ("openai", "documents")),
        (_indented({"messages": [_MESSAGE]}), ("openai", "documents")),
        (_lines([{"messages": [_MESSAGE]}]), ("openai", "array")),
        (_lines([_CHAT]), ("chatgpt", "array")),
        (_indented([_CHAT]), ("chatgpt", "array")),
        (_indented([_DIALOGUE]), ("dialogues", "array")),
        (_array(_DIALOGUE, _DIALOGUE), ("dialogues", "array")),
        (_array(_CHAT), ("chatgpt", "array")),
        (_array(_MESSAGE, _MESSAGE), ("openai", "documents")),
        (b'{"messages": ' + _array(_MESSAGE, _MESSAGE) + b"}", ("openai", "documents")),
        (_lines([[_MESSAGE], [_MESSAGE]]), ("openai", "array")),
        (_array([_MESSAGE], [_MESSAGE]), ("openai", "array")),
        (_indented([[_MESSAGE], [_MESSAGE]]), ("openai", "array")),
        (b'[{"role": "user", "content": "\\ud83d"}]\n' + _lines([_MESSAGE]), ("openai", "lines")),
        (b"{broken\n" + _lines(_DIALOGUE), ("dialogues", "lines")),
        (b"\n\n" + _lines(_DIALOGUE), ("dialogues", "lines")),
        (b"}]}\n" + _lines(_DIALOGUE), ("dialogues", "lines")),
        (b"]\n" + _lines([_MESSAGE]), ("openai", "lines")),
        (_cut_off([_MESSAGE]) + _lines([_MESSAGE], [_MESSAGE]), ("openai", "lines")),
        (_cut_off([_MESSAGE]) + _lines([_MESSAGE]), ("openai", "lines")),
        (_TURNS_ON + _lines(_DIALOGUE, _DIALOGUE), ("dialogues", "lines")),
        (_TURNS_ON + _array({"speaker": "user"})[2:] + b"}", ("dialogues", "documents")),
        (_array(_DIALOGUE), ("dialogues", "array")),
        (_indented(_DIALOGUE) + b"\n" + _lines(_DIALOGUE), ("dialogues", "documents")),
    ],
)
def test_the_content_tells_the_format(head, expected):
    assert detect(head, "auto") == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"id": "1", "turns": [], "x": "y" * HEAD_SIZE}, ("dialogues", "lines")),
        ([{"mapping": {}, "x": "y" * HEAD_SIZE}], ("chatgpt", "array")),
        ([{"role": "user", "content": "y" * HEAD_SIZE}], ("openai", "documents")),
    ],
)
def test_a_record_longer_than_the_head_is_recognised(record, expected):
    assert detect(json.dumps(record).encode()[:HEAD_SIZE], "auto") == expected


@pytest.mark.parametrize("head", [b"", b" \n", b"hello", b"\x89PNG\r\n", b"{}", b"[1, 2]", b"[]"])
def test_what_is_unknown_is_refused_with_the_names_of_the_formats(head):
    with pytest.raises(InvalidInputError) as caught:
        detect(head, "auto")
    assert all(
        name in caught.value.hint
        for name in ("haive", "openai", "chatgpt", "dialogues", "--format")
    )
