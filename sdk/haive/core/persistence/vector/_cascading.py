"""What was made of memories follows them: made anew when they change, gone when they go."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from haive.core.persistence.errors import ConflictError, QuotaExceededError
from haive.core.persistence.vector._chunks import context_of
from haive.core.persistence.vector._common import follow
from haive.core.persistence.vector._keywords import keywords
from haive.core.persistence.vector._shelf import spoken
from haive.core.persistence.vector._summaries import Wording, opening, summarize
from haive.core.persistence.vector.models import CONSOLIDATION, DERIVED, Memory, MemoryKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from haive.core.persistence.vector._shelf import Shelf

# Each round is of what others wrote during the one before.
_ROUNDS = 20


class Cascade:
    """What is written anew because memories go or change.

    Only what belongs to the same user follows: whoever writes that a memory of theirs was made of
    somebody else's gets nothing of that one's text.

    Attributes:
        gone: What goes: what was asked for, and what was made of it alone.
        rebuilt: Ids of what was made of others too, and is made anew of those.
    """

    def __init__(self, shelf: Shelf, gone: Mapping[str, Memory] | None = None) -> None:
        self._shelf = shelf
        self._lost: set[str] = set()  # gone by another call: nothing else is known of them
        self._touched: set[str] = set()
        self.gone: dict[str, Memory] = dict(gone or {})
        self.rebuilt: set[str] = set()

    async def run(self, changed: Mapping[str, Memory] | None = None) -> None:
        """Write anew what was made of what goes, or of what has changed and is not written yet.

        Raises:
            QuotaExceededError: What was made of changed memories is too long for the tenant.
        """
        changed = changed or {}
        known = dict(changed)
        made = await self._made_anew({*self.gone, *self._lost, *changed}, changed, known)
        await self._write([known[each] for each in sorted(made)], may_go=not changed)
        await self._unpoint(changed)
        self.rebuilt = (self.rebuilt | made) - self.gone.keys()

    async def settle(self) -> set[str]:
        """Look again once what goes is removed, and repair what others wrote of it meanwhile.

        Of two calls that remove two sources of one memory, each makes it anew of what the other
        one removes: whoever looks last sees it.

        Returns:
            Ids that have to go as well.

        Raises:
            ConflictError: Others go on writing.
        """
        before = set(self.gone)
        for _ in range(_ROUNDS):
            self._lost = await self._dangling()
            if not self._lost:
                return set(self.gone) - before
            await self.run()
        raise ConflictError(
            "Memories were written again and again of what was forgotten.",
            hint="Call it again: it goes on from here.",
        )

    async def _dangling(self) -> set[str]:
        """Ids that something names and that are not there."""
        named: set[str] = set()
        for name in ("sources", "context_ids"):
            for memory in await self._shelf.pointing_at(name, self.gone):
                if memory.id not in self.gone and self._follows(memory, getattr(memory, name)):
                    named |= self.gone.keys() & set(getattr(memory, name))
        written = await self._shelf.get(self._touched - self.gone.keys())
        quoted = {
            each for memory in written.values() for each in (*memory.sources, *memory.context_ids)
        }
        return named | (quoted - (await self._shelf.get(quoted)).keys())

    def _follows(
        self, memory: Memory, ids: Iterable[str], changed: Mapping[str, Memory] | None = None
    ) -> bool:
        """Whether one of the ids is of what goes or changes, and of the same user."""
        for each in ids:
            if each in self._lost:
                return True
            source = self.gone.get(each) or (changed or {}).get(each)
            if source is not None and source.user_id == memory.user_id:
                return True
        return False

    async def _made_anew(
        self, fresh: set[str], changed: Mapping[str, Memory], known: dict[str, Memory]
    ) -> set[str]:
        """Make what is above anew, into ``known``; what has nothing left joins what goes."""
        made: set[str] = set()
        while fresh:
            above = [
                known.get(memory.id, memory)
                for memory in await self._shelf.pointing_at("sources", fresh)
                if memory.id not in self.gone
                and memory.id not in changed
                and memory.kind in DERIVED
                and self._follows(memory, memory.sources, known)
            ]
            fresh = set()
            there = await self._shelf.get(each for memory in above for each in memory.sources)
            for memory in above:
                now = {each: known.get(each) or there.get(each) for each in memory.sources}
                sources = {
                    each: source
                    for each, source in now.items()
                    if source is not None
                    and each not in self.gone
                    and source.user_id == memory.user_id
                }
                if not sources:
                    self.gone[memory.id] = memory
                    fresh.add(memory.id)
                    continue
                anew = await self._anew(memory, sources)
                if CONSOLIDATION in anew.metadata:
                    before = [there[each] for each in memory.sources if each in there]
                    anew = follow(anew, before, list(sources.values()))
                if _has_changed(known.get(memory.id, memory), anew):
                    fresh.add(memory.id)
                known[memory.id] = anew
                made.add(memory.id)
        return made - self.gone.keys()

    async def _anew(self, memory: Memory, sources: Mapping[str, Memory]) -> Memory:
        """A derived memory of the sources left; what has ended is not said by what holds."""
        said = {each: source for each, source in sources.items() if source.valid_to is None}
        if memory.valid_to is not None or not said:
            said = dict(sources)
        return await made_of(replace(memory, sources=tuple(sources)), said, self._shelf)

    async def _write(self, memories: list[Memory], *, may_go: bool) -> None:
        """Write what was made anew; where there is no room for it and it may, it goes instead."""
        self._touched |= {memory.id for memory in memories}
        try:
            await self._shelf.renew(memories)
        except QuotaExceededError:
            if not may_go:
                raise
        else:
            return
        # One is longer now than it was, which must not keep anybody from forgetting.
        refused = [memory for memory in memories if not await self._has_room(memory)]
        if refused:
            self.gone.update((memory.id, memory) for memory in refused)
            await self.run()

    async def _has_room(self, memory: Memory) -> bool:
        try:
            await self._shelf.renew([memory])
        except QuotaExceededError:
            return False
        return True

    async def _unpoint(self, changed: Mapping[str, Memory]) -> None:
        """Let nothing quote or name what goes."""
        pointing: dict[str, Memory] = {}
        going = {*self.gone, *self._lost}

        def held(memory: Memory) -> Memory:
            return pointing.get(memory.id, memory)

        quoting = [
            memory
            for memory in await self._shelf.pointing_at("context_ids", {*going, *changed})
            if self._follows(memory, memory.context_ids, changed)
        ]
        there = {
            **await self._shelf.get(each for memory in quoting for each in memory.context_ids),
            **changed,
        }
        for memory in quoting:
            ids = tuple(
                each
                for each in memory.context_ids
                if each not in going and each in there and there[each].user_id == memory.user_id
            )
            context = context_of([there[each].text for each in ids])
            pointing[memory.id] = replace(memory, context=context, context_ids=ids)
        for memory in await self._shelf.pointing_at("superseded_by", going):
            pointing[memory.id] = replace(held(memory), superseded_by=None)
        for memory in await self._shelf.pointing_at("archived_for", going):
            # A summary is gone and what it was made of is there: searches find that again.
            pointing[memory.id] = replace(held(memory), archived=False, archived_for=None)
        left = [memory for memory in pointing.values() if memory.id not in going]
        self._touched |= {memory.id for memory in left}
        await self._shelf.rewrite(left)


def _has_changed(memory: Memory, anew: Memory) -> bool:
    """Whether what was made of it has to be made anew, too."""
    return (spoken(memory), memory.metadata) != (spoken(anew), anew.metadata)


async def made_of(memory: Memory, said: Mapping[str, Memory], shelf: Shelf) -> Memory:
    """A derived memory that says some of its sources, and still names all of them."""
    made = await rebuilt_from(replace(memory, sources=tuple(said)), said, shelf)
    # Retention counts from the last change.
    renewed_at = memory.renewed_at if made.text == memory.text else shelf.clock()
    return replace(made, sources=memory.sources, renewed_at=renewed_at)


async def rebuilt_from(
    memory: Memory,
    sources: Mapping[str, Memory],
    shelf: Shelf,
    how: Wording = Wording.EITHER,
) -> Memory:
    """A derived memory, made of the sources that it has now.

    Raises:
        ModelError: The language model failed, and no extract will do.
    """
    texts = [sources[each].text for each in memory.sources if each in sources]
    if memory.kind is MemoryKind.SUMMARY:
        text, writer = await summarize(texts, shelf, how)
        return replace(memory, text=text, writer=writer)
    if memory.kind is MemoryKind.KEYWORD:
        turns = [(sources[each].speaker, sources[each].text) for each in memory.sources]
        found = keywords(turns)
        return replace(memory, text=", ".join(found) or opening(texts), keywords=tuple(found))
    if memory.kind is MemoryKind.MERGED:
        return replace(memory, text=texts[0])
    return replace(memory, text=opening(texts))
