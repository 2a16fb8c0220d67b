"""Sessions among the conversations that are exported: which they are, and all that they show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import AccessDeniedError, NotFoundError
from haive.core.persistence.session import SessionManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from uuid import UUID

    from haive.core.persistence.session import Session, SessionMessage
    from haive.core.persistence.store import Store

_PAGE = 1000


class SessionLines:
    """Reads sessions beside the conversations of an export.

    Args:
        store: Where they are.
        candidates: What may be a session; nothing else is asked for.
    """

    def __init__(self, store: Store, candidates: Collection[UUID]) -> None:
        self._manager = SessionManager(store)
        self._candidates = candidates

    @classmethod
    async def among(
        cls, store: Store, conversation_ids: Sequence[UUID], filters: Mapping[str, Any]
    ) -> SessionLines:
        """Those of an export, of whose conversations most are none: their ids are listed first."""
        if conversation_ids:
            return cls(store, conversation_ids)
        found: set[UUID] = set()
        lines = cls(store, found)
        page_after: str | None = None
        while True:
            page = await lines._manager.list_sessions(
                filters.get("user_id"),
                agent_id=filters.get("agent_id"),
                limit=_PAGE,
                page_after=page_after,
            )
            found.update(session.id for session in page)
            page_after = page.next_page
            if page_after is None:
                return lines

    async def find(self, conversation_id: UUID) -> Session | None:
        """The session that a conversation is, if it is one."""
        if conversation_id not in self._candidates:
            return None
        try:
            return await self._manager.get_session(conversation_id)
        except NotFoundError:
            return None

    async def messages(self, session: Session, *, hidden: bool) -> AsyncIterator[SessionMessage]:
        """All that a session shows, from its first one on that is shared.

        With what was ``hidden`` in the session itself, where the caller moderates it.
        """
        if hidden:
            try:
                await self._manager.messages(session.id, limit=1, hidden=True)
            except AccessDeniedError:
                hidden = False
        async for message in self._manager.iter_messages(session.id, hidden=hidden):
            yield message
