"""What the audit log is made of."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Reason = Literal["changed", "missing", "added", "rewritten", "unreadable"]
Hash = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
_Seq = Annotated[int, Field(ge=0, lt=2**63)]

_TOLD = {
    "changed": "row {seq} is not as it was written, or what it follows is not",
    "missing": "row {seq} is missing",
    "added": "row {seq} was added beside the chain",
    "rewritten": "row {seq} is not the one whose head was kept: it or one before was rewritten",
    "unreadable": "row {seq} cannot be read",
}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class AuditEntry(_Model):
    """One statement that wrote, or one read where reads are on record."""

    seq: int
    """1, 2, 3 … without gaps, in the order of commits."""
    at: datetime
    """When the statement ran."""
    actor: str | None
    """The user (``sub`` of the token); None for a key or a direct connection."""
    login: str
    """Who the session belongs to; ``authenticator`` for the REST API."""
    role: str
    """The role that it acted as."""
    action: str
    """``insert``, ``update``, ``delete`` or ``read``."""
    object: str
    """The table, or for a read the function."""
    rows: dict[str, Any]
    """By the id of a row what there is to say of it; at most 1,000, and ``more``."""
    row_count: int
    address: str | None
    application: str | None
    request_id: str | None
    hash: Hash
    """SHA-256 of the hash before it and of the row, in hex."""


class AuditHead(_Model):
    """Where a log ends. Kept elsewhere it proves what the log was up to there."""

    tenant: str
    seq: _Seq
    """How many rows there are."""
    hash: Hash
    """The hash of the last one; empty where there is none."""
    at: datetime
    algorithm: str | None = None
    key_id: str | None = None
    signature: str | None = None
    """In base64; None where nobody signed it."""


class Verification(_Model):
    """What a check of a log found."""

    tenant: str
    ok: bool
    bad_seq: int | None = None
    """The first row that is not as it was written; with ``rewritten`` it or one before it."""
    reason: Reason | None = None
    checked: int
    """Rows whose hash was computed anew."""
    seq: int
    """The last of them."""
    hash: Hash
    heads: int = 0
    """How many heads that were kept it was held against. Without one, a cut end of an export and a
    log that was rewritten as a whole cannot be told."""

    @property
    def finding(self) -> str:
        """What was found, as a sentence without its full stop."""
        if self.reason is None:
            return f"the chain holds, {self.checked:,} rows"
        return _TOLD[self.reason].format(seq=self.bad_seq)
