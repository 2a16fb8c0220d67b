"""How long the summary of a merge is."""

from __future__ import annotations

from uuid import UUID

from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.models import Message, MessageRole
from haive.core.persistence.session._summary import summary_of


def _messages(*texts: str) -> list[Message]:
    return [
        Message.model_construct(
            conversation_id=UUID(int=1), seq=seq, role=MessageRole.USER, content=text
        )
        for seq, text in enumerate(texts, 1)
    ]


async def test_an_extract_of_little_does_not_say_everything_twice():
    texts = [f"Sentence number {n} tells of the grinder and its part {n}." for n in range(8)]
    found = await summary_of(_messages(*texts), HashingEmbedder(), None, 600)
    assert found is not None
    assert 0 < len(found.text) <= sum(map(len, texts)) // 3


async def test_an_extract_of_much_is_as_long_as_it_may_be():
    texts = [f"Sentence number {n} tells of the grinder and its part {n}." for n in range(80)]
    found = await summary_of(_messages(*texts), HashingEmbedder(), None, 600)
    assert found is not None
    assert 500 < len(found.text) <= 600
