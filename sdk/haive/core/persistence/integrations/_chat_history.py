"""LangChain's chat history over the conversations of a store."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from langchain_core.chat_history import BaseChatMessageHistory

from haive.core.persistence._encoding import as_uuid
from haive.core.persistence.integrations._bridge import Bridge, loop_in_thread
from haive.core.persistence.integrations._chats import Chat, Chats
from haive.core.persistence.integrations._open import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from langchain_core.messages import BaseMessage

    from haive.core.persistence.store import Store

_AGENT = "langchain"


class HaiveChatMessageHistory(BaseChatMessageHistory):
    """What was said in a session, as a conversation of a store.

    One conversation for each session, user and tenant; it is begun with the first message. Messages
    come back equal: text, images, tool calls, results and tokens are where our tools read them,
    what is left of LangChain's is kept beside. What else was written to the conversation is found
    here as LangChain's messages. A chunk comes back as the message that it is.

    Its methods are those of ``BaseChatMessageHistory``. Those without ``await`` work in any thread
    except the one that runs the event loop of the store.
    """

    def __init__(self, chats: Chats, bridge: Bridge, chat: Chat) -> None:
        super().__init__()
        self._chats = chats
        self._bridge = bridge
        self._chat = chat

    @classmethod
    def from_store(
        cls,
        store: Store,
        session_id: str | None = None,
        *,
        user_id: str | None = None,
        conversation_id: UUID | str | None = None,
        agent_id: str = _AGENT,
    ) -> Self:
        """The history of a session; to be called where the store was opened.

        Args:
            store: An open `PostgresStore` or `SupabaseStore`.
            session_id: The session, by any text of up to 1,000 characters.
            user_id: Whose session: another user's of the same name is another conversation.
            conversation_id: A conversation that is there already, in place of a session.
            agent_id: The agent of the conversation, where it is begun.

        Raises:
            InvalidInputError: No event loop is running, or an argument is none.
        """
        known = None if conversation_id is None else as_uuid(conversation_id, "conversation_id")
        chat = Chat(session_id=session_id, user_id=user_id, conversation_id=known)
        return cls(Chats(store, agent_id), Bridge.here(), chat)

    # -- awaited ---------------------------------------------------------------------------------

    async def aconversation_id(self) -> UUID:
        """The id of the conversation, for the store's own methods."""
        return await self._bridge.run(self._chats.conversation_of(self._chat))

    async def aget_messages(self) -> list[BaseMessage]:
        """All messages, the oldest first; one round trip for 10,000.

        By a ``conversation_id`` it is one for the last 1,000 and one for each 10,000 before.

        Raises:
            NotFoundError: There is no conversation of a ``conversation_id`` that was given.
        """
        return await self._bridge.run(self._chats.read(self._chat))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages, one after the other without others between them; one round trip.

        Two more begin the conversation. Up to 5,000 and 16 MiB are written all or none.

        Raises:
            InvalidInputError: One is no message, or has something without JSON; none is stored.
            NotFoundError: The conversation is not the caller's to write to.
        """
        await self._bridge.run(self._chats.add(self._chat, messages))

    async def aclear(self) -> None:
        """Delete the conversation with all its messages."""
        await self._bridge.run(self._chats.clear(self._chat))

    # -- waited for ------------------------------------------------------------------------------

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override] # read anew each time
        """See `aget_messages`."""
        return self._bridge.wait("aget_messages", self._chats.read(self._chat))

    def conversation_id(self) -> UUID:
        """See `aconversation_id`."""
        return self._bridge.wait("aconversation_id", self._chats.conversation_of(self._chat))

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """See `aadd_messages`."""
        self._bridge.wait("aadd_messages", self._chats.add(self._chat, messages))

    def clear(self) -> None:
        """See `aclear`."""
        self._bridge.wait("aclear", self._chats.clear(self._chat))


class HaiveChatHistories:
    """The histories of a store, by session: what ``RunnableWithMessageHistory`` is to be given."""

    def __init__(self, chats: Chats, bridge: Bridge, user_id: str | None) -> None:
        self._chats = chats
        self._bridge = bridge
        self._user_id = user_id

    @classmethod
    def from_store(
        cls, store: Store, *, user_id: str | None = None, agent_id: str = _AGENT
    ) -> Self:
        """Histories over an open store; to be called where that was opened.

        Args:
            store: An open `PostgresStore` or `SupabaseStore`.
            user_id: Whose sessions, where a call does not say.
            agent_id: The agent of conversations that are begun.

        Raises:
            InvalidInputError: No event loop is running.
        """
        return cls(Chats(store, agent_id), Bridge.here(), user_id)

    @classmethod
    @contextmanager
    def from_conn_string(
        cls, url: str, *, user_id: str | None = None, agent_id: str = _AGENT, **settings: Any
    ) -> Iterator[Self]:
        """Histories with a store of their own, for a program without an event loop.

        Store and loop run in a thread until the block ends.

        Args:
            url: ``postgresql://…`` of a database, or ``https://…`` of a Supabase project.
            user_id: As in `from_store`.
            agent_id: As in `from_store`.
            settings: What `PersistenceConfig` or `SupabaseStore` takes beside: ``schema``,
                ``tenant``, ``key`` …
        """
        with loop_in_thread() as loop:
            bridge = Bridge(loop)
            store = bridge.wait("from_store", opened(url, settings))
            try:
                yield cls(Chats(store, agent_id), bridge, user_id)
            finally:
                bridge.wait("aclose", store.aclose())

    def __call__(self, session_id: str, user_id: str | None = None) -> HaiveChatMessageHistory:
        """The history of a session.

        Args:
            session_id: The session, by any text of up to 1,000 characters.
            user_id: Whose session, if not the one of all.
        """
        whose = self._user_id if user_id is None else user_id
        return HaiveChatMessageHistory(
            self._chats, self._bridge, Chat(session_id=session_id, user_id=whose)
        )
