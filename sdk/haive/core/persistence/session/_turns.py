"""Messages in turns: what was asked, and all that was answered to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haive.core.persistence.models import (
    ImagePart,
    MessageRole,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.models import Message


@dataclass(frozen=True, slots=True)
class Turn:
    """Messages that belong together: a prompt of the user and what follows it."""

    prompt: tuple[Message, ...]
    """Messages of the user; empty where a tail begins with an answer."""
    answer: tuple[Message, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """All of them, in their order."""
        return self.prompt + self.answer


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """Cut messages into turns; a result of a tool is never in another turn than its call."""
    groups = tool_groups(messages)
    turns: list[Turn] = []
    prompt: list[Message] = []
    answer: list[Message] = []
    for group in groups:
        if len(group) == 1 and _is_prompt(group[0]):
            if answer:
                turns.append(Turn(tuple(prompt), tuple(answer)))
                prompt, answer = [], []
            prompt.append(group[0])
        else:
            answer += group
    if prompt or answer:
        turns.append(Turn(tuple(prompt), tuple(answer)))
    return turns


def tool_groups(messages: Sequence[Message]) -> list[list[Message]]:
    """Cut messages into groups that nothing may come between: a call up to its last result."""
    last_result: dict[str, int] = {}
    for place, message in enumerate(messages):
        for id_ in result_ids(message):
            last_result[id_] = place
    groups: list[list[Message]] = []
    until = -1
    for place, message in enumerate(messages):
        if place > until:
            groups.append([])
        groups[-1].append(message)
        until = max(until, place, *(last_result.get(id_, place) for id_ in call_ids(message)))
    return groups


def call_ids(message: Message) -> list[str]:
    """The calls of tools in a message."""
    if isinstance(message.content, str):
        return []
    return [part.id for part in message.content if isinstance(part, ToolCallPart)]


def result_ids(message: Message) -> list[str]:
    """The calls whose results are in a message."""
    if isinstance(message.content, str):
        return []
    return [part.tool_call_id for part in message.content if isinstance(part, ToolResultPart)]


def said(messages: Sequence[Message]) -> str:
    """All that messages say, as one text: calls and results of tools too, an image by its hash."""
    pieces: list[str] = []
    for message in messages:
        if isinstance(message.content, str):
            pieces.append(message.content)
            continue
        for part in message.content:
            if isinstance(part, TextPart):
                pieces.append(part.text)
            elif isinstance(part, ToolCallPart):
                pieces.append(f"{part.name} {_json(part.arguments)}")
            elif isinstance(part, ToolResultPart):
                pieces.append(
                    part.content if isinstance(part.content, str) else _json(part.content)
                )
            elif isinstance(part, ImagePart):
                pieces.append(_shown(part))
    return "\n".join(pieces)


def images_of(messages: Sequence[Message]) -> tuple[str, ...]:
    """The images in messages, each by its address or its hash."""
    return tuple(
        _shown(part)
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
        if isinstance(part, ImagePart)
    )


def _shown(part: ImagePart) -> str:
    return part.url or hashlib.sha256((part.data or "").encode()).hexdigest()


def _is_prompt(message: Message) -> bool:
    # Some providers put results of tools into messages of the user.
    return message.role is MessageRole.USER and not result_ids(message)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
