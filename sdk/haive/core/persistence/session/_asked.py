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

    words: tuple[str, ...]
    """Each once, in their order."""
    signs: tuple[str, ...]
    images: tuple[str, ...]
    claims: Claims

    @classmethod
    def of(cls, prompt: Sequence[Message]) -> Asked:
        """What the messages of a prompt ask for."""
        text = said(prompt)
        return cls(
            tuple(dict.fromkeys(words_of(text))),
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
        both = set(self.words) & set(other.words)
        mine, yours = set(self.words) - both, set(other.words) - both
        if mine and yours and not mine | yours <= COMMON:
            return True
        telling = both - COMMON
        return [word for word in self.words if word in telling] != [
            word for word in other.words if word in telling
        ]
