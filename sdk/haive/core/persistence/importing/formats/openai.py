"""Message lists as OpenAI's APIs take them: bare, or in an object with its "messages"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from haive.core.persistence.importing.records import (
    ConversationDraft,
    MessageDraft,
    UnusableError,
    as_list,
    as_object,
    as_text,
    as_time,
)
from haive.core.persistence.importing.values import exact_json

if TYPE_CHECKING:
    from datetime import datetime

_ROLES = {
    "assistant": "assistant",
    "developer": "system",
    "function": "tool",
    "system": "system",
    "tool": "tool",
    "user": "user",
}
_TEXTS = {"text", "input_text", "output_text", "refusal"}
_IMAGES = {"image_url", "input_image"}
_IDS = ("id", "conversation_id", "thread_id")
_TIMES = ("created_at", "created", "create_time")
_KNOWN = {"messages", "model", "title", "tags", *_IDS, *_TIMES}
_KNOWN_IN_MESSAGE = {
    "id", "role", "content", "tool_calls", "function_call", "tool_call_id", *_TIMES,
}  # fmt: skip


def draft(value: object, place: str) -> ConversationDraft:
    """Make a conversation of a message list.

    Raises:
        UnusableError: It is none.
    """
    record = {"messages": value} if isinstance(value, list) else as_object(value, "the record")
    if "messages" not in record:
        raise UnusableError("no messages")
    key = next((text for name in _IDS if (text := as_text(record.get(name)))), None)
    tags = record.get("tags")
    title = record.get("title")
    extra = {name: field for name, field in record.items() if name not in _KNOWN}
    conversation = ConversationDraft(
        place=place,
        key=key,
        agent_id=as_text(record.get("model")),
        title=title[:1000] if isinstance(title, str) else None,
        tags=[tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else [],
        context={"source": {"format": "openai", "id": key}, **extra},
        created_at=_time(record),
    )
    for position, message in enumerate(as_list(record["messages"], "messages"), 1):
        try:
            conversation.messages.append(_message(message, position, conversation))
        except UnusableError as error:
            conversation.skip(str(error), position)
    return conversation


def _message(value: object, position: int, conversation: ConversationDraft) -> MessageDraft:
    record = as_object(value, "a message")
    given = record.get("role")
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        raise UnusableError("unknown role")
    extra = {
        name: field
        for name, field in record.items()
        if name not in _KNOWN_IN_MESSAGE and field is not None
    }
    if given in {"developer", "function"}:
        extra["role"] = given
    parts = _parts(record.get("content"), position, conversation)
    if role == "tool":
        call = as_text(record.get("tool_call_id")) or as_text(record.get("name")) or ""
        parts = [_tool_result(call, parts)]
    parts += _tool_calls(record)
    if not parts and isinstance(extra.get("refusal"), str):
        parts = [{"type": "text", "text": extra["refusal"]}]
    if not parts:
        raise UnusableError("no content")
    plain = len(parts) == 1 and parts[0]["type"] == "text"
    return MessageDraft(
        position=position,
        key=as_text(record.get("id")),
        role=role,
        content=parts[0]["text"] if plain else parts,
        metadata=extra,
        created_at=_time(record),
    )


def _parts(content: object, position: int, conversation: ConversationDraft) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    parts = []
    for item in as_list(content, "content"):
        part = {"type": "text", "text": item} if isinstance(item, str) else _part(item)
        if part is None:
            conversation.skip("a part of a kind that is not kept", position, what="part")
        else:
            parts.append(part)
    return parts


def _part(item: object) -> dict[str, Any] | None:
    record = as_object(item, "a part")
    kind = record.get("type")
    if not isinstance(kind, str):
        return None
    if kind in _TEXTS:
        text = record.get("refusal" if kind == "refusal" else "text")
        return {"type": "text", "text": text} if isinstance(text, str) else None
    if kind in _IMAGES:
        image = record.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        return image_part(url) if isinstance(url, str) else None
    return None


def image_part(url: str) -> dict[str, Any]:
    """An image by its address, or by what a `data:` address holds."""
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        media_type = head.removeprefix("data:").removesuffix(";base64")
        return {"type": "image", "data": data, "media_type": media_type or None}
    return {"type": "image", "url": url}


def _tool_result(call: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    texts = [part["text"] for part in parts if part["type"] == "text"]
    # What a tool answered is text, save where it has images: then its parts are kept as they are.
    content: Any = "\n".join(texts) if len(texts) == len(parts) else parts
    return {"type": "tool_result", "tool_call_id": call, "content": content}


def _tool_calls(record: dict[str, Any]) -> list[dict[str, Any]]:
    calls = []
    for item in as_list(record.get("tool_calls") or [], "tool_calls"):
        call = as_object(item, "a tool call")
        function = as_object(call.get("function") or call.get("custom"), "its function")
        calls.append(_tool_call(as_text(call.get("id")), function))
    if record.get("function_call"):
        function = as_object(record["function_call"], "function_call")
        calls.append(_tool_call(None, function))
    return calls


def _tool_call(call: str | None, function: dict[str, Any]) -> dict[str, Any]:
    name = as_text(function.get("name"))
    if name is None:
        raise UnusableError("a tool call without a name")
    given = function.get("arguments", function.get("input"))
    arguments = given
    if isinstance(given, str):
        try:
            arguments = exact_json(given) if given else {}
        except orjson.JSONDecodeError:
            arguments = None  # models do write broken JSON, and it is what they said
    if not isinstance(arguments, dict):
        arguments = {} if given is None else {"_raw": given}
    # The calls of old had no id; the answer to one names the function.
    return {"type": "tool_call", "id": call or name, "name": name, "arguments": arguments}


def _time(record: dict[str, Any]) -> datetime | str | None:
    for name in _TIMES:
        value = record.get(name)
        if isinstance(value, str) and value:
            return value
        if time := as_time(value):
            return time
    return None
