"""Whether two prompts that are alike ask for different things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from haive.core.persistence.embedding._common import COMMON
from haive.core.persistence.embedding._words import signs_of, words_of
from haive.core.persistence.session._contradictions import Claims
from haive.core.persistence.session._turns import images_of, said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence.models import Message


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a prompt makes another one of it."""

    words: frozenset[str]
    telling: tuple[str, ...]
    """Those that are not among the commonest, each once, in their order."""
    signs: tuple[str, ...]
    images: tuple[str, ...]
    claims: Claims

    @classmethod
    def of(cls, prompt: Sequence[Message]) -> Asked:
        """What the messages of a prompt ask for."""
        text = said(prompt)
        words = dict.fromkeys(words_of(text, marks=True))
        return cls(
            frozenset(words),
            tuple(word for word in words if word not in COMMON),
            tuple(signs_of(text)),
            images_of(prompt),
            Claims.of(text),
        )

    def differs_from(self, other: Asked) -> bool:
        """Whether the other one asks for something else, however alike they are.

        It does with other images, signs, numbers or names, or a negation; if each has words that
        the other one has not, and not all of these are among the commonest; and if what both say
        stands in another order: "from French to German". One may say more than the other one.
        """
        if self == other:
            return False
        if (self.images, self.signs) != (other.images, other.signs):
            return True
        if self.claims.against(other.claims):
            return True
        mine, yours = self.words - other.words, other.words - self.words
        if mine and yours and not (mine <= COMMON and yours <= COMMON):
            return True
        ours = [word for word in self.telling if word in other.words]
        return ours != [word for word in other.telling if word in self.words]
