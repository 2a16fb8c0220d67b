"""Stores conversations as memories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import MAX_CONTENT_BYTES, check_text
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.vector._chunks import CONTEXT, chunks, context_of
from haive.core.persistence.vector._common import follow_above
from haive.core.persistence.vector._forgetting import forget
from haive.core.persistence.vector._ids import EPOCH, derived_id
from haive.core.persistence.vector._importance import importance_of
from haive.core.persistence.vector._keywords import has_keyword, keywords
from haive.core.persistence.vector._locks import one_at_a_time
from haive.core.persistence.vector._personal import tagged, talk_looked_through
from haive.core.persistence.vector._placing import placed
from haive.core.persistence.vector._recalled import AGENTS
from haive.core.persistence.vector._shelf import both, equals, spoken
from haive.core.persistence.vector._summaries import opening, summarize
from haive.core.persistence.vector.filters import Comparison, Operator
from haive.core.persistence.vector.models import CONSOLIDATION, Memory, MemoryKind, trust_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set
    from datetime import datetime

    from haive.core.persistence.vector._recalled import Recalled
    from haive.core.persistence.vector._shelf import Shelf

_LEFT = (
    "valid_to", "superseded_by", "archived", "archived_for", "archived_from", "created_at",
    "renewed_at", "expires_at", "importance",
)  # fmt: skip

_SAID = (MemoryKind.TURN, MemoryKind.CHUNK)
_OF_WHOLES = (MemoryKind.SUMMARY, MemoryKind.CONVERSATION, MemoryKind.KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A message as it is remembered."""

    seq: int
    text: str
    role: str | None = None
    speaker: str | None = None
    at: datetime | None = None
    message_id: str | None = None
    """What its giver calls it within the conversation."""
    stored_id: str | None = None
    """The id of a `Message`."""
    stored_in: str | None = None
    """The conversation that it is stored in: of what a branch begins with, another one."""
    importance: float | None = None
    numbered: bool = False
    """Whether it was given its ``seq``; if not, that is its place in the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """A conversation to be remembered."""

    id: str
    user_id: str | None
    began: datetime | None
    turns: Sequence[Turn]
    fields: Mapping[str, Any]
    """What all its memories have of the caller's metadata that is ours: `importance`, `trust`."""
    metadata: Mapping[str, Any]
    """What is left of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processing:
    """How a conversation is stored."""

    chunk_size: int
    chunk_overlap: int
    extract_keywords: bool
    generate_summary: bool


async def store_talk(talk: Talk, how: Processing, shelf: Shelf, recalled: Recalled) -> str:
    """Store a conversation, and return the id of the memory of the whole.

    Turns that are there already are left as they are, and so are those that are not given; the
    whole is written anew, of all.
    """
    talk = talk_looked_through(talk, shelf.redactor)
    # Of two calls at once, each would make the whole of what it has itself.
    async with one_at_a_time(shelf, talk.user_id, talk.id):
        return await _stored(talk, how, shelf, recalled)


async def _stored(talk: Talk, how: Processing, shelf: Shelf, recalled: Recalled) -> str:
    stored = await shelf.find(
        both(
            equals(conversation_id=talk.id, user_id=talk.user_id),
            Comparison(("kind",), Operator.IN, [kind.value for kind in (*_SAID, *_OF_WHOLES)]),
        )
    )
    there = {memory.id: memory for memory in stored if memory.kind in _SAID}
    talk = replace(talk, turns=placed(talk.turns, there.values()))
    pieces = await _pieces(talk, how, shelf, recalled, there)
    if others_own := await _others_own(pieces, shelf, there):
        pieces = await _pieces(talk, how, shelf, recalled, there, without=others_own)
    counted = {turn.seq for turn in talk.turns}
    others = [memory for memory in there.values() if memory.seq not in counted]
    every = sorted([*pieces, *others], key=lambda memory: memory.seq or 0)
    if not every:
        raise InvalidInputError(
            "The conversation has nothing to remember: its messages are empty, say only what was "
            "recalled, or are another user's by now."
        )
    telling: list[str] = []
    if how.extract_keywords:
        telling = keywords([(p.speaker or p.role, p.text) for p in _holding(every)])
    if telling:
        every = [
            replace(p, keywords=tuple(word for word in telling if has_keyword(p.text, word)))
            for p in every
        ]
    wholes = {memory.kind: memory for memory in stored if _is_of_whole(memory)}
    whole = await _whole(talk, how, every, shelf, wholes)
    new = [piece for piece in every if piece.id not in there]
    ours = {piece.id for piece in pieces}
    known = [piece for piece in every if piece.id in there]
    above = [whole, *_of_keywords(talk, telling, every, shelf, wholes)]
    await shelf.write([*new, *above])
    await follow_above(shelf, [m for m in known if _is_told_otherwise(m, there[m.id])])
    # Who says it may have become known.
    await shelf.renew([m for m in known if spoken(m) != spoken(there[m.id])])
    await shelf.rewrite([m for m in known if spoken(m) == spoken(there[m.id]) and m != there[m.id]])
    # A message that has changed, or is cut otherwise than the last time, leaves old pieces behind.
    old = [m.id for m in there.values() if m.id not in ours and m.seq in counted]
    if old:
        await forget(shelf, old)
    return whole.id


async def _others_own(
    pieces: Sequence[Memory], shelf: Shelf, there: Mapping[str, Memory]
) -> set[str]:
    """Ids of pieces that were handed over to another user since they were stored."""
    known = await shelf.get(piece.id for piece in pieces if piece.id not in there)
    return {p.id for p in pieces if p.id in known and known[p.id].user_id != p.user_id}


def _holding(pieces: Sequence[Memory]) -> Sequence[Memory]:
    """Those that hold, or all where none does: what has ended is not said of the whole."""
    return [piece for piece in pieces if piece.valid_to is None] or pieces


def _is_told_otherwise(memory: Memory, before: Memory) -> bool:
    """Whether what goes into what consolidations made of it has changed."""
    return (memory.speaker, memory.role, memory.metadata) != (
        before.speaker, before.role, before.metadata,
    )  # fmt: skip


def _is_of_whole(memory: Memory) -> bool:
    """Whether it was made of the conversation as a whole, and not by a consolidation."""
    return memory.kind in _OF_WHOLES and CONSOLIDATION not in memory.metadata


def _id_of(talk: Talk, tenant: str, when: datetime | None, *parts: str) -> str:
    """The id of what is made of a conversation: of no other tenant's, and of no other user's."""
    return derived_id(when or EPOCH, tenant, talk.user_id or "", *parts)


async def _pieces(
    talk: Talk,
    how: Processing,
    shelf: Shelf,
    recalled: Recalled,
    there: Mapping[str, Memory],
    *,
    without: Set[str] = frozenset(),
) -> list[Memory]:
    now = shelf.clock()
    found: list[Memory] = []
    first = min((turn.seq for turn in talk.turns), default=0)
    earlier = (memory for memory in there.values() if memory.seq is not None and memory.seq < first)
    before = sorted(earlier, key=lambda memory: memory.seq or 0)[-CONTEXT:]
    for turn in talk.turns:
        # A message may be longer than one memory, and no longer than a message that is stored.
        check_text(turn.text, f"Message {turn.seq}", MAX_CONTENT_BYTES)
        parts = chunks(turn.text, chunk_size=how.chunk_size, chunk_overlap=how.chunk_overlap)
        kind = MemoryKind.TURN if len(parts) == 1 else MemoryKind.CHUNK
        made: list[Memory] = []
        for number, text in enumerate(parts):
            told = (kind.value, *_source(turn, talk), str(number), text)
            memory_id = _id_of(talk, shelf.tenant, turn.at, *told)
            if memory_id in without:
                continue
            fields: dict[str, Any] = {
                "timestamp": turn.at,
                "importance": importance_of(text) if turn.importance is None else turn.importance,
                "writer": turn.speaker or turn.role,
                "trust": turn.role,
                **{name: value for name, value in talk.fields.items() if value is not None},
            }
            if turn.at is not None:
                fields["timestamp"] = turn.at
            previous = [*before, *made][-CONTEXT:]
            memory = Memory(
                id=memory_id,
                text=text,
                kind=kind,
                user_id=talk.user_id,
                conversation_id=talk.id,
                seq=turn.seq,
                until_seq=turn.seq,
                speaker=turn.speaker,
                role=turn.role,
                context=context_of([each.text for each in previous]),
                context_ids=tuple(each.id for each in previous),
                valid_from=min(fields["timestamp"] or now, now),
                created_at=now,
                metadata=dict(talk.metadata),
                **fields,
            )
            memory = tagged(memory, shelf.redactor)
            if memory_id in there:
                memory = _with_what_is_known(memory, there[memory_id], talk)
            made.append(memory)
        own = [memory.id for memory in made]
        is_new = there.keys().isdisjoint(own)
        if turn.role in AGENTS and is_new and await _recites(turn, own, talk, shelf, recalled):
            continue
        found += made
        before = [*before, *made][-CONTEXT:]
    return found


def _source(turn: Turn, talk: Talk) -> tuple[str, ...]:
    """What tells a message from all others; a giver may count them in each conversation."""
    if turn.stored_id is not None:
        own = turn.stored_in == talk.id
        return (turn.stored_id,) if own else ("message", talk.id, turn.stored_id)
    if turn.message_id is not None:
        return ("message", talk.id, turn.message_id)
    return (f"{talk.id}:{turn.seq}",)


async def _recites(
    turn: Turn, own: Sequence[str], talk: Talk, shelf: Shelf, recalled: Recalled
) -> bool:
    """Whether a turn only says again what was recalled, and what holds still."""
    while recited := recalled.recited(turn.text, user_id=talk.user_id, own=own):
        there = await shelf.get(recited)
        now = shelf.clock()
        gone = [
            each
            for each in recited
            if each not in there or there[each].has_expired_by(now) or not there[each].holds_at(now)
        ]
        if not gone:
            return True
        recalled.forget(gone)
    return False


def _with_what_is_known(piece: Memory, there: Memory, talk: Talk) -> Memory:
    """A piece that is there already: what happened to it since stays, and so do its words.

    One that says more of who says it, or has other metadata, is changed by this.
    """
    kept = {name: getattr(there, name) for name in _LEFT if talk.fields.get(name) is None}
    known = replace(
        piece,
        **kept,
        text=there.text,
        speaker=piece.speaker or there.speaker,
        role=piece.role or there.role,
        valid_from=there.valid_from,
        keywords=piece.keywords or there.keywords,
        metadata={**there.metadata, **piece.metadata},
    )
    return (
        replace(known, renewed_at=piece.created_at) if _is_told_otherwise(known, there) else known
    )


async def _whole(
    talk: Talk,
    how: Processing,
    pieces: Sequence[Memory],
    shelf: Shelf,
    wholes: Mapping[MemoryKind, Memory],
) -> Memory:
    earlier = wholes.get(MemoryKind.SUMMARY) or wholes.get(MemoryKind.CONVERSATION)
    memory_id = (
        _id_of(talk, shelf.tenant, talk.began, "whole", talk.id) if earlier is None else earlier.id
    )
    texts = [piece.text for piece in _holding(pieces)]
    last = pieces[-1]
    if how.generate_summary or (earlier is not None and earlier.kind is MemoryKind.SUMMARY):
        text, writer = await summarize(texts, shelf)
        kind, archived = MemoryKind.SUMMARY, False
    else:
        text, writer, kind, archived = opening(texts), None, MemoryKind.CONVERSATION, True
    fields: dict[str, Any] = {
        "timestamp": last.timestamp,
        "importance": max(piece.importance for piece in pieces),
        "trust": trust_of(pieces),
        **{name: value for name, value in talk.fields.items() if value is not None},
        "writer": writer,
        "archived": archived,
    }
    now = shelf.clock()
    whole = Memory(
        id=memory_id,
        text=text,
        kind=kind,
        user_id=talk.user_id,
        conversation_id=talk.id,
        seq=pieces[0].seq,
        until_seq=last.until_seq,
        valid_from=min(fields["timestamp"] or now, now),
        sources=tuple(piece.id for piece in pieces),
        created_at=now,
        metadata=dict(talk.metadata),
        **fields,
    )
    return _written(whole, earlier)


def _written(whole: Memory, earlier: Memory | None) -> Memory:
    """With the times of its writing: what says or is of something else now has been changed."""
    if earlier is None:
        return whole
    is_as_it_was = (whole.text, whole.sources) == (earlier.text, earlier.sources)
    return replace(
        whole,
        created_at=earlier.created_at,
        renewed_at=earlier.renewed_at if is_as_it_was else whole.created_at,
    )


def _of_keywords(
    talk: Talk,
    telling: Sequence[str],
    pieces: Sequence[Memory],
    shelf: Shelf,
    wholes: Mapping[MemoryKind, Memory],
) -> list[Memory]:
    now = shelf.clock()
    sources = [piece for piece in pieces if piece.keywords]
    if not telling or not sources:
        return []
    earlier, last = wholes.get(MemoryKind.KEYWORD), pieces[-1]
    given = {name: value for name, value in talk.fields.items() if value is not None}
    memory = Memory(
        id=_id_of(talk, shelf.tenant, talk.began, "keywords", talk.id)
        if earlier is None
        else earlier.id,
        text=", ".join(telling),
        kind=MemoryKind.KEYWORD,
        user_id=talk.user_id,
        conversation_id=talk.id,
        seq=pieces[0].seq,
        until_seq=last.until_seq,
        valid_from=min(given.get("timestamp") or last.timestamp or now, now),
        sources=tuple(piece.id for piece in sources),
        keywords=tuple(telling),
        created_at=now,
        metadata=dict(talk.metadata),
        **{
            "timestamp": last.timestamp,
            "trust": trust_of(sources),
            **given,
            "writer": "keywords",
        },
    )
    return [_written(memory, earlier)]
