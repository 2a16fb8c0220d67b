"""Exports of audit logs: JSON lines that can be verified where there is no database.

The first line is the header, ``{"format", "tenant", "after", "hash"}``, with the hash that the
first row follows. Each other line is a row, ``{"seq", "hash", "entry"}``: entry is the exact text
that the hash covers, a JSON array of the columns.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from haive.core.persistence.audit.models import AuditHead, Hash, Reason, Verification
from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from haive.core.persistence.audit._keys import AuditKey


class Header(BaseModel):
    """The first line of an export."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    format: Literal["haive audit 1"] = "haive audit 1"
    tenant: str
    after: int
    hash: Hash


class Row(BaseModel):
    """A line of an export."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    seq: int
    hash: Hash
    entry: str


ROWS = TypeAdapter(list[Row])


def verify_export(
    path: str | Path,
    head: AuditHead | Sequence[AuditHead] | None = None,
    *,
    key: AuditKey | None = None,
) -> Verification:
    """Check the chain of an export, and that it holds the heads that were kept.

    Args:
        path: The file; packed if it ends in ``.gz``.
        head: One or several heads of the tenant. Without one, a cut end cannot be told.
        key: The key that the heads must be signed by.

    Raises:
        AuditSignatureError: A head is not signed by the key.
        InvalidInputError: The file is no export, or a head is of another tenant.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            return _verify(lines, path, as_heads(head), key)
    except (OSError, EOFError) as error:
        raise InvalidInputError(f"{path} cannot be read.") from error


def as_heads(head: AuditHead | Sequence[AuditHead] | None) -> list[AuditHead]:
    """One head, several or none as a list, the earliest first."""
    if head is None:
        return []
    given = [head] if isinstance(head, AuditHead) else [*head]
    return sorted(given, key=lambda one: one.seq)


def check_heads(heads: Sequence[AuditHead], tenant: str, key: AuditKey | None) -> None:
    """Check whose heads they are.

    Raises:
        AuditSignatureError: One is not signed by the key.
        InvalidInputError: One is of another tenant.
    """
    for one in heads:
        if one.tenant != tenant:
            raise InvalidInputError(
                f"The head is of the tenant {one.tenant}, and the log of {tenant}.",
                hint="Name the tenant with tenant or --tenant.",
            )
        if key is not None:
            key.check(one)


def _verify(
    lines: Iterable[bytes], path: Path, heads: Sequence[AuditHead], key: AuditKey | None
) -> Verification:
    rows = iter(lines)
    try:
        header = Header.model_validate_json(next(rows, b""))
    except ValidationError:
        raise InvalidInputError(
            f"{path} is no export of an audit log.", hint="`haive audit export` writes one."
        ) from None
    check_heads(heads, header.tenant, key)
    kept = {one.seq: one.hash for one in heads}
    seq, last = header.after, header.hash
    reason: Reason | None = None
    if kept.get(seq, last) != last:
        reason, bad = "rewritten", seq
    while reason is None and (line := next(rows, None)) is not None:
        bad = seq + 1
        row = _row(line)
        if row is None:
            reason = "unreadable"
        elif row.seq > bad:
            reason = "missing"
        elif not _follows(row, header.tenant, bad, last):
            reason = "changed"
        else:
            seq, last = row.seq, row.hash
            if kept.get(seq, last) != last:
                reason = "rewritten"
    if reason is None and heads and heads[-1].seq > seq:
        reason, bad = "missing", seq + 1
    return Verification(
        tenant=header.tenant,
        ok=reason is None,
        bad_seq=None if reason is None else bad,
        reason=reason,
        checked=seq - header.after,
        seq=seq,
        hash=last,
        heads=len(heads),
    )


def _follows(row: Row, tenant: str, seq: int, last: str) -> bool:
    covered = bytes.fromhex(last) + row.entry.encode()
    return (
        row.seq == seq
        and _entry(row.entry)[:2] == [tenant, seq]
        and hashlib.sha256(covered).hexdigest() == row.hash
    )


def _row(line: bytes) -> Row | None:
    try:
        return Row.model_validate_json(line)
    except ValidationError:
        return None


def _entry(text: str) -> list[Any]:
    try:
        entry = json.loads(text)
    except ValueError:
        return []
    return entry if isinstance(entry, list) else []
