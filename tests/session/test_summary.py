"""How long the summary of a merge is."""

from __future__ import annotations

import random
from uuid import UUID

from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.models import Message, MessageRole
from haive.core.persistence.session._summary import summary_of


def _texts(count: int) -> list[str]:
    """Sentences that have nothing to do with each other."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(500)]
    return [f"{' '.join(chance.sample(words, 6)).capitalize()}." for _ in range(count)]


def _messages(*texts: str) -> list[Message]:
    return [
        Message.model_construct(
            conversation_id=UUID(int=1), seq=seq, role=MessageRole.USER, content=text
        )
        for seq, text in enumerate(texts, 1)
    ]


async def test_an_extract_of_little_does_not_say_everything_twice():
    texts = _texts(8)
    found = await summary_of(_messages(*texts), HashingEmbedder(), None, 600)
    assert found is not None
    assert 0 < len(found.text) <= sum(map(len, texts)) // 3


async def test_an_extract_of_much_is_as_long_as_it_may_be():
    found = await summary_of(_messages(*_texts(80)), HashingEmbedder(), None, 600)
    assert found is not None
    assert 500 < len(found.text) <= 600
