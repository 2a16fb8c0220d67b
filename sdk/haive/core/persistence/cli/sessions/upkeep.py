"""`haive sessions` expire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from haive.core.persistence.cli.jobs import alone, repeat
from haive.core.persistence.cli.output import count, safe_json
from haive.core.persistence.cli.sessions.opening import AsJson, with_manager
from haive.core.persistence.errors import ConflictError

if TYPE_CHECKING:
    from haive.core.persistence.session import SessionManager


@with_manager
async def expire(
    manager: SessionManager,
    *,
    every: Annotated[
        str | None, typer.Option(help="Do it again after so long, until stopped: 10m, 1h, 1d.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Close what has expired, and tell who watches.

    Nothing waits for it: from its moment on a session reads as expired and takes no messages.
    """

    async def once() -> str:
        async with alone(manager.store, "expire") as is_alone:
            if not is_alone:
                raise ConflictError(
                    "Another expire is at work in this tenant.", hint="Wait for it to end."
                )
            expired = await manager.expire_sessions()
        if as_json:
            return safe_json({"expired": expired})
        return f"{count(expired, 'session')} expired."

    await repeat(once, every)
