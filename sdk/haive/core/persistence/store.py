"""The store: one API, whatever the way to the database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from haive.core.persistence._columns import conversations_of, messages_of, page_of
from haive.core.persistence._decoding import decode
from haive.core.persistence._encoding import (
    as_uuid,
    check_all,
    decoded,
    describe,
    new_id,
    object_to_json,
    to_json,
    whole_number,
)
from haive.core.persistence._filters import checked_filters
from haive.core.persistence._group_commit import GroupCommit
from haive.core.persistence._repeated import same, write_missing
from haive.core.persistence._rows import message_row, row_of
from haive.core.persistence._sealing import (
    SEALED_FIELDS,
    ContentKeys,
    check_filters,
    json_of_sealed,
)
from haive.core.persistence.errors import ConflictError, InvalidInputError, PersistenceError
from haive.core.persistence.models import (
    ContentPart,
    Conversation,
    ConversationMetadata,
    Message,
    MessageRole,
    Name,
    NewConversation,
    NewMessage,
    Page,
    TokenUsage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType
    from uuid import UUID

    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence._sealing import Sealer
    from haive.core.persistence._transport import Transport
    from haive.core.persistence.events import Event, Subscription
    from haive.core.persistence.privacy import PIIPolicy, Redactor

T = TypeVar("T")
Order = Literal["last_message_at", "created_at", "updated_at", "message_count"]
Role = Literal["owner", "admin", "member", "reader"]

_CONVERSATION = TypeAdapter(Conversation)
_CONVERSATIONS = TypeAdapter(list[Conversation])
_MESSAGES = TypeAdapter(list[Message])
_COUNT = TypeAdapter(int)
_NAME: TypeAdapter[str] = TypeAdapter(Name, config=ConfigDict(hide_input_in_errors=True))
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class _PageDocument(BaseModel):
    conversations: list[Conversation]
    next_page: str | None


_PAGE = TypeAdapter(_PageDocument)

# Most rows and bytes of one all-or-nothing write, and most rows of one page when iterating.
_CHUNK, _HEAVIEST = 5_000, 16 * 1024 * 1024
_PAGE_SIZE = 500
# How often a change of what is sealed as one begins anew when somebody else was first.
_ATTEMPTS = 10


class Store:
    """Conversations and their messages.

    Made by `PostgresStore` and `SupabaseStore`; both have exactly this API. All writes carry ids,
    so a call that was interrupted may be repeated: what is there already is not written twice.

    Args:
        pii: What is done with personal data in messages, conversations and memories before they
            are stored.
            Checkpoints, and what `execute` writes, are not looked at.
    """

    def __init__(self, *, pii: PIIPolicy | None = None) -> None:
        self._commits: GroupCommit | None = None
        self._redactor: Redactor | None = None
        if pii is not None:
            from haive.core.persistence.privacy.redactor import (  # noqa: PLC0415
                redactor_for,  # patterns are compiled where there is a policy
            )

            self._redactor = redactor_for(pii)
        # The channels of `events`; and who read those last that are heard on where they left off.
        self._channels: tuple[str, ...] = ("conversations", "agent_states")
        self._last_read: dict[str, Subscription] = {}
        #: Seals content on its way out, and opens it on its way in, where a tenant asks for it.
        self._sealer: Sealer | None = None

    @property
    def _transport(self) -> Transport:
        raise PersistenceError("The store is not open.")

    @property
    def _state(self) -> str:
        """What it works with, in a few words for `repr`: no address, which may have a password."""
        return "not open"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for writes on their way and give the connections back."""
        if self._commits is not None:
            await self._commits.drain()

    # -- conversations ---------------------------------------------------------------------------

    async def create_conversation(
        self,
        agent_id: str,
        user_id: str | None = None,
        metadata: ConversationMetadata | Mapping[str, Any] | None = None,
        *,
        id: UUID | str | None = None,  # noqa: A002 - what it is
        created_at: datetime | None = None,
    ) -> Conversation:
        """Begin a conversation.

        Args:
            agent_id: The agent that answers.
            user_id: The user that asks; the caller where a user's token is used.
            metadata: Title, tags, context, participants and settings.
            id: A UUID of the caller's, to make a retry safe; made if not given.
            created_at: When it began, if not now. Naive times are UTC.

        Raises:
            ConflictError: The id is taken by another conversation.
            InvalidInputError: An argument cannot be stored.
        """
        try:
            new = NewConversation(
                agent_id=agent_id,
                user_id=user_id,
                metadata=metadata or ConversationMetadata(),  # type: ignore[arg-type] # or a mapping
                id=None if id is None else as_uuid(id, "id"),
                created_at=created_at,
            )
        except ValidationError as error:
            raise InvalidInputError(describe(error)) from None
        return (await self.create_conversations([new]))[0]

    async def create_conversations(
        self, conversations: Sequence[NewConversation]
    ) -> list[Conversation]:
        """Begin many conversations in one round trip, all or none.

        Raises:
            ConflictError: An id is taken by another conversation.
            InvalidInputError: Something cannot be stored.
        """
        check_all(conversations, "conversations", NewConversation)
        documents = [
            await self._conversation_document(
                {
                    "id": new.id or new_id(),
                    "agent_id": new.agent_id,
                    "user_id": new.user_id,
                    "created_at": new.created_at,
                    **new.metadata.model_dump(),
                }
            )
            for new in conversations
        ]
        if not documents:
            return []
        limit = 1024 * 1024 * 256
        return await self._read(
            "create_conversations",
            {"conversations": to_json(documents, "conversations", limit)},
            _CONVERSATIONS,
            ContentKeys.open_conversations,
        )

    async def _conversation_document(self, document: dict[str, Any]) -> dict[str, Any]:
        """A conversation that begins as it leaves the process: looked through, checked, sealed."""
        if self._redactor is not None:
            document = self._redactor.conversation(document)
        texts = json_of_sealed(document)
        if self._sealer is not None:
            keys = await self._sealer.ready()
            document |= keys.seal_conversation(document["id"], texts).document()
            for field in SEALED_FIELDS:
                del document[field]
        return document

    async def get_conversation(
        self,
        conversation_id: UUID | str,
        *,
        include_messages: bool = False,
        message_limit: int = 50,
    ) -> Conversation:
        """One conversation, with its last messages if asked.

        Raises:
            NotFoundError: There is none, or none that the caller may see.
            InvalidInputError: ``message_limit`` is not between 0 and 1,000.
        """
        asked = whole_number(message_limit, "message_limit", 0, 1_000) if include_messages else 0
        arguments = {
            "conversation_id": as_uuid(conversation_id, "conversation_id"),
            "message_limit": asked,
        }
        # Without messages JSON is as fast.
        rows = await self._rows_of("read_conversation", arguments) if include_messages else None
        if rows is not None:
            return conversations_of(rows, with_messages=asked > 0)[0]
        return await self._read(
            "get_conversation", arguments, _CONVERSATION, ContentKeys.open_conversation
        )

    async def query_conversations(
        self,
        user_id: str | None = None,
        *,
        limit: int = 10,
        filters: Mapping[str, Any] | None = None,
        order_by: Order = "last_message_at",
        ascending: bool = False,
        include_messages: bool = False,
        message_limit: int = 50,
        page_after: str | None = None,
    ) -> Page:
        """Conversations by filters, latest first.

        Args:
            user_id: Only this user's; the same as the filter.
            limit: How many, 1 to 1,000.
            filters: Any of ``user_id``, ``agent_id``, ``tags`` (all of them), ``any_tags``,
                ``participants`` (all of them), ``context`` (contains this JSON), ``title`` and
                ``text`` (contain this, in any case), ``min_messages``, ``max_messages``, and
                ``created_``, ``updated_`` and ``active_`` with ``after`` (that time or later) and
                ``before``; naive times are UTC. ``text`` reads the messages of every candidate.
            order_by: ``last_message_at``, ``created_at``, ``updated_at`` or ``message_count``.
            ascending: Oldest or smallest first.
            include_messages: With the last ``message_limit`` messages of each, in order.
            message_limit: How many messages, up to 1,000.
            page_after: ``next_page`` of the page before.

        Raises:
            InvalidInputError: An unknown filter or order, or a value of the wrong type.
            UnsupportedOperationError: A filter of sealed content: ``context``, ``title``, ``text``.
        """
        wanted = checked_filters(filters)
        if user_id is not None:
            wanted["user_id"] = user_id
        if self._sealer is not None:
            check_filters(wanted)
        if not isinstance(order_by, str):
            raise InvalidInputError("order_by is no text.")
        if not isinstance(ascending, bool):
            raise InvalidInputError("ascending is neither true nor false.")
        if page_after is not None and not isinstance(page_after, str):
            raise InvalidInputError("page_after is no text.")
        asked = whole_number(message_limit, "message_limit", 0, 1_000) if include_messages else 0
        arguments = {
            "filters": object_to_json(wanted, "filters"),
            "order_by": order_by,
            "ascending": ascending,
            "page_size": whole_number(limit, "limit", 1, 1_000),
            "page_after": page_after,
            "message_limit": asked,
        }
        rows = await self._rows_of("read_conversations", arguments)
        if rows is not None:
            return page_of(rows, with_messages=asked > 0)
        found = await self._read("query_conversations", arguments, _PAGE, ContentKeys.open_page)
        return Page(found.conversations, next_page=found.next_page)

    async def iter_conversations(
        self,
        user_id: str | None = None,
        *,
        filters: Mapping[str, Any] | None = None,
        order_by: Order = "last_message_at",
        ascending: bool = False,
    ) -> AsyncIterator[Conversation]:
        """All conversations that match, page by page, as `query_conversations` orders them."""
        page_after = None
        while True:
            page = await self.query_conversations(
                user_id,
                limit=_PAGE_SIZE,
                filters=filters,
                order_by=order_by,
                ascending=ascending,
                page_after=page_after,
            )
            for conversation in page:
                yield conversation
            page_after = page.next_page
            if page_after is None:
                return

    async def update_conversation(
        self,
        conversation_id: UUID | str,
        *,
        agent_id: str | None = None,
        metadata: ConversationMetadata | Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Replace fields of a conversation; those that are not given stay.

        Args:
            conversation_id: Which.
            agent_id: The agent that answers from now on.
            metadata: The fields to replace: of a `ConversationMetadata` those that were set, of a
                mapping those that it has.

        Raises:
            NotFoundError: There is none, or none that the caller may write to.
            InvalidInputError: A field does not exist or cannot be stored.
        """
        try:
            checked = ConversationMetadata.model_validate(metadata or {})
        except ValidationError as error:
            raise InvalidInputError(describe(error)) from None
        changes = checked.model_dump(exclude_unset=True)
        if self._redactor is not None and changes:
            stored = None
            if self._redactor.tags:  # those of the other fields stay
                stored = (await self.get_conversation(conversation_id)).metadata.model_dump()
            changes = self._redactor.conversation(changes, stored)
        if agent_id is not None:
            try:
                changes["agent_id"] = _NAME.validate_python(agent_id)
            except ValidationError as error:
                raise InvalidInputError(f"agent_id: {describe(error)}") from None
        key = as_uuid(conversation_id, "conversation_id")
        if self._sealer is None or not changes.keys() & set(SEALED_FIELDS):
            json_of_sealed(changes)
            return await self._update(key, changes)
        for attempt in range(_ATTEMPTS):
            # What is sealed as one changes as one: read, and written if it still is what was read.
            now = await self.get_conversation(key)
            whole = now.metadata.model_dump(include=set(SEALED_FIELDS)) | changes
            keys = await self._sealer.ready()
            sealed = keys.seal_conversation(key, json_of_sealed(whole)).document()
            rest = {name: whole[name] for name in changes.keys() - set(SEALED_FIELDS)}
            try:
                was = {"was_updated_at": now.updated_at}
                return await self._update(key, rest | sealed | was)
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError

    async def _update(self, conversation_id: UUID, changes: Mapping[str, Any]) -> Conversation:
        return await self._read(
            "update_conversation",
            {
                "conversation_id": conversation_id,
                "changes": to_json(changes, "changes", 4 * 1024 * 1024),
            },
            _CONVERSATION,
            ContentKeys.open_conversation,
            safe=False,  # repeated late, it would undo what somebody changed meanwhile
        )

    async def delete_conversation(self, conversation_id: UUID | str) -> int:
        """Delete a conversation with its messages, and return how many those were.

        Raises:
            NotFoundError: There is none, or none that the caller may delete.
        """
        return await self._transport.call(
            "delete_conversation",
            {"conversation_id": as_uuid(conversation_id, "conversation_id")},
            _COUNT,
            safe=False,
        )

    # -- messages --------------------------------------------------------------------------------

    async def add_message(
        self,
        conversation_id: UUID | str,
        role: MessageRole | str,
        content: str | Sequence[ContentPart | dict[str, Any]],
        *,
        metadata: dict[str, Any] | None = None,
        token_usage: TokenUsage | dict[str, Any] | None = None,
        id: UUID | str | None = None,  # noqa: A002 - what it is
        created_at: datetime | None = None,
    ) -> Message:
        """Add a message to a conversation, and return it when it is durable.

        Messages that are added at the same time, by many tasks of a process, share statements;
        each has its own outcome, and those of one conversation keep their order. A call that is
        cancelled may have stored its message all the same, once it was on its way: give an id to
        be able to repeat it.

        Args:
            conversation_id: Which conversation.
            role: Who speaks.
            content: Text, or a list of parts (text, image, tool call, tool result). May be empty.
            metadata: Any JSON object; datetimes become ISO 8601.
            token_usage: What the model read and wrote, and the cost.
            id: A UUID of the caller's, to make a retry safe; made if not given.
            created_at: When it was said, if not now. Naive times are UTC.

        Raises:
            NotFoundError: There is no such conversation, or none that the caller may write to.
            ConflictError: The id is taken by another message.
            InvalidInputError: Something in it cannot be stored.
            PersonalDataError: The store's policy refuses what is in it.
        """
        if self._redactor is not None:
            content, metadata = self._redactor.message(content, metadata)
        row = message_row(conversation_id, role, content, metadata, token_usage, id, created_at)
        return await self._add_row(row)

    async def _add_row(self, row: MessageRow) -> Message:
        if self._sealer is not None:
            row = (await self._sealer.ready()).seal_message(row)
        if self._commits is None:
            self._commits = GroupCommit(self._transport.append, self._transport.check_loop)
        try:
            return await self._commits.add(row)
        except ConflictError:
            message = same(row, await self._found([row]))
            if message is None:
                raise
            return message

    async def add_messages(self, messages: Sequence[NewMessage]) -> list[Message]:
        """Add many messages, of any conversations, in the order given.

        Up to 5,000 messages and 16 MiB are written all or none; more go in several such writes.

        Raises:
            NotFoundError: There is no such conversation, or none that the caller may write to.
            ConflictError: An id is taken by another message.
            InvalidInputError: Something cannot be stored; then nothing is.
        """
        rows = self._rows(messages)
        places = await self._write(rows)
        return [row.stored(seq, at) for row, (seq, at) in zip(rows, places, strict=True)]

    def _rows(self, messages: Sequence[NewMessage]) -> list[MessageRow]:
        check_all(messages, "messages", NewMessage)
        redactor = self._redactor
        if redactor is None:
            return [row_of(message) for message in messages]
        return [row_of(redactor.new_message(message)) for message in messages]

    def _redacted(self, rows: Sequence[MessageRow]) -> Sequence[MessageRow]:
        """Rows that were made elsewhere, as they may be stored."""
        redactor = self._redactor
        if redactor is None:
            return rows
        return [
            message_row(
                row.conversation_id,
                row.role,
                *redactor.message(row.content, decoded(row.metadata)),
                row.usage,
                row.id,
                row.created_at,
            )
            for row in rows
        ]

    async def _write(self, rows: Sequence[MessageRow]) -> list[tuple[int, datetime]]:
        written: list[tuple[int, datetime]] = []
        for chunk in _chunks(rows):
            sealed = await self._sealed(chunk)
            try:
                written += await self._transport.append_many(sealed)
            except ConflictError:
                found = await self._found(sealed)
                if not found:
                    raise
                written += await write_missing(self._transport, sealed, found)
        return written

    async def _sealed(self, rows: Sequence[MessageRow]) -> Sequence[MessageRow]:
        return rows if self._sealer is None else await self._sealer.sealed(rows)

    async def _found(self, rows: Sequence[MessageRow]) -> list[Message]:
        """The messages at the ids of rows, which the database could not compare with them."""
        return [] if self._sealer is None else await self._find_messages([row.id for row in rows])

    async def _find_messages(self, ids: Sequence[UUID]) -> list[Message]:
        """The messages at these ids that are there, and the caller's to see."""
        return await self._read("find_messages", {"ids": ids}, _MESSAGES, ContentKeys.open_messages)

    async def get_messages(
        self,
        conversation_id: UUID | str,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        last: bool = False,
    ) -> list[Message]:
        """A page of messages, always in order.

        In a session a page may be shorter, or empty, with more after it: a page is a range of
        ``seq``, and messages that are hidden from the caller are left out of it.

        Args:
            conversation_id: Which conversation.
            after: Only those with a higher ``seq``.
            before: Only those with a lower ``seq``.
            limit: How many, up to 10,000.
            last: The last ones of these and not the first.

        Raises:
            NotFoundError: There is no such conversation, or none that the caller may see.
            InvalidInputError: A number is none, or out of its bounds.
        """
        arguments = {
            "conversation_id": as_uuid(conversation_id, "conversation_id"),
            "after": whole_number(after, "after"),
            "before": None if before is None else whole_number(before, "before"),
            "page_size": whole_number(limit, "limit", 1, 10_000),
            "last": last,
        }
        rows = await self._rows_of("read_messages", arguments)
        if rows is not None:
            return messages_of(rows)[0]
        return await self._read("get_messages", arguments, _MESSAGES, ContentKeys.open_messages)

    async def iter_messages(
        self, conversation_id: UUID | str, *, after: int = 0
    ) -> AsyncIterator[Message]:
        """All messages of a conversation in order; the next page is fetched meanwhile.

        Those that the caller may see, of what there is when it begins.
        """
        start = max(whole_number(after, "after"), 0)
        # How many there are, and from the beginning on the last page with it: most have no other.
        last = 0 if start else _PAGE_SIZE
        known = await self.get_conversation(
            conversation_id, include_messages=last > 0, message_limit=last
        )
        before = known.message_count - last + 1
        page: list[Message] = []
        # By ranges of seq and not by what comes: of a page all may be hidden.
        for place in range(start, before - 1, _PAGE_SIZE):
            following = asyncio.create_task(
                self.get_messages(conversation_id, after=place, before=before, limit=_PAGE_SIZE)
            )
            try:
                for message in page:
                    yield message
                page = await following
            finally:
                following.cancel()
        for message in page:
            yield message
        for message in known.messages or ():
            yield message

    # -- the rest --------------------------------------------------------------------------------

    async def set_member(self, user_id: str, role: Role | None) -> None:
        """Make a user owner, admin, member or reader of the tenant; None removes them.

        Raises:
            AccessDeniedError: The caller does not administer the tenant.
            InvalidInputError: There is no such role, or ``user_id`` is no name.
        """
        if not isinstance(user_id, str):
            raise InvalidInputError("user_id is no text.")
        if role is not None and role not in get_args(Role):
            raise InvalidInputError(f"role is one of {', '.join(get_args(Role))}, or None.")
        await self._transport.call(
            "set_member", {"user_id": user_id, "role": role}, _ANYTHING, safe=True
        )

    def subscribe(
        self,
        channel: str,
        *,
        after: str | None = None,
        on_event: Callable[[Event], Awaitable[None] | None] | None = None,
    ) -> Subscription:
        """Hear of what happens in a channel: in order, none missed, none twice.

        Enter it with ``async with`` and iterate over it, or give ``on_event``.

        Args:
            channel: ``conversations`` or ``agent_states`` (of these the caller hears what they may
                see), ``tenant`` (everything; for administrators and services),
                ``conversation:ID``, ``session:ID``, or ``thread:ID`` with all of its namespaces.
            after: A cursor: of an event, or of a subscription that has ended. None begins now,
                ``"0"`` at the oldest that is kept.
            on_event: Called with each event, one after the other; may be async. Its error ends the
                subscription, cancels what the block does, and is raised by the block.

        Raises:
            InvalidInputError: There is no such channel, or ``after`` is no cursor.
            NotFoundError: The conversation or thread is not there, or not the caller's to see.
            AccessDeniedError: The channel ``tenant`` is not for this caller.
            CursorExpiredError: The events after the cursor are not kept any more.
        """
        from haive.core.persistence.events import Subscription  # noqa: PLC0415 - where it is used

        return Subscription(lambda: self._transport, {channel: after}, on_event)

    def events(
        self,
        *channels: str,
        after: Mapping[str, str | None] | None = None,
        on_event: Callable[[Event], Awaitable[None] | None] | None = None,
    ) -> Subscription:
        """Hear of several channels at once; `Event.channel` says of which.

        Args:
            channels: As in `subscribe`; those of the store if none is given.
            after: Cursors by channel, such as `Subscription.cursors`. Without one, a channel that
                the store has joined goes on where it was last heard; any other begins now.
            on_event: As in `subscribe`.
        """
        from haive.core.persistence.events import Subscription  # noqa: PLC0415 - where it is used

        given = dict(after or {})
        known = {name: last.cursors[name] for name, last in self._last_read.items()} | given
        names = channels or self._channels
        made = Subscription(
            lambda: self._transport, {name: known.get(name) for name in names}, on_event
        )
        goes_on = (self._last_read.keys() & set(names)) - given.keys()
        self._last_read |= dict.fromkeys(goes_on, made)
        return made

    async def _read(
        self,
        function: str,
        arguments: Mapping[str, object],
        returns: TypeAdapter[T],
        opens: Callable[[ContentKeys, Any], Any],
        *,
        safe: bool = True,
    ) -> T:
        """Call a function, and open what it answers where content is sealed."""
        if self._sealer is None:
            return await self._transport.call(function, arguments, returns, safe=safe)
        answer = await self._transport.call(function, arguments, _ANYTHING, safe=safe)
        return decode(returns, await self._sealer.opened(answer, opens))

    async def _rows_of(
        self, function: str, arguments: Mapping[str, object]
    ) -> Sequence[Any] | None:
        """What the database answers by column; None where it answers JSON, or content is sealed."""
        if self._sealer is not None:
            return None
        return await self._transport.rows(function, arguments)

    async def execute(self, sql: str, *arguments: object) -> list[dict[str, object]]:
        """Run a statement of your own as the owner of the schema, and return its rows.

        Args:
            sql: One statement.
            arguments: For ``$1``, ``$2``, … in it.

        Raises:
            UnsupportedOperationError: The store has no direct connection.
        """
        return await self._transport.execute(sql, arguments)


def _chunks(rows: Sequence[MessageRow]) -> Iterator[Sequence[MessageRow]]:
    start = weight = 0
    for place, row in enumerate(rows):
        if place > start and (place - start == _CHUNK or weight + row.weight > _HEAVIEST):
            yield rows[start:place]
            start, weight = place, 0
        weight += row.weight
    if rows:
        yield rows[start:]
