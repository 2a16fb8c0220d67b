"""Makes one memory of several that belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence  # noqa: TC003 - an annotation of a frozen value
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import ConflictError, InvalidInputError
from haive.core.persistence.vector._cascading import rebuilt_from
from haive.core.persistence.vector._clusters import clusters
from haive.core.persistence.vector._common import common, given_itself, said_by
from haive.core.persistence.vector._duplicates import claims_of
from haive.core.persistence.vector._forgetting import forget
from haive.core.persistence.vector._ids import EPOCH, derived_id
from haive.core.persistence.vector._importance import IMPORTANT
from haive.core.persistence.vector._shelf import PAGE, both
from haive.core.persistence.vector._summaries import Wording
from haive.core.persistence.vector._values import time_text
from haive.core.persistence.vector.filters import Comparison, Operator
from haive.core.persistence.vector.models import (
    CONSOLIDATION,
    Consolidation,
    ConsolidationGroup,
    ConsolidationPlan,
    Memory,
    MemoryKind,
    trust_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haive.core.persistence.vector._shelf import Shelf
    from haive.core.persistence.vector.filters import Filter

STRATEGIES = ("hierarchical", "dedupe", "summarize")
_ORIGINALS = (MemoryKind.TURN.value, MemoryKind.CHUNK.value, MemoryKind.NOTE.value)
# Above so many levels everything of a user is one cluster, or nothing is alike.
_LEVELS = 4
# A summary is made of no more than this: of more, several are made.
_MOST = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Consolidating:
    """What is to be consolidated, and how."""

    strategy: str
    threshold: float
    window: timedelta | None
    until: datetime | None
    preserve_important: bool
    archive: bool
    where: Filter | None


async def consolidate(how: Consolidating, shelf: Shelf, *, dry_run: bool) -> Consolidation:
    """Consolidate, or say what it would do.

    The plan depends on the originals in the window alone, archived by an earlier run or not, and
    each group has the id of its sources. So a run that was stopped anywhere is gone on with by
    another one: what is written is not written again, and the rest is.
    """
    if how.strategy not in STRATEGIES:
        raise InvalidInputError(
            f"There is no strategy {str(how.strategy)[:40]!r}.",
            hint=f"There are {', '.join(STRATEGIES)}.",
        )
    originals = await _originals(how, shelf)
    above = await _above(originals, how, shelf)
    given = await _given(originals, above, shelf)
    return await _Planner(how, shelf, above, given).run(originals, dry_run=dry_run)


async def _originals(how: Consolidating, shelf: Shelf) -> list[Memory]:
    """What is in the window: what holds, and is archived at most for a group of ours."""
    until = how.until or shelf.clock()
    window = None
    if how.window is not None:
        if how.window <= timedelta(0):
            raise InvalidInputError("time_window is more than nothing.")
        window = both(
            Comparison(("timestamp",), Operator.GTE, time_text(_before(until, how.window))),
            Comparison(("timestamp",), Operator.LTE, time_text(until)),
        )
    found = await shelf.find(
        both(
            Comparison(("kind",), Operator.IN, list(_ORIGINALS)),
            window,
            how.where,
        )
    )
    return [
        memory
        for memory in found
        # What has no time is in no window, and considered where none is asked for.
        if (memory.timestamp is None or memory.timestamp <= until)
        and memory.valid_to is None
        and (not memory.archived or memory.archived_for is not None)
        and (memory.expires_at is None or memory.expires_at > until)
    ]


def _before(until: datetime, window: timedelta) -> datetime:
    """When a window begins: with all time where it is longer than that."""
    try:
        return until - window
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


async def _above(
    originals: Sequence[Memory], how: Consolidating, shelf: Shelf
) -> dict[str, Memory]:
    """What earlier runs of this strategy made of them, and of that.

    What ended with one of its sources is history; what somebody ended by itself is not made again.
    """
    holding = {memory.id for memory in originals}
    found: dict[str, Memory] = {}
    frontier = [memory.id for memory in originals]
    while frontier:
        made = [
            memory
            for memory in await shelf.pointing_at("sources", frontier)
            if memory.metadata.get(CONSOLIDATION) == how.strategy
            and memory.id not in found
            and (memory.valid_to is None or holding.issuperset(memory.sources))
        ]
        found.update((memory.id, memory) for memory in made)
        holding |= found.keys()
        frontier = [memory.id for memory in made]
    return found


@dataclass(frozen=True, slots=True)
class _Given:
    """What a merged memory was given itself."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    importance: float = 0.0
    """Where it is more than that of its sources."""
    said_by: Mapping[str, Any] = field(default_factory=dict)
    """``speaker`` and ``role`` where they are not those of its sources."""


async def _given(
    originals: Sequence[Memory], above: Mapping[str, Memory], shelf: Shelf
) -> dict[str, _Given]:
    """What was given to merged memories themselves, by their ids."""
    merged = [memory for memory in above.values() if memory.kind is MemoryKind.MERGED]
    known = {memory.id: memory for memory in originals}
    outside = {each for memory in merged for each in memory.sources} - known.keys()
    known |= await shelf.get(outside)
    found: dict[str, _Given] = {}
    for memory in merged:
        sources = [known[each] for each in memory.sources if each in known]
        theirs = common(memory.kind, sources)
        more = memory.importance > max((each.importance for each in sources), default=1.0)
        found[memory.id] = _Given(
            metadata=given_itself(memory, sources),
            importance=memory.importance if more else 0.0,
            said_by={
                name: said
                for name in ("speaker", "role")
                if (said := getattr(memory, name)) not in {None, theirs[name]}
            },
        )
    return found


class _Planner:
    """Plans level by level, as each level's summaries are what the next one is made of."""

    def __init__(
        self,
        how: Consolidating,
        shelf: Shelf,
        above: dict[str, Memory],
        given: Mapping[str, _Given],
    ) -> None:
        self._how = how
        self._shelf = shelf
        self._above = above
        self._given = given
        self._made_of: defaultdict[str, list[Memory]] = defaultdict(list)
        for memory in above.values():
            for source in memory.sources:
                self._made_of[source].append(memory)
        self._leaves: dict[str, frozenset[str]] = {}
        self._considered: frozenset[str] = frozenset()
        self._groups: list[ConsolidationGroup] = []

    async def run(self, originals: list[Memory], *, dry_run: bool) -> Consolidation:
        """Do it, or only plan it."""
        self._considered = frozenset(memory.id for memory in originals)
        members = originals
        if self._how.strategy == "dedupe" and self._how.preserve_important:
            members = [memory for memory in originals if memory.importance < IMPORTANT]
        for level in range(1, _LEVELS + 1 if self._how.strategy == "hierarchical" else 2):
            groups = await self._grouped(members, level)
            members = await self._made(groups, level, dry_run=dry_run)
            if len(members) < 2:
                break
        plan = ConsolidationPlan(
            strategy=self._how.strategy, considered=len(originals), groups=tuple(self._groups)
        )
        if dry_run:
            return Consolidation(plan=plan, dry_run=True)
        return Consolidation(
            plan=plan,
            dry_run=False,
            created=tuple(group.id for group in self._groups),
            archived=tuple(each for group in self._groups for each in group.archives),
            removed=await self._replace(),
        )

    async def _grouped(self, members: Sequence[Memory], level: int) -> list[list[Memory]]:
        """The groups, of one user each, in an order that depends on the members alone."""
        parts: defaultdict[tuple[str, ...], list[Memory]] = defaultdict(list)
        for memory in sorted(members, key=_place):
            parts[self._part(memory)].append(memory)
        # What is alone in its part is in no group.
        inside = [parts[part] for part in sorted(parts) if len(parts[part]) > 1]
        if self._how.strategy == "summarize":
            groups = [part[at : at + _MOST] for part in inside for at in range(0, len(part), _MOST)]
        else:
            merging = self._how.strategy == "dedupe"
            # Summaries are longer, and less alike than what they are made of.
            threshold = self._how.threshold * 0.9 ** (level - 1)
            groups = await clusters(
                inside,
                threshold,
                self._shelf,
                most=None if merging else _MOST,
                agreeing=self._told if merging else None,
            )
        return [group for group in groups if len(group) > 1]

    def _told(self, memory: Memory) -> dict[str, Any]:
        """A memory's metadata, and over them what was given to what stands for it."""
        return {**memory.metadata, **self._given_for(memory).metadata}

    def _as_told(self, memory: Memory) -> Memory:
        """A memory with what was given to what stands for it."""
        given = self._given_for(memory)
        importance = max(memory.importance, given.importance)
        told = replace(memory, metadata=self._told(memory), importance=importance)
        return replace(told, **given.said_by)

    def _given_for(self, memory: Memory) -> _Given:
        return self._given.get(memory.archived_for or "", _Given())

    def _part(self, memory: Memory) -> tuple[str, ...]:
        # Nobody is another one than who has no name.
        user = "" if memory.user_id is None else f"={memory.user_id}"
        # What expires is not put into what stays.
        until = "" if memory.expires_at is None else memory.expires_at.date().isoformat()
        if self._how.strategy == "summarize":
            day = "" if memory.timestamp is None else memory.timestamp.date().isoformat()
            return (user, until, memory.conversation_id or "", day)
        if self._how.strategy == "dedupe":
            # "100 euro" is as near to "900 euro" as can be, and does not say the same.
            return (user, until, claims_of(memory.text), *said_by(self._as_told(memory)))
        return (user, until)

    async def _made(
        self, groups: Sequence[list[Memory]], level: int, *, dry_run: bool
    ) -> list[Memory]:
        """The memories of groups: those that are there, and new ones.

        What a model writes is stored at once, as it may fail at the next group; what costs nothing
        to make again goes in batches.
        """
        most = PAGE if self._shelf.config.chat is None else 1
        made: list[Memory] = []
        batch: list[tuple[list[Memory], ConsolidationGroup, Memory]] = []
        for group in groups:
            covering = self._covering(frozenset(memory.id for memory in group))
            if covering is not None:
                made.append(covering)
                continue
            planned = self._planned(group, level)
            memory = self._above.get(planned.id) or await self._written(
                group, planned, dry_run=dry_run
            )
            made.append(memory)
            batch.append((group, planned, memory))
            if sum(len(members) for members, _, _ in batch) >= most and not dry_run:
                await self._store(batch)
                batch = []
        if batch and not dry_run:
            await self._store(batch)
        return made

    def _planned(self, group: Sequence[Memory], level: int) -> ConsolidationGroup:
        """What is to become of a group, which is noted."""
        kind = MemoryKind.MERGED if self._how.strategy == "dedupe" else MemoryKind.SUMMARY
        ordered = _best_first(group) if kind is MemoryKind.MERGED else group
        sources = frozenset(memory.id for memory in group)
        when = max(memory.timestamp or EPOCH for memory in group)
        planned = ConsolidationGroup(
            id=derived_id(when, self._how.strategy, *sorted(sources)),
            kind=kind,
            sources=tuple(memory.id for memory in ordered),
            archives=tuple(memory.id for memory in group if self._archives(memory)),
            level=level,
        )
        self._leaves[planned.id] = self._under(sources)
        self._groups.append(planned)
        return planned

    async def _written(
        self, group: Sequence[Memory], planned: ConsolidationGroup, *, dry_run: bool
    ) -> Memory:
        """The memory of a group; no model is asked for a plan."""
        members = {memory.id: memory for memory in group}
        ordered = [self._as_told(members[each]) for each in planned.sources]
        now = self._shelf.clock()
        empty = _unwritten(planned.id, planned.kind, ordered, self._how.strategy, now)
        if planned.kind is MemoryKind.MERGED:
            empty = replace(empty, renewed_at=self._last_said(group))
        how = Wording.EXTRACT if dry_run else Wording.MODEL
        return await rebuilt_from(empty, members, self._shelf, how)

    def _last_said(self, group: Sequence[Memory]) -> datetime | None:
        """When any of them was, or what stands for it: retention counts from then."""
        times = [memory.renewed_at or memory.created_at for memory in group]
        for memory in group:
            standing = self._above.get(memory.archived_for or "")
            times.append(None if standing is None else standing.renewed_at)
        return max((when for when in times if when is not None), default=None)

    async def _store(
        self, batch: Sequence[tuple[list[Memory], ConsolidationGroup, Memory]]
    ) -> None:
        """Write what is not there yet, and then archive what it is made of.

        Raises:
            ConflictError: A member was forgotten or changed since it was read, for which a model
                may have taken minutes; what was made of it is removed.
        """
        await self._shelf.write([made for _, _, made in batch if made.id not in self._above])
        there = await self._shelf.get(memory.id for group, _, _ in batch for memory in group)
        stale = [
            planned.id
            for group, planned, _ in batch
            if any(_says(memory) != _says(there.get(memory.id)) for memory in group)
        ]
        if stale:
            # What was there before follows its members by itself.
            await self._shelf.backend.delete([each for each in stale if each not in self._above])
            raise ConflictError(
                "Memories were forgotten or changed while they were consolidated.",
                hint="Call it again: it goes on from here.",
            )
        # One that ended with a member, which holds again: searches would find neither.
        await self._shelf.rewrite(
            [
                replace(made, valid_to=None)
                for _, planned, made in batch
                if made.valid_to is not None and made.superseded_by is None
                if any(there[each].archived_for != planned.id for each in planned.archives)
            ]
        )
        await self._shelf.rewrite(
            [
                replace(
                    there[each],
                    archived=True,
                    archived_for=planned.id,
                    archived_from=made.valid_from,
                )
                for _, planned, made in batch
                for each in planned.archives
                if there[each].archived_for != planned.id
            ]
        )

    def _archives(self, memory: Memory) -> bool:
        preserved = self._how.preserve_important and memory.importance >= IMPORTANT
        return self._how.archive and not preserved

    def _covering(self, sources: frozenset[str]) -> Memory | None:
        """What an earlier run made of them and of others, which the window has left behind."""
        return next(
            (
                memory
                for memory in self._made_of[min(sources)]
                if sources < frozenset(memory.sources) and not self._is_within(memory)
            ),
            None,
        )

    async def _replace(self) -> tuple[str, ...]:
        """Remove what earlier runs made of these memories, where it is made otherwise now."""
        old = [
            memory.id
            for memory in self._above.values()
            if memory.id not in self._leaves and self._is_within(memory)
        ]
        # They go, and not what they stand for.
        await self._shelf.rewrite(
            [
                replace(memory, archived=False, archived_for=None)
                for memory in await self._shelf.pointing_at("archived_for", old)
            ]
        )
        return (await forget(self._shelf, old)).forgotten

    def _is_within(self, memory: Memory) -> bool:
        """Whether all that it was made of in the end is considered."""
        return self._under(frozenset(memory.sources)) <= self._considered

    def _under(self, sources: frozenset[str]) -> frozenset[str]:
        """The originals under sources."""
        found: set[str] = set()
        for each in sources:
            if each not in self._leaves and each in self._above:
                found |= self._under(frozenset(self._above[each].sources))
            else:
                found |= self._leaves.get(each, {each})
        return frozenset(found)


def _says(memory: Memory | None) -> tuple[object, ...] | None:
    """What of a memory goes into what is made of it."""
    if memory is None:
        return None
    return memory.text, memory.valid_to, memory.speaker, memory.role, memory.metadata


def _place(memory: Memory) -> tuple[datetime, str, int, str]:
    """Where a memory stands among others: by time, and within a conversation as it was said."""
    return (
        memory.timestamp or EPOCH, memory.conversation_id or "", memory.seq or 0, memory.id,
    )  # fmt: skip


def _best_first(group: Sequence[Memory]) -> list[Memory]:
    """The members, the one whose words are kept first: the most important, then the latest."""
    return sorted(
        group,
        key=lambda m: (m.importance, m.timestamp or EPOCH, m.id),
        reverse=True,
    )


def _unwritten(
    memory_id: str, kind: MemoryKind, group: Sequence[Memory], strategy: str, now: datetime
) -> Memory:
    """The memory of a group without its text."""
    talks = {memory.conversation_id for memory in group}
    times = [memory.timestamp for memory in group if memory.timestamp is not None]
    held = [when for m in group if (when := m.valid_from or m.timestamp) is not None]
    expiries = [memory.expires_at for memory in group if memory.expires_at is not None]
    merged = kind is MemoryKind.MERGED
    seqs = [memory.seq for memory in group if memory.seq is not None]
    one_talk = len(talks) == 1 and None not in talks
    shared = common(kind, group)
    return Memory(
        id=memory_id,
        text="",
        kind=kind,
        user_id=group[0].user_id,
        conversation_id=talks.pop() if one_talk else None,
        seq=min(seqs) if one_talk and seqs else None,
        until_seq=max(seqs) if one_talk and seqs else None,
        timestamp=max(times, default=None),
        valid_from=min(held, default=None) if merged else max(held, default=None),
        # What says the same lasts as long as any of it. Of a summary the members are of one day of
        # expiry: none is hidden for long by what goes before it.
        expires_at=(max if merged else min)(expiries, default=None),
        importance=max(memory.importance for memory in group),
        sources=tuple(memory.id for memory in group),
        trust=trust_of(group),
        writer=group[0].writer if merged else None,
        created_at=now,
        **{**shared, "metadata": {**shared["metadata"], CONSOLIDATION: strategy}},
    )
