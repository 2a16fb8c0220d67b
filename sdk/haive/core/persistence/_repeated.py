"""Messages that are written again, and were sealed with another key the first time.

The database compares bytes. The same content has the same bytes by the same key, so it tells a
repeated write from a conflict; after a rotation the two have to be opened to be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haive.core.persistence.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence._transport import Transport
    from haive.core.persistence.models import Message


def same(row: MessageRow, found: Sequence[Message]) -> Message | None:
    """The message that was stored for a row before; None where there is none.

    Raises:
        ConflictError: Another message has its id.
    """
    for message in found:
        if message.id == row.id:
            if row.stored(message.seq, row.created_at or message.created_at) != message:
                raise ConflictError
            return message
    return None


async def write_missing(
    transport: Transport, rows: Sequence[MessageRow], found: Iterable[Message]
) -> list[tuple[int, datetime]]:
    """Write those rows that were not stored before, and say where all of them are.

    Raises:
        ConflictError: Another message has the id of one.
    """
    known = {message.id: message for message in found}
    missing = []
    for row in rows:
        message = known.get(row.id)
        if message is None:
            missing.append(row)
        else:
            same(row, [message])
    places = {}
    if missing:
        written = await transport.append_many(missing)
        places = {row.id: place for row, place in zip(missing, written, strict=True)}
    places |= {key: (message.seq, message.created_at) for key, message in known.items()}
    return [places[row.id] for row in rows]
