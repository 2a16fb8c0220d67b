"""What is forgotten is gone, with all that was made of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from haive.core.persistence.errors import InvalidInputError, NotFoundError, QuotaExceededError
from haive.core.persistence.vector import MemoryKind, VectorMemory
from haive.core.persistence.vector._cascading import Cascade
from haive.core.persistence.vector.backends.protocol import MemoryBackend
from haive.core.persistence.vector.records import Record

AT = datetime(2026, 2, 1, 9, tzinfo=UTC)
SECRET = "The secret word is xylophone, and nobody else may know it."
SAID = ["We meet on Monday in the old harbour.", SECRET, "Fine, I bring the maps and the lamps."]


def talk(said: list[str] = SAID) -> list[dict[str, object]]:
    return [
        {"role": "user", "speaker": "Anna", "content": text, "timestamp": AT + timedelta(hours=n)}
        for n, text in enumerate(said)
    ]


async def everything(memory: VectorMemory) -> str:
    """All that is stored, as text: what is not in it is gone."""
    shelf = await memory._open()
    return str([record async for record in shelf.records(None, vectors=False)])


async def store(memory: VectorMemory, said: list[str] = SAID) -> str:
    return await memory.store_conversation(
        talk(said),
        {"conversation_id": "talk-1", "user_id": "anna"},
        extract_keywords=True,
        generate_summary=True,
    )


async def test_a_turn_goes_from_summary_keywords_and_contexts_too(memory: VectorMemory) -> None:
    whole = await store(memory)
    summary = await memory.get(whole)
    assert "xylophone" in summary.text
    result = await memory.forget(summary.sources[1])
    assert result.counts == {"turn": 1}
    assert result.forgotten == (summary.sources[1],)
    assert whole in result.rebuilt
    assert "xylophone" not in await everything(memory)
    rebuilt = await memory.get(whole)
    assert rebuilt.sources == (summary.sources[0], summary.sources[2])
    assert "harbour" in rebuilt.text
    assert (await memory.get(summary.sources[2])).context == SAID[0]
    with pytest.raises(NotFoundError):
        await memory.get(summary.sources[1])


async def test_with_the_last_source_what_was_made_of_it_goes(memory: VectorMemory) -> None:
    whole = await memory.get(await store(memory))
    result = await memory.forget(whole.sources)
    assert result.counts == {"turn": 3, "summary": 1, "keyword": 1}
    assert result.total == 5
    assert set(result.forgotten) == set(whole.sources)
    assert whole.id in result.removed
    assert (await memory.stats()).total == 0


async def test_forgetting_is_repeated_safely_and_what_is_not_there_counts_nothing(memory) -> None:
    whole = await memory.get(await store(memory))
    await memory.forget(whole.sources[0])
    assert (await memory.forget(whole.sources[0])).total == 0


class Breaking:
    """A backend that fails once it has written so many times."""

    def __init__(self, inner: MemoryBackend, writes: int) -> None:
        self._inner = inner
        self._left = writes

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if name not in {"put", "replace", "delete"}:
            return found

        async def counted(*arguments: object) -> object:
            if self._left == 0:
                raise ConnectionError("pulled")
            self._left -= 1
            return await found(*arguments)

        return counted


async def test_a_call_that_was_stopped_anywhere_is_finished_by_repeating_it(make, backend) -> None:
    for writes in range(4):
        memory = make()
        whole = await memory.get(await store(memory))
        broken = make(over=Breaking(backend, writes))
        try:
            await broken.forget(whole.sources[1])
        except ConnectionError:
            # It is there to be named again, until nothing else has it.
            await memory.get(whole.sources[1])
        await memory.forget(whole.sources[1])
        assert "xylophone" not in await everything(memory)
        await memory.forget(filters={"user_id": "anna"})


async def test_summaries_of_summaries_are_made_anew_as_well(memory: VectorMemory, clock) -> None:
    texts = [f"The harbour master counts the red boats in dock {n}." for n in range(4)]
    ids = await memory.add_many([*texts, f"The harbour master counts boats. {SECRET}"])
    await memory.consolidate_memories(similarity_threshold=0.1)
    stats = await memory.stats()
    assert stats.kinds["summary"] >= 1
    await memory.forget(ids[-1])
    assert "xylophone" not in await everything(memory)
    for each in await memory.search("harbour", filters={"kind": "summary"}):
        assert ids[-1] not in {source.id for source in await memory.provenance(each.id)}


async def test_a_merged_memory_takes_along_what_it_stands_for(memory: VectorMemory, make) -> None:
    memory = make(near_duplicate=None)
    await memory.add_many(["The boat is red."] * 3, importance=0.2)
    done = await memory.consolidate_memories(consolidation_strategy="dedupe")
    [merged] = done.created
    assert [hit.id for hit in await memory.search("boat")] == [merged]
    result = await memory.forget(merged)
    assert result.counts == {"merged": 1, "note": 3}
    assert (await memory.stats()).total == 0


async def test_when_a_summary_is_forgotten_its_sources_are_found_again(memory) -> None:
    ids = await memory.add_many(
        ["The boat in the dock is red.", "The boat in the dock is blue."], importance=0.2
    )
    done = await memory.consolidate_memories(similarity_threshold=0.3, archive_originals=True)
    assert {hit.id for hit in await memory.search("boat")} == set(done.created)
    await memory.forget(done.created)
    assert {hit.id for hit in await memory.search("boat")} == set(ids)


async def test_changing_a_text_changes_what_was_made_of_it(memory: VectorMemory) -> None:
    whole = await memory.get(await store(memory))
    await memory.update(whole.sources[1], text="The word is not said here any more, my friend.")
    assert "xylophone" not in await everything(memory)
    assert "not said" in (await memory.get(whole.sources[2])).context


async def test_what_superseded_a_memory_is_forgotten_and_the_older_stays_past(memory) -> None:
    first = await memory.add("Anna lives in Berlin.")
    second = await memory.supersede(first, "Anna lives in Lisbon.")
    await memory.forget(second)
    older = await memory.get(first)
    assert older.superseded_by is None
    assert older.valid_to is not None


async def test_all_of_a_user_goes_with_exact_counts_and_nobody_elses(memory, kind) -> None:
    # A thousand memories with summaries above them; qdrant within a process is slow at filters.
    each = 50 if kind == "pgvector" else 5
    for user in ("anna", "bo"):
        for number in range(10):
            said = [
                {"role": "user", "content": f"{user} has boat {number}.{n} in dock {n}.",
                 "timestamp": AT + timedelta(days=number, minutes=n)}
                for n in range(each)
            ]  # fmt: skip
            facts = {"conversation_id": f"{user}-{number}", "user_id": user}
            await memory.store_conversation(said, facts, generate_summary=True)
    done = await memory.consolidate_memories(consolidation_strategy="summarize")
    of_anna = await memory.search("boat", top_k=1000, filters={"user_id": "anna"})
    result = await memory.forget(filters={"user_id": "anna"})
    assert result.counts == {"turn": 10 * each, "summary": 10 + len(done.created) // 2}
    assert result.total == len(of_anna)
    assert await memory.search("anna", top_k=1000, filters={"user_id": "anna"}) == []
    assert "anna has" not in await everything(memory)
    assert (await memory.stats()).total == result.total


async def test_forgetting_everything_by_mistake_is_refused(memory: VectorMemory) -> None:
    await memory.add("Here to stay.")
    for wrong in ({}, {"ids": ["1"], "filters": {"a": 1}}, {"filters": {}}):
        with pytest.raises(InvalidInputError):
            await memory.forget(**wrong)
    assert (await memory.stats()).total == 1


async def test_the_control_a_context_that_is_left_would_be_seen(memory, monkeypatch) -> None:
    async def left(*_: object) -> set[str]:
        return set()

    for step in ("_unpoint", "settle"):
        monkeypatch.setattr(Cascade, step, left)
    whole = await memory.get(await store(memory))
    await memory.forget(whole.sources[1])
    assert "xylophone" in await everything(memory)


async def test_two_calls_at_once_leave_nothing_of_what_either_forgot(make, backend) -> None:
    said = [f"Message number {n} has the secret word xylophone{n}." for n in range(6)]
    for _ in range(3):
        memory = make()
        whole = await memory.get(await store(memory, said))
        results = await asyncio.gather(*(memory.forget(each) for each in whole.sources[:5]))
        assert sum(result.counts.get("turn", 0) for result in results) == 5
        left = await everything(memory)
        assert [n for n in range(5) if f"xylophone{n}" in left] == []
        assert (await memory.get(whole.id)).sources == whole.sources[5:]
        await memory.forget(filters={"user_id": "anna"})
        assert (await memory.stats()).total == 0


class Late:
    """A backend on which something happens right before the first write of a kind."""

    def __init__(self, inner: MemoryBackend, name: str, happening: object) -> None:
        self._inner = inner
        self._name = name
        self._happening = happening

    def __getattr__(self, name: str) -> object:
        if name == self._name and self._happening is not None:
            return self._first
        return getattr(self._inner, name)

    async def _first(self, *arguments: object) -> object:
        happening, self._happening = self._happening, None
        await happening()
        return await getattr(self._inner, self._name)(*arguments)


@pytest.mark.parametrize("change", [{"text": "Quite another text."}, {"importance": 0.9}])
async def test_a_change_does_not_bring_back_what_was_forgotten_meanwhile(
    make, backend, change
) -> None:
    memory = make()
    whole = await memory.get(await store(memory))

    async def forgotten() -> None:
        await memory.forget(whole.sources[1])

    slow = make(over=Late(backend, "replace", forgotten))
    with pytest.raises(NotFoundError):
        await slow.update(whole.sources[1], **change)
    left = await everything(memory)
    assert "xylophone" not in left
    assert "Quite another text" not in left
    assert (await memory.stats()).kinds["turn"] == 2


async def test_what_another_user_claims_to_have_made_of_it_gets_nothing(make, backend) -> None:
    memory = make()
    ids = await memory.add_many(["The PIN of Ann is 9876.", "Ann likes tea."], user_id="ann")
    shelf = await memory._open()
    forged = replace(
        await memory.get(await memory.add("Joe has nothing to say.", user_id="joe")),
        kind=MemoryKind.SUMMARY, sources=tuple(ids), context_ids=tuple(ids), context="Nothing.",
    )  # fmt: skip
    await shelf.rewrite([forged])
    await memory.update(ids[1], text="Ann likes coffee.")
    await memory.forget(ids[1])
    found = await memory.get(forged.id)
    assert (found.text, found.context) == ("Joe has nothing to say.", "Nothing.")


async def test_what_there_is_no_room_for_goes_along(make, backend, monkeypatch) -> None:
    memory = make()
    whole = await memory.get(await store(memory))
    put = type(backend).replace

    async def full(self: MemoryBackend, records: list[Record]) -> int:
        if any(record.vector is not None for record in records):
            raise QuotaExceededError("The tenant is full.")
        return await put(self, records)

    monkeypatch.setattr(type(backend), "replace", full)
    result = await memory.forget(whole.sources[1])
    assert whole.id in result.removed
    assert "xylophone" not in await everything(memory)
