"""asyncpg's exceptions as ours."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from haive.core.persistence.errors import (
    ConfigurationError,
    ConnectionLostError,
    InvalidInputError,
    PersistenceError,
    PoolTimeoutError,
    database_error,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


#: What asyncpg and the socket raise.
FOREIGN = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


def translated_error(error: BaseException) -> PersistenceError:
    """The error of ours for one of `FOREIGN`."""
    if isinstance(error, asyncpg.PostgresError):
        return database_error(
            error.sqlstate,
            message=getattr(error, "message", None),
            hint=getattr(error, "hint", None),
            constraint=getattr(error, "constraint_name", None),
            detail=getattr(error, "detail", None),
        )
    if isinstance(error, asyncpg.DataError):
        return InvalidInputError("An argument is not of the type that the database expects.")
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        return ConfigurationError("The connection string cannot be read.")
    if isinstance(error, TimeoutError):
        return PoolTimeoutError()
    if isinstance(error, OSError):
        reason = type(error).__name__
        return ConnectionLostError(
            f"The database server cannot be reached ({reason}).",
            hint="Does it run, and where the connection string says?",
        )
    # Also an InternalClientError: the server has said that it ends the session, and asyncpg has
    # not seen the end yet.
    return ConnectionLostError()


def cause_of(error: BaseException) -> BaseException | None:
    """What a traceback may show beneath an error of ours: the server's words can quote rows."""
    return error if isinstance(error, OSError) else None


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raise errors of ours in place of asyncpg's."""
    try:
        yield
    except FOREIGN as error:
        raise translated_error(error) from cause_of(error)
