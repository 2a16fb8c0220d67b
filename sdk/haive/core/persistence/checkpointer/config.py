"""How checkpoints are made, kept and read."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from haive.core.persistence._encoding import describe
from haive.core.persistence._keys import KeyRing
from haive.core.persistence.checkpointer._paths import parse
from haive.core.persistence.errors import ConfigurationError

Upcaster = Callable[[Any], Any]


class CheckpointStrategy(StrEnum):
    """When `Checkpointer.on_node` saves.

    Whatever the strategy, a state is stored as a delta against its parent, at times against one
    further back, or whole where that is smaller or reading the deltas would cost more.
    """

    ADAPTIVE = "adaptive"
    """Saves what changed, as soon as it matters: when a key of the state appears or disappears,
    when a text, a boolean, None or the member of an enum among its values changes (a status, a
    phase; not a number, which may be a counter), or when ``checkpoint_interval`` nodes have passed
    since the last save. An unchanged state is never saved."""
    EVERY_NODE = "every_node"
    """Saves after each node, changed or not."""
    INTERVAL = "interval"
    """Saves after each ``checkpoint_interval``-th node, changed or not."""
    ON_CHANGE = "on_change"
    """Saves after each node that changed the state."""
    MANUAL = "manual"
    """Leaves saving to `Checkpointer.save`."""


class RecoveryPolicy(StrEnum):
    """Which checkpoint `Checkpointer.recover` takes."""

    LATEST = "latest"
    """The last one."""
    LAST_SUCCESSFUL = "last_successful"
    """The last one that was not marked as failed."""
    LAST_TAGGED = "last_tagged"
    """The last one with the tags asked for, or with any tag."""
    BEFORE_FAILURE = "before_failure"
    """The last one before the first failure: what came after it is not trusted."""
    LAST_READABLE = "last_readable"
    """The last one that can be read: damaged ones, those of a lost key, and those that
    do not fit their class any more, are passed over."""


class CheckpointConfig(BaseModel):
    """Settings of a `Checkpointer`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from None

    auto_checkpoint: bool = True
    """Whether `Checkpointer.on_node` saves at all."""
    checkpoint_interval: int = Field(default=5, ge=1)
    """Nodes between two saves, where the strategy counts them."""

    compression: Literal["zstd", "none"] = "zstd"
    """With ``none`` states are stored whole, as they are packed."""
    encryption_key: KeyRing | None = Field(default=None, repr=False)
    """Seals states, metadata, tags and search terms with AES-256-GCM, under a key for each tenant.
    32 bytes, or their base64 or hexadecimal text; several, separated by commas, make a ring whose
    first one writes. ``haive checkpoints key`` makes one. Only None is no key: an empty text is
    refused. Where it is None and the tenant's content is sealed, so are its checkpoints, with the
    tenant's own keys."""

    max_checkpoints_per_thread: int | None = Field(default=None, ge=1)
    """At most so many stay in a namespace of a thread; the oldest go when a save would exceed it.
    Heads of branches and what a ``DeltaChannel`` is replayed from always stay. Where these alone
    fill it, the rest goes when there are a tenth more than had to stay, two at least."""
    retention_days: float | None = Field(default=None, gt=0, le=365_000, allow_inf_nan=False)
    """`Checkpointer.prune` removes what is older, by the clock of the database."""
    keep_minimum: int = Field(default=1, ge=0)
    """The newest so many of a thread stay, however old. The head of a branch always stays."""
    keep_failed_states: bool = True
    """Whether failed checkpoints are kept apart: not pruned, and not counted."""

    search_paths: tuple[str, ...] | None = None
    """What ``with_state_matching`` finds, as paths such as ``plan.stage``; if not given, the
    scalars at the top of the state, at most 1,000."""
    types: tuple[type, ...] = ()
    """Classes (pydantic models, dataclasses, enums, named tuples) that a restored state may have
    objects of. Those of other classes are restored as plain data; nothing is ever imported."""
    upcaster: Upcaster | None = None
    """Brings a state that was saved by older code up to date: plain data in, plain data out.
    Objects of ``types`` come to it as dicts of their fields, which are objects again afterwards
    unless it puts something else in their places."""
    cache_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Most memory for states that are kept at hand, to make the next delta against: of each its
    bytes and 800 more."""

    @field_validator("encryption_key", mode="before")
    @classmethod
    def _ring(cls, value: object) -> object:
        if isinstance(value, str):
            return KeyRing.parse(value)
        return KeyRing(value) if isinstance(value, bytes) else value

    @field_validator("search_paths")
    @classmethod
    def _are_paths(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for path in value or ():
            parse(path)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        most = self.max_checkpoints_per_thread
        if (
            most is not None
            and "keep_minimum" in self.model_fields_set
            and self.keep_minimum > most
        ):
            raise ConfigurationError("keep_minimum is more than max_checkpoints_per_thread.")
        return self
