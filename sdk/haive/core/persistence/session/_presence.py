"""Who is in a session now."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from haive.core.persistence._encoding import object_to_json
from haive.core.persistence.errors import (
    AccessDeniedError,
    CursorExpiredError,
    PersistenceError,
    UnsupportedOperationError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from uuid import UUID

    from haive.core.persistence._supabase_room import Presences, Room
    from haive.core.persistence.session.manager import SessionManager


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
            await room.enter(session.topic, self._state)
        except BaseException:
            await self.aclose()
            raise
        return self

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
        try:
            while True:
                with suppress(CursorExpiredError):  # too far behind: watch from now on
                    async with self._manager.watch(self._session_id) as events:
                        await self._move(as_user)  # for what was missed
                        async for event in events:
                            if event.kind == "participant.changed":
                                await self._move(as_user)
        except PersistenceError as error:
            if self._room is not None:
                await self._room.aclose()
            self._error = error  # after it: whoever hears of it is there no more
            self._changed.set()

    async def _move(self, as_user: str | None) -> None:
        session = await self._manager.get_session(self._session_id, as_user=as_user)
        if self._room is not None:
            self._room.move(session.topic)
