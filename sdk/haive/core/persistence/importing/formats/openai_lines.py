"""Conversations as OpenAI's fine-tuning files have them: one `{"messages": […]}` a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence._json import json_bytes
from haive.core.persistence.models import ImagePart, TextPart, ToolCallPart, ToolResultPart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haive.core.persistence.models import ContentPart, Message

HEAD = b'{"messages":['
TAIL = b"]}\n"


def records(message: Message) -> Iterator[bytes]:
    """A message as OpenAI has it: each tool result is one of its own there."""
    content = message.content
    if isinstance(content, str):
        yield json_bytes({"role": message.role.value, "content": content, **_name(message)})
        return
    for part in content:
        if isinstance(part, ToolResultPart):
            yield json_bytes(
                {"role": "tool", "tool_call_id": part.tool_call_id, "content": _text(part.content)}
            )
    said = [_part(part) for part in content if isinstance(part, TextPart | ImagePart)]
    calls = [_call(part) for part in content if isinstance(part, ToolCallPart)]
    if not said and not calls:
        return
    record: dict[str, Any] = {"role": message.role.value, "content": said or None, **_name(message)}
    if calls:
        record["tool_calls"] = calls
    yield json_bytes(record)


def _name(message: Message) -> dict[str, str]:
    name = message.metadata.get("name")
    return {"name": name} if isinstance(name, str) else {}


def _part(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    assert isinstance(part, ImagePart)  # the caller sees to it # noqa: S101 # nosec B101
    url = part.url or f"data:{part.media_type or 'image/png'};base64,{part.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _call(part: ToolCallPart) -> dict[str, Any]:
    raw = part.arguments.get("_raw") if len(part.arguments) == 1 else None
    arguments = raw if isinstance(raw, str) else json_bytes(part.arguments).decode()
    return {
        "id": part.id,
        "type": "function",
        "function": {"name": part.name, "arguments": arguments},
    }


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json_bytes(content).decode()
