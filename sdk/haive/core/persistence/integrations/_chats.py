"""The coroutines behind `HaiveChatMessageHistory`; they run on the event loop of the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from haive.core.persistence.errors import ConflictError, InvalidInputError, NotFoundError
from haive.core.persistence.integrations._checking import checked_name, checked_user, listed
from haive.core.persistence.integrations._messages import restored, stored
from haive.core.persistence.vector._ids import EPOCH, derived_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from haive.core.persistence.models import Message
    from haive.core.persistence.store import Store

# Messages of one round trip, and of one that brings their number too.
_PAGE, _LAST = 10_000, 1_000


class _Tenant(BaseModel):
    tenant: str


_TENANT = TypeAdapter(_Tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """Whose conversation a history is, by the name that the caller has for it."""

    session_id: str | None = None
    user_id: str | None = None
    conversation_id: UUID | None = None
    """Of one that is there already, instead."""

    def __post_init__(self) -> None:
        if (self.session_id is None) == (self.conversation_id is None):
            raise InvalidInputError("Give a session_id or a conversation_id.")
        if self.session_id is None:
            if self.user_id is not None:
                raise InvalidInputError("A user_id tells sessions apart; a conversation has one.")
            return
        checked_user(self.user_id)
        checked_name(self.session_id, "session_id")


class Chats:
    """Histories in the conversations of a store.

    Args:
        store: An open store.
        agent_id: The agent of conversations that are begun.
    """

    def __init__(self, store: Store, agent_id: str) -> None:
        self._store = store
        self._agent_id = agent_id
        self._tenant = store._transport.tenant

    async def conversation_of(self, chat: Chat) -> UUID:
        """The id of the conversation: always the same for one tenant, user and session."""
        if chat.conversation_id is not None:
            return chat.conversation_id
        if self._tenant is None:  # it is the caller's only one, and the database knows which
            found = await self._store._transport.call("current_tenant", {}, _TENANT, safe=True)
            self._tenant = found.tenant
        name = json.dumps([self._tenant, chat.user_id, chat.session_id])
        return UUID(derived_id(EPOCH, "chat", name))

    async def read(self, chat: Chat) -> list[BaseMessage]:
        """All messages in order; none where nothing was said yet."""
        conversation_id = await self.conversation_of(chat)
        if chat.conversation_id is not None:
            return await self._read_ranges(conversation_id)
        found: list[BaseMessage] = []
        after = 0
        try:
            while True:
                page = await self._store.get_messages(conversation_id, after=after, limit=_PAGE)
                found += [each for message in page for each in restored(message)]
                after += _PAGE
                if len(page) < _PAGE:
                    return found
        except NotFoundError:
            return []

    async def _read_ranges(self, conversation_id: UUID) -> list[BaseMessage]:
        """All messages of what may be a session, of which pages leave out what is hidden.

        A short page is not the last one there: how many there are comes with those of the end.
        """
        known = await self._store.get_conversation(
            conversation_id, include_messages=True, message_limit=_LAST
        )
        messages: list[Message] = []
        before = known.message_count - _LAST + 1
        for after in range(0, before - 1, _PAGE):
            messages += await self._store.get_messages(
                conversation_id, after=after, before=before, limit=_PAGE
            )
        messages += known.messages or ()
        return [each for message in messages for each in restored(message)]

    async def add(self, chat: Chat, messages: Sequence[BaseMessage]) -> None:
        """Write messages at the end; the conversation is begun where there is none."""
        conversation_id = await self.conversation_of(chat)
        new = [stored(message, conversation_id) for message in listed(messages, "messages")]
        if not new:
            return
        try:
            await self._store.add_messages(new)
        except NotFoundError:
            if chat.conversation_id is not None:
                raise
            await self._begin(chat, conversation_id)
            await self._store.add_messages(new)

    async def _begin(self, chat: Chat, conversation_id: UUID) -> None:
        try:
            await self._store.create_conversation(
                self._agent_id,
                chat.user_id,
                {"context": {"session_id": chat.session_id}},
                id=conversation_id,
            )
        except ConflictError:
            # Another process has begun it, for an agent of another name. If it is somebody else's,
            # writing to it says so.
            return

    async def clear(self, chat: Chat) -> None:
        """Delete the conversation."""
        try:
            await self._store.delete_conversation(await self.conversation_of(chat))
        except NotFoundError:
            return
