"""LangChain's messages as messages of a conversation, and back.

What our tools read is in our fields: text, images, tool calls and results in the content, tokens in
the usage, the name in the metadata. What is left of a message is in its metadata under
``langchain``, so that it comes back equal.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ToolMessage,
    message_chunk_to_message,
    messages_from_dict,
)
from pydantic import ValidationError

from haive.core.persistence._encoding import describe
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.integrations._forms import as_they_were, in_json
from haive.core.persistence.models import (
    ContentPart,
    ImagePart,
    Message,
    MessageRole,
    NewMessage,
    TextPart,
    TokenUsage,
    ToolCallPart,
    ToolResultPart,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

_OWN = "langchain"
_ROLES = {
    "human": MessageRole.USER,
    "ai": MessageRole.ASSISTANT,
    "system": MessageRole.SYSTEM,
    "tool": MessageRole.TOOL,
    "function": MessageRole.TOOL,
}
# Of a ChatMessage, whose role is any text.
_NAMED = {
    "assistant": MessageRole.ASSISTANT,
    "ai": MessageRole.ASSISTANT,
    "developer": MessageRole.SYSTEM,
    "system": MessageRole.SYSTEM,
    "tool": MessageRole.TOOL,
}
_TYPES = {
    MessageRole.USER: "human",
    MessageRole.ASSISTANT: "ai",
    MessageRole.SYSTEM: "system",
    MessageRole.TOOL: "tool",
}
_MODEL = ("model_name", "model")
# What of a message has a field of ours, or is kept in another form.
_ELSEWHERE = frozenset(
    {"content", "type", "name", "tool_calls", "usage_metadata", "tool_call_id", "status"}
)


def stored(message: BaseMessage, conversation_id: UUID) -> NewMessage:
    """The message to write for one of LangChain's; a chunk is written as the message that it is.

    Raises:
        InvalidInputError: It is none, of a kind that no history has, or cannot be stored.
    """
    if not isinstance(message, BaseMessage):
        raise InvalidInputError(f"A {type(message).__name__} is no message of LangChain's.")
    message = message_chunk_to_message(message)
    if message.type != "chat" and message.type not in _ROLES:
        raise InvalidInputError(f"A history has no {type(message).__name__}.")
    own: dict[str, Any] = {"type": message.type}
    said, forms = in_json(_said(message))
    try:
        new = NewMessage(
            conversation_id=conversation_id,
            role=_role(message),
            content=_content(message, said, own),
            token_usage=_usage(message, own),
        )
    except ValidationError as error:
        raise InvalidInputError(f"A message cannot be stored: {describe(error)}") from None
    if left := _left(message):
        own["data"], more = in_json(left)
        forms += more
    if forms:
        own["forms"] = forms
    named = {} if message.name is None else {"name": message.name}
    return new.model_copy(update={"metadata": {**named, _OWN: own}})


def restored(message: Message) -> list[BaseMessage]:
    """LangChain's message for a stored one.

    One that LangChain did not write may be several: each result of a tool is a message there.
    """
    own = message.metadata.get(_OWN)
    if isinstance(own, dict) and own.get("type") in ("chat", *_ROLES):
        try:
            return messages_from_dict([{"type": own["type"], "data": _data(message, own)}])
        except (ValueError, KeyError, TypeError, AttributeError):
            # Others than this package write to conversations: one message that is not what it
            # says must not make all unreadable.
            return _of_another(message)
    return _of_another(message)


# -- writing -------------------------------------------------------------------------------------


def _role(message: BaseMessage) -> MessageRole:
    if message.type == "chat":
        return _NAMED.get(getattr(message, "role", "").lower(), MessageRole.USER)
    return _ROLES[message.type]


def _said(message: BaseMessage) -> dict[str, Any]:
    """What of a message is in the content of ours."""
    said: dict[str, Any] = {"content": message.content}
    if isinstance(message, AIMessage) and message.tool_calls:
        said["tool_calls"] = message.tool_calls
    return said


def _content(
    message: BaseMessage, said: Mapping[str, Any], own: dict[str, Any]
) -> str | list[ContentPart]:
    content = said["content"]
    if isinstance(message, ToolMessage):
        return [
            ToolResultPart(
                tool_call_id=message.tool_call_id,
                content=content,
                is_error=message.status == "error",
            )
        ]
    calls = [_call(call) for call in said.get("tool_calls", ())]
    if isinstance(content, str):
        if not calls:
            return content
        own["text"] = True
        text: list[ContentPart] = [TextPart(text=content)] if content else []
        return [*text, *calls]
    return [*map(_part, content), *calls]


def _call(call: Mapping[str, Any]) -> ContentPart:
    return ToolCallPart(id=call["id"] or "", name=call["name"], arguments=call["args"])


def _part(block: str | dict[Any, Any]) -> ContentPart:
    """A block of LangChain's content as a part of ours.

    What no part of ours is, or would not come back as it was, goes along whole.
    """
    if isinstance(block, str):
        return _with_own(TextPart, {"text": block}, block)
    if _OWN not in block:
        match block:
            case {"type": "text", "text": str()}:
                return TextPart.model_validate(block)
            case {"type": "image_url", "image_url": {"url": str(url), **beside}, **rest}:
                kept = {**rest, "image_url": beside}
                return _with_own(ImagePart, {"url": url}, kept)
            case {"type": "image", **rest}:
                found = {theirs: rest.pop(theirs) for theirs in _IMAGE if theirs in rest}
                if found.keys() & {"url", "base64"} and all(
                    isinstance(value, str) for value in found.values()
                ):
                    ours = {_IMAGE[theirs]: value for theirs, value in found.items()}
                    return _with_own(ImagePart, ours, rest)
    return _with_own(TextPart, {"text": ""}, block)


#: LangChain's names of what an image has, and ours.
_IMAGE = {"url": "url", "base64": "data", "mime_type": "media_type"}


def _with_own(
    kind: type[TextPart | ImagePart], given: Mapping[str, Any], own: object
) -> ContentPart:
    return cast("ContentPart", kind.model_validate({**given, _OWN: own}))


def _usage(message: BaseMessage, own: dict[str, Any]) -> TokenUsage | None:
    """The tokens; what our usage has no place for stays beside."""
    if not isinstance(message, AIMessage) or message.usage_metadata is None:
        return None
    counted: Mapping[str, Any] = message.usage_metadata
    given = (message.response_metadata.get(name) for name in _MODEL)
    model = next((name for name in given if isinstance(name, str) and 0 < len(name) <= 200), None)
    try:
        usage = TokenUsage(
            input_tokens=counted["input_tokens"],
            output_tokens=counted["output_tokens"],
            model=model,
        )
    except ValidationError:  # less than nothing: somebody's bug, but not ours to lose
        own["usage"] = dict(counted)
        return None
    known = _counted(usage)
    if beside := {name: value for name, value in counted.items() if known.get(name) != value}:
        own["usage"] = beside
    return usage


def _left(message: BaseMessage) -> dict[str, Any]:
    """What of a message is neither in a field of ours nor as it always is."""
    usual = _usual(type(message))
    return {
        name: value
        for name, value in message
        if name not in usual or (name not in _ELSEWHERE and value != usual[name])
    }


@lru_cache(maxsize=64)
def _usual(kind: type[BaseMessage]) -> dict[str, Any]:
    """The fields of a class with what is in them unless it is given.

    Made once: it took 73 of the 86 µs of a message.
    """
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in kind.model_fields.items()
    }


# -- reading -------------------------------------------------------------------------------------


def _data(message: Message, own: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of LangChain's message that a stored one was."""
    data = dict(own.get("data", {}))
    if "name" in message.metadata:
        data["name"] = message.metadata["name"]
    if isinstance(message.content, str):
        data["content"] = message.content
    else:
        _take_parts(message.content, data, own)
    if message.token_usage is not None or "usage" in own:
        data["usage_metadata"] = _counted(message.token_usage) | own.get("usage", {})
    return as_they_were(data, own.get("forms"))


def _take_parts(parts: Sequence[ContentPart], data: dict[str, Any], own: Mapping[str, Any]) -> None:
    """Put the parts of a content where LangChain has them."""
    blocks: list[Any] = []
    calls: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, ToolCallPart):
            calls.append(
                {
                    "id": part.id or None,
                    "name": part.name,
                    "args": part.arguments,
                    "type": "tool_call",
                }
            )
        elif isinstance(part, ToolResultPart):
            data["tool_call_id"] = part.tool_call_id
            data["status"] = "error" if part.is_error else "success"
            data["content"] = part.content
        else:
            blocks.append(_block(part, own))
    if calls:
        data["tool_calls"] = calls
    if own.get("text"):
        data["content"] = "".join(block["text"] for block in blocks)
    else:
        data.setdefault("content", blocks)


def _block(part: TextPart | ImagePart, own: Mapping[str, Any]) -> Any:
    """The block that a part was, or is now."""
    extra = part.model_extra or {}
    if isinstance(part, TextPart):
        whole = extra.get(_OWN)
        # A list is a dict with keys that are no text, as its form will have it.
        known = (str, dict, list) if "forms" in own else (str, dict)
        return whole if isinstance(whole, known) else part.model_dump()
    kept = extra.get(_OWN)
    if isinstance(kept, dict) and isinstance(kept.get("image_url"), dict):
        return {"type": "image_url", **kept, "image_url": {**kept["image_url"], "url": part.url}}
    values = {theirs: getattr(part, ours) for theirs, ours in _IMAGE.items()}
    found = {theirs: value for theirs, value in values.items() if value is not None}
    rest = kept if isinstance(kept, dict) else extra
    return {"type": "image", **found, **rest}


def _counted(usage: TokenUsage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }


def _of_another(message: Message) -> list[BaseMessage]:
    """What was written by a store's own methods, as LangChain has it."""
    parts: Sequence[ContentPart] = () if isinstance(message.content, str) else message.content
    results = [part for part in parts if isinstance(part, ToolResultPart)]
    rest = [part for part in parts if not isinstance(part, ToolResultPart)]
    found = [
        ToolMessage(
            content=part.content if isinstance(part.content, str | list) else str(part.content),
            tool_call_id=part.tool_call_id,
            status="error" if part.is_error else "success",
            id=str(message.id),
        )
        for part in results
    ]
    if results and not rest:
        return list(found)
    data: dict[str, Any] = {"id": str(message.id)}
    name = message.metadata.get("name")
    if isinstance(name, str):
        data["name"] = name
    if isinstance(message.content, str):
        data["content"] = message.content
    else:
        _take_parts(rest, data, {})
    kind = _TYPES[message.role]
    if kind == "tool":
        known = message.metadata.get("tool_call_id")
        data["tool_call_id"] = known if isinstance(known, str) else ""
    if kind == "ai" and message.token_usage is not None:
        data["usage_metadata"] = _counted(message.token_usage)
        if message.token_usage.model is not None:
            data["response_metadata"] = {"model_name": message.token_usage.model}
    return [*found, *messages_from_dict([{"type": kind, "data": data}])]
