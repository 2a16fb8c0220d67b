"""How sessions live, branch, merge and find each other."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from haive.core.persistence._encoding import describe
from haive.core.persistence.embedding import Embedder, HashingEmbedder
from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.language import ChatModel  # noqa: TC001 - pydantic reads it
from haive.core.persistence.session.models import ThreadingStrategy


class SessionConfig(BaseModel):
    """Settings of a `SessionManager`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from None

    default_ttl: int | None = Field(default=3600, gt=0, le=2_147_483_647)
    """Seconds that a session stays open after its last message, by the database's clock; None for
    ever. Each session keeps the one that it began with."""
    max_messages_per_session: int | None = Field(default=1000, gt=0, le=2_147_483_647)
    """With so many messages, those of its parents included, a session goes on in a successor."""
    enable_branching: bool = True
    """Whether `SessionManager.branch_session` may be called, and sessions may have parents."""
    enable_merging: bool = True
    """Whether `SessionManager.merge_sessions` may be called."""

    threading_strategy: ThreadingStrategy = ThreadingStrategy.LINEAR
    """How `SessionManager.thread_message` finds the session of a message."""
    topic_similarity_threshold: float = Field(default=0.8, ge=0, le=1)
    """How alike a message and a session have to be for it to be of the session's topic, 0 to 1, as
    the embedder's calibration counts: higher makes more sessions."""
    time_gap: float = Field(default=1800, gt=0, allow_inf_nan=False)
    """With TIME_BASED, seconds of silence after which a message begins a new session."""
    max_open_sessions: int = Field(default=20, ge=1, le=100)
    """With TOPIC_BASED, how many of the latest open sessions a message is compared with."""

    embedder: Embedder = Field(default_factory=HashingEmbedder, repr=False)
    """What topics and near-duplicates are told by. The default needs no model."""
    near_duplicate: float = Field(default=0.92, gt=0, le=1)
    """How much the same two messages have to be for a merge to drop one, 0 to 1."""
    chat: ChatModel | None = Field(default=None, repr=False)
    """A language model for merges: it resolves contradictions and writes summaries. Without one,
    summaries are extracts."""
    on_model_error: Literal["raise", "go_without"] = "raise"
    """Whether a merge fails or goes on without the language model when that does not answer."""
