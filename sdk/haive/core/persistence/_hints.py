"""Hints that there is something to read. They may be lost: who gets none looks now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Listener(Protocol):
    """One who listens to a topic."""

    topic: str

    @property
    def is_heard(self) -> bool:
        """Whether hints would arrive now."""

    async def aclose(self) -> None:
        """Listen no more."""


class Hints(Protocol):
    """Where hints come from; one for all subscribers of a store."""

    way: Literal["notify", "realtime"]

    def listen(self, schema: str, topic: str, hint: Callable[[int], None]) -> Listener:
        """Call ``hint`` at every hint, and when hints may have been lost.

        It is told which event there is to read at least; 0 where that is not known.
        """
