"""Finds the session of a message, or begins one for it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from haive.core.persistence.errors import (
    ConflictError,
    NotFoundError,
    SessionClosedError,
    UnsupportedOperationError,
)
from haive.core.persistence.session._topics import OpenSession, advance, asks, place
from haive.core.persistence.session.models import ThreadingStrategy
from haive.core.persistence.session.session import SessionStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    import numpy as np
    from numpy.typing import NDArray

    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence.models import Message
    from haive.core.persistence.session._calls import SessionCalls
    from haive.core.persistence.session._writing import Writer
    from haive.core.persistence.session.config import SessionConfig
    from haive.core.persistence.session.manager import SessionManager
    from haive.core.persistence.session.session import Session

# A topic is read from so many of a session's last messages, where it is not at hand.
_REMEMBERED = 20
# How many topics are at hand: 4 KB each with the default embedder.
_TOPICS = 2_000
_ATTEMPTS = 5
_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Topic:
    """What a session was about when it had so many messages."""

    message_count: int
    centroid: NDArray[np.float32] | None
    count: int
    awaits_answer: bool


class Router:
    """Threads messages into sessions.

    What a session is about is read from its last messages and kept in this process: nothing that is
    drawn from content is stored, so that there is nothing to seal, to erase or to migrate.

    Args:
        manager: Whose sessions.
        calls: The way to them.
        writer: Adds the messages.
        config: How sessions are found.
    """

    def __init__(
        self, manager: SessionManager, calls: SessionCalls, writer: Writer, config: SessionConfig
    ) -> None:
        self._manager = manager
        self._calls = calls
        self._writer = writer
        self._config = config
        self._topics: OrderedDict[UUID, _Topic] = OrderedDict()
        # Of one user and agent, one at a time: two messages at once do not begin two sessions.
        self._turns: WeakValueDictionary[tuple[str | None, str], asyncio.Lock] = (
            WeakValueDictionary()
        )

    async def thread(
        self,
        row: MessageRow,
        user_id: str | None,
        agent_id: str,
        context: Mapping[str, Any] | None,
        *,
        may_be_there: bool,
    ) -> Message:
        """Add a message where it belongs; see `SessionManager.thread_message`.

        Args:
            row: The message.
            user_id: Whose sessions.
            agent_id: Of which agent.
            context: What a session begins with.
            may_be_there: Whether its id was given, and it is perhaps stored already.
        """
        if self._config.threading_strategy is ThreadingStrategy.MANUAL:
            raise UnsupportedOperationError(
                "Sessions are chosen by hand.",
                hint="Name one in add_message, or set another threading_strategy.",
            )
        turn = self._turns.setdefault((user_id, agent_id), asyncio.Lock())
        async with turn:
            for attempt in range(_ATTEMPTS):
                topic = None
                session_id = (
                    await self._session_of(row, user_id, agent_id) if may_be_there else None
                )
                if session_id is None:
                    session_id, topic = await self._choose(row, user_id, agent_id)
                if session_id is None:
                    session_id = (await self._manager.create_session(user_id, agent_id, context)).id
                try:
                    message = await self._writer.add(replace(row, conversation_id=session_id), None)
                except SessionClosedError:  # since it was chosen
                    if attempt == _ATTEMPTS - 1:
                        raise
                    continue
                if topic is not None:
                    self._remember(message.conversation_id, topic)
                return message
        raise AssertionError

    async def _session_of(self, row: MessageRow, user_id: str | None, agent_id: str) -> UUID | None:
        """The session that has the message already; there it is compared with what is stored."""
        found = await self._calls.store._find_messages([row.id])
        if not found:
            return None
        try:
            session = await self._calls.get(found[0].conversation_id, None)
        except NotFoundError:  # a conversation that is no session
            session = None
        if (
            session is None
            or session.agent_id != agent_id
            or user_id not in {None, session.user_id}
        ):
            raise ConflictError(
                f"Another message has the id {row.id}.",
                hint="Repeat a call only with the same content, for the same user and agent.",
            )
        return session.id

    async def _choose(
        self, row: MessageRow, user_id: str | None, agent_id: str
    ) -> tuple[UUID | None, _Topic | None]:
        """A session, or None for a new one; and its topic with the message."""
        strategy = self._config.threading_strategy
        by_topic = strategy is ThreadingStrategy.TOPIC_BASED
        # With nobody named: the caller's own, and where a service calls those of nobody.
        latest = await self._calls.page(
            {
                "user_id": user_id,
                "agent_id": agent_id,
                "statuses": [SessionStatus.OPEN.value],
                "page_size": self._config.max_open_sessions if by_topic else 1,
                "threads": True,
            }
        )
        if by_topic:
            return await self._by_topic(row, latest)
        gap = timedelta(seconds=self._config.time_gap)
        if not latest or (strategy is ThreadingStrategy.TIME_BASED and latest[0].idle > gap):
            return None, None
        return latest[0].id, None

    async def _by_topic(
        self, row: MessageRow, sessions: Sequence[Session]
    ) -> tuple[UUID | None, _Topic]:
        embedder = self._config.embedder
        topics = dict(
            zip(
                (session.id for session in sessions),
                await asyncio.gather(*(self._topic(session) for session in sessions)),
                strict=True,
            )
        )
        (vector,) = await embedder.embed([row.text])
        # The database's clock, as of the last time it was read.
        now = max((session.active_at + session.idle for session in sessions), default=_BEGINNING)
        placement = place(
            row.text,
            vector,
            role=row.role,
            at=now,
            sessions=[
                OpenSession(
                    id=session.id,
                    centroid=topics[session.id].centroid,
                    count=topics[session.id].count,
                    last_activity=session.active_at,
                    awaits_answer=topics[session.id].awaits_answer,
                )
                for session in sessions
            ],
            threshold=self._config.topic_similarity_threshold,
            calibration=await embedder.calibration(),
        )
        before = topics[placement.session_id].message_count if placement.session_id else 0
        return placement.session_id, _Topic(
            before + 1, placement.centroid, placement.count, asks(row.text)
        )

    async def _topic(self, session: Session) -> _Topic:
        known = self._topics.get(session.id)
        if known is not None and known.message_count == session.message_count:
            self._topics.move_to_end(session.id)
            return known
        if not session.message_count:
            return _Topic(0, None, 0, awaits_answer=False)
        last = await self._manager.messages(session.id, limit=_REMEMBERED, last=True)
        centroid: NDArray[np.float32] | None = None
        if last:
            vectors = await self._config.embedder.embed([message.text for message in last])
            for count, vector in enumerate(vectors):
                centroid = advance(centroid, count, vector)
        topic = _Topic(
            session.message_count, centroid, len(last), bool(last) and asks(last[-1].text)
        )
        self._remember(session.id, topic)
        return topic

    def _remember(self, session_id: UUID, topic: _Topic) -> None:
        self._topics[session_id] = topic
        self._topics.move_to_end(session_id)
        while len(self._topics) > _TOPICS:
            self._topics.popitem(last=False)
