"""What is stored: conversations, messages, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

# Under which a sum of money is.
_MOST_MONEY = 1_000_000_000_000


def aware(value: datetime) -> datetime:
    """A naive datetime is UTC: ``datetime.utcnow()`` makes such ones."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _exact(value: object) -> object:
    """0.0195 is meant as it is written, and 0.1 + 0.2 as 0.3: floats are rounded to 12 places.

    What is beyond the bound has more digits than are rounded, and is refused by it.
    """
    if not isinstance(value, float) or not abs(value) < _MOST_MONEY:
        return value
    written = Decimal(repr(value))
    return written if written == (rounded := round(written, 12)) else rounded.normalize()


Timestamp = Annotated[datetime, AfterValidator(aware)]
Money = Annotated[
    Decimal,
    # First, beside the type: behind the others, pydantic checks the bounds in Python.
    Field(ge=0, lt=_MOST_MONEY, decimal_places=12, allow_inf_nan=False),
    BeforeValidator(_exact),
    PlainSerializer(str, return_type=str, when_used="json"),
]
MOST_TOKENS = 2_147_483_647
Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Json = dict[str, Any]


class _Value(BaseModel):
    # What is stored is somebody's data: an error names the field and never the value.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class MessageRole(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class TokenUsage(_Value):
    """What a model read and wrote, and what that cost.

    ``total_tokens`` is the sum and may be left out. ``cost`` is exact: a float is taken as it is
    written (0.0195 and not 0.01949999…), and stays a `Decimal`.
    """

    input_tokens: Tokens
    output_tokens: Tokens
    if TYPE_CHECKING:  # what pydantic accepts is more than what it keeps
        total_tokens: int
    else:
        total_tokens: Tokens | None = None
    model: Name | None = None
    cost: Money | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            input_tokens: int,
            output_tokens: int,
            total_tokens: int | None = None,
            model: str | None = None,
            cost: Decimal | float | None = None,
        ) -> None: ...

    # After and not before: that would be given a dict, made of the JSON for it alone, which is a
    # quarter of the time of reading messages.
    @model_validator(mode="after")
    def _sum(self) -> Self:
        total = self.input_tokens + self.output_tokens
        given = self.__dict__["total_tokens"]
        if total > MOST_TOKENS:
            raise ValueError(f"total_tokens is over {MOST_TOKENS}")
        if given is None:
            self.__dict__["total_tokens"] = total
        elif given != total:
            raise ValueError("total_tokens is not the sum of input_tokens and output_tokens")
        return self


class _Part(_Value):
    """A piece of content. What a provider adds to it (cache hints, annotations) is kept."""

    model_config = ConfigDict(extra="allow")


class TextPart(_Part):
    """Text."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(_Part):
    """An image, by its address or as base64."""

    type: Literal["image"] = "image"
    url: str | None = None
    data: str | None = None
    media_type: str | None = None

    @model_validator(mode="after")
    def _a_source(self) -> Self:
        if self.url is None and self.data is None:
            raise ValueError("an image has a url or data")
        return self


class ToolCallPart(_Part):
    """A model calls a tool."""

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: Json = Field(default_factory=dict)


class ToolResultPart(_Part):
    """What a tool answered."""

    type: Literal["tool_result"] = "tool_result"
    tool_call_id: str
    content: Any = None
    is_error: bool = False


ContentPart = Annotated[
    TextPart | ImagePart | ToolCallPart | ToolResultPart, Field(discriminator="type")
]
Content = str | Sequence[ContentPart]
# Text is tried first and nothing after it: a fifth of the time of reading a message.
TextOrParts = Annotated[str | list[ContentPart], Field(union_mode="left_to_right")]


class ConversationMetadata(_Value):
    """What is known of a conversation beside its messages."""

    title: Annotated[str, Field(max_length=1000)] | None = None
    tags: list[str] = Field(default_factory=list, max_length=1000)
    context: Json = Field(default_factory=dict)
    participants: list[str] = Field(default_factory=list, max_length=1000)
    settings: Json = Field(default_factory=dict)


class NewMessage(_Value):
    """A message to write."""

    conversation_id: UUID
    role: MessageRole
    content: TextOrParts
    metadata: Json = Field(default_factory=dict)
    token_usage: TokenUsage | None = None
    id: UUID | None = None
    created_at: Timestamp | None = None


class Message(_Value):
    """A message as it is stored."""

    id: UUID
    conversation_id: UUID
    seq: int
    """1, 2, 3 … in its conversation, without gaps."""
    role: MessageRole
    content: TextOrParts
    metadata: Json
    token_usage: TokenUsage | None = None
    created_at: datetime

    @property
    def text(self) -> str:
        """The text of the content, whatever parts it has."""
        return text_of(self.content)


class NewConversation(_Value):
    """A conversation to begin."""

    agent_id: Name
    user_id: Name | None = None
    metadata: ConversationMetadata = Field(default_factory=ConversationMetadata)
    id: UUID | None = None
    created_at: Timestamp | None = None


class Conversation(_Value):
    """A conversation as it is stored, with its counters."""

    id: UUID
    tenant_id: str
    agent_id: str
    user_id: str | None
    metadata: ConversationMetadata
    message_count: int
    input_tokens: int
    output_tokens: int
    cost: Decimal
    """The sum of the messages' costs."""
    created_at: datetime
    updated_at: datetime
    last_message_at: datetime
    """When the last message was written; while there is none, `created_at`."""
    messages: list[Message] | None = None
    """The last messages, where they were asked for."""

    @property
    def total_tokens(self) -> int:
        """All tokens, read and written."""
        return self.input_tokens + self.output_tokens


class Page(list[Conversation]):
    """Conversations in order, and where the next page begins."""

    next_page: str | None

    def __init__(self, items: Sequence[Conversation] = (), *, next_page: str | None = None) -> None:
        super().__init__(items)
        self.next_page = next_page


def text_of(content: Content) -> str:
    """The text of a message: that of its text parts, joined by line ends."""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if isinstance(part, TextPart))
