from __future__ import annotations

import pytest

from haive.core.persistence.importing.formats.openai import draft
from haive.core.persistence.importing.records import UnusableError


def _only(message):
    conversation = draft({"messages": [message]}, "line 1")
    assert len(conversation.messages) == 1, conversation.skipped
    return conversation.messages[0]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("system", "system"),
        ("developer", "system"),
        ("user", "user"),
        ("assistant", "assistant"),
        ("tool", "tool"),
        ("function", "tool"),
    ],
)
def test_each_role_of_openai_is_one_of_ours(given, stored):
    assert _only({"role": given, "content": "x", "tool_call_id": "c"}).role == stored


def test_plain_text_stays_text_and_a_name_goes_to_the_metadata():
    message = _only({"role": "user", "name": "ada", "content": "hi"})
    assert (message.content, message.metadata) == ("hi", {"name": "ada"})


def test_parts_of_both_apis_become_parts():
    message = _only(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "input_text", "text": "b"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
            ],
        }
    )
    assert message.content == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
        {"type": "image", "url": "https://x/y.png"},
        {"type": "image", "data": "AAAA", "media_type": "image/png"},
    ]


def test_one_text_part_is_text():
    content = [{"type": "output_text", "text": "a"}]
    assert _only({"role": "assistant", "content": content}).content == "a"


def test_tool_calls_and_their_answers_become_parts():
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    asked = _only({"role": "assistant", "content": None, "tool_calls": [call]})
    assert asked.content == [
        {"type": "tool_call", "id": "c1", "name": "f", "arguments": {"x": 1}},
    ]
    answered = _only({"role": "tool", "tool_call_id": "c1", "content": "42"})
    assert answered.content == [{"type": "tool_result", "tool_call_id": "c1", "content": "42"}]


def test_a_function_call_of_old_is_named_after_its_function():
    asked = _only(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    )
    assert asked.content == [{"type": "tool_call", "id": "f", "name": "f", "arguments": {}}]
    answered = _only({"role": "function", "name": "f", "content": "42"})
    assert answered.content[0]["tool_call_id"] == "f"


def test_arguments_that_are_no_object_are_kept_as_they_were_written():
    call = {"id": "c", "function": {"name": "f", "arguments": "{broken"}}
    message = _only({"role": "assistant", "tool_calls": [call]})
    assert message.content[0]["arguments"] == {"_raw": "{broken"}


def test_a_refusal_is_what_was_said():
    assert _only({"role": "assistant", "content": None, "refusal": "No."}).content == "No."


def test_messages_that_say_nothing_are_skipped_with_their_place():
    conversation = draft(
        [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None},
            {"role": "robot", "content": "x"},
            "hello",
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
        ],
        "line 7",
    )
    assert [m.position for m in conversation.messages] == [1]
    assert [(s.place, s.what, s.reason) for s in conversation.skipped] == [
        ("line 7, message 2", "message", "no content"),
        ("line 7, message 3", "message", "unknown role"),
        ("line 7, message 4", "message", "a message is no JSON object"),
        ("line 7, message 5", "part", "a part of a kind that is not kept"),
        ("line 7, message 5", "message", "no content"),
    ]


def test_what_stands_beside_the_messages_is_kept():
    conversation = draft(
        {
            "id": "conv_1",
            "model": "gpt-5",
            "created": 1_700_000_000,
            "tools": [{"name": "f"}],
            "messages": [],
        },
        "line 1",
    )
    assert conversation.key == "conv_1"
    assert conversation.agent_id == "gpt-5"
    assert conversation.created_at.isoformat() == "2023-11-14T22:13:20+00:00"
    assert conversation.context == {
        "source": {"format": "openai", "id": "conv_1"},
        "tools": [{"name": "f"}],
    }


@pytest.mark.parametrize("record", [None, 3, "x", {}, {"messages": "x"}])
def test_a_record_without_messages_is_unusable(record):
    with pytest.raises(UnusableError):
        draft(record, "line 1")
