"""Personal data is tagged, masked or refused in what is about to be stored."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import (
    MAX_CONTENT_BYTES,
    MAX_PARTS_BYTES,
    TAGS,
    check_text,
    object_to_json,
    to_json,
)
from haive.core.persistence._rows import checked_parts, json_of_parts
from haive.core.persistence.errors import ConfigurationError, InvalidInputError
from haive.core.persistence.models import ImagePart, TextPart, ToolCallPart, ToolResultPart
from haive.core.persistence.privacy._masking import Masking
from haive.core.persistence.privacy.patterns import PatternDetector
from haive.core.persistence.privacy.policy import PIIMode
from haive.core.persistence.privacy.presidio import PresidioDetector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haive.core.persistence.models import ContentPart, NewMessage
    from haive.core.persistence.privacy.detector import Detector
    from haive.core.persistence.privacy.policy import PIIPolicy

# By these a program finds a part again; they say nothing of anybody.
_IDS: dict[type[ContentPart], frozenset[str]] = {
    TextPart: frozenset({"type"}),
    ToolCallPart: frozenset({"type", "id", "name"}),
    ToolResultPart: frozenset({"type", "tool_call_id"}),
}
# Participants are users, named as in user_id.
_CONVERSATION_TEXTS = ("title", "tags", "context", "settings")


@dataclass(frozen=True, slots=True)
class Redacted:
    """A value as it may be stored."""

    value: Any
    tags: list[dict[str, Any]]
    """What was found and stays: ``entity``, ``field`` (a JSON path), ``start`` and ``end`` (code
    points of the text as it is stored). No values."""


class Redactor:
    """Applies a policy to what is about to be stored.

    The same input always gives the same output, so a write that is repeated by its id stays one.
    Keys of JSON are never changed; ids, roles, names of tools, participants, users and agents are
    not looked at, nor are images and what stands beside them. Numbers that are no text in JSON are
    not looked at either.

    Checkpoints and items of LangGraph's store are not redacted: a state belongs to the program that
    reads it back.

    Args:
        policy: What is done with what.

    Raises:
        ConfigurationError: The policy names an entity that its detector cannot find, or the
            detector is not installed.
    """

    def __init__(self, policy: PIIPolicy) -> None:
        self.policy = policy
        self._detector = _detector(policy)
        named = {*(policy.entities or ()), *policy.overrides}
        if unknown := named - self._detector.entities:
            raise ConfigurationError(
                f"The detector does not find {', '.join(sorted(unknown))}.",
                hint=f"It finds {', '.join(sorted(self._detector.entities))}.",
            )

    @property
    def tags(self) -> bool:
        """Whether anything is tagged."""
        return self.policy.does(PIIMode.TAG)

    def apply(self, value: object) -> Redacted:
        """A text, or any JSON with all texts in it.

        Raises:
            PersonalDataError: It has what the policy refuses.
            InvalidInputError: It is no JSON.
        """
        masking = Masking(self.policy, self._detector)
        try:
            done = masking.json(_plain(value, "value"), ())
        except RecursionError:
            raise InvalidInputError("The value is nested too deeply.") from None
        masking.finish()
        return Redacted(done, masking.tags)

    def message(
        self,
        content: str | Sequence[ContentPart | dict[str, Any]],
        metadata: dict[str, Any] | None,
    ) -> tuple[str | list[ContentPart], dict[str, Any]]:
        """Content and metadata of a message, with the tags in the metadata.

        Raises:
            PersonalDataError: They have what the policy refuses.
            InvalidInputError: They cannot be stored.
        """
        masking = Masking(self.policy, self._detector)
        done: str | list[ContentPart]
        if isinstance(content, str):
            checked = check_text(content, "content", MAX_CONTENT_BYTES)
            done = masking.text(checked, ("content",))
        else:
            parts = checked_parts(content)
            # The bounds before the search: a text that is refused for its size is not read first.
            stored = json.loads(json_of_parts(parts))
            done = [
                _part(part, fields, masking, place)
                for place, (part, fields) in enumerate(zip(parts, stored, strict=True))
            ]
        document = {} if metadata is None else json.loads(object_to_json(metadata, "metadata"))
        document = _walk(masking, self._untagged(document), "metadata")
        masking.finish()
        return done, _with_tags(document, masking.tags)

    def new_message(self, message: NewMessage) -> NewMessage:
        """A `NewMessage` as it may be stored."""
        content, metadata = self.message(message.content, message.metadata)
        return message.model_copy(update={"content": content, "metadata": metadata})

    def memory(
        self, text: str | None, metadata: Mapping[str, Any]
    ) -> tuple[str | None, dict[str, Any]]:
        """Text and metadata of a memory, with the tags in the metadata.

        Args:
            text: What is remembered; None where it stays as it is, and so do its tags.
            metadata: JSON that the caller gave beside.

        Raises:
            PersonalDataError: They have what the policy refuses.
        """
        masking = Masking(self.policy, self._detector)
        done = None if text is None else masking.text(text, ("text",))
        document = _walk(masking, self._untagged(dict(metadata)), "metadata")
        masking.finish()
        kept = []
        if text is None and self.tags:
            kept = [tag for tag in _tags_of(metadata) if _field(tag) == "text"]
        return done, _with_tags(document, kept + masking.tags)

    def conversation(
        self, fields: Mapping[str, Any], stored: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Fields of a conversation's metadata, with the tags in its context.

        Args:
            fields: Those that are written.
            stored: The others as they are, whose tags stay.

        Raises:
            PersonalDataError: They have what the policy refuses.
            InvalidInputError: They cannot be stored.
        """
        masking = Masking(self.policy, self._detector)
        done = dict(fields)
        for field in _CONVERSATION_TEXTS:
            if done.get(field) is not None:
                document = _plain(done[field], field)
                if field == "context":
                    document = self._untagged(document)
                done[field] = _walk(masking, document, field)
        masking.finish()
        if self.tags:
            before = {} if stored is None else stored["context"]
            tags = [tag for tag in _tags_of(before) if _field(tag) not in fields] + masking.tags
            context = _with_tags(self._untagged(done.get("context", before)), tags)
            if "context" in done or context != before:
                done["context"] = context
        return done

    def _untagged(self, document: dict[str, Any]) -> dict[str, Any]:
        """Without tags that somebody wrote there: they are what this store has found."""
        if not self.tags:
            return document
        return {key: value for key, value in document.items() if key != TAGS}


def redactor_for(policy: PIIPolicy | None) -> Redactor | None:
    """What a store applies to each write; none where there is nothing to do."""
    if policy is None:
        return None
    redactor = Redactor(policy)
    acts = policy.does(PIIMode.TAG, PIIMode.MASK, PIIMode.REFUSE)
    return redactor if acts else None


def _detector(policy: PIIPolicy) -> Detector:
    if policy.detector == "patterns":
        return PatternDetector()
    if policy.detector == "presidio":
        return PresidioDetector(min_score=policy.min_score)
    return policy.detector


def _plain(value: object, name: str) -> Any:
    """What is stored of a value: of a date its text, of a model its fields."""
    return json.loads(to_json(value, name, MAX_PARTS_BYTES))


def _walk(masking: Masking, document: Any, name: str) -> Any:
    try:
        return masking.json(document, (name,))
    except RecursionError:
        raise InvalidInputError(f"{name} is nested too deeply.") from None


def _part(part: ContentPart, fields: dict[str, Any], masking: Masking, place: int) -> ContentPart:
    if isinstance(part, ImagePart):
        return part
    kept = _IDS[type(part)]
    try:
        done = {
            name: value if name in kept else masking.json(value, ("content", place, name))
            for name, value in fields.items()
        }
    except RecursionError:
        raise InvalidInputError("content is nested too deeply.") from None
    return part if done == fields else type(part).model_validate(done)


def _with_tags(document: dict[str, Any], tags: list[dict[str, Any]]) -> dict[str, Any]:
    return {**document, TAGS: tags} if tags else document


def _tags_of(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tags of an earlier write, as far as they are any."""
    stored = context.get(TAGS)
    if not isinstance(stored, list):
        return []
    return [tag for tag in stored if isinstance(tag, dict) and isinstance(tag.get("field"), str)]


def _field(tag: dict[str, Any]) -> str:
    """``context`` of ``$.context.customer[0]``."""
    return str(re.match(r"\$?\.?([a-z_]*)", tag["field"])[1])  # type: ignore[index] # it matches ""
