"""The audit log of a store's tenant."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from pydantic import BaseModel, TypeAdapter

from haive.core.persistence.audit._export import ROWS, Header, Row, as_heads, check_heads
from haive.core.persistence.audit._keys import AuditKey
from haive.core.persistence.audit.models import AuditEntry, AuditHead, Reason, Verification
from haive.core.persistence.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from haive.core.persistence.store import Store

_ENTRIES = TypeAdapter(list[AuditEntry])
_HEAD = TypeAdapter(AuditHead)
# Of an export: a row of many ids has 50 kB.
_PAGE = 500
# A second of the server's, and well within the time that a hosted API gives a statement.
_STEP = 20_000


class _Step(BaseModel):
    tenant: str
    ok: bool
    bad_seq: int | None
    reason: Reason | None
    checked: int
    seq: int
    hash: str
    complete: bool


_STEPS = TypeAdapter(_Step)


class AuditLog:
    """The record of who did what in the tenant of a store.

    For secret keys, direct connections, and owners and admins of the tenant.

    Args:
        store: An open store.
        key: What signs heads and checks them; ``HAIVE_AUDIT_KEY`` of the environment if not given.

    Raises:
        ConfigurationError: The key in the environment is none.
    """

    def __init__(self, store: Store, *, key: AuditKey | None = None) -> None:
        self._store = store
        self._key = key or AuditKey.from_environment()

    async def tail(self, limit: int = 20) -> list[AuditEntry]:
        """The last rows, oldest first.

        Args:
            limit: How many, 1 to 1,000.

        Raises:
            AccessDeniedError: The caller does not administer the tenant.
        """
        return await self._store._transport.call(
            "audit_page", {"page_size": limit, "last": True}, _ENTRIES, safe=True
        )

    async def entries(self, after: int = 0) -> AsyncIterator[AuditEntry]:
        """All rows after a ``seq``, in order."""
        while True:
            page = await self._store._transport.call(
                "audit_page", {"after": after, "page_size": _PAGE}, _ENTRIES, safe=True
            )
            for entry in page:
                yield entry
            if len(page) < _PAGE:
                return
            after = page[-1].seq

    async def follow(
        self, after: int | None = None, *, interval: float = 1.0
    ) -> AsyncIterator[AuditEntry]:
        """The rows after a ``seq``, or from now on, and then those that come, until stopped.

        Args:
            after: Where to begin; the end of the log if not given.
            interval: Seconds between two looks.
        """
        seq = (await self.head()).seq if after is None else after
        while True:
            async for entry in self.entries(seq):
                seq = entry.seq
                yield entry
            await asyncio.sleep(interval)

    async def head(self) -> AuditHead:
        """Where the log ends now, unsigned."""
        return await self._store._transport.call("audit_head", {}, _HEAD, safe=True)

    async def sign_head(self, key: AuditKey | None = None) -> AuditHead:
        """Where the log ends now, signed: to be kept where who can write the database cannot.

        Args:
            key: The key; that of the log if not given.

        Raises:
            ConfigurationError: There is no key, or it only checks.
        """
        key = key or self._key
        if key is None:
            raise ConfigurationError(
                "No key signs the head.",
                hint="Set HAIVE_AUDIT_KEY, or pass key; `haive audit key` makes one.",
            )
        return key.sign(await self.head())

    async def verify(
        self,
        head: AuditHead | Sequence[AuditHead] | None = None,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> Verification:
        """Check the whole chain, and that it holds the heads that were kept.

        Each hash is computed anew by the database. What a changed server says of itself proves
        little: export the log, and check it elsewhere with `verify_export`.

        Args:
            head: One or several heads of the tenant. Without one, a log that was rewritten as a
                whole cannot be told.
            on_progress: Called with how many rows were checked.

        Raises:
            AuditSignatureError: A head is not signed by the key of this log.
            InvalidInputError: A head is of another tenant.
        """
        heads = as_heads(head)
        if heads:
            check_heads(heads, (await self.head()).tenant, self._key)
        checked, seq, last = 0, 0, ""
        while True:
            step = await self._step(seq, last, heads)
            checked += step.checked
            if on_progress is not None:
                on_progress(checked)
            if step.reason is not None or step.complete:
                return Verification(
                    tenant=step.tenant,
                    ok=step.reason is None,
                    bad_seq=step.bad_seq,
                    reason=step.reason,
                    checked=checked,
                    seq=step.seq,
                    hash=step.hash,
                    heads=len(heads),
                )
            seq, last = step.seq, step.hash

    async def _step(self, seq: int, last: str, heads: Sequence[AuditHead]) -> _Step:
        """Check the rows after one, and the heads among them; of several the first that fails."""
        # The last head too: a log that ends before it was cut.
        among: list[tuple[int | None, str | None]] = [
            (one.seq, one.hash) for one in heads if seq < one.seq <= seq + _STEP
        ]
        among += [(one.seq, one.hash) for one in heads[-1:]]
        steps = [
            await self._store._transport.call(
                "verify_audit",
                {
                    "after": seq,
                    "hash": last or None,
                    "head_seq": head_seq,
                    "head_hash": head_hash,
                    "max_rows": _STEP,
                },
                _STEPS,
                safe=True,
            )
            for head_seq, head_hash in among or [(None, None)]
        ]
        return next((step for step in steps if step.reason is not None), steps[-1])

    async def lines(self, after: int = 0) -> AsyncIterator[bytes]:
        """The log as lines of an export: a header, then a line for each row after a ``seq``.

        Raises:
            InvalidInputError: There is no row ``after``.
        """
        head, previous = await self.head(), ""
        if after > 0:
            page = await self._rows(after - 1, 1)
            if not page or page[0].seq != after:
                raise InvalidInputError(f"The log has no row {after}.")
            previous = page[0].hash
        yield _line(Header(tenant=head.tenant, after=after, hash=previous))
        while page := await self._rows(after, _PAGE):
            for row in page:
                yield _line(row)
            after = page[-1].seq

    async def export(self, path: str | Path, after: int = 0) -> int:
        """Write the log as JSON lines that `verify_export` checks; return how many rows.

        The file takes its name when it is whole, and is packed if that ends in ``.gz``.

        Raises:
            InvalidInputError: The file cannot be written, or there is no row ``after``.
        """
        path = Path(path)
        part = path.with_name(f"{path.name}.part")
        rows = -1  # the header
        try:
            with await asyncio.to_thread(_opened, part, packed=path.suffix == ".gz") as file:
                async for line in self.lines(after):
                    file.write(line)
                    rows += 1
            part.replace(path)
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be written: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)
        return rows

    async def _rows(self, after: int, limit: int) -> list[Row]:
        return await self._store._transport.call(
            "audit_page", {"after": after, "page_size": limit, "entries": True}, ROWS, safe=True
        )


def _opened(path: Path, *, packed: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "wb")) if packed else path.open("wb")


def _line(model: BaseModel) -> bytes:
    return model.model_dump_json().encode() + b"\n"
