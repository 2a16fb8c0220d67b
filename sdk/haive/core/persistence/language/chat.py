"""What answers in words."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class ChatModel(Protocol):
    """A language model that answers one prompt."""

    @property
    def name(self) -> str:
        """What answered, recorded beside it."""

    async def complete(self, prompt: str, *, system: str = "", max_tokens: int = 512) -> str:
        """Answer a prompt.

        Raises:
            ModelError: There is no answer.
        """
