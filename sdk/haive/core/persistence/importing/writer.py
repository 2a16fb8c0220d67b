"""Writes batches of conversations, and only what is not there yet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from haive.core.persistence.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SessionClosedError,
    SessionFullError,
    SubjectErasedError,
    TenantError,
)
from haive.core.persistence.importing.prepare import reason
from haive.core.persistence.importing.records import Skipped
from haive.core.persistence.importing.stored import LOOKS, count_stored, stored_conversations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence, Set
    from uuid import UUID

    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence.importing.prepare import Prepared
    from haive.core.persistence.importing.report import ImportReport
    from haive.core.persistence.models import Conversation
    from haive.core.persistence.store import Store

    Note = Callable[[Skipped], None]

_Given = TypeVar("_Given")
_Written = TypeVar("_Written")

_ATTEMPTS = 10

#: Of the messages of a batch, about: what a store writes at once.
MAX_BYTES = 16 << 20

# Errors of one row; all others are of the connection or the caller, and end the import.
_REFUSALS = (
    InvalidInputError,
    ConflictError,
    NotFoundError,
    SessionClosedError,
    SessionFullError,
    SubjectErasedError,
)


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
        tags: What the caller tags all with, what is there already too.
    """

    def __init__(
        self,
        store: Store,
        report: ImportReport,
        note: Note,
        agent: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self._agent = agent
        self._tags = tags
        self._store = store
        self._report = report
        self._note = note

    async def write(self, batch: Sequence[Prepared]) -> None:
        """Write a batch; each conversation of it stands there once."""
        refused: list[Skipped] = []

        def refuse(prepared: Prepared, error: Exception | str) -> None:
            why = error if isinstance(error, str) else _refusal(error)
            refused.append(Skipped(what="conversation", reason=why, place=prepared.place))

        # Of those with messages, their number tells.
        known = await stored_conversations(
            self._store, [prepared for prepared in batch if not prepared.messages]
        )
        stored = await _each_or_none(self._create, batch, refuse)
        there = await count_stored(self._store, stored)
        places = {prepared.id: prepared.place for prepared, _ in stored}

        def refuse_message(message: MessageRow, error: Exception) -> None:
            place = places[message.conversation_id]
            refused.append(Skipped(what="message", reason=_refusal(error), place=place))

        to_write: list[MessageRow] = []
        new: set[UUID] = set()
        for prepared, conversation in stored:
            number = there[prepared.id]
            is_new = conversation.message_count == 0 and prepared.id not in known
            self._count(len(prepared.messages), number, is_new=is_new)
            if is_new:
                new.add(prepared.id)
            if number is not None:
                to_write += prepared.messages[number:]
                continue
            refuse(prepared, "changed at its source since it was imported")
        written = await _each_or_none(self._store_messages, to_write, refuse_message)
        self._report.messages += len(written)
        kept = [pair for pair in stored if there[pair[0].id] is not None]
        await self._tag(kept, new, refuse)
        # Last, for it may end the import: what is not refused is written then.
        for skipped in refused:
            self._note(skipped)

    async def _create(self, batch: Sequence[Prepared]) -> list[tuple[Prepared, Conversation]]:
        given = [prepared.conversation for prepared in batch]
        try:
            return await self._begin(batch)
        except ConflictError as conflict:
            if not await self._take_what_is_stored(batch):
                raise
            try:
                return await self._begin(batch)
            except AccessDeniedError:  # somebody else's, in which the caller takes part
                for prepared, conversation in zip(batch, given, strict=True):
                    prepared.conversation = conversation
                raise conflict from None

    async def _take_what_is_stored(self, batch: Sequence[Prepared]) -> bool:
        """Give conversations the agents and users that they are stored with; whether it had any.

        Agents where the caller names none, users where the source names none either.
        """
        there = await stored_conversations(
            self._store,
            [one for one in batch if self._agent is None or one.conversation.user_id is None],
        )
        changed = False
        for prepared in batch:
            given, stored = prepared.conversation, there.get(prepared.id)
            if stored is None:
                continue
            kept = {}
            if self._agent is None and stored.agent_id != given.agent_id:
                kept["agent_id"] = stored.agent_id
            if given.user_id is None and stored.user_id is not None:
                kept["user_id"] = stored.user_id
            if kept:
                prepared.conversation = given.model_copy(update=kept)
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

    async def _tag(
        self,
        stored: Sequence[tuple[Prepared, Conversation]],
        new: Set[UUID],
        refuse: Callable[[Prepared, Exception | str], None],
    ) -> None:
        """Add the caller's tags to what was there without them; what is new counts as that."""
        if not self._tags:
            return
        at_once = asyncio.Semaphore(LOOKS)

        async def add(prepared: Prepared, conversation: Conversation) -> None:
            tags = self._tags_as_stored(prepared)
            try:
                async with at_once:
                    added = await self._add_tags(conversation, tags)
            except ConflictError:
                refuse(prepared, "changed all the time while it was to be tagged")
            except _REFUSALS as error:
                refuse(prepared, error)
            else:
                self._report.tagged_conversations += added and prepared.id not in new

        await asyncio.gather(*(add(prepared, conversation) for prepared, conversation in stored))

    async def _add_tags(self, conversation: Conversation, tags: Sequence[str]) -> bool:
        """Add tags to those that a conversation has now; whether it lacked any.

        Raises:
            ConflictError: Others change it faster than it is read.
        """
        for attempt in range(_ATTEMPTS):
            there = conversation.metadata.tags
            missing = [tag for tag in tags if tag not in there]
            if not missing:
                return False
            # The list is replaced as a whole: only if it still is what was read.
            wanted = list(dict.fromkeys([*there, *missing]))
            changes = {"tags": wanted, "was_updated_at": conversation.updated_at}
            try:
                await self._store._update(conversation.id, changes)
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
                conversation = await self._store.get_conversation(conversation.id)
            else:
                return True
        raise AssertionError

    def _tags_as_stored(self, prepared: Prepared) -> list[str]:
        """The caller's tags with what a new conversation would have in place of personal data."""
        about = prepared.conversation.metadata.model_dump()
        redactor = self._store._redactor
        done = about if redactor is None else redactor.conversation(about)
        return [
            tag
            for given, tag in zip(about["tags"], done["tags"], strict=True)
            if given in self._tags
        ]

    def _count(self, messages: int, there: int | None, *, is_new: bool) -> None:
        """Count a conversation: how many messages it has, and how many are there."""
        report = self._report
        if is_new:
            report.conversations += 1
        elif there is not None and there < messages:
            report.grown_conversations += 1
        else:
            report.conversations_already_there += 1
        report.messages_already_there += there or 0


def _refusal(error: Exception) -> str:
    """Why, in words that are the same each time and name nobody."""
    if isinstance(error, InvalidInputError):
        return reason(error)
    if isinstance(error, ConflictError):
        return "its id is taken by another agent's, user's or time's"
    if isinstance(error, SubjectErasedError):
        return "its user was erased"
    if isinstance(error, SessionClosedError):
        return "its session is closed"
    if isinstance(error, SessionFullError):
        return "its session is full"
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
