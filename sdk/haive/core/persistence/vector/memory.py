"""Vector memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import InvalidInputError, NotFoundError
from haive.core.persistence.vector._adding import Note, add_notes
from haive.core.persistence.vector._arguments import (
    checked_count,
    checked_id,
    checked_ids,
    checked_share,
    checked_texts,
    checked_time,
    checked_window,
)
from haive.core.persistence.vector._chunks import check_sizes
from haive.core.persistence.vector._consolidating import Consolidating, consolidate
from haive.core.persistence.vector._conversations import Processing, store_talk
from haive.core.persistence.vector._episodes import episodes
from haive.core.persistence.vector._forgetting import forget
from haive.core.persistence.vector._lineage import provenance, versions
from haive.core.persistence.vector._opened import OpenedMemory
from haive.core.persistence.vector._reembedding import reembed
from haive.core.persistence.vector._searching import Asked, expired_at, search
from haive.core.persistence.vector._shelf import both, equals, spoken
from haive.core.persistence.vector._talks import checked_user, split, talk_of
from haive.core.persistence.vector._updating import UNSET, Changes, update
from haive.core.persistence.vector.filters import Comparison, Operator, parse
from haive.core.persistence.vector.models import Memory, MemoryKind, MemoryStats

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from haive.core.persistence.models import Conversation, Message
    from haive.core.persistence.vector.models import (
        Consolidation,
        Episode,
        ForgetResult,
        MemoryHit,
    )


class VectorMemory(OpenedMemory):
    """What was said and learned, found again by its meaning and its words.

    Nothing is connected before the first call. It may be used as ``async with``, or closed with
    `aclose`; what it was given (a store, a backend) stays open.

    Args:
        vector_store: ``pgvector``, which it is if not given, ``qdrant``, ``pinecone`` or
            ``weaviate``.
        config: How memories are embedded, indexed and found.
        store: Where conversations are, and with ``pgvector`` the memories too; from the
            environment if not given, ``DATABASE_URL`` or ``SUPABASE_URL`` and a key.
        backend: What keeps the memories, in place of ``vector_store``.
        tenant: Whose memories, where neither a store nor a backend is given; ``default`` if not
            given. A store has its own, and a backend too, and another one is refused.
        reranker: What ``rerank=True`` asks. If not given, the tokens of each memory are compared
            where MiniLM makes the vectors, and its sentences where not.
        clock: What time it is.

    Raises:
        ConfigurationError: There is no such vector store, the settings contradict each other, or
            a key or an extra is missing.
    """

    # -- remembering -----------------------------------------------------------------------------

    async def store_conversation(
        self,
        conversation: Conversation | UUID | str | Sequence[Message | Mapping[str, Any] | str],
        metadata: Mapping[str, Any] | None = None,
        *,
        chunk_size: int = 512,
        chunk_overlap: int = 50,
        extract_keywords: bool = False,
        generate_summary: bool = False,
    ) -> str:
        """Remember a conversation: each message by itself, and the whole.

        Repeated it writes only what is new, whether it is given all messages so far, the last few
        of them or those that are new; messages without a ``seq`` are placed by what is stored. A
        message that has changed replaces what it was. What an agent says (``assistant``,
        ``system`` or ``tool`` as its role) that only recites memories which were just recalled is
        left out.

        Args:
            conversation: A `Conversation`, its id, or messages. Those of a `Conversation` that has
                not all of them are read from the store, of a session always, with what a branch
                begins with and without what moderators have hidden. Messages that were stored in
                one session stand where it has them, where the store is given. Who wrote a message
                of a session is its ``speaker`` where its metadata name none.
            metadata: What each of its memories has beside: anything that has JSON. ``importance``,
                ``timestamp``, ``user_id``, ``trust`` and ``writer`` mean ours; ``timestamp`` is
                that of messages which have none. ``conversation_id`` names messages without one:
                a list that nobody names is another conversation when it has grown.
                ``speaker``, ``role``, ``valid_from`` and ``valid_to`` are refused.
            chunk_size: Tokens of a memory; a longer message is cut where sentences end.
            chunk_overlap: Tokens that the pieces of one message share, at most half of one.
            extract_keywords: Whether its telling words are kept with the turns and by themselves.
            generate_summary: Whether the memory of the whole is a summary that searches find.

        Returns:
            The id of the memory of the whole: its ``sources`` are the turns.

        Raises:
            InvalidInputError: There is nothing to remember, something cannot be stored, or
                messages without a ``conversation_id`` are of several conversations.
            NotFoundError: There is no such conversation.
            ModelError: A model failed; nothing was stored.
        """
        check_sizes(chunk_size, chunk_overlap)
        split(metadata)
        shelf = await self._open()
        talk = await talk_of(conversation, metadata or {}, self._open_store, self._at_hand())
        how = Processing(
            chunk_size=chunk_size,
            chunk_overlap=chunk_overlap,
            extract_keywords=extract_keywords,
            generate_summary=generate_summary,
        )
        return await store_talk(talk, how, shelf, self._recalled)

    async def add(
        self,
        text: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        importance: float | None = None,
        ttl: timedelta | float | None = None,
        supersedes: str | None = None,
        id: str | None = None,  # noqa: A002 - what it is
    ) -> str:
        """Remember a text, and return the id of its memory.

        What the same ``speaker`` and ``role`` said already, or was just recalled, is not written
        again: its id is returned. It lasts as long as either of them, with the importance that is
        given and this metadata added to its own; who said it first, when and in which conversation,
        ``trust`` and ``writer`` stay. With another value under a name of the caller's metadata it
        is another memory.

        Args:
            text: What is to be remembered, up to 256 KiB. Of a long one pgvector searches the first
                100,000 characters for words, and a model reads less: `store_conversation` cuts it
                into pieces.
            metadata: As in `store_conversation`, and ``speaker``, ``role``, ``valid_from`` and
                ``valid_to`` too.
            user_id: Whom it is about.
            importance: 0 to 1; from the text if not given.
            ttl: Seconds, or a timedelta, after which it is gone.
            supersedes: The memory of the same user that does not hold any more, from this one's
                ``valid_from`` on.
            id: A UUID of the caller's, to make a retry safe; made if not given. What is remembered
                already keeps its own.

        Raises:
            InvalidInputError: Something cannot be stored.
            NotFoundError: There is no memory to supersede.
            ConflictError: That one is superseded already, or the id is taken by another text.
            ModelError: There is no vector; nothing was stored.
        """
        note = Note(
            metadata=metadata or {},
            user_id=user_id,
            importance=importance,
            ttl=ttl,
            supersedes=None if supersedes is None else checked_id(supersedes, "supersedes"),
            id=id,
        )
        return (await add_notes([text], note, await self._open(), self._recalled))[0]

    async def add_many(
        self,
        texts: Sequence[str],
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        importance: float | None = None,
        ttl: timedelta | float | None = None,
    ) -> list[str]:
        """Remember texts, and return the ids of their memories in order: `add` for many."""
        note = Note(metadata=metadata or {}, user_id=user_id, importance=importance, ttl=ttl)
        return await add_notes(checked_texts(texts), note, await self._open(), self._recalled)

    async def supersede(
        self,
        memory_id: str,
        text: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        importance: float | None = None,
        ttl: timedelta | float | None = None,
        id: str | None = None,  # noqa: A002 - what it is
    ) -> str:
        """Put a newer memory in the place of one that does not hold any more.

        The older one is kept, and found with ``as_of`` before this one; what was made of it ends
        with it. The newer one is about the same user. As `add` with ``supersedes``.
        """
        older = await self.get(memory_id)
        return await self.add(
            text,
            metadata,
            user_id=older.user_id if user_id is None else user_id,
            importance=importance,
            ttl=ttl,
            supersedes=older.id,
            id=id,
        )

    async def update(
        self,
        memory_id: str,
        *,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        importance: float | None = None,
        valid_to: datetime | None = UNSET,
        archived: bool | None = None,
    ) -> Memory:
        """Change a memory in its place, and what was made of it with it.

        Args:
            memory_id: Which one.
            text: Its new text. To keep the older one, `supersede` it.
            metadata: What is put over what the caller gave before; None as a value takes it away,
                and the importance is again that of the text. With another ``user_id`` it is
                nobody else's any more: what was made of it for the one before says nothing of it.
            importance: 0 to 1.
            valid_to: From when on it does not hold; None: it holds.
            archived: Whether searches pass it over.

        Raises:
            InvalidInputError: Something cannot be stored, or a summary would be another user's.
            NotFoundError: There is no such memory, or none any more.
        """
        changes = Changes(
            text=text,
            metadata=metadata,
            importance=importance,
            valid_to=valid_to,
            archived=archived,
        )
        before, after = await update(checked_id(memory_id), changes, await self._open())
        if spoken(after) != spoken(before) or after.user_id != before.user_id:
            self._recalled.forget([after.id])
        return after

    # -- finding ---------------------------------------------------------------------------------

    async def get(self, memory_id: str) -> Memory:
        """One memory.

        Raises:
            NotFoundError: There is none.
        """
        wanted = checked_id(memory_id)
        found = await (await self._open()).get([wanted])
        if wanted not in found:
            raise NotFoundError("There is no such memory.")
        return found[wanted]

    async def search(
        self,
        query: str,
        top_k: int = 10,
        filters: Mapping[str, Any] | None = None,
        *,
        include_metadata: bool = True,
        rerank: bool = False,
        explain: bool = False,
        as_of: datetime | None = None,
        include_archived: bool = False,
    ) -> list[MemoryHit]:
        """The memories that answer a query best, best first.

        Args:
            query: In any words.
            top_k: How many, 1 to 1,000.
            filters: What their metadata must be, as ``{"importance": {"$gte": 0.7}}``.
            include_metadata: Whether hits carry what the caller gave beside, and what was made of
                it; without it they have their text and where it is from.
            rerank: Whether the best 50 are read again beside the query: better, and slower.
            explain: Whether `MemoryHit.parts` says what each signal gave.
            as_of: Search what held then.
            include_archived: Whether archived memories are found too.

        Raises:
            InvalidInputError: The query is empty, or a filter wrong.
            ModelError: The query has no vector.
        """
        shelf = await self._open()
        hits = await search(
            Asked(
                query=query,
                top_k=top_k,
                where=parse(filters),
                rerank=rerank,
                explain=explain,
                as_of=None if as_of is None else checked_time(as_of, "as_of"),
                include_archived=include_archived,
            ),
            shelf,
        )
        self._recalled.remember(hit.memory for hit in hits)
        if include_metadata:
            return hits
        plain: dict[str, Any] = {
            "metadata": {}, "keywords": (), "sources": (), "context": None, "context_ids": (),
        }  # fmt: skip
        return [replace(hit, memory=replace(hit.memory, **plain)) for hit in hits]

    async def get_episodic_memories(
        self,
        user_id: str | None,
        context_query: str,
        temporal_weight: float = 0.3,
        max_episodes: int = 5,
        *,
        filters: Mapping[str, Any] | None = None,
    ) -> list[Episode]:
        """Stretches of conversations that a query is about, each with its turns, best first.

        A conversation is cut where it is silent for half an hour and where its topic changes. The
        score is (1 - w) x relevance + w x recency: the relevance of the best turn, the best of all
        being 1, and a recency of 1 that is halved each ``recency_half_life`` days.

        Args:
            user_id: Whose conversations; None for anybody's.
            context_query: What they are to be about.
            temporal_weight: w: 0 for relevance alone, 1 for recency alone.
            max_episodes: How many, up to 100.
            filters: What the metadata of turns must be.

        Raises:
            InvalidInputError: The query is empty, or a number out of bounds.
        """
        weight = checked_share(temporal_weight, "temporal_weight")
        most = checked_count(max_episodes, "max_episodes", 100)
        shelf = await self._open()
        whose = None if user_id is None else equals(user_id=user_id)
        found = await episodes(
            context_query,
            weight=weight,
            most=most,
            where=both(whose, parse(filters)),
            shelf=shelf,
        )
        self._recalled.remember(turn for each in found for turn in each.turns)
        return found

    async def list_memories(
        self,
        user_id: str | None = None,
        *,
        filters: Mapping[str, Any] | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Memory]:
        """A page of all that is remembered, by id: what was said first comes first.

        Archived, superseded and expired memories are among them, unless ``filters`` leave them out.

        Args:
            user_id: Whose memories; None for anybody's.
            filters: What their metadata must be.
            limit: How many, up to 1,000.
            after: The id of the last one of the page before.

        Raises:
            InvalidInputError: A filter is wrong, or a number out of bounds.
        """
        whose = None if user_id is None else equals(user_id=checked_user(user_id))
        where = both(whose, parse(filters))
        most = checked_count(limit, "limit", 1_000)
        begin = None if after is None else checked_id(after, "after")
        shelf = await self._open()
        records = await shelf.backend.find(where, limit=most, after=begin)
        return [Memory.from_metadata(record.id, record.metadata) for record in records]

    async def history(self, memory_id: str) -> list[Memory]:
        """A memory with those that it superseded and those that superseded it, the oldest first.

        Raises:
            NotFoundError: There is no such memory.
        """
        return await versions(await self.get(memory_id), await self._open())

    async def provenance(self, memory_id: str) -> list[Memory]:
        """The memories that one was made of in the end: turns and notes, by id; itself if of none.

        Raises:
            NotFoundError: There is no such memory.
        """
        return await provenance(await self.get(memory_id), await self._open())

    async def stats(self) -> MemoryStats:
        """What the collection has."""
        shelf = await self._open()
        count = shelf.backend.count
        kinds = {kind.value: await count(equals(kind=kind.value)) for kind in MemoryKind}
        return MemoryStats(
            collection=shelf.collection.name,
            backend=shelf.backend.name,
            model=shelf.collection.model,
            dimensions=shelf.collection.dimensions,
            total=await count(None),
            kinds={kind: number for kind, number in kinds.items() if number},
            archived=await count(equals(archived=True)),
            superseded=await count(Comparison(("superseded_by",), Operator.GT, "")),
            expired=await count(expired_at(shelf.clock())),
        )

    # -- tidying ---------------------------------------------------------------------------------

    async def forget(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        filters: Mapping[str, Any] | None = None,
    ) -> ForgetResult:
        """Forget memories for good, with all that was made of them.

        What was made of them and of others is made anew of the others; a merged memory takes along
        what it stands for. A call that was interrupted may be repeated.

        Args:
            ids: Which ones; those that are not there are passed over.
            filters: Or all that pass, archived and superseded ones too, as
                ``{"user_id": "user-123"}``.

        Raises:
            InvalidInputError: Neither is given, or both, or a filter that all memories pass.
        """
        if (ids is None) == (filters is None):
            raise InvalidInputError("Give ids or filters.")
        shelf = await self._open()
        if ids is None:
            where = parse(filters)
            if where is None:
                raise InvalidInputError("These filters let all memories pass.")
            chosen = [record.id async for record in shelf.records(where)]
        else:
            chosen = checked_ids(ids)
        result = await forget(shelf, chosen)
        self._recalled.forget([*result.forgotten, *result.removed, *result.rebuilt])
        return result

    async def reembed(self, into: VectorMemory) -> int:
        """Fill another collection with these memories, by its own model, while this one serves.

        It goes page by page, and may be interrupted and repeated; repeated later it catches up with
        what was written, changed or forgotten here meanwhile. So: reembed, switch to the other
        one, and reembed once more. What was written or changed in the other one itself stays as it
        is. What is forgotten there alone, and still here, comes back: forget it in both.

        It is of one tenant, the one that both work in.

        Args:
            into: A memory of another ``index_name``, with another model or width.

        Returns:
            How many memories were written, changed or removed there; 0 when there was nothing new.

        Raises:
            ConfigurationError: It is the same collection.
            InvalidInputError: ``into`` is no VectorMemory.
            ModelError: A model failed; what was written so far is complete.
        """
        if not isinstance(into, VectorMemory):
            raise InvalidInputError("into is the VectorMemory to fill, of another index_name.")
        return await reembed(await self._open(), await into._open())

    async def forget_expired(self) -> ForgetResult:
        """Forget what has expired; searches pass it over before that already."""
        shelf = await self._open()
        expired = expired_at(shelf.clock())
        result = await forget(shelf, [record.id async for record in shelf.records(expired)])
        self._recalled.forget([*result.forgotten, *result.removed, *result.rebuilt])
        return result

    async def consolidate_memories(
        self,
        time_window: timedelta | None = None,
        *,
        similarity_threshold: float = 0.85,
        consolidation_strategy: str = "hierarchical",
        preserve_important: bool = True,
        archive_originals: bool = False,
        filters: Mapping[str, Any] | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
    ) -> Consolidation:
        """Make one memory of several that belong together.

        Memories of different users are never put together. What was made has the metadata, speaker
        and role that all it was made of have, what is merged the metadata of any. Interrupted, it
        is called again and goes on; called again on the same memories it changes nothing.

        Args:
            time_window: Those of the last so many days, by their ``timestamp``; None for all.
            similarity_threshold: The cosine from which on two belong together, 0 to 1.
            consolidation_strategy: ``hierarchical`` writes summaries above clusters, and summaries
                above those; ``dedupe`` writes one for several that say the same and archives
                these; ``summarize`` writes one summary of each conversation and day.
            preserve_important: Whether what has an importance of 0.7 or more is never archived.
            archive_originals: Whether searches find the summary in place of what it is made of;
                ``dedupe`` always does so.
            filters: Only those that pass.
            until: The end of the window; now if not given.
            dry_run: Only say what would be done.

        Raises:
            InvalidInputError: The strategy is unknown, or a number out of bounds.
            ModelError: The language model failed; what was written so far is complete.
        """
        how = Consolidating(
            strategy=consolidation_strategy,
            threshold=checked_share(similarity_threshold, "similarity_threshold", above_0=True),
            window=checked_window(time_window),
            until=None if until is None else checked_time(until, "until"),
            preserve_important=preserve_important,
            archive=archive_originals or consolidation_strategy == "dedupe",
            where=parse(filters),
        )
        return await consolidate(how, await self._open(), dry_run=dry_run)
