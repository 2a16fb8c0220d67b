"""What the owner of a stack asks its supervisor for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSettings:
    """The settings of one stack, as they travel to its supervisor.

    Attributes:
        data_dir: Where the data stays; None for a directory that dies with the stack.
        schemas: The schemas that PostgREST exposes.
        postgres_settings: Server settings over the stack's own.
        pause_for_migration: Wait for the owner's word before PostgREST reads the schema.
    """

    data_dir: str | None
    schemas: tuple[str, ...]
    postgres_settings: dict[str, str]
    pause_for_migration: bool

    def to_json(self) -> bytes:
        """Return the settings as one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> StackSettings:
        """Return the settings of a line."""
        return cls(**json.loads(line))
