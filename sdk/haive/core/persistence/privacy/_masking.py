"""What is done to the texts of one message: placeholders and their numbers, tags, refusals."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import ConfigurationError, PersonalDataError
from haive.core.persistence.privacy.policy import PIIMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from haive.core.persistence.privacy.detector import Detector, Finding
    from haive.core.persistence.privacy.policy import PIIPolicy

    Steps = tuple[str | int, ...]
    Span = tuple[int, int]

_STRICTER = {PIIMode.TAG: 0, PIIMode.MASK: 1, PIIMode.REFUSE: 2}
# Where a placeholder stands, what was no finding may be one: `x` of `x4111…` is gone, say. Prose
# needs one more look; a text that still has findings after so many was made to have them.
_LOOKS = 5
_WHOLE = "[PERSONAL_DATA]"
# Values that are written with and without separators, and are the same one.
_GROUPED = frozenset({"CREDIT_CARD", "IBAN", "PHONE", "US_SSN", "UK_NHS", "DE_TAX_ID", "FR_NIR"})


@dataclass(frozen=True, slots=True)
class _Place:
    """Findings that overlap, as one: it covers them all and is what the longest of them is."""

    entity: str
    mode: PIIMode
    start: int
    end: int
    refused: frozenset[str]


class Masking:
    """Works through the texts of one message, or of one conversation, in their order.

    Args:
        policy: What is done with which entity.
        detector: What finds them.
    """

    def __init__(self, policy: PIIPolicy, detector: Detector) -> None:
        self._policy = policy
        self._detector = detector
        self._numbers: dict[str, dict[str, int]] = {}
        self._refused: dict[str, set[str]] = {}
        self._refuses = policy.does(PIIMode.REFUSE)
        #: What was found and stays, without the values.
        self.tags: list[dict[str, Any]] = []

    def text(self, text: str, steps: Steps) -> str:
        """A text as it may be stored."""
        kept: list[Span] = []
        for _ in range(_LOOKS):
            places = _apart(self._places(text), kept)
            masked = [place for place in places if place.mode is PIIMode.MASK]
            self._refuse(places, steps)
            if not masked:
                break
            text, kept = self._replace(text, masked, kept)
        else:
            return _WHOLE
        self.tags += (
            {
                "entity": place.entity,
                "field": path_of(steps),
                "start": place.start,
                "end": place.end,
            }
            for place in places
            if place.mode is PIIMode.TAG
        )
        return text

    def json(self, value: Any, steps: Steps) -> Any:
        """Plain JSON with every text in it as it may be stored; keys stay as they are."""
        if isinstance(value, str):
            return self.text(value, steps)
        if isinstance(value, list):
            return [self.json(item, (*steps, place)) for place, item in enumerate(value)]
        if isinstance(value, dict):
            if self._refuses:  # a key cannot be masked: programs look for it
                for key in value:
                    self._refuse(self._places(key), (*steps, key))
            return {key: self.json(item, (*steps, key)) for key, item in value.items()}
        return value

    def finish(self) -> None:
        """Refuse what the policy refuses.

        Raises:
            PersonalDataError: With the entities and where they are.
        """
        if self._refused:
            raise PersonalDataError(
                entities=sorted(set().union(*self._refused.values())), paths=list(self._refused)
            )

    def _places(self, text: str) -> list[_Place]:
        """What is in a text, each place once, in order."""
        policy = self._policy
        findings = [
            finding
            for finding in (self._detector.find(text) if text else ())
            if finding.score >= policy.min_score and policy.mode_of(finding.entity) != PIIMode.OFF
        ]
        if any(not 0 <= finding.start < finding.end <= len(text) for finding in findings):
            raise ConfigurationError("The detector found something beside the text.")
        findings.sort(key=lambda finding: (finding.start, finding.end))
        return [self._merged(group) for group in _overlapping(findings)]

    def _merged(self, findings: Sequence[Finding]) -> _Place:
        mode_of = self._policy.mode_of
        best = min(
            findings,
            key=lambda finding: (
                -_STRICTER[mode_of(finding.entity)],
                finding.start - finding.end,
                -finding.score,
                finding.start,
                finding.entity,
            ),
        )
        return _Place(
            best.entity,
            mode_of(best.entity),
            min(finding.start for finding in findings),
            max(finding.end for finding in findings),
            frozenset(f.entity for f in findings if mode_of(f.entity) is PIIMode.REFUSE),
        )

    def _refuse(self, places: Sequence[_Place], steps: Steps) -> None:
        for place in places:
            if place.refused:
                path = path_of(tuple(self._harmless(step) for step in steps))
                self._refused.setdefault(path, set()).update(place.refused)

    def _harmless(self, step: str | int) -> str | int:
        """A key may be somebody's address: an error that names the path must not tell it."""
        return "*" if isinstance(step, str) and self._detector.find(step) else step

    def _replace(
        self, text: str, masked: Sequence[_Place], kept: Sequence[Span]
    ) -> tuple[str, list[Span]]:
        """The text with placeholders, and where all of them are."""
        replaced = [(place.start, place.end, self._placeholder(text, place)) for place in masked]
        replaced += [(start, end, text[start:end]) for start, end in kept]
        pieces: list[str] = []
        spans: list[Span] = []
        length = position = 0
        for start, end, placeholder in sorted(replaced):
            length += start - position
            spans.append((length, length + len(placeholder)))
            pieces += (text[position:start], placeholder)
            length += len(placeholder)
            position = end
        return "".join((*pieces, text[position:])), spans

    def _placeholder(self, text: str, place: _Place) -> str:
        """``[EMAIL_1]``: the same number for the same value, as long as the message lasts."""
        value = text[place.start : place.end].casefold()
        if place.entity in _GROUPED:
            value = "".join(filter(str.isalnum, value))
        numbers = self._numbers.setdefault(place.entity, {})
        return f"[{place.entity}_{numbers.setdefault(value, len(numbers) + 1)}]"


def path_of(steps: Steps) -> str:
    """``$.metadata.cc[0]``, with keys that are no identifiers in quotes."""
    return "$" + "".join(
        f"[{step}]"
        if isinstance(step, int)
        else f".{step}"
        if step.isidentifier() or step == "*"
        else f"[{json.dumps(step, ensure_ascii=False)}]"
        for step in steps
    )


def _overlapping(findings: Sequence[Finding]) -> Iterator[list[Finding]]:
    """Findings in groups of which none overlaps another; they are sorted by where they begin."""
    group: list[Finding] = []
    end = 0
    for finding in findings:
        if group and finding.start >= end:
            yield group
            group, end = [], 0
        group.append(finding)
        end = max(end, finding.end)
    if group:
        yield group


def _apart(places: Sequence[_Place], kept: Sequence[Span]) -> list[_Place]:
    """The places that touch no placeholder of ours; both are in order, and overlap none of theirs.

    A detector that takes ``[PERSON_1]`` for a name would go on for ever.
    """
    starts = [start for start, _ in kept]
    ends = [end for _, end in kept]
    return [
        place
        for place in places
        if bisect_left(starts, place.end) == bisect_right(ends, place.start)
    ]
