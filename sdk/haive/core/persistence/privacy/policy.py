"""What is done with personal data, and with which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from haive.core.persistence._encoding import describe
from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.privacy.detector import Detector  # noqa: TC001 - read by pydantic


class PIIMode(StrEnum):
    """What is done with personal data before it is stored."""

    OFF = "off"
    """Nothing: it is stored, and nobody looks for it."""
    TAG = "tag"
    """It is stored, and where it stands is told beside it."""
    MASK = "mask"
    """A placeholder is stored in its place."""
    REFUSE = "refuse"
    """Nothing is stored, and the caller gets an error."""


Modes = Annotated[
    Mapping[str, PIIMode],
    AfterValidator(lambda modes: MappingProxyType(dict(modes))),
    PlainSerializer(dict),
]


class PIIPolicy(BaseModel):
    """Which personal data is looked for, and what is done with it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from None

    mode: PIIMode = PIIMode.MASK
    """For all entities that `overrides` does not name."""
    entities: frozenset[str] | None = None
    """Look for these alone; for all that the detector finds if not given."""
    overrides: Modes = Field(default_factory=dict, validate_default=True)
    """Modes of single entities: ``{"SECRET": "refuse", "IP_ADDRESS": "off"}``."""
    detector: Literal["patterns", "presidio"] | Detector = "patterns"
    """``patterns``, ``presidio`` (of the extra ``pii``, without a model), or one of your own."""
    min_score: float = Field(default=0.5, ge=0, le=1)
    """Findings that the detector is less sure of are let go."""

    def mode_of(self, entity: str) -> PIIMode:
        """What is done with an entity."""
        if self.entities is not None and entity not in self.entities:
            return PIIMode.OFF
        return self.overrides.get(entity, self.mode)

    def does(self, *modes: PIIMode) -> bool:
        """Whether any entity is treated in one of these ways."""
        return not {self.mode, *self.overrides.values()}.isdisjoint(modes)
