"""Whether two answers to one question contradict each other."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haive.core.persistence.language.extractive import sentences

if TYPE_CHECKING:
    from collections.abc import Iterable

_NUMERAL = r"\d+(?:[.,:/'\u2019\u00a0-]\d+)*%?"
_NUMBER = re.compile(_NUMERAL)
_TOKEN = re.compile(rf"{_NUMERAL}|[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_GROUPED = re.compile(r"[,'\u2019\u00a0](?=\d{3}(?!\d))")
# Words that turn a sentence round, in the languages that most agents are asked in.
_NEGATIONS = """
not no never none nothing neither nor cannot without
nicht nie niemals kein keine keinen keinem keiner ohne
pas jamais aucun aucune rien non sans
nunca ningún ninguna ninguno nada sin
não nenhum nenhuma sem
mai nessun nessuno nessuna senza
niet geen nooit zonder
нет не никогда
"""
_AGREEING = "yes yeah yep sure correct right ja oui sí si sim да はい 是 对 是的"
_REFUSING = "no nope wrong incorrect nein non não nee нет いいえ 不 不是"
_NOT, _YES, _NO = (frozenset(words.split()) for words in (_NEGATIONS, _AGREEING, _REFUSING))
_DENYING = _NOT | _NO | {"false", "untrue", "falsch", "faux", "falso", "longer", "formerly"}
# Two sentences speak of the same if they have this share of their other words in common.
_FRAME = 0.5
# More sentences than this of each answer are not compared with each other.
_MOST = 60


def contradiction(one: str, other: str) -> str | None:
    """What two answers to the same question contradict each other in, or None.

    A heuristic, without a model. Sentences are compared that have half of their words in common,
    numbers and negations aside. They contradict each other if each has a number that the other
    one has not (``numbers: 3 / 4``), if one of them is negated and the other is not (``negation``),
    or if each has a capitalised word within it that the other one has not (``names: Basel /
    Bern``). One that is only more exact (a number more on one side) does not contradict. So do
    answers of which one begins with yes and the other with no (``yes / no``). Other ways to
    contradict are not seen: that takes a language model.
    """
    first, second = _opening(one), _opening(other)
    if (first in _YES and second in _NO) or (first in _NO and second in _YES):
        return "yes / no"
    seconds = [_Sentence(text) for text in sentences(other)[:_MOST]]
    for text in sentences(one)[:_MOST]:
        sentence = _Sentence(text)
        for candidate in sorted(seconds, key=sentence.shared, reverse=True)[:1]:
            if sentence.shared(candidate) >= _FRAME and (found := sentence.against(candidate)):
                return found
    return None


@dataclass(frozen=True, slots=True)
class Claims:
    """What of a text another one can contradict."""

    numbers: frozenset[str]
    names: frozenset[str]
    is_negated: bool

    @classmethod
    def of(cls, text: str) -> Claims:
        """The claims of all sentences of a text together."""
        found = [_Sentence(sentence).claims for sentence in sentences(text)]
        return cls(
            frozenset().union(*(claims.numbers for claims in found)),
            frozenset().union(*(claims.names for claims in found)),
            sum(claims.is_negated for claims in found) % 2 == 1,
        )

    def against(self, other: Claims) -> str | None:
        """What two contradict each other in, if they speak of the same."""
        if self.is_negated != other.is_negated:
            return "negation"
        for kind, ours, theirs in (
            ("numbers", self.numbers, other.numbers),
            ("names", self.names, other.names),
        ):
            if (mine := ours - theirs) and (yours := theirs - ours):
                return f"{kind}: {', '.join(sorted(mine))} / {', '.join(sorted(yours))}"
        return None


def denies(words: Iterable[str]) -> bool:
    """Whether one of these words, in lower case, turns a sentence round or refuses it."""
    return not _DENYING.isdisjoint(words)


class _Sentence:
    def __init__(self, text: str) -> None:
        tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text))
        numbers = frozenset(_plain(token) for token in tokens if _NUMBER.fullmatch(token))
        words = [token for token in tokens if not _NUMBER.fullmatch(token)]
        lowered = [word.casefold().replace("\u2019", "'") for word in words]
        negated = [word in _NOT or word.endswith("n't") for word in lowered]
        names = frozenset(word for word in words[1:] if word[0].isupper() and len(word) > 1)
        self.claims = Claims(numbers, names, sum(negated) % 2 == 1)
        self._frame = Counter(
            word
            for word, original, no in zip(lowered, words, negated, strict=True)
            if not no and original not in names
        )

    def shared(self, other: _Sentence) -> float:
        """The share of words that both have, numbers, names and negations aside."""
        total = (self._frame | other._frame).total()
        if not total:
            return float(bool(self.claims.numbers))
        return (self._frame & other._frame).total() / total

    def against(self, other: _Sentence) -> str | None:
        return self.claims.against(other.claims)


def _opening(text: str) -> str:
    found = _TOKEN.search(text)
    return found[0].casefold() if found else ""


def _plain(number: str) -> str:
    """1,000 and 1'000 as 1000; 7.50 as 7.5."""
    grouped = _GROUPED.sub("", number)
    if re.fullmatch(r"\d+\.\d+%?", grouped):
        percent = "%" if grouped.endswith("%") else ""
        return grouped.rstrip("%").rstrip("0").rstrip(".") + percent
    return grouped
