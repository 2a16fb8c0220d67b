"""Conversations as OpenAI's fine-tuning files have them: one `{"messages": […]}` a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence._json import json_bytes
from haive.core.persistence.models import (
    ImagePart,
    MessageRole,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haive.core.persistence.models import ContentPart, Message

HEAD = b'{"messages":['
TAIL = b"]}\n"


class Answers:
    """Sorts out the answers of tools: OpenAI takes those alone that stand behind their call."""

    def __init__(self) -> None:
        self._called: set[str] = set()
        #: How many have no call before them.
        self.left_out = 0

    def sorted_out(self, message: Message) -> list[Message]:
        """What of a message of a conversation is kept: an answer beside its call comes after it."""
        is_tool = message.role is MessageRole.TOOL
        if isinstance(message.content, str):
            self.left_out += is_tool
            return [] if is_tool else [message]
        calls = {part.id for part in message.content if isinstance(part, ToolCallPart)}
        said: list[ContentPart] = []
        behind: list[ContentPart] = []
        for part in message.content:
            if isinstance(part, ToolResultPart):
                if part.tool_call_id in self._called:
                    said.append(part)
                elif part.tool_call_id in calls:
                    behind.append(part)
                else:
                    self.left_out += 1
            elif is_tool:
                self.left_out += 1
            else:
                said.append(part)
        self._called |= calls
        return [message.model_copy(update={"content": parts}) for parts in (said, behind) if parts]


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
