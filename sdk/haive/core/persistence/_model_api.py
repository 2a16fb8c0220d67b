"""Requests to an OpenAI-compatible API."""

from __future__ import annotations

import asyncio
import os
import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self

import httpx
import orjson
from pydantic import SecretStr

from haive.core.persistence._tls import tls_context
from haive.core.persistence.errors import (
    ConfigurationError,
    ModelAccessError,
    ModelAnswerError,
    ModelError,
    ModelLimitError,
    ModelRequestError,
    ModelUnavailableError,
)

if TYPE_CHECKING:
    from types import TracebackType

_OPENAI = "https://api.openai.com/v1"
_OPENAI_HOST = "api.openai.com"
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
# No embedding of a batch and no answer of a chat is this large.
_MOST_BYTES = 256 * 1024 * 1024
# What a header takes, and a key has.
_KEY = re.compile(r"[!-~]*")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
# What no waiting brings back.
_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """What was used of an API since the object was made."""

    requests: int = 0
    """Answered ones."""
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def cost(self, input_price: float, output_price: float = 0.0) -> float:
        """What it costs by the prices of a million tokens, in their currency."""
        return (self.input_tokens * input_price + self.output_tokens * output_price) / 1_000_000


class ModelApi:
    """Asks an API, and asks again when it is busy or away.

    A 429 or a 5xx, a lost connection and a time-out are tried again with growing and scattered
    pauses, or after as long as Retry-After says. Redirects are not followed, as the key would go
    along. What the API says of an error is not passed on, but for its code: it can quote what was
    sent.

    Args:
        base_url: Up to and with the version: ``http://localhost:11434/v1``; ``OPENAI_BASE_URL``
            from the environment if not given, else OpenAI's.
        api_key: ``OPENAI_API_KEY`` from the environment if not given; OpenAI's needs one.
        timeout: Seconds for one try.
        max_retries: Tries after the first one.
        max_wait: Seconds; where Retry-After says more, the error is raised at once.

    Raises:
        ConfigurationError: The address or the key is none, or the key is missing.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: SecretStr | str | None = None,
        timeout: float = 60.0,
        max_retries: int = 4,
        max_wait: float = 60.0,
    ) -> None:
        url = base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL:
            raise ConfigurationError("The base_url is no address.") from None
        if parts.scheme not in {"http", "https"} or not parts.host:
            raise ConfigurationError("A base_url begins with https:// or http://.")
        if timeout <= 0 or max_retries < 0 or max_wait < 0:
            raise ConfigurationError("timeout is over 0, max_retries and max_wait are 0 or more.")
        given = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
        key = given if given is not None else os.environ.get("OPENAI_API_KEY", "")
        if not _KEY.fullmatch(key):
            source = "OPENAI_API_KEY" if given is None else "api_key"
            raise ConfigurationError(
                f"{source} has a space, a line end or another sign that no key has."
            )
        # Also in a region: eu.api.openai.com.
        self.is_openai = f".{parts.host}".endswith(f".{_OPENAI_HOST}")
        if not key and self.is_openai:
            raise ConfigurationError(
                "No key for the model's API.",
                hint="Pass api_key or set OPENAI_API_KEY, or pass the base_url of another server.",
            )
        self._url = url.rstrip("/")
        self._key = SecretStr(key)
        self._timeout = timeout
        self._max_retries = max_retries
        self._max_wait = max_wait
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._usage = ModelUsage()

    @property
    def usage(self) -> ModelUsage:
        """What was used since this object was made."""
        return self._usage

    async def aclose(self) -> None:
        """Close the connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a JSON object and return the one that is answered.

        Raises:
            ModelError: The request was refused, or every try failed.
        """
        document = await self.post_any(path, body)
        if not isinstance(document, dict):
            raise ModelAnswerError("The model's API did not answer with a JSON object.", status=200)
        return document

    async def post_any(self, path: str, body: dict[str, Any]) -> Any:
        """Send a JSON object and return what is answered: one of the kinds of JSON.

        Raises:
            ModelError: The request was refused, or every try failed.
        """
        try:
            content = orjson.dumps(body)
        except orjson.JSONEncodeError:
            raise ModelRequestError(
                "What is asked of the model's API is no JSON.",
                hint="Half of a surrogate pair in a text is not, nor are bytes.",
            ) from None
        for tried in range(self._max_retries + 1):
            try:
                return await self._try(path, content)
            except (ModelLimitError, ModelUnavailableError) as error:
                asked = error.retry_after if isinstance(error, ModelLimitError) else None
                if not error.retryable or tried == self._max_retries:
                    raise
                delay = min(_FIRST_DELAY * 2**tried, _LONGEST_DELAY)
                pause = delay * random.uniform(0.5, 1.0)  # no secret # noqa: S311 # nosec B311
                if asked is not None:
                    if asked > self._max_wait:
                        raise
                    pause = max(pause, asked)
            self._count(retries=1)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")  # pragma: no cover

    def count(self, usage: object) -> None:
        """Add what an answer says it has used, as far as it says so."""
        tokens = usage if isinstance(usage, dict) else {}
        read, written = (
            value if isinstance(value := tokens.get(name), int) and value > 0 else 0
            for name in ("prompt_tokens", "completion_tokens")
        )
        self._count(requests=1, input_tokens=read, output_tokens=written)

    def _count(self, **more: int) -> None:
        before = self._usage
        self._usage = ModelUsage(
            requests=before.requests + more.get("requests", 0),
            retries=before.retries + more.get("retries", 0),
            input_tokens=before.input_tokens + more.get("input_tokens", 0),
            output_tokens=before.output_tokens + more.get("output_tokens", 0),
        )

    async def _try(self, path: str, content: bytes) -> Any:
        client = self._opened()  # reads certificates, which is no time of the server's
        try:
            async with asyncio.timeout(self._timeout):
                status, headers, answer = await self._send(client, path, content)
        except (TimeoutError, httpx.TimeoutException):
            raise ModelUnavailableError("The model's API did not answer in time.") from None
        except httpx.TransportError as error:
            raise ModelUnavailableError(
                f"The connection to the model's API failed ({type(error).__name__})."
            ) from None
        except httpx.RequestError as error:
            raise ModelAnswerError(
                f"The answer of the model's API is damaged ({type(error).__name__})."
            ) from None
        if not 200 <= status < 300:
            raise _refusal(status, headers, answer)
        try:
            return orjson.loads(answer)
        except orjson.JSONDecodeError:
            raise ModelAnswerError(
                "The model's API did not answer with JSON.", status=status
            ) from None

    async def _send(
        self, client: httpx.AsyncClient, path: str, content: bytes
    ) -> tuple[int, httpx.Headers, bytes]:
        headers = {"content-type": "application/json", "accept": "application/json"}
        if key := self._key.get_secret_value():
            headers["authorization"] = f"Bearer {key}"
        async with client.stream(
            "POST", f"{self._url}/{path}", content=content, headers=headers
        ) as response:
            pieces: list[bytes] = []
            size = 0
            async for piece in response.aiter_bytes():
                size += len(piece)
                if size > _MOST_BYTES:
                    raise ModelAnswerError("The answer of the model's API is too large.")
                pieces.append(piece)
            return response.status_code, response.headers, b"".join(pieces)

    def _opened(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Connections belong to the loop that opened them; those of one that is gone are too.
            self._client = httpx.AsyncClient(
                verify=tls_context(), timeout=self._timeout, follow_redirects=False
            )
            self._loop = loop
        return self._client


def _refusal(status: int, headers: httpx.Headers, answer: bytes) -> ModelError:
    code = _code(answer)
    said = f"HTTP {status}" + (f", {code}" if code else "")
    if status == 429:
        error = ModelLimitError(
            f"Too much was asked of the model's API ({said}).",
            status=status,
            code=code,
            retry_after=_retry_after(headers),
        )
        if code in _SPENT:
            error.retryable = False
            error.hint = "The account has nothing left."
        return error
    if status in {401, 403}:
        return ModelAccessError(
            f"The model's API refuses the key ({said}).", status=status, code=code
        )
    if status >= 500 or status in {408, 409, 425}:
        return ModelUnavailableError(f"The model's API failed ({said}).", status=status, code=code)
    if 300 <= status < 400:
        return ModelRequestError(
            f"The model's API is elsewhere ({said}).", hint="Set its base_url.", status=status
        )
    return ModelRequestError(
        f"The model's API refuses the request ({said}).",
        hint="Check the model's name and its limits.",
        status=status,
        code=code,
    )


def _code(answer: bytes) -> str | None:
    """The code of an error, if it has the letters of one: it is shown."""
    try:
        error = orjson.loads(answer)["error"]
        code = error.get("code") or error.get("type")
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, IndexError):
        return None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds that the server asks to wait: as a number, as milliseconds, or until a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return min(max(float(headers[name]) * unit, 0.0), 1e9)
        except (KeyError, ValueError):
            continue
    try:
        until = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    until = until.replace(tzinfo=UTC) if until.tzinfo is None else until
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)
