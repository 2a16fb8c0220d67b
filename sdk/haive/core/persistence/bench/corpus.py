"""Made-up text that compresses as conversations do, and states made of dialogues."""

from __future__ import annotations

import random
from contextlib import closing, suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from haive.core.persistence.checkpointer._codec import Codec
from haive.core.persistence.importing.detect import detect
from haive.core.persistence.importing.formats import DRAFTERS
from haive.core.persistence.importing.records import Skipped, UnusableError
from haive.core.persistence.importing.source import Source
from haive.core.persistence.importing.values import read_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Dialogue = list[dict[str, str]]

_WORDS = 8_000
_ONSETS = [*"bcdfghlmnprstvw", "st", "tr", "th", "ch", "pr", "sh"]
_VOWELS = [*"aeiou", "ea", "ou", "ai"]
_ENDINGS = ["", "", *"nrstd", "ng", "ll", "ment", "tion", "ly", "ed", "er"]


class Writer:
    """Writes sentences of a made-up language, always the same ones for a seed.

    Words are as frequent as in English (Zipf), and 160 KB of them are compressed to 0.37 of that by
    zstd's level 3: LoCoMo's conversations are to 0.35, task dialogues to 0.27.
    """

    def __init__(self, seed: int) -> None:
        chance = random.Random(7)  # noqa: S311 - made-up words # nosec B311
        words: dict[str, None] = {}
        while len(words) < _WORDS:
            count = 1 if len(words) < 60 else chance.choice((1, 2, 2, 3))
            syllables = (chance.choice(_ONSETS) + chance.choice(_VOWELS) for _ in range(count))
            words["".join(syllables) + chance.choice(_ENDINGS)] = None
        self._words = list(words)
        self._weights = list(accumulate(1 / (place + 2.7) for place in range(_WORDS)))
        self._chance = random.Random(seed)  # noqa: S311 - likewise # nosec B311

    def text(self, size: int) -> str:
        """Text of so many bytes."""
        words = self._chance.choices(self._words, cum_weights=self._weights, k=size // 3 + 1)
        return " ".join(words)[:size]

    def messages(self, count: int, size: int) -> Dialogue:
        """Messages of so many bytes of text."""
        return [
            {"role": "assistant" if number % 2 else "user", "content": self.text(size)}
            for number in range(count)
        ]

    def dialogues(self, count: int) -> list[Dialogue]:
        """So many dialogues, of 2 KB each."""
        return [
            [
                {**message, "content": message["content"][: self._chance.randrange(20, 160)]}
                for message in self.messages(self._chance.randrange(8, 30), 160)
            ]
            for _ in range(count)
        ]


def dialogues_of(file: str) -> Iterator[Dialogue]:
    """The dialogues of a file that can be imported."""
    return (dialogue for _, dialogue in tagged_dialogues_of(file))


def tagged_dialogues_of(file: str) -> Iterator[tuple[list[str], Dialogue]]:
    """The dialogues of a file that can be imported, each with its tags."""
    with closing(Source.open(file)) as source:
        known, framing = detect(source.head, "auto")
        for value in read_values(source, framing):
            if isinstance(value, Skipped):
                continue
            place, record = value
            with suppress(UnusableError):
                draft = DRAFTERS[known](record, place)
                yield (
                    draft.tags,
                    [
                        {"role": message.role, "content": message.content}
                        for message in draft.messages
                        if isinstance(message.content, str)
                    ],
                )


def states_of(dialogues: Sequence[Dialogue], sizes: list[int]) -> Iterator[dict[str, Any]]:
    """States of about so many bytes; smaller ones where all dialogues together are.

    No dialogue comes twice in a state: what is said before, what tools answered (records with
    fields) and documents (sections in sections) are each of dialogues of their own.
    """
    codec = Codec()
    for place, size in enumerate(sizes):
        begin = place * len(dialogues) // len(sizes)
        state: dict[str, Any] = {
            "messages": [], "tool_results": [], "documents": {}, "status": "running", "step": 0,
        }  # fmt: skip
        taken = 0
        for number, dialogue in enumerate((*dialogues[begin:], *dialogues[:begin])):
            _add(state, number, dialogue)
            taken += len(codec.pack(dialogue))
            if taken >= size:
                break
        yield state


def _add(state: dict[str, Any], number: int, dialogue: Dialogue) -> None:
    state["step"] += len(dialogue)
    if number % 3 == 0:
        state["messages"] += dialogue
    elif number % 3 == 1:
        rows = [{"rank": rank, **message} for rank, message in enumerate(dialogue)]
        state["tool_results"].append({"tool": "search", "call": f"call-{number}", "rows": rows})
    else:
        title, *sections = ["", *(message["content"] for message in dialogue)]
        state["documents"][f"document-{number}"] = {
            "title": title,
            "sections": [
                {"heading": heading, "paragraphs": [{"text": text} for text in texts]}
                for heading, *texts in (sections[at : at + 4] for at in range(0, len(sections), 4))
            ],
        }
