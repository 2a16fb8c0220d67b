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


def translate(error: BaseException) -> PersistenceError | None:
    """The error of ours for one of asyncpg's or the socket's; None for any other."""
    if isinstance(error, asyncpg.PostgresError):
        return database_error(
            error.sqlstate,
            message=getattr(error, "message", None),
            hint=getattr(error, "hint", None),
            constraint=getattr(error, "constraint_name", None),
        )
    if isinstance(error, asyncpg.DataError):
        return InvalidInputError("An argument is not of the type that the database expects.")
    if isinstance(error, asyncpg.InterfaceError):
        if isinstance(error, ValueError):
            return ConfigurationError("The connection string cannot be read.")
        return ConnectionLostError()
    if isinstance(error, TimeoutError):
        return PoolTimeoutError()
    if isinstance(error, OSError):
        return ConnectionLostError(f"The database server cannot be reached ({type(error).__name__}).")
    return None


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raise errors of ours in place of asyncpg's."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error
