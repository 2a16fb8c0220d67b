"""Who is in a session now."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Self

from haive.core.persistence._encoding import object_to_json
from haive.core.persistence.errors import (
    AccessDeniedError,
    CursorExpiredError,
    PersistenceError,
    QuotaExceededError,
    UnsupportedOperationError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from uuid import UUID

    from haive.core.persistence._supabase_room import Presences, Room
    from haive.core.persistence.session.manager import SessionManager

# Seconds until the session is looked for again after what may pass, growing.
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0


class SessionPresence:
    """A user's presence in a session, and those of the others.

    Enter it with ``async with``; iterate over it to see each change::

        async with manager.join(session.id, "user-123", {"typing": False}) as presence:
            await presence.update(typing=True)
            async for here in presence:
                print(sorted(here))

    Iterating ends with an error when the user is removed from the session, or it can be watched no
    more, and without one when the presence is closed.

    Args:
        manager: Whose session.
        session_id: Which session.
        user_id: Who is present.
        state: What others see of it, any JSON object.
    """

    def __init__(
        self,
        manager: SessionManager,
        session_id: UUID | str,
        user_id: str,
        state: Mapping[str, Any] | None,
    ) -> None:
        self._manager = manager
        self._session_id = session_id
        self._user_id = user_id
        self._state = dict(state or {})
        object_to_json(self._state, "state")
        self._room: Room | None = None
        self._follower: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._error: PersistenceError | None = None
        self._entered = False

    @property
    def here(self) -> Presences:
        """Who is there: the states of each user's connections, as they tell of themselves."""
        return {} if self._room is None else self._room.here

    async def update(self, **state: Any) -> None:
        """Change keys of the state that others see.

        Raises:
            InvalidInputError: It has no JSON.
        """
        object_to_json(state, "state")
        self._state |= state
        if self._room is not None:
            await self._room.change(self._state)

    async def __aenter__(self) -> Self:
        self._entered = True
        room = self._manager.store._transport.room(self._user_id, self._changed.set)
        if room is None:
            raise UnsupportedOperationError(
                "A direct connection knows no Realtime, where presence is.",
                hint="Use a SupabaseStore of the same project.",
            )
        trusted = None if room.is_of_a_user else self._user_id
        session = await self._manager.get_session(self._session_id, as_user=trusted)
        if not session.live:
            raise AccessDeniedError("The session is not synchronised in real time.")
        # From before the room is entered: who is removed in between is noticed.
        self._follower = asyncio.create_task(self._follow(trusted), name="haive presence")
        self._room = room
        try:
            await self._enter(room, session.topic, self._follower)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def _enter(self, room: Room, topic: str, follower: asyncio.Task[None]) -> None:
        """Go into the room, unless the session ends for the user meanwhile.

        Raises:
            PersistenceError: It did.
        """
        entering = asyncio.create_task(room.enter(topic, self._state))
        try:
            await asyncio.wait([entering, follower], return_when=asyncio.FIRST_COMPLETED)
        finally:
            entering.cancel()
            await asyncio.wait([entering])
        if self._error is not None or entering.cancelled():
            raise self._error or PersistenceError("The session was left while it was joined.")
        entering.result()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Be there no more."""
        room, self._room = self._room, None
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.cancel()
            await asyncio.wait([follower])
        if room is not None:
            await room.aclose()
        self._changed.set()  # who iterates in another task hears of it

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Presences:
        if not self._entered:
            raise PersistenceError(
                "The session was not joined.",
                hint="Iterate inside `async with manager.join(...) as presence:`.",
            )
        if self._room is not None and self._error is None:
            await self._changed.wait()
            self._changed.clear()
        if self._error is not None:
            raise self._error
        if self._room is None:
            raise StopAsyncIteration
        return self.here

    async def _follow(self, as_user: str | None) -> None:
        """Go to the session's new room when somebody was removed; end when it was oneself."""
        delay = _FIRST_DELAY
        try:
            while True:
                try:
                    async with self._manager.watch(self._session_id) as events:
                        await self._move(as_user)  # for what was missed
                        delay = _FIRST_DELAY
                        async for event in events:
                            if event.kind == "participant.changed":
                                await self._move(as_user)
                except CursorExpiredError:  # too far behind: watch from now on
                    continue
                except PersistenceError as error:
                    if not error.retryable:
                        raise
                    await asyncio.sleep(_pause(error, delay))
                    delay = min(delay * 2, _LONGEST_DELAY)
        except PersistenceError as error:
            if self._room is not None:
                await self._room.aclose()
            self._error = error  # after it: whoever hears of it is there no more
            self._changed.set()

    async def _move(self, as_user: str | None) -> None:
        session = await self._manager.get_session(self._session_id, as_user=as_user)
        if self._room is not None:
            self._room.move(session.topic)


def _pause(error: PersistenceError, delay: float) -> float:
    """Seconds until the next try, scattered: all who are there are told to move at once."""
    least = delay / 2
    if isinstance(error, QuotaExceededError):
        least = float(error.retry_after or 5)
    return least + delay * random.uniform(0.0, 0.5)  # no secret # noqa: S311 # nosec B311
