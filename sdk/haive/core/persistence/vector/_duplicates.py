"""Whether something is remembered already."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from haive.core.persistence.embedding._words import has_marks, pictures_of, signs_of, words_of
from haive.core.persistence.session._contradictions import Claims
from haive.core.persistence.vector._batches import batches
from haive.core.persistence.vector._common import contradict
from haive.core.persistence.vector._shelf import both, equals
from haive.core.persistence.vector.config import RetrievalWeights
from haive.core.persistence.vector.filters import AnyOf, Comparison, Operator, to_json_value
from haive.core.persistence.vector.models import CONSOLIDATION, WORDS_HASH, Memory, MemoryKind
from haive.core.persistence.vector.records import Query

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from haive.core.persistence.vector._shelf import Shelf
    from haive.core.persistence.vector.filters import Filter

NEAREST = RetrievalWeights(
    words=0.0, context=0.0, vector=1.0, neighbours=0.0, speaker=0.0, recency=0.0, importance=0.0
)
_LOOKED_AT = 5
# Where all of these have other metadata.
_AT_MOST = 50
# What is looked at to know whether words are there at all.
_FEW = 20
# An index of Postgres answers for so many.
_AT_ONCE = 20
# Of the metadata, what is asked for and not only compared.
_NAMES = 10
_SHORT = 200
# What is said often is not written each time: how long it is kept is counted in days.
_RENEWED = timedelta(days=1)
_SAYING = (MemoryKind.NOTE.value, MemoryKind.MERGED.value)
_OF_WHOLES = frozenset({MemoryKind.SUMMARY, MemoryKind.CONVERSATION, MemoryKind.KEYWORD})


async def same_words(memories: Sequence[Memory], shelf: Shelf) -> dict[str, Memory]:
    """The memories that have the very words of these, which have one metadata, by the ids of these.

    They are of the same user and speaker, and hold; archived ones are among them.
    """
    same: dict[str, Memory] = {}
    for of_user, hashes in _by_words(memories):
        found = await _saying(hashes, of_user[0].user_id, of_user[0].metadata, shelf)
        same |= {m.id: found[m.words_hash] for m in of_user if m.words_hash in found}
    return same


async def words_told(memories: Sequence[Memory], shelf: Shelf) -> set[str]:
    """Ids of those whose words are there already, under whatever metadata.

    Asked before `same_words`, it tells what is there under other metadata alone. Without metadata
    nothing contradicts, and nobody has to ask.
    """
    told: set[str] = set()
    for of_user, hashes in _by_words([memory for memory in memories if memory.metadata]):
        there = await _told(hashes, of_user[0].user_id, shelf)
        told |= {memory.id for memory in of_user if memory.words_hash in there}
    return told


def _by_words(memories: Sequence[Memory]) -> Iterator[tuple[list[Memory], list[str]]]:
    """The memories of each user, and the hashes of their words, not too many at once."""
    for user_id in {memory.user_id for memory in memories}:
        of_user = [memory for memory in memories if memory.user_id == user_id]
        for hashes in batches(dict.fromkeys(memory.words_hash for memory in of_user), _AT_ONCE):
            yield of_user, hashes


async def _saying(
    hashes: Sequence[str], user_id: str | None, told: Mapping[str, Any], shelf: Shelf
) -> dict[str, Memory]:
    """By the hashes of their words, the first ones that searches find, else the first ones."""
    found: dict[str, Memory] = {}
    now = shelf.clock()
    where = both(Comparison((WORDS_HASH,), Operator.IN, list(hashes)), _of(user_id), _like(told))
    async for record in shelf.records(where):
        memory = Memory.from_metadata(record.id, record.metadata)
        if not _is_there(memory, now) or contradict(told, memory.metadata):
            continue
        known = found.get(memory.words_hash)
        if known is None or (known.archived and not memory.archived):
            found[memory.words_hash] = memory
        if all(each in found and not found[each].archived for each in hashes):
            break
    return found


async def _told(hashes: Sequence[str], user_id: str | None, shelf: Shelf) -> set[str]:
    """Of which words there is something; of what is said very often not all may be told."""
    where = both(Comparison((WORDS_HASH,), Operator.IN, list(hashes)), _of(user_id))
    records = await shelf.backend.find(where, limit=_FEW)
    found = [Memory.from_metadata(record.id, record.metadata) for record in records]
    return {memory.words_hash for memory in found if _is_there(memory, shelf.clock())}


async def near(
    memory: Memory, vector: NDArray[np.float32] | None, shelf: Shelf, threshold: float
) -> Memory | None:
    """The memory that says the same already, of the same user, if there is one that holds.

    The same is what the same one says with a cosine of ``threshold`` or more, claiming nothing
    else: "I have three dogs" is as near to "I have four dogs" as can be, and is news. Without
    vectors it is what has the same words, which `same_words` finds.
    """
    if vector is None:
        return None
    where = both(_of(memory.user_id), _by(memory), _like(memory.metadata))
    for limit in (_LOOKED_AT, _AT_MOST):
        hits = await shelf.backend.search(
            Query(
                text=memory.text,
                vector=vector,
                limit=limit,
                filter=where,
                weights=NEAREST,
                now=shelf.clock(),
                include_archived=True,
            )
        )
        found = [Memory.from_metadata(hit.record.id, hit.record.metadata) for hit in hits]
        agreeing = [m for m in found if not contradict(memory.metadata, m.metadata)]
        records = await shelf.backend.get([other.id for other in agreeing], vectors=True)
        cosines = {r.id: float(r.vector @ vector) for r in records if r.vector is not None}
        for other in agreeing:
            if other.id == memory.id or not _is_there(other, shelf.clock()):
                continue
            if other.words_hash == memory.words_hash:
                return other
            if cosines.get(other.id, 0.0) >= threshold and claim_alike(memory.text, other.text):
                return other
        if agreeing or len(hits) < limit:
            break
    return None


def claims_of(text: str) -> str:
    """What a text claims beside its wording: numbers, names, signs, and whether it is negated."""
    claims = Claims.of(text)
    signs = signs_of(text) + pictures_of(text)
    # Models of Latin scripts see the letters of Hindi and not its marks: "boy" is "girl" to them.
    marked = [word for word in words_of(text, marks=True) if has_marks(word)]
    claimed = (sorted(claims.numbers), sorted(claims.names), signs, marked, claims.is_negated)
    return repr(claimed)


def claim_alike(one: str, other: str) -> bool:
    """Whether two texts claim the same."""
    return claims_of(one) == claims_of(other)


async def standing_for(memory: Memory, shelf: Shelf) -> Memory | None:
    """The memory itself, or the merged one that searches find in its place; None if neither is."""
    if memory.archived_for is None:
        return memory
    other = (await shelf.get([memory.archived_for])).get(memory.archived_for)
    if other is None or not _is_there(other, shelf.clock()):
        return None
    return other if other.kind is MemoryKind.MERGED else memory


def said_again(
    known: Memory, by: Memory, now: datetime, *, importance: float | None
) -> Memory | None:
    """What a memory is when it is said again: it lasts as long as either of them.

    None where it cannot: a turn lasts as it was said, a merged one with its sources, and what was
    made of a whole conversation has nothing of its own.
    """
    changes: dict[str, Any] = {}
    if known.expires_at is not None and (by.expires_at is None or by.expires_at > known.expires_at):
        changes["expires_at"] = by.expires_at
        # Its summary expires before it does.
        changes |= {"archived": False, "archived_for": None}
    if known.valid_to is not None and (by.valid_to is None or by.valid_to > known.valid_to):
        if known.superseded_by is not None:
            return None
        changes["valid_to"] = by.valid_to
    if known.valid_from and known.valid_from > now and (by.valid_from or now) < known.valid_from:
        changes["valid_from"] = by.valid_from
    if changes and known.kind is not MemoryKind.NOTE:
        return None
    if known.kind in _OF_WHOLES:
        return None if by.metadata or importance is not None else known
    if known.archived and known.archived_for is None:
        changes["archived"] = False
    if importance is not None:
        changes["importance"] = importance
    # A merged one was written when it was merged, and said before that.
    merged = known.kind is MemoryKind.MERGED
    written = known.renewed_at or (None if merged else known.created_at)
    if written is None or now - written >= _RENEWED:
        changes["renewed_at"] = now
    ours = {name: known.metadata[name] for name in (CONSOLIDATION,) if name in known.metadata}
    return replace(known, metadata={**known.metadata, **by.metadata, **ours}, **changes)


def _of(user_id: str | None) -> Filter | None:
    return both(equals(user_id=user_id), Comparison(("kind",), Operator.IN, list(_SAYING)))


def _by(memory: Memory) -> Filter | None:
    """What the same one says; of nobody is what has no name, or an empty one."""
    who = {"speaker": memory.speaker, "role": memory.role}
    return both(
        *(
            Comparison((name,), Operator.IN, [value] if value else [None, ""])
            for name, value in who.items()
        )
    )


def _like(told: Mapping[str, Any]) -> Filter | None:
    """What does not contradict metadata in its texts, numbers and truths; the rest is compared."""
    given = {name: to_json_value(value, name) for name, value in told.items()}
    plain = {
        name: value
        for name, value in given.items()
        if name != CONSOLIDATION
        and isinstance(value, str | int | float)
        and len(str(value)) < _SHORT
    }
    return both(
        *(
            AnyOf(
                (
                    Comparison((name,), Operator.EXISTS, value=False),
                    Comparison((name,), Operator.EQ, value),
                )
            )
            for name, value in list(plain.items())[:_NAMES]
        )
    )


def _is_there(memory: Memory, now: datetime) -> bool:
    lasts = memory.expires_at is None or memory.expires_at > now
    return lasts and (memory.valid_to is None or memory.valid_to > now)
