"""Writes batches of conversations, and only what is not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from haive.core.persistence.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    TenantError,
)
from haive.core.persistence.importing.prepare import reason
from haive.core.persistence.importing.records import Skipped, What
from haive.core.persistence.importing.stored import count_stored, stored_agents

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence.importing.prepare import Prepared
    from haive.core.persistence.importing.report import ImportReport
    from haive.core.persistence.models import Conversation
    from haive.core.persistence.store import Store

    Note = Callable[[Skipped], None]

_Given = TypeVar("_Given")
_Written = TypeVar("_Written")

#: Of the messages of a batch, about: what a store writes at once.
MAX_BYTES = 16 << 20

# Errors of one row; all others are of the connection or the caller, and end the import.
_REFUSALS = (InvalidInputError, ConflictError, NotFoundError)


class Writer:
    """Writes to a store what a source has and the store has not.

    The ids are the only memory: which conversations exist, and which of their messages, is asked
    of the database, so an import that was interrupted goes on when it is run again.

    Args:
        store: Where to.
        report: Counts what was written and what was there.
        note: Told what the database refused.
        agent: What the caller says that the agent of all is. Without it what is stored keeps its
            own: a source names its model, which may be another one by now.
    """

    def __init__(
        self, store: Store, report: ImportReport, note: Note, agent: str | None = None
    ) -> None:
        self._agent = agent
        self._store = store
        self._report = report
        self._note = note

    async def write(self, batch: Sequence[Prepared]) -> None:
        """Write a batch; each conversation of it stands there once."""

        def refuse(prepared: Prepared, error: Exception) -> None:
            self._refuse("conversation", prepared.place, error)

        stored = await _each_or_none(self._create, batch, refuse)
        there = await count_stored(self._store, stored)
        places = {prepared.id: prepared.place for prepared, _ in stored}

        def refuse_message(message: MessageRow, error: Exception) -> None:
            self._refuse("message", places[message.conversation_id], error)

        to_write = [
            message
            for prepared, conversation in stored
            for message in self._missing(prepared, conversation, there[prepared.id])
        ]
        written = await _each_or_none(self._store_messages, to_write, refuse_message)
        self._report.messages += len(written)

    async def _create(self, batch: Sequence[Prepared]) -> list[tuple[Prepared, Conversation]]:
        try:
            return await self._begin(batch)
        except ConflictError:
            if self._agent is not None or not await self._take_stored_agents(batch):
                raise
        return await self._begin(batch)

    async def _take_stored_agents(self, batch: Sequence[Prepared]) -> bool:
        """Give conversations the agents that they are stored with; whether those were others."""
        agents = await stored_agents(self._store, batch)
        changed = False
        for prepared in batch:
            agent = agents.get(prepared.id, prepared.conversation.agent_id)
            if agent != prepared.conversation.agent_id:
                prepared.conversation = prepared.conversation.model_copy(update={"agent_id": agent})
                changed = True
        return changed

    async def _begin(self, batch: Sequence[Prepared]) -> list[tuple[Prepared, Conversation]]:
        try:
            stored = await self._store.create_conversations(
                [prepared.conversation for prepared in batch]
            )
        except NotFoundError as error:
            # The tenant is all that a new conversation refers to; that is no fault of a row's.
            raise TenantError(
                "There is no such tenant.", hint="Check --tenant and HAIVE_TENANT."
            ) from error
        return list(zip(batch, stored, strict=True))

    async def _store_messages(self, messages: Sequence[MessageRow]) -> list[object]:
        # What add_messages does, but that nobody reads the messages.
        return [*await self._store._write(self._store._redacted(messages))]

    def _missing(
        self, prepared: Prepared, stored: Conversation, there: int | None
    ) -> list[MessageRow]:
        """The messages of a conversation that are to be written, after they were counted."""
        report, messages = self._report, prepared.messages
        if stored.message_count == 0:
            report.conversations += 1
        elif there is None:
            self._note(
                Skipped(
                    what="conversation",
                    reason="changed at its source since it was imported",
                    place=prepared.place,
                )
            )
        elif there < len(messages):
            report.grown_conversations += 1
        else:
            report.conversations_already_there += 1
        report.messages_already_there += there or 0
        return [] if there is None else messages[there:]

    def _refuse(self, what: What, place: str, error: Exception) -> None:
        text = reason(error) if isinstance(error, InvalidInputError) else _refusal(error)
        self._note(Skipped(what=what, reason=text, place=place))


def _refusal(error: Exception) -> str:
    if isinstance(error, ConflictError):
        return "its id is taken by another agent's, user's or time's"
    return "its conversation was deleted meanwhile"


async def _each_or_none(
    write: Callable[[Sequence[_Given]], Awaitable[list[_Written]]],
    items: Sequence[_Given],
    refuse: Callable[[_Given, Exception], None],
) -> list[_Written]:
    """Write all at once, or else halve until what the database refuses stands alone."""
    if not items:
        return []
    try:
        return await write(items)
    except _REFUSALS as error:
        if len(items) == 1:
            refuse(items[0], error)
            return []
    half = len(items) // 2
    # One after the other: messages keep their order.
    return [
        *await _each_or_none(write, items[:half], refuse),
        *await _each_or_none(write, items[half:], refuse),
    ]
