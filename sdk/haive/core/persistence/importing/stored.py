"""What of a batch the database has already, asked for as little as possible."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from haive.core.persistence.errors import NotFoundError
from haive.core.persistence.importing import ids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from haive.core.persistence.importing.prepare import Prepared
    from haive.core.persistence.models import Conversation, Message
    from haive.core.persistence.store import Store

_PAGE = 1_000
#: Single looks at once: what a pool has connections for.
LOOKS = 8

Pair = tuple["Prepared", "Conversation"]


async def count_stored(store: Store, pairs: Sequence[Pair]) -> dict[UUID, int | None]:
    """How many of each conversation's first messages are stored.

    None: others are in their place, for the conversation was changed at its source.
    """
    begun = [pair for pair in pairs if pair[1].message_count > 0]
    last = await _last_messages(store, [stored for _, stored in begun])
    looks = asyncio.Semaphore(LOOKS)

    async def count(prepared: Prepared, stored: Conversation) -> int | None:
        # Imports write in order: the last message there tells that those before it are.
        if (place := _place(prepared, last.get(stored.id))) is not None:
            return place
        async with looks:
            if stored.id not in last:
                page = await store.get_messages(stored.id, limit=1, last=True)
                if page and (place := _place(prepared, page[-1])) is not None:
                    return place
            return await _compare(store, prepared)

    counts = await asyncio.gather(*(count(prepared, stored) for prepared, stored in begun))
    known = {prepared.id: number for (prepared, _), number in zip(begun, counts, strict=True)}
    return {prepared.id: known.get(prepared.id, 0) for prepared, _ in pairs}


async def stored_conversations(store: Store, batch: Sequence[Prepared]) -> dict[UUID, Conversation]:
    """Those conversations of a batch that are stored, as far as few looks tell."""
    if len(batch) > LOOKS:
        times = {
            prepared.id: prepared.conversation.created_at
            for prepared in batch
            if prepared.conversation.created_at is not None
        }
        return await _by_time(store, times)
    looks = await asyncio.gather(*(_look(store, prepared.id) for prepared in batch))
    return {conversation.id: conversation for conversation in looks if conversation is not None}


async def _look(store: Store, conversation_id: UUID) -> Conversation | None:
    try:
        return await store.get_conversation(conversation_id)
    except NotFoundError:
        return None


async def _last_messages(store: Store, wanted: Sequence[Conversation]) -> dict[UUID, Message]:
    """The last message of conversations, as far as few pages have them."""
    if len(wanted) <= LOOKS:
        return {}
    found = await _by_time(store, {one.id: one.created_at for one in wanted})
    return {one.id: one.messages[-1] for one in found.values() if one.messages}


async def _by_time(store: Store, wanted: Mapping[UUID, datetime]) -> dict[UUID, Conversation]:
    """Conversations with their last message, as far as few pages have them.

    What was imported together was made at one time, or its source's times lie near each other: a
    page by time answers for a thousand, where single looks took 19 s for 6,000 over the REST API.

    Args:
        store: Where they are.
        wanted: When which of them began.
    """
    missing = set(wanted)
    found: dict[UUID, Conversation] = {}
    if not missing:
        return found
    times = wanted.values()
    filters = {
        "created_after": min(times).isoformat(),
        "created_before": (max(times) + timedelta(microseconds=1)).isoformat(),
    }
    page_after: str | None = None
    while missing:
        page = await store.query_conversations(
            limit=_PAGE,
            filters=filters,
            order_by="created_at",
            ascending=True,
            include_messages=True,
            message_limit=1,
            page_after=page_after,
        )
        hits = [conversation for conversation in page if conversation.id in missing]
        found |= {hit.id: hit for hit in hits}
        missing.difference_update(hit.id for hit in hits)
        page_after = page.next_page
        if page_after is None or len(hits) * 10 < len(page):
            break  # others lie between them: single looks are cheaper
    return found


def _place(prepared: Prepared, last: Message | None) -> int | None:
    """How many messages are stored, if the last one is the source's at that place."""
    if last is None or last.seq > len(prepared.messages):
        return None
    return last.seq if prepared.messages[last.seq - 1].id == last.id else None


async def _compare(store: Store, prepared: Prepared) -> int | None:
    """Compare all ids: an agent has gone on here, or the source is another than it was."""
    wanted = [message.id for message in prepared.messages]
    known = set(wanted)
    imported = [
        message.id
        async for message in store.iter_messages(prepared.id)
        if message.id in known or ids.is_imported(message.id, prepared.id)
    ]
    common = min(len(imported), len(wanted))
    return common if imported[:common] == wanted[:common] else None
