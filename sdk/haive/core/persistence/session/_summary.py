"""What a merge came to, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haive.core.persistence.language.extractive import extract
from haive.core.persistence.models import MessageRole
from haive.core.persistence.session._judging import room_for, summarise
from haive.core.persistence.session.models import MergeSummary, MessageRef

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.embedding import Embedder
    from haive.core.persistence.language import ChatModel
    from haive.core.persistence.models import Message

_SPEAKERS = {MessageRole.USER, MessageRole.ASSISTANT}
# Without a model a summary has this part of what was said, and room for a sentence or two at least.
_SHORTER, _LEAST = 3, 120


async def summary_of(
    messages: Sequence[Message], embedder: Embedder, chat: ChatModel | None, max_chars: int
) -> MergeSummary | None:
    """A summary of what users and assistants say, or None where they say nothing.

    Raises:
        ModelError: The model or the embedder failed.
    """
    spoken = [message for message in messages if message.role in _SPEAKERS and message.text.strip()]
    if not spoken:
        return None
    if chat is not None:
        texts = room_for([message.text for message in spoken])
        lines = (f"{m.role}: {text}" for m, text in zip(spoken, texts, strict=True))
        text = await summarise(chat, "\n".join(lines), max_chars)
        return MergeSummary(text=text, sources=tuple(map(MessageRef.of, spoken)), by=chat.name)
    # An extract of little is much shorter than that, or it would say everything twice.
    room = min(max_chars, max(sum(len(message.text) for message in spoken) // _SHORTER, _LEAST))
    found = await extract([message.text for message in spoken], embedder, max_chars=room)
    if not found.text:
        return None
    sources = tuple(MessageRef.of(spoken[place]) for place in found.sources)
    return MergeSummary(text=found.text, sources=sources, by="extractive")
