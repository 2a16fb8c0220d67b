"""Going on when the server comes back."""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from haive.core.persistence.errors import (
    DeadlockError,
    PersistenceError,
    PoolTimeoutError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY = 0.05, 2.0


async def retrying(
    operation: Callable[[], Awaitable[T]],
    timeout: float,  # noqa: ASYNC109 - bounds the tries, not the call
    *,
    safe: bool = True,
) -> T:
    """Run an operation until it succeeds or ``timeout`` seconds are over.

    Only what a server that is away or restarts brings about, and deadlocks, are tried again, with
    growing and scattered pauses, so that many clients do not return in step. Timeouts are not:
    they are limits that somebody set.

    Args:
        operation: One call, which is a transaction.
        timeout: In seconds; 0 tries once.
        safe: It may be repeated. Else it is after a deadlock alone, of which nothing is left.
    """
    passing = (UnavailableError, DeadlockError) if safe else (DeadlockError,)
    end = monotonic() + timeout
    delay = _FIRST_DELAY
    while True:
        try:
            return await operation()
        except PersistenceError as error:
            may_pass = isinstance(error, passing) and not isinstance(error, PoolTimeoutError)
            if not may_pass or monotonic() >= end:
                raise
        await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # no secret # noqa: S311 # nosec B311
        delay = min(delay * 2, _LONGEST_DELAY)
