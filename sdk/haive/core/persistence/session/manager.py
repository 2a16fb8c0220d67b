"""The session manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from haive.core.persistence._encoding import as_uuid, new_id, object_to_json
from haive.core.persistence.errors import (
    InvalidInputError,
    NotFoundError,
    UnsupportedOperationError,
)
from haive.core.persistence.session._calls import SessionCalls
from haive.core.persistence.session._merger import Merger, strategies
from haive.core.persistence.session._people import checked_permissions, columns_of
from haive.core.persistence.session._presence import SessionPresence
from haive.core.persistence.session._router import Router
from haive.core.persistence.session._states import StateWriter
from haive.core.persistence.session._writing import Writer
from haive.core.persistence.session.config import SessionConfig
from haive.core.persistence.session.models import ConflictResolution, MergeStrategy
from haive.core.persistence.session.session import (
    Permission,
    PreviousSession,
    Session,
    SessionStatus,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from haive.core.persistence.events import Event, Subscription
    from haive.core.persistence.models import (
        ContentPart,
        Message,
        MessageRole,
        NewMessage,
        TokenUsage,
    )
    from haive.core.persistence.session.session import (
        Merge,
        SessionMessage,
        SessionPage,
        Synchronization,
    )
    from haive.core.persistence.store import Store

_UNSET: Any = object()
_PAGE_SIZE = 500


class SessionManager:
    """Threads of conversation that branch, merge, expire and are shared.

    A session is a conversation (its id is the conversation's) that has a place in a tree: a branch
    begins with messages of its parent, which stay where they are. Its messages are counted by
    their index in the session, from 1.

    A service acts for itself, and may do all, or with ``as_user`` for a user, who may do what they
    have permission for. A store with a user's token acts for that user.

    Args:
        store: An open `PostgresStore` or `SupabaseStore`, or the store of a tenant.
        config: How sessions live, branch, merge and find each other.
    """

    def __init__(self, store: Store, config: SessionConfig | None = None) -> None:
        self.store = store
        self.config = config or SessionConfig()
        self._calls = SessionCalls(store)
        self._writer = Writer(self._calls)
        self._states = StateWriter(self._calls)
        self._merger = Merger(self._calls, self.config)
        self._router = Router(self, self._calls, self._writer, self.config)

    # -- beginning -------------------------------------------------------------------------------

    async def create_session(
        self,
        user_id: str | None = None,
        agent_id: str = "assistant",
        context: Mapping[str, Any] | None = None,
        parent_session_id: UUID | str | None = None,
        *,
        title: str | None = None,
        tags: Sequence[str] = (),
        ttl: int | None = _UNSET,
        max_messages: int | None = _UNSET,
        id: UUID | str | None = None,  # noqa: A002 - what it is
    ) -> Session:
        """Begin a session.

        Args:
            user_id: Who owns it; the caller where a user's token is used, the parent's owner where
                there is a parent.
            agent_id: The agent that answers.
            context: Any JSON object. ``previous_sessions`` in it is a list of ids that
                `previous_sessions` looks up.
            parent_session_id: A session to go on from: it begins with all messages that this has
                now. None begins a new thread.
            title: To find it by.
            tags: To find it by.
            ttl: Seconds that it stays open after its last message; ``default_ttl`` if not given,
                None for ever.
            max_messages: ``max_messages_per_session`` if not given, None for any number.
            id: A UUID of the caller's, to make a retry safe; made if not given.

        Raises:
            NotFoundError: There is no such parent, or none that the caller may see.
            InvalidInputError: Something cannot be stored.
            UnsupportedOperationError: A parent is named, and branching is off.
        """
        document = self._document(agent_id, user_id, context, ttl, max_messages, id)
        document |= {"title": title, "tags": list(tags)}
        if parent_session_id is not None:
            self._branching()
            document["parent_id"] = as_uuid(parent_session_id, "parent_session_id")
        return await self._calls.create(document)

    async def branch_session(
        self,
        from_session: UUID | str,
        at_message_index: int | None = None,
        branch_context: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        ttl: int | None = _UNSET,
        max_messages: int | None = _UNSET,
        id: UUID | str | None = None,  # noqa: A002
    ) -> Session:
        """Begin a session with the first messages of another one. Nothing is copied.

        What is written to the parent later does not show in the branch. A service's branch is of
        the same owner and participants; a user's own is theirs alone.

        Args:
            from_session: The session to branch off, open or not.
            at_message_index: How many of its messages the branch has: 5 branches after the fifth,
                0 before the first; all that there are now if not given.
            branch_context: What is put on top of the parent's context.
            user_id: The owner, if not the parent's.
            agent_id: The agent, if not the parent's.
            ttl: As in `create_session`.
            max_messages: As in `create_session`.
            id: A UUID of the caller's, to make a retry safe.

        Raises:
            InvalidInputError: The parent has not so many messages.
            NotFoundError: There is no such session, or none that the caller may see.
            UnsupportedOperationError: ``enable_branching`` is off.
        """
        self._branching()
        if at_message_index is not None and (
            isinstance(at_message_index, bool) or not isinstance(at_message_index, int)
        ):
            raise InvalidInputError("at_message_index is no number.")
        document = self._document(agent_id, user_id, branch_context, ttl, max_messages, id)
        document |= {
            "parent_id": as_uuid(from_session, "from_session"),
            "branch_index": at_message_index,
        }
        return await self._calls.create(document)

    async def create_collaborative_session(
        self,
        participants: Sequence[str],
        permissions: Mapping[str, Iterable[Permission | str]] | None = None,
        synchronization: Synchronization = "real-time",
        *,
        agent_id: str = "assistant",
        user_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        title: str | None = None,
        ttl: int | None = _UNSET,
        max_messages: int | None = _UNSET,
        id: UUID | str | None = None,  # noqa: A002
    ) -> Session:
        """Begin a session of several users.

        Args:
            participants: Who takes part, each once.
            permissions: Of each what they may do: ``read``, ``write``, ``moderate``. Who is not
                named reads and writes. Everybody reads.
            synchronization: ``real-time`` lets participants watch it; ``on-demand`` does not, and
                they read when they want to.
            agent_id: The agent that answers.
            user_id: Who owns it and may do all: the caller where a user's token is used, else
                nobody.
            context: As in `create_session`.
            title: To find it by.
            ttl: As in `create_session`.
            max_messages: As in `create_session`.
            id: A UUID of the caller's, to make a retry safe.

        Raises:
            InvalidInputError: A participant is named twice, a permission is unknown or of somebody
                who does not take part.
        """
        if synchronization not in {"real-time", "on-demand"}:
            raise InvalidInputError("synchronization is real-time or on-demand.")
        document = self._document(agent_id, user_id, context, ttl, max_messages, id)
        document |= {"title": title, "live": synchronization == "real-time"}
        document |= columns_of(checked_permissions(participants, permissions))
        return await self._calls.create(document)

    def _document(  # noqa: PLR0917 - what all that begins has in common
        self,
        agent_id: str | None,
        user_id: str | None,
        context: Mapping[str, Any] | None,
        ttl: int | None,
        max_messages: int | None,
        session_id: UUID | str | None,
    ) -> dict[str, Any]:
        for name, value in (("agent_id", agent_id), ("user_id", user_id)):
            if value is not None and not isinstance(value, str):
                raise InvalidInputError(f"{name} is no text.")
        object_to_json(context or {}, "context")
        return {
            "id": new_id() if session_id is None else as_uuid(session_id, "id"),
            "agent_id": agent_id,
            "user_id": user_id,
            "title": None,
            "tags": [],
            "context": dict(context or {}),
            "settings": {},
            "ttl": self.config.default_ttl if ttl is _UNSET else _positive(ttl, "ttl"),
            "max_messages": self.config.max_messages_per_session
            if max_messages is _UNSET
            else _positive(max_messages, "max_messages"),
        }

    def _branching(self) -> None:
        if not self.config.enable_branching:
            raise UnsupportedOperationError(
                "Branching is off.", hint="Set SessionConfig(enable_branching=True)."
            )

    # -- finding ---------------------------------------------------------------------------------

    async def get_session(self, session_id: UUID | str, *, as_user: str | None = None) -> Session:
        """One session, as it is now.

        Raises:
            NotFoundError: There is none, or none that the user may see.
        """
        return await self._calls.get(session_id, as_user)

    async def list_sessions(
        self,
        user_id: str | None = None,
        *,
        participant: str | None = None,
        agent_id: str | None = None,
        status: SessionStatus | str | Iterable[SessionStatus | str] | None = None,
        parent_session_id: UUID | str | None = None,
        limit: int = 100,
        page_after: str | None = None,
        as_user: str | None = None,
    ) -> SessionPage:
        """Sessions, the latest first.

        Args:
            user_id: Those that this user owns.
            participant: Those that this user takes part in.
            agent_id: Those of this agent.
            status: Those that are so now.
            parent_session_id: Those that branched off this one.
            limit: How many, 1 to 1,000.
            page_after: ``next_page`` of the page before.
            as_user: Only those that this user may see.

        Raises:
            InvalidInputError: A status is unknown, or ``limit`` out of bounds.
        """
        statuses = [status] if isinstance(status, str) else status
        try:
            wanted = None if statuses is None else [SessionStatus(each).value for each in statuses]
        except (TypeError, ValueError):
            raise InvalidInputError(f"status is one of {', '.join(SessionStatus)}.") from None
        return await self._calls.page(
            {
                "user_id": user_id,
                "participant": participant,
                "agent_id": agent_id,
                "statuses": wanted,
                "parent_id": None
                if parent_session_id is None
                else as_uuid(parent_session_id, "parent_session_id"),
                "page_size": limit,
                "page_after": page_after,
                "acting_user": as_user,
            }
        )

    async def family(self, session_id: UUID | str, *, as_user: str | None = None) -> list[Session]:
        """A session with all that it branched off, and all that branched off those.

        As far as the user may see them, in the order in which they began; at most 10,000.
        """
        return await self._calls.family(session_id, as_user)

    async def previous_sessions(
        self, session: Session | UUID | str, *, messages: int = 5, as_user: str | None = None
    ) -> list[PreviousSession]:
        """What a session names in ``context["previous_sessions"]``, looked up.

        Any writer may have written the names: what is not to be seen is as if it were not there.

        Args:
            session: The session that names them.
            messages: How many of the last messages of each, up to 1,000.
            as_user: For whom. If not given: for the session's owner and all who take part, who
                each have to see it.
        """
        if not isinstance(session, Session):
            session = await self.get_session(session, as_user=as_user)
        named = session.context.get("previous_sessions") or []
        if not isinstance(named, list):
            named = [named]
        readers: list[str] = []
        if as_user is None:
            readers = [*session.permissions, *filter(None, [session.user_id])]
        return [await self._previous(str(each), messages, readers, as_user) for each in named]

    async def _previous(
        self, name: str, messages: int, readers: Sequence[str], as_user: str | None
    ) -> PreviousSession:
        try:
            found = await self.get_session(name, as_user=as_user)
            if not all(found.may(reader, Permission.READ) for reader in readers):
                return PreviousSession(id=name)
            last = (
                await self.messages(name, limit=messages, last=True, as_user=as_user)
                if messages
                else []
            )
        except (NotFoundError, InvalidInputError):  # another system's id, or one that is gone
            return PreviousSession(id=name)
        return PreviousSession(id=name, session=found, messages=last)

    # -- messages --------------------------------------------------------------------------------

    async def add_message(
        self,
        session_id: UUID | str,
        role: MessageRole | str,
        content: str | Sequence[ContentPart | dict[str, Any]],
        *,
        as_user: str | None = None,
        metadata: dict[str, Any] | None = None,
        token_usage: TokenUsage | dict[str, Any] | None = None,
        id: UUID | str | None = None,  # noqa: A002
        created_at: datetime | None = None,
    ) -> Message:
        """Add a message to a session, and return it when it is durable.

        A session at its ``max_messages`` is continued in a successor, and the message is there:
        its ``conversation_id`` says so.

        Args:
            session_id: Which session.
            role: Who speaks.
            content: Text, or a list of parts.
            as_user: The user who writes: it is refused if they may not, and kept with the message.
            metadata: Any JSON object.
            token_usage: What the model read and wrote, and the cost.
            id: A UUID of the caller's, to make a retry safe.
            created_at: When it was said, if not now.

        Raises:
            SessionClosedError: It is closed, merged or expired.
            AccessDeniedError: The user may read it and not write to it.
            NotFoundError: There is no such session, or none that the user may see.
        """
        row = self._writer.row(session_id, role, content, metadata, token_usage, id, created_at)
        return await self._writer.add(row, as_user)

    async def add_messages(
        self,
        session_id: UUID | str,
        messages: Sequence[NewMessage | Mapping[str, Any]],
        *,
        as_user: str | None = None,
    ) -> list[Message]:
        """Add several messages to a session in order, all or none of them.

        Args:
            session_id: Which session.
            messages: `NewMessage`, or mappings with ``role``, ``content`` and what else it has;
                their ``conversation_id`` is the session's.
            as_user: As in `add_message`.

        Raises:
            SessionFullError: They are more than the session has room for, successors included.
        """
        return await self._writer.add_many(as_uuid(session_id, "session_id"), messages, as_user)

    async def messages(
        self,
        session_id: UUID | str,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        last: bool = False,
        hidden: bool = False,
        as_user: str | None = None,
    ) -> list[SessionMessage]:
        """A page of a session's messages in order, whatever sessions it branched off.

        Args:
            session_id: Which session; an expired or closed one too.
            after: Only those with a higher index.
            before: Only those with a lower index.
            limit: How many, up to 10,000.
            last: The last ones of these and not the first.
            hidden: With those that moderators have hidden; for moderators.
            as_user: For whom.

        Raises:
            NotFoundError: There is no such session, or none that the user may see.
            AccessDeniedError: ``hidden`` without the permission to moderate.
        """
        return await self._calls.messages(
            session_id,
            {
                "after": after,
                "before": before,
                "page_size": limit,
                "last": last,
                "hidden": hidden,
                "acting_user": as_user,
            },
        )

    async def iter_messages(
        self,
        session_id: UUID | str,
        *,
        after: int = 0,
        hidden: bool = False,
        as_user: str | None = None,
    ) -> AsyncIterator[SessionMessage]:
        """All messages of a session in order, page by page; see `messages`."""
        count = (await self.get_session(session_id, as_user=as_user)).message_count
        # By indexes and not by what comes: a page may be all hidden.
        for start in range(max(after, 0), count, _PAGE_SIZE):
            for message in await self.messages(
                session_id,
                after=start,
                before=count + 1,
                limit=_PAGE_SIZE,
                hidden=hidden,
                as_user=as_user,
            ):
                yield message

    async def thread_message(
        self,
        user_id: str | None,
        agent_id: str,
        role: MessageRole | str,
        content: str | Sequence[ContentPart | dict[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        token_usage: TokenUsage | dict[str, Any] | None = None,
        id: UUID | str | None = None,  # noqa: A002
        created_at: datetime | None = None,
    ) -> Message:
        """Add a message to the session that ``threading_strategy`` finds, or begins, for it.

        Args:
            user_id: Whose sessions. None: the caller's own where a user's token is used, else those
                that nobody owns.
            agent_id: Of which agent.
            role: Who speaks.
            content: Text, or a list of parts.
            context: What a session begins with, if it begins with this message.
            metadata: Any JSON object.
            token_usage: What the model read and wrote, and the cost.
            id: A UUID of the caller's, to make a retry safe: a message that was stored stays where
                it is, whichever session would be found now.
            created_at: When it was said, if not now.

        Returns:
            The message; its ``conversation_id`` is the session's id.

        Raises:
            ConflictError: The id is taken by another message.
            UnsupportedOperationError: The strategy is MANUAL: name a session in `add_message`.
        """
        row = self._writer.row(new_id(), role, content, metadata, token_usage, id, created_at)
        return await self._router.thread(
            row, user_id, agent_id, context, may_be_there=id is not None
        )

    # -- merging ---------------------------------------------------------------------------------

    async def merge_sessions(
        self,
        primary_session: UUID | str,
        secondary_session: UUID | str,
        merge_strategy: MergeStrategy | str = MergeStrategy.INTELLIGENT,
        conflict_resolution: ConflictResolution | str = ConflictResolution.PRIMARY_WINS,
        *,
        as_user: str | None = None,
    ) -> Session:
        """Merge a session into another one, which has the messages of both since.

        What both have at their beginning stays; what follows is put together as the strategy says.
        Nothing is copied or lost: the secondary is closed as merged, the record (``.merge``) says
        what came from where and what was left out and why, and `undo_merge` undoes it.

        Args:
            primary_session: The one that goes on.
            secondary_session: The one that goes into it, a branch or not.
            merge_strategy: See `MergeStrategy`.
            conflict_resolution: Which of two contradicting answers stays; see `ConflictResolution`.
            as_user: Who does it: they have to write to both.

        Raises:
            InvalidInputError: It is the same session, or a strategy is unknown.
            NotFoundError: One is not there, or not the user's to see.
            AccessDeniedError: The user may not write to one of them.
            SessionClosedError: The primary takes no writes.
            ConflictError: Others kept writing to one of them while it was planned; try again.
            ContentTooLargeError: One has more than 10,000 messages after the common beginning.
            UnsupportedOperationError: ``enable_merging`` is off.
        """
        if not self.config.enable_merging:
            raise UnsupportedOperationError(
                "Merging is off.", hint="Set SessionConfig(enable_merging=True)."
            )
        strategy, resolution = strategies(merge_strategy, conflict_resolution)
        primary = as_uuid(primary_session, "primary_session")
        merge = await self._merger.merge(
            primary, as_uuid(secondary_session, "secondary_session"), strategy, resolution, as_user
        )
        session = await self.get_session(primary, as_user=as_user)
        return session.model_copy(update={"merge": merge})

    async def undo_merge(
        self, session_id: UUID | str, merge_id: UUID | str, *, as_user: str | None = None
    ) -> Session:
        """Undo a merge, the last one first.

        The session has again what it had before, and then what was written to it since; the
        secondary is as it was. Undone once more, it changes nothing.

        Raises:
            ConflictError: Another merge came after it, and is not undone.
            NotFoundError: The session has no such merge.
        """
        session = as_uuid(session_id, "session_id")
        merge = await self._calls.undo(session, as_uuid(merge_id, "merge_id"), as_user)
        found = await self.get_session(session, as_user=as_user)
        return found.model_copy(update={"merge": merge})

    async def list_merges(
        self, session_id: UUID | str, *, as_user: str | None = None
    ) -> list[Merge]:
        """The merges into a session, in order, undone ones too."""
        return await self._calls.merges(session_id, as_user)

    # -- life ------------------------------------------------------------------------------------

    async def touch(self, session_id: UUID | str, *, as_user: str | None = None) -> Session:
        """Let the ttl of an open session begin anew, as a message does.

        Raises:
            SessionClosedError: It is not open.
        """
        return await self._calls.update(session_id, {"touch": True}, as_user)

    async def close(self, session_id: UUID | str, *, as_user: str | None = None) -> Session:
        """Let a session take no more messages."""
        return await self._calls.update(session_id, {"status": "closed"}, as_user)

    async def resume(self, session_id: UUID | str, *, as_user: str | None = None) -> Session:
        """Open a session that is closed, expired or merged; its ttl begins anew.

        Raises:
            SessionClosedError: It is continued in its successor, which ``successor_id`` names.
        """
        return await self._calls.update(session_id, {"status": "open"}, as_user)

    async def update_session(
        self,
        session_id: UUID | str,
        *,
        ttl: int | None = _UNSET,
        max_messages: int | None = _UNSET,
        synchronization: Literal["real-time", "on-demand"] = _UNSET,
        as_user: str | None = None,
    ) -> Session:
        """Change how long an open session lives, how large it gets, whether it can be watched."""
        changes: dict[str, Any] = {}
        if ttl is not _UNSET:
            changes["ttl"] = _positive(ttl, "ttl")
        if max_messages is not _UNSET:
            changes["max_messages"] = _positive(max_messages, "max_messages")
        if synchronization is not _UNSET:
            if synchronization not in {"real-time", "on-demand"}:
                raise InvalidInputError("synchronization is real-time or on-demand.")
            changes["live"] = synchronization == "real-time"
        if not changes:
            raise InvalidInputError("Nothing to change is given.")
        return await self._calls.update(session_id, changes, as_user)

    async def continue_session(
        self, session_id: UUID | str, *, as_user: str | None = None
    ) -> Session:
        """The successor of a session, which begins with this call if there is none yet."""
        return await self._writer.successor(as_uuid(session_id, "session_id"), as_user)

    async def delete_session(self, session_id: UUID | str) -> int:
        """Delete a session with its own messages, and return how many those were.

        Branches lose the messages that they shared with it.

        Raises:
            NotFoundError: There is none, or none that the caller may delete.
        """
        return await self.store.delete_conversation(session_id)

    async def expire_sessions(self, *, batch: int = 10_000) -> int:
        """Close what has expired, and return how many; a job for administrators.

        Nothing waits for it: from its moment on a session reads as expired and takes no messages.
        """
        total = 0
        while expired := await self._calls.expire(batch):
            total += expired
        return total

    # -- working together ------------------------------------------------------------------------

    def watch(
        self,
        session_id: UUID | str,
        *,
        after: str | None = None,
        on_event: Callable[[Event], Awaitable[None] | None] | None = None,
    ) -> Subscription:
        """Hear of what happens in a session: messages, its state, participants, merges.

        `Store.subscribe` to the channel ``session:ID``: in order, none missed, none twice. What a
        branch shares with its parent is the parent's.

        Args:
            session_id: Which session.
            after: A cursor to go on from.
            on_event: Called with each event, in place of iterating.
        """
        channel = f"session:{as_uuid(session_id, 'session_id')}"
        return self.store.subscribe(channel, after=after, on_event=on_event)

    def join(
        self, session_id: UUID | str, user_id: str, state: Mapping[str, Any] | None = None
    ) -> SessionPresence:
        """Be seen in a session by the others who are there, and see them.

        By Supabase Realtime, so that web clients on the session's ``topic`` see each other and us.

        Args:
            session_id: Which session.
            user_id: Who is present: of a store with a user's token, that user.
            state: What others see, such as ``{"typing": False}``.

        Raises:
            UnsupportedOperationError: On entering, if the store is a PostgresStore.
            NotFoundError: On entering, if the user may not see the session.
            AccessDeniedError: On entering, if it is not synchronised in real time.
        """
        return SessionPresence(self, session_id, user_id, state)

    async def update_state(
        self,
        session_id: UUID | str,
        changes: Mapping[str, Any],
        *,
        expected: Session | datetime | None = None,
        as_user: str | None = None,
    ) -> Session:
        """Change keys of the state that participants share.

        Args:
            session_id: Which session.
            changes: Keys with their new values; None removes one. The others stay.
            expected: The session as it was read, or its ``version``: refused if somebody has
                changed it since. If not given, changes of others to other keys are kept.
            as_user: Who does it.

        Raises:
            ConflictError: It is not the version expected any more: read it again.
            AccessDeniedError: The user may not write to it.
            SessionClosedError: It is not open.
        """
        return await self._states.update(session_id, changes, expected, as_user)

    async def set_participant(
        self,
        session_id: UUID | str,
        user_id: str,
        permissions: Iterable[Permission | str],
        *,
        as_user: str | None = None,
    ) -> Session:
        """Let a user take part in a session, or change what they may do.

        Raises:
            AccessDeniedError: ``as_user`` does not moderate it.
            InvalidInputError: A permission is unknown, or the user is the owner.
        """
        if not isinstance(user_id, str):
            raise InvalidInputError("user_id is no text.")
        ((_, wanted),) = checked_permissions([user_id], {user_id: permissions}).items()
        return await self._calls.set_participant(session_id, user_id, wanted, as_user)

    async def remove_participant(
        self, session_id: UUID | str, user_id: str, *, as_user: str | None = None
    ) -> Session:
        """Remove a user from a session: they are cut off at once. Everybody may remove themselves.

        Raises:
            AccessDeniedError: ``as_user`` does not moderate it.
        """
        return await self._calls.set_participant(session_id, user_id, [], as_user)

    async def hide_message(
        self, session_id: UUID | str, message_id: UUID | str, *, as_user: str | None = None
    ) -> bool:
        """Hide one of a session's own messages from all but its moderators.

        Returns:
            Whether that changed anything.

        Raises:
            AccessDeniedError: The user does not moderate it.
            NotFoundError: The message is not one of the session's own.
        """
        return await self._calls.hide(session_id, message_id, as_user, hidden=True)

    async def show_message(
        self, session_id: UUID | str, message_id: UUID | str, *, as_user: str | None = None
    ) -> bool:
        """Show a hidden message again; see `hide_message`."""
        return await self._calls.hide(session_id, message_id, as_user, hidden=False)


def _positive(value: int | None, name: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 < value < 2**31:
        raise InvalidInputError(f"{name} is a whole number above 0, or None.")
    return value
