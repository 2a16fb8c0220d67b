"""Personal data in what is remembered: treated as the policy of the store says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import MAX_CONTENT_BYTES, check_text
from haive.core.persistence.vector._values import to_json_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haive.core.persistence.privacy import Redactor
    from haive.core.persistence.vector._conversations import Talk
    from haive.core.persistence.vector.models import Memory


def looked_through(
    text: str, metadata: Mapping[str, Any], redactor: Redactor | None
) -> tuple[str, dict[str, Any]]:
    """A text and the caller's metadata as they may be stored.

    Raises:
        PersonalDataError: They have what the policy refuses.
    """
    if redactor is None:
        return text, dict(metadata)
    done, document = redactor.memory(text, to_json_value(metadata, "metadata"))
    return str(done), document


def metadata_looked_through(
    metadata: Mapping[str, Any], redactor: Redactor | None
) -> dict[str, Any]:
    """The metadata of a memory whose text stays as it is.

    Raises:
        PersonalDataError: It has what the policy refuses.
    """
    if redactor is None:
        return dict(metadata)
    return redactor.memory(None, to_json_value(metadata, "metadata"))[1]


def talk_looked_through(talk: Talk, redactor: Redactor | None) -> Talk:
    """A conversation as it may be stored. Whole messages: a value that is cut is not found.

    Raises:
        PersonalDataError: It has what the policy refuses.
    """
    if redactor is None:
        return talk
    for turn in talk.turns:  # the bounds before the search
        check_text(turn.text, f"Message {turn.seq}", MAX_CONTENT_BYTES)
    return replace(
        talk,
        turns=[
            replace(turn, text=looked_through(turn.text, {}, redactor)[0]) for turn in talk.turns
        ],
        metadata=metadata_looked_through(talk.metadata, redactor),
    )


def tagged(memory: Memory, redactor: Redactor | None) -> Memory:
    """A memory whose text and metadata were looked through, with the tags of what stayed."""
    if redactor is None or not redactor.tags:
        return memory
    return replace(memory, metadata=looked_through(memory.text, memory.metadata, redactor)[1])
