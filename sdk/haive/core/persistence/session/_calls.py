"""The functions of the database that sessions are made of, one call each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from haive.core.persistence._encoding import as_uuid, to_json
from haive.core.persistence._sealing import ContentKeys
from haive.core.persistence.session._documents import (
    MESSAGES,
    PAGE,
    SESSION,
    SESSIONS,
    TAILS,
    PageDocument,
    SessionDocument,
    TailsDocument,
    open_page,
    open_session,
    open_sessions,
    open_tails,
)
from haive.core.persistence.session.session import Merge, SessionPage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from haive.core.persistence.models import Conversation
    from haive.core.persistence.session.session import Session, SessionMessage
    from haive.core.persistence.store import Store

_MERGE = TypeAdapter(Merge)
_MERGES = TypeAdapter(list[Merge])
_COUNT = TypeAdapter(int)
_CHANGED = TypeAdapter(bool)
_LIMIT = 4 * 1024 * 1024


class SessionCalls:
    """Calls of a store's, for sessions.

    Args:
        store: Where the sessions are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    async def create(self, document: Mapping[str, Any]) -> Session:
        """Begin a session; its conversation is sealed where content is."""
        sealed = await self.store._conversation_document(dict(document))
        found = await self.store._read(
            "create_session",
            {"session": to_json(sealed, "session", _LIMIT)},
            SESSION,
            open_session,
        )
        return found.session()

    async def get(self, session_id: UUID | str, as_user: str | None) -> Session:
        """One session."""
        return (await self._get(session_id, as_user)).session()

    async def page(self, arguments: Mapping[str, Any]) -> SessionPage:
        """Sessions by what they are of."""
        found: PageDocument = await self.store._read("list_sessions", arguments, PAGE, open_page)
        return SessionPage(
            [document.session() for document in found.sessions], next_page=found.next_page
        )

    async def family(self, session_id: UUID | str, as_user: str | None) -> list[Session]:
        """All sessions that are related by branching."""
        found = await self.store._read(
            "session_family",
            {"session_id": as_uuid(session_id, "session_id"), "acting_user": as_user},
            SESSIONS,
            open_sessions,
        )
        return [document.session() for document in found]

    async def messages(
        self, session_id: UUID | str, arguments: Mapping[str, Any]
    ) -> list[SessionMessage]:
        """A page of messages."""
        return await self.store._read(
            "session_messages",
            {"session_id": as_uuid(session_id, "session_id"), **arguments},
            MESSAGES,
            ContentKeys.open_messages,
        )

    async def update(
        self, session_id: UUID | str, changes: Mapping[str, Any], as_user: str | None
    ) -> Session:
        """Change what a session is."""
        found = await self.store._read(
            "update_session",
            {
                "session_id": as_uuid(session_id, "session_id"),
                "changes": to_json(changes, "changes"),
                "acting_user": as_user,
            },
            SESSION,
            open_session,
        )
        return found.session()

    async def conversation(self, session_id: UUID | str, as_user: str | None) -> Conversation:
        """A session as the conversation that it is, with what it does not inherit."""
        return (await self._get(session_id, as_user)).conversation

    async def beginning(self, session_id: UUID | str, as_user: str | None) -> dict[str, Any]:
        """What a successor of a session begins with, where the database cannot read it."""
        return (await self._get(session_id, as_user)).beginning()

    async def _get(self, session_id: UUID | str, as_user: str | None) -> SessionDocument:
        return await self.store._read(
            "get_session",
            {"session_id": as_uuid(session_id, "session_id"), "acting_user": as_user},
            SESSION,
            open_session,
        )

    async def update_state(
        self,
        session_id: UUID | str,
        changes: Mapping[str, Any],
        expected: datetime | None,
        as_user: str | None,
    ) -> Session:
        """Change the state of a session."""
        found = await self.store._read(
            "update_session_state",
            {
                "session_id": as_uuid(session_id, "session_id"),
                "changes": to_json(changes, "changes", _LIMIT),
                "expected": expected,
                "acting_user": as_user,
            },
            SESSION,
            open_session,
            safe=expected is not None,
        )
        return found.session()

    async def proceed(
        self, session_id: UUID | str, successor: Mapping[str, Any], as_user: str | None
    ) -> Session:
        """Let a session go on in a successor."""
        found = await self.store._read(
            "continue_session",
            {
                "session_id": as_uuid(session_id, "session_id"),
                "successor": to_json(successor, "successor", _LIMIT),
                "acting_user": as_user,
            },
            SESSION,
            open_session,
        )
        return found.session()

    async def tails(self, primary: UUID, secondary: UUID, as_user: str | None) -> TailsDocument:
        """What two sessions have after their common beginning."""
        return await self.store._read(
            "read_merge",
            {"primary_id": primary, "secondary_id": secondary, "acting_user": as_user},
            TAILS,
            open_tails,
        )

    async def merge(
        self, primary: UUID, secondary: UUID, plan: Mapping[str, Any], as_user: str | None
    ) -> Merge:
        """Carry out a plan; with the same id once."""
        return await self.store._transport.call(
            "merge_sessions",
            {
                "primary_id": primary,
                "secondary_id": secondary,
                "plan": to_json(plan, "plan", 16 * _LIMIT),
                "acting_user": as_user,
            },
            _MERGE,
            safe=True,
        )

    async def undo(self, session_id: UUID, merge_id: UUID, as_user: str | None) -> Merge:
        """Undo a merge."""
        return await self.store._transport.call(
            "undo_merge",
            {"session_id": session_id, "merge_id": merge_id, "acting_user": as_user},
            _MERGE,
            safe=True,
        )

    async def merges(self, session_id: UUID | str, as_user: str | None) -> list[Merge]:
        """The merges into a session."""
        return await self.store._transport.call(
            "list_merges",
            {"session_id": as_uuid(session_id, "session_id"), "acting_user": as_user},
            _MERGES,
            safe=True,
        )

    async def set_participant(
        self,
        session_id: UUID | str,
        user_id: str,
        permissions: Sequence[str],
        as_user: str | None,
    ) -> Session:
        """Give a user permissions, or none."""
        found = await self.store._read(
            "set_participant",
            {
                "session_id": as_uuid(session_id, "session_id"),
                "user_id": user_id,
                "permissions": list(permissions),
                "acting_user": as_user,
            },
            SESSION,
            open_session,
        )
        return found.session()

    async def hide(
        self, session_id: UUID | str, message_id: UUID | str, as_user: str | None, *, hidden: bool
    ) -> bool:
        """Hide a message, or show it."""
        return await self.store._transport.call(
            "hide_message",
            {
                "session_id": as_uuid(session_id, "session_id"),
                "message_id": as_uuid(message_id, "message_id"),
                "hidden": hidden,
                "acting_user": as_user,
            },
            _CHANGED,
            safe=True,
        )

    async def expire(self, batch: int) -> int:
        """Close what has expired."""
        return await self.store._transport.call(
            "expire_sessions", {"batch": batch}, _COUNT, safe=True
        )
