"""The event loop that connections were opened in, and belong to."""

from __future__ import annotations

import asyncio

from haive.core.persistence.errors import PersistenceError


def check_loop(opened_in: asyncio.AbstractEventLoop) -> None:
    """Refuse to work in another event loop: there connections hang or break, or answer others.

    Raises:
        PersistenceError: The running loop is another one.
    """
    if asyncio.get_running_loop() is not opened_in:
        raise PersistenceError(
            "The store was opened in another event loop.",
            hint="Open, use and close a store inside one asyncio.run(), in one process.",
        )
