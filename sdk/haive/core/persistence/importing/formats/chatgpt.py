"""ChatGPT's data export: each conversation is a tree of nodes, of which one branch is current."""

from __future__ import annotations

import re
from typing import Any

from haive.core.persistence.importing.records import (
    ConversationDraft,
    MessageDraft,
    UnusableError,
    as_object,
    as_text,
    as_time,
)

_ROLES = {"system", "user", "assistant", "tool"}
# What a message of these kinds says stands in one field.
_FIELDS = {
    "code": "text",
    "execution_output": "text",
    "reasoning_recap": "content",
    "system_error": "text",
    "tether_browsing_display": "result",
    "tether_quote": "text",
}
_SETTINGS = {"user_editable_context", "model_editable_context"}
# Recordings: what was said in them stands beside them.
_RECORDINGS = {"audio_asset_pointer", "real_time_user_audio_video_asset_pointer"}
# Marks of private use in answers, which its pages draw: \ue200 begins one, \ue202 divides it,
# \ue201 ends it.
_CITATION = re.compile("\ue200(?:file)?cite[^\ue200\ue201]*\ue201")
_MARK = re.compile("[\ue200-\ue2ff]")
_KEPT = ("gizmo_id", "gizmo_type", "is_archived", "is_starred", "conversation_template_id")


def draft(value: object, place: str) -> ConversationDraft:
    """Make a conversation of the branch that its user saw last.

    Raises:
        UnusableError: It is no conversation.
    """
    record = as_object(value, "the record")
    nodes = as_object(record.get("mapping"), "mapping")
    key = as_text(record.get("conversation_id")) or as_text(record.get("id"))
    title = record.get("title")
    source = {"format": "chatgpt", "id": key}
    source |= {name: record[name] for name in _KEPT if record.get(name) is not None}
    conversation = ConversationDraft(
        place=place,
        key=key,
        agent_id=as_text(record.get("default_model_slug")),
        title=title[:1000] if isinstance(title, str) else None,
        context={"source": source},
        created_at=as_time(record.get("create_time")),
    )
    position = 0
    for node_id, node in _branch(nodes, record.get("current_node")):
        said = node.get("message")
        if said is None:
            continue  # the root, and the joints of branches
        position += 1
        try:
            message = _message(said, node_id, position, conversation)
        except UnusableError as error:
            conversation.skip(str(error), position)
            continue
        if message is not None:
            conversation.messages.append(message)
            conversation.agent_id = conversation.agent_id or message.metadata.get("model")
    return conversation


def _branch(nodes: dict[str, Any], current: object) -> list[tuple[str, dict[str, Any]]]:
    """The nodes from the root to the current one."""
    node_id = current if isinstance(current, str) and current in nodes else _last_leaf(nodes)
    path: dict[str, dict[str, Any]] = {}
    while isinstance(node_id, str) and node_id in nodes:
        if node_id in path:
            raise UnusableError("its nodes go round in a circle")
        path[node_id] = as_object(nodes[node_id], "a node")
        node_id = path[node_id].get("parent")
    return list(path.items())[::-1]


def _last_leaf(nodes: dict[str, Any]) -> str | None:
    """The node without children that stands last: where the conversation was left."""
    leaf = None
    for node_id, node in nodes.items():
        if isinstance(node, dict) and not node.get("children"):
            leaf = node_id
    return leaf


def _message(
    value: object, node_id: str, position: int, conversation: ConversationDraft
) -> MessageDraft | None:
    record = as_object(value, "a message")
    author = as_object(record.get("author"), "its author")
    content = as_object(record.get("content"), "its content")
    about = record.get("metadata")
    about = about if isinstance(about, dict) else {}
    kind = as_text(content.get("content_type")) or ""
    if about.get("is_visually_hidden_from_conversation") or kind in _SETTINGS:
        conversation.skip("hidden in ChatGPT", position, expected=True)
        return None
    role = author.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise UnusableError("unknown role")
    attachments = _attachments(about.get("attachments"))
    parts = _parts(content, kind, position, conversation)
    if role == "assistant":
        parts = _unmarked(parts)
    if not parts:
        parts = _texts("\n".join(filter(None, (one.get("name") for one in attachments))))
    if not parts:
        conversation.skip("empty in ChatGPT", position, expected=True)
        return None
    facts: dict[str, Any] = {
        "model": as_text(about.get("model_slug")),
        "name": as_text(author.get("name")),
        "recipient": as_text(record.get("recipient")),
        "content_type": kind,
        "attachments": attachments,
    }
    if kind == "tether_quote":
        facts |= {name: as_text(content.get(name)) for name in ("url", "title")}
    usual = {"recipient": "all", "content_type": "text"}
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return MessageDraft(
        position=position,
        key=node_id,
        role=role,
        content="\n".join(texts) if len(texts) == len(parts) else parts,
        metadata={name: fact for name, fact in facts.items() if fact and fact != usual.get(name)},
        created_at=as_time(record.get("create_time")),
    )


def _parts(
    content: dict[str, Any], kind: str, position: int, conversation: ConversationDraft
) -> list[dict[str, Any]]:
    if kind in _FIELDS:
        return _texts(content.get(_FIELDS[kind]))
    if kind == "thoughts":
        thoughts = content.get("thoughts")
        return [
            part
            for thought in (thoughts if isinstance(thoughts, list) else [])
            if isinstance(thought, dict)
            for part in _texts(thought.get("content"))
        ]
    items = content.get("parts")
    if not isinstance(items, list):
        return _texts(content.get("text"))
    kinds = [
        as_text(item.get("content_type")) if isinstance(item, dict) else None for item in items
    ]
    parts = []
    for item, its_kind in zip(items, kinds, strict=True):
        found = _texts(item) if isinstance(item, str) else _part(item)
        if found is not None:
            parts += found
        elif "audio_transcription" in kinds and its_kind in _RECORDINGS:
            conversation.skip("a recording of what was said", position, what="part", expected=True)
        else:
            conversation.skip("a part of a kind that is not kept", position, what="part")
    return parts


def _attachments(value: object) -> list[dict[str, str]]:
    """What is known of attached files, which lie beside conversations.json."""
    found = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            facts = {
                "id": as_text(item.get("id")),
                "name": as_text(item.get("name")),
                "type": as_text(item.get("mime_type")) or as_text(item.get("mimeType")),
            }
            found.append({name: fact for name, fact in facts.items() if fact})
    return [one for one in found if one]


def _part(item: object) -> list[dict[str, Any]] | None:
    """What is kept of a part that is no text; None where nothing is."""
    if not isinstance(item, dict):
        return None
    if item.get("content_type") == "image_asset_pointer":
        # The picture itself is a file beside conversations.json, under this name.
        pointer = as_text(item.get("asset_pointer"))
        return [{"type": "image", "url": pointer}] if pointer else None
    return _texts(item.get("text")) or None  # the transcript of what was spoken


def _texts(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, str):
        return []
    return [{"type": "text", "text": value}] if value.strip() else []


def _unmarked(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of an answer without marks."""
    done = []
    for part in parts:
        if part["type"] == "text":
            text = _CITATION.sub("", part["text"]).replace("\ue202", " ")
            done += _texts(_MARK.sub("", text))
        else:
            done.append(part)
    return done
