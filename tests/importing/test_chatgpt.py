from __future__ import annotations

import gzip
import io
import json
import zipfile

import pytest

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.importing import import_file
from haive.core.persistence.importing.formats.chatgpt import draft
from haive.core.persistence.importing.records import UnusableError


def _node(parent, role=None, parts=("x",), *, children=(), **fields):
    message = None
    if role:
        content = fields.pop("content", {"content_type": "text", "parts": list(parts)})
        message = {"author": {"role": role}, "content": content, **fields}
    return {"parent": parent, "children": list(children), "message": message}


def _chat(**changes):
    mapping = {
        "root": _node(None, children=["sys"]),
        "sys": _node("root", "system", [""], children=["u1"]),
        "u1": _node("sys", "user", ["hello"], children=["old", "new"], create_time=1.5),
        "old": _node("u1", "assistant", ["first try"]),
        "new": _node("u1", "assistant", ["second try"], metadata={"model_slug": "gpt-4o"}),
    }
    chat = {
        "title": "Greetings",
        "create_time": 1_700_000_000.25,
        "mapping": mapping,
        "current_node": "new",
        "conversation_id": "chat-1",
    }
    return chat | changes


def test_the_branch_that_was_seen_last_is_taken():
    conversation = draft(_chat(), "conversation 1")
    assert [(m.role, m.content, m.key) for m in conversation.messages] == [
        ("user", "hello", "u1"),
        ("assistant", "second try", "new"),
    ]
    assert conversation.title == "Greetings"
    assert conversation.agent_id == "gpt-4o"
    assert conversation.created_at.isoformat() == "2023-11-14T22:13:20.250000+00:00"
    assert conversation.messages[0].created_at.isoformat() == "1970-01-01T00:00:01.500000+00:00"
    assert conversation.messages[1].metadata == {"model": "gpt-4o"}


def test_empty_and_hidden_messages_are_left_out_as_is_usual():
    chat = _chat()
    chat["mapping"]["u1"]["message"]["metadata"] = {"is_visually_hidden_from_conversation": True}
    conversation = draft(chat, "conversation 1")
    assert [(s.reason, s.expected) for s in conversation.skipped] == [
        ("empty in ChatGPT", True),
        ("hidden in ChatGPT", True),
    ]


def test_without_a_current_node_the_last_leaf_is_the_end():
    chat = _chat(current_node=None)
    assert [m.key for m in draft(chat, "c").messages] == ["u1", "new"]


def test_a_circle_of_nodes_is_unusable():
    chat = _chat()
    chat["mapping"]["root"]["parent"] = "new"
    with pytest.raises(UnusableError, match="circle"):
        draft(chat, "c")


def test_parts_of_several_kinds_are_kept():
    content = {
        "content_type": "multimodal_text",
        "parts": [
            {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-1"},
            {"content_type": "audio_transcription", "text": "what I said"},
            {"content_type": "video_container_asset_pointer"},
            "and what I wrote",
        ],
    }
    chat = _chat()
    chat["mapping"]["new"] = _node("u1", "user", content=content)
    conversation = draft(chat, "c")
    assert conversation.messages[-1].content == [
        {"type": "image", "url": "file-service://file-1"},
        {"type": "text", "text": "what I said"},
        {"type": "text", "text": "and what I wrote"},
    ]
    assert conversation.skipped[-1].what == "part"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"content_type": "code", "language": "python", "text": "1+1"}, "1+1"),
        ({"content_type": "execution_output", "text": "2"}, "2"),
        ({"content_type": "tether_browsing_display", "result": "a page"}, "a page"),
        ({"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "hm"}]}, "hm"),
        ({"content_type": "something new", "text": "still text"}, "still text"),
    ],
)
def test_messages_of_tools_and_of_thought_are_text(content, text):
    chat = _chat()
    chat["mapping"]["new"] = _node("u1", "tool", content=content)
    assert draft(chat, "c").messages[-1].content == text


def _said(**message):
    """A conversation whose last message is this one, by its user."""
    chat = _chat()
    chat["mapping"]["new"] = _node("u1", "user", **message)
    return chat


def test_a_recording_beside_what_was_said_is_left_out_as_is_usual():
    spoken = [
        {"content_type": "audio_transcription", "text": "what I said"},
        {"content_type": "audio_asset_pointer", "asset_pointer": "sediment://file-1"},
        {"content_type": "real_time_user_audio_video_asset_pointer"},
    ]
    said = draft(_said(parts=spoken), "c")
    assert said.messages[-1].content == "what I said"
    assert all(one.expected for one in said.skipped)
    lost = draft(_said(parts=spoken[1:]), "c")
    assert [one.expected for one in lost.skipped if one.what == "part"] == [False, False]


async def test_strict_takes_a_conversation_of_hidden_messages_alone(tmp_path):
    hidden = _chat(conversation_id="hidden")
    for node in hidden["mapping"].values():
        if node["message"]:
            node["message"]["metadata"] = {"is_visually_hidden_from_conversation": True}
    file = tmp_path / "export.json"
    file.write_text(json.dumps([hidden, _chat()]))
    report = await import_file(file, None, dry_run=True, strict=True)
    assert report.conversations == 1
    assert [(e.reason, e.expected) for e in report.skipped if e.what == "conversation"] == [
        ("only hidden or empty messages", True)
    ]


def test_attached_files_are_named():
    attachments = [
        {"id": "file-1", "name": "report.pdf", "mime_type": "application/pdf", "size": 7},
        {"id": "file-2", "name": "notes.md", "mimeType": "text/markdown"},
        "junk",
    ]
    kept = [
        {"id": "file-1", "name": "report.pdf", "type": "application/pdf"},
        {"id": "file-2", "name": "notes.md", "type": "text/markdown"},
    ]
    beside = draft(_said(metadata={"attachments": attachments}), "c").messages[-1]
    assert (beside.content, beside.metadata) == ("x", {"attachments": kept})
    alone = draft(_said(parts=[""], metadata={"attachments": attachments}), "c").messages[-1]
    assert (alone.content, alone.metadata) == ("report.pdf\nnotes.md", {"attachments": kept})


def test_a_quoted_page_keeps_its_address_and_title():
    content = {"content_type": "tether_quote", "url": "https://x.org", "title": "X", "text": "said"}
    message = draft(_said(content=content), "c").messages[-1]
    assert message.content == "said"
    assert message.metadata == {
        "content_type": "tether_quote", "url": "https://x.org", "title": "X",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("So it is \ue200cite\ue202turn0search1\ue202turn0news2\ue201.", "So it is ."),
        ("As in \ue200filecite\ue202turn0file0\ue202L1-L9\ue201", "As in "),
        ("\ue203So it is\ue204\ue200cite\ue202turn0search1\ue201", "So it is"),
        ("at \ue200url\ue202Haive\ue202https://x.org\ue201", "at url Haive https://x.org"),
        ("cut \ue200cite", "cut cite"),
    ],
)
def test_marks_of_citations_are_no_text(given, text):
    answer = _said(author={"role": "assistant"}, parts=[given])
    assert draft(answer, "c").messages[-1].content == text


@pytest.mark.parametrize("role", ["user", "system"])
def test_signs_of_private_use_that_people_write_are_theirs(role):
    said = "my prompt: \ue200 ~/src \ue202 main \ue201"
    assert draft(_said(author={"role": role}, parts=[said]), "c").messages[-1].content == said


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (1_700_000_000_250, "2023-11-14T22:13:20.250000+00:00"),
        ("2023-11-14T22:13:20.250Z", "2023-11-14T22:13:20.250000+00:00"),
        ("2023-11-14T22:13:20", "2023-11-14T22:13:20+00:00"),
    ],
)
def test_times_in_milliseconds_and_as_text_are_read(given, read):
    assert draft(_chat(create_time=given), "c").created_at.isoformat() == read


@pytest.mark.parametrize("given", ["yesterday", "", 1e300, float("nan"), True, None, [1]])
def test_what_is_no_time_is_none(given):
    assert draft(_chat(create_time=given), "c").created_at is None


def _zip(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


_EXPORT = json.dumps([_chat(), _chat(conversation_id="chat-2")]).encode()
_BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "packed",
    [
        _EXPORT,
        _BOM + _EXPORT,
        gzip.compress(_EXPORT),
        _zip({"user.json": "{}", "conversations.json": _EXPORT, "chat.html": "x"}),
        _zip(
            {
                "conversations-001.json": json.dumps([_chat(conversation_id="2")]),
                "conversations-000.json": json.dumps([_chat(conversation_id="1")]),
            }
        ),
    ],
    ids=["plain", "with a byte order mark", "gzip", "zip", "zip in pieces"],
)
async def test_the_export_is_read_however_it_is_packed(tmp_path, packed):
    file = tmp_path / "export"
    file.write_bytes(packed)
    report = await import_file(file, None, dry_run=True)
    assert (report.format, report.conversations, report.messages) == ("chatgpt", 2, 4)
    assert all(entry.expected for entry in report.skipped)


async def test_what_stands_before_the_cut_of_a_file_is_imported(tmp_path):
    file = tmp_path / "cut.json"
    file.write_bytes(_EXPORT[:-100])
    report = await import_file(file, None, dry_run=True)
    assert report.conversations == 1
    broken = [entry for entry in report.skipped if not entry.expected]
    assert [(e.what, e.examples) for e in broken] == [("file", ["after conversation 1"])]


async def test_a_packed_file_that_is_cut_off_is_imported_up_to_there(tmp_path):
    chats = [_chat(conversation_id=str(n), title=f"{n * 7919}") for n in range(5_000)]
    whole = gzip.compress(json.dumps(chats).encode())
    file = tmp_path / "cut.json.gz"
    file.write_bytes(whole[: len(whole) // 2])
    report = await import_file(file, None, dry_run=True)
    assert 0 < report.conversations < 5_000
    assert [e.what for e in report.skipped if not e.expected] == ["file"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_zip({"other.json": "{}"}), "no conversations.json"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"\x1f\x8b and no more", "cannot be read"),
    ],
)
async def test_a_file_that_cannot_be_opened_says_so(tmp_path, content, message):
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        await import_file(file, None, dry_run=True)


async def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(InvalidInputError, match="No such file"):
        await import_file(tmp_path / "nowhere.json", None, dry_run=True)
