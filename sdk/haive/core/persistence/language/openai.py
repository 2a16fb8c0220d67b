"""Answers from an OpenAI-compatible API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence._model_api import ModelApi
from haive.core.persistence.errors import ModelAnswerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})


class OpenAIChat(ModelApi):
    """Asks the chat completions of an OpenAI-compatible API.

    Args:
        model: As the API calls it.
        options: More fields of the request, as ``{"temperature": 0}``; some models refuse some. A
            limit of tokens among them is in the place of ``max_tokens``.
        base_url: Up to and with the version: ``http://localhost:11434/v1``; ``OPENAI_BASE_URL``
            from the environment if not given, else OpenAI's.
        api_key: ``OPENAI_API_KEY`` from the environment if not given; OpenAI's needs one.
        timeout: Seconds for one try of a request.
        max_retries: Tries after the first one.
        max_wait: Seconds; where the API asks to wait longer, its error is raised at once.

    Raises:
        ConfigurationError: The address or the key is none, or the key is missing.
    """

    def __init__(
        self,
        model: str,
        *,
        options: Mapping[str, Any] | None = None,
        base_url: str | None = None,
        api_key: SecretStr | str | None = None,
        timeout: float = 60.0,
        max_retries: int = 4,
        max_wait: float = 60.0,
    ) -> None:
        super().__init__(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            max_retries=max_retries,
            max_wait=max_wait,
        )
        self._model = model
        self._options = dict(options or {})

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model

    async def complete(self, prompt: str, *, system: str = "", max_tokens: int = 512) -> str:
        """Answer a prompt.

        Raises:
            ModelError: The request was refused or failed, or the answer has no text or no end.
        """
        # OpenAI's newer models know this name alone, other servers the old one.
        name = "max_completion_tokens" if self.is_openai else "max_tokens"
        limit = {} if _LIMITS & self._options.keys() else {name: max_tokens}
        messages = [{"role": "user", "content": prompt}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        answer = await self.post(
            "chat/completions",
            {"model": self._model, "messages": messages, **limit, **self._options},
        )
        self.count(answer.get("usage"))
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise ModelAnswerError("The model's API answered without a message.") from None
        if choice.get("finish_reason") == "length":
            raise ModelAnswerError(
                "The model's answer has no end.", hint="It ran out of tokens; allow it more."
            )
        if not isinstance(text, str) or not text.strip():
            raise ModelAnswerError("The model answered without a text.")
        return text
