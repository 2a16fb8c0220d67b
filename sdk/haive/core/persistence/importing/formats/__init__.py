"""The formats that can be imported: each makes a draft of one record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haive.core.persistence.importing.formats import chatgpt, dialogues, haive, openai

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haive.core.persistence.importing.detect import FormatName
    from haive.core.persistence.importing.records import ConversationDraft

    Drafter = Callable[[object, str], ConversationDraft]

DRAFTERS: Mapping[FormatName, Drafter] = {
    "chatgpt": chatgpt.draft,
    "dialogues": dialogues.draft,
    "haive": haive.draft,
    "openai": openai.draft,
}

__all__ = ["DRAFTERS"]
