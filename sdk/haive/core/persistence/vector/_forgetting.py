"""Forgets memories, and all that was made of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from haive.core.persistence.vector._batches import batches
from haive.core.persistence.vector._chunks import context_of
from haive.core.persistence.vector._keywords import has_keyword, keywords
from haive.core.persistence.vector._shelf import PAGE
from haive.core.persistence.vector._summaries import opening, summarize
from haive.core.persistence.vector.models import DERIVED, ForgetResult, Memory, MemoryKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from haive.core.persistence.vector._shelf import Shelf


async def forget(shelf: Shelf, ids: Iterable[str]) -> ForgetResult:
    """Forget memories.

    What was made of them alone goes along, and what was made of others too is made anew of those;
    a memory that stood for several that were merged takes these along. Where a text stands as the
    context of the next turn, it goes there as well. Nothing is removed before all that is made anew
    is written, so a call that was interrupted is repeated with the same ids.
    """
    asked = await shelf.get(ids)
    gone = await _with_merged(asked, shelf)
    rebuilt = await _cascade(shelf, gone, {})
    removed = await _delete(shelf, gone)
    kinds = Counter(gone[each].kind.value for each in removed)
    return ForgetResult(
        counts=dict(kinds),
        forgotten=tuple(each for each in removed if each in asked),
        removed=tuple(each for each in removed if each not in asked),
        rebuilt=tuple(sorted(rebuilt)),
    )


async def change(shelf: Shelf, memory: Memory) -> tuple[str, ...]:
    """Write a memory whose text has changed, and what was made of it anew; the ids of that."""
    left = tuple(word for word in memory.keywords if has_keyword(memory.text, word))
    memory = replace(memory, keywords=left)
    rebuilt = await _cascade(shelf, {}, {memory.id: memory})
    await shelf.write([memory])
    return tuple(sorted(rebuilt))


async def rebuilt_from(memory: Memory, sources: Mapping[str, Memory], shelf: Shelf) -> Memory:
    """A derived memory, made of the sources that it has now."""
    texts = [sources[each].text for each in memory.sources if each in sources]
    if memory.kind is MemoryKind.SUMMARY:
        text, writer = await summarize(texts, shelf, fall_back=True)
        return replace(memory, text=text, writer=writer)
    if memory.kind is MemoryKind.KEYWORD:
        turns = [(sources[each].speaker, sources[each].text) for each in memory.sources]
        found = keywords(turns)
        return replace(memory, text=", ".join(found) or opening(texts), keywords=tuple(found))
    if memory.kind is MemoryKind.MERGED:
        return replace(memory, text=texts[0])
    return replace(memory, text=opening(texts))


async def _with_merged(asked: Mapping[str, Memory], shelf: Shelf) -> dict[str, Memory]:
    """The memories, with those that a merged one among them stands for."""
    gone = dict(asked)
    fresh = list(asked.values())
    while merged := [each.id for each in fresh if each.kind is MemoryKind.MERGED]:
        behind = await shelf.pointing_at("archived_for", merged)
        fresh = [memory for memory in behind if memory.id not in gone]
        gone.update((memory.id, memory) for memory in fresh)
    return gone


async def _cascade(shelf: Shelf, gone: dict[str, Memory], changed: dict[str, Memory]) -> set[str]:
    """Write anew what was made of what goes or changes; what has nothing left joins ``gone``."""
    rebuilt: set[str] = set()
    fresh = set(gone) | set(changed)
    known = dict(changed)
    while fresh:
        above = [
            known.get(memory.id, memory)
            for memory in await shelf.pointing_at("sources", fresh)
            if memory.id not in gone and memory.id not in changed and memory.kind in DERIVED
        ]
        fresh = set()
        there = await shelf.get(each for memory in above for each in memory.sources)
        for memory in above:
            now = {each: known.get(each) or there.get(each) for each in memory.sources}
            sources = {
                each: source
                for each, source in now.items()
                if source is not None and each not in gone
            }
            if not sources:
                gone[memory.id] = memory
                fresh.add(memory.id)
                continue
            held = replace(memory, sources=tuple(sources))
            made = await rebuilt_from(held, sources, shelf)
            if made.text != known.get(memory.id, memory).text:
                fresh.add(memory.id)
            known[memory.id] = made
            rebuilt.add(memory.id)
    rebuilt -= gone.keys()
    await shelf.write([known[each] for each in sorted(rebuilt)])
    await _unpoint(shelf, gone, changed)
    return rebuilt


async def _unpoint(shelf: Shelf, gone: Mapping[str, Memory], changed: Mapping[str, Memory]) -> None:
    """Let nothing quote or name what goes."""
    pointing: dict[str, Memory] = {}

    def held(memory: Memory) -> Memory:
        return pointing.get(memory.id, memory)

    quoting = await shelf.pointing_at("context_ids", [*gone, *changed])
    left = {m.id: tuple(each for each in m.context_ids if each not in gone) for m in quoting}
    there = {**await shelf.get(each for ids in left.values() for each in ids), **changed}
    for memory in quoting:
        ids = tuple(each for each in left[memory.id] if each in there)
        context = context_of([there[each].text for each in ids])
        pointing[memory.id] = replace(memory, context=context, context_ids=ids)
    for memory in await shelf.pointing_at("superseded_by", gone):
        pointing[memory.id] = replace(held(memory), superseded_by=None)
    for memory in await shelf.pointing_at("archived_for", gone):
        # A summary is gone and what it was made of is there: searches find that again.
        pointing[memory.id] = replace(held(memory), archived=False, archived_for=None)
    await shelf.rewrite([memory for memory in pointing.values() if memory.id not in gone])


async def _delete(shelf: Shelf, gone: Mapping[str, Memory]) -> list[str]:
    """Remove them: what was made of others first, so that what is asked for is there to the end."""
    ordered = sorted(gone, key=lambda each: gone[each].kind not in DERIVED)
    removed: list[str] = []
    for batch in batches(ordered, PAGE):
        removed += await shelf.backend.delete(batch)
    return removed
