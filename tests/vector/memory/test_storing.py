"""Conversations become memories, and are found again."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.errors import InvalidInputError, NotFoundError
from haive.core.persistence.vector import MemoryKind, VectorMemory
from haive.core.persistence.vector._conversations import Turn
from haive.core.persistence.vector._placing import placed
from haive.core.persistence.vector.backends.protocol import MemoryBackend
from haive.core.persistence.vector.models import Memory

AT = datetime(2026, 2, 1, 9, tzinfo=UTC)
SAID = [
    ("user", "Anna", "I moved the Postgres database to Berlin last week."),
    ("assistant", None, "Good. Did the replica come along with the database?"),
    ("user", "Anna", "Yes, the replica runs in Frankfurt now."),
    ("assistant", None, "Then the failover of Postgres to the replica can be tested."),
]


def talk(number: int = len(SAID)) -> list[dict[str, object]]:
    return [
        {"role": role, "speaker": who, "content": text, "timestamp": AT + timedelta(minutes=place)}
        for place, (role, who, text) in enumerate(SAID[:number])
    ]


FACTS = {"conversation_id": "talk-1", "user_id": "user-1", "topics": ["databases"]}


async def test_each_message_is_a_memory_that_the_whole_leads_to(memory: VectorMemory) -> None:
    whole = await memory.get(await memory.store_conversation(talk(), FACTS))
    turns = [await memory.get(each) for each in whole.sources]
    assert [turn.text for turn in turns] == [text for _, _, text in SAID]
    assert [turn.speaker for turn in turns] == [who for _, who, _ in SAID]
    texts = [text for _, _, text in SAID]
    assert [turn.context for turn in turns] == [
        None, texts[0], f"{texts[0]}\n{texts[1]}", f"{texts[1]}\n{texts[2]}",
    ]  # fmt: skip
    assert turns[3].context_ids == (turns[1].id, turns[2].id)
    assert [turn.seq for turn in turns] == [1, 2, 3, 4]
    assert [turn.timestamp for turn in turns] == [AT + timedelta(minutes=n) for n in range(4)]
    assert {turn.kind for turn in turns} == {MemoryKind.TURN}
    assert {turn.user_id for turn in turns} == {"user-1"}
    assert all(turn.metadata == {"topics": ["databases"]} for turn in [*turns, whole])
    assert {turn.trust for turn in turns} == {"user", "assistant"}
    assert await memory.provenance(whole.id) == sorted(turns, key=lambda turn: turn.id)
    assert all(UUID(turn.id).version == 7 for turn in turns)


async def test_without_a_summary_the_whole_is_not_found_by_searches(memory: VectorMemory) -> None:
    whole = await memory.store_conversation(talk(), FACTS)
    assert whole not in [hit.id for hit in await memory.search("Postgres database", top_k=50)]


async def test_summary_and_keywords_are_found_and_lead_to_their_turns(memory) -> None:
    whole = await memory.store_conversation(
        talk(), FACTS, extract_keywords=True, generate_summary=True
    )
    hits = await memory.search("Postgres replica", top_k=50)
    kinds = {hit.memory.kind for hit in hits}
    assert kinds == {MemoryKind.TURN, MemoryKind.SUMMARY, MemoryKind.KEYWORD}
    summary = await memory.get(whole)
    assert summary.writer == "extractive"
    assert "replica" in summary.text
    [words] = [hit.memory for hit in hits if hit.memory.kind is MemoryKind.KEYWORD]
    assert {"Postgres", "replica"} <= set(words.keywords)
    sources = await memory.provenance(words.id)
    assert sources
    assert all(set(turn.keywords) & set(words.keywords) for turn in sources)
    found = await memory.search("what", filters={"keywords": "replica", "kind": "turn"})
    assert {hit.memory.seq for hit in found} == {2, 3, 4}


async def test_storing_again_writes_nothing_twice_and_a_longer_one_only_what_is_new(
    memory: VectorMemory, clock
) -> None:
    first = await memory.store_conversation(talk(2), FACTS)
    before = await memory.get(first)
    clock.forward(hours=1)
    assert await memory.store_conversation(talk(2), FACTS) == first
    assert await memory.get(first) == before
    assert await memory.store_conversation(talk(4), FACTS) == first
    after = await memory.get(first)
    assert after.sources[:2] == before.sources
    assert len(after.sources) == 4
    assert (await memory.get(after.sources[0])).created_at == before.created_at
    assert (await memory.stats()).kinds == {"turn": 4, "conversation": 1}


async def test_storing_again_changes_nothing_whatever_the_metadata_are_of(memory, clock) -> None:
    facts = {**FACTS, "agent": UUID(int=7), "topics": ("a", "b"), "since": AT}
    whole = await memory.get(await memory.store_conversation(talk(), facts))
    before = await memory.provenance(whole.id)
    clock.forward(hours=1)
    await memory.store_conversation(talk(), facts)
    assert [await memory.get(whole.id), *await memory.provenance(whole.id)] == [whole, *before]


async def test_what_became_of_a_turn_since_stays_when_it_is_stored_again(memory) -> None:
    whole = await memory.get(await memory.store_conversation(talk(), FACTS))
    await memory.update(whole.sources[1], importance=1.0, archived=True, metadata={"seen": 2})
    await memory.store_conversation(talk(), FACTS)
    again = await memory.get(whole.sources[1])
    assert (again.importance, again.archived, again.metadata["seen"]) == (1.0, True, 2)


async def test_a_long_message_is_several_memories_and_cut_otherwise_leaves_none_behind(
    memory: VectorMemory,
) -> None:
    text = " ".join(f"Step {n} of the plan is to pack box {n}." for n in range(40))
    long = [{"role": "user", "content": text, "timestamp": AT}, *talk(1)]
    whole = await memory.get(await memory.store_conversation(long, FACTS, chunk_size=50))
    pieces = [await memory.get(each) for each in whole.sources[:-1]]
    assert len(pieces) > 5
    assert {piece.kind for piece in pieces} == {MemoryKind.CHUNK}
    assert {piece.seq for piece in pieces} == {1}
    other = await memory.get(await memory.store_conversation(long, FACTS, chunk_size=300))
    stats = await memory.stats()
    assert stats.total == 1 + len(other.sources) < len(whole.sources)


async def test_a_conversation_of_a_store_is_read_from_it(kind: str, backend, make) -> None:
    if kind != "pgvector":
        pytest.skip("Conversations are in Postgres.")
    store = backend._store
    conversation = await store.create_conversation("assistant", user_id="user-1")
    for role, _, text in SAID:
        await store.add_message(conversation.id, role, text)
    memory = VectorMemory(config=make().config, store=store)
    for form in (conversation, conversation.id, str(conversation.id)):
        whole = await memory.get(await memory.store_conversation(form))
        assert len(whole.sources) == len(SAID)
        assert (whole.user_id, whole.conversation_id) == ("user-1", str(conversation.id))
    assert (await memory.stats()).kinds == {"turn": 4, "conversation": 1}
    await memory.aclose()
    assert (await store.get_conversation(conversation.id)).message_count == 4
    with pytest.raises(NotFoundError):
        await memory.store_conversation(UUID(int=1))


async def test_what_an_agent_recites_of_what_it_recalled_is_not_stored(memory) -> None:
    await memory.add("Anna's sister Clara lives in Lisbon.", user_id="user-1")
    await memory.search("Clara")
    recited = [
        {"role": "user", "content": "Where does she live?", "timestamp": AT},
        {"role": "assistant", "content": "Anna's sister Clara lives in Lisbon.", "timestamp": AT},
        {"role": "user", "content": "Anna's sister Clara lives in Lisbon.", "timestamp": AT},
    ]
    whole = await memory.get(await memory.store_conversation(recited, FACTS))
    assert [(await memory.get(each)).role for each in whole.sources] == ["user", "user"]


@pytest.mark.parametrize(
    "who", [{"speaker": "Bob"}, {"speaker": "Anna"}, {"role": "human"}, {"role": "Bob"}, {}]
)
async def test_what_people_say_is_stored_whoever_said_it_before(memory, who) -> None:
    fact = "I live in a small house by the sea."
    await memory.store_conversation([{"speaker": "Anna", "content": fact}], FACTS)
    await memory.search("Where is the house?")
    other = {**FACTS, "conversation_id": "talk-2"}
    whole = await memory.get(await memory.store_conversation([{**who, "content": fact}], other))
    [turn] = [await memory.get(each) for each in whole.sources]
    assert (turn.text, turn.speaker) == (fact, who.get("speaker"))


@pytest.mark.parametrize("nothing", [[], [{"role": "user", "content": " \n"}], 5, [5], [{}]])
async def test_a_conversation_of_nothing_is_refused(memory: VectorMemory, nothing) -> None:
    with pytest.raises(InvalidInputError):
        await memory.store_conversation(nothing)


async def test_names_that_are_ours_are_not_the_callers_to_say(memory: VectorMemory) -> None:
    with pytest.raises(InvalidInputError, match="sources, superseded_by"):
        await memory.store_conversation(talk(), {"sources": [], "superseded_by": "x"})
    with pytest.raises(InvalidInputError, match="consolidation"):
        await memory.store_conversation(talk(), {"consolidation": "hierarchical"})
    assert (await memory.stats()).total == 0


async def seqs(memory: VectorMemory) -> dict[str, int | None]:
    shelf = await memory._open()
    return {m.text: m.seq for m in await shelf.find(None) if m.kind is MemoryKind.TURN}


@pytest.mark.parametrize("numbered", ["ids", "times", "neither"])
async def test_windows_of_a_conversation_add_what_is_new_and_lose_nothing(make, numbered) -> None:
    every = [
        {"role": "user", "content": f"Message number {n} is about boats and harbours."}
        for n in range(9)
    ]
    for number, message in enumerate(every):
        if numbered == "ids":
            message["id"] = f"m{number}"
        elif numbered == "times":
            message["timestamp"] = AT + timedelta(minutes=number)
    memory = make()
    about = {"conversation_id": "window", "user_id": "user-1"}
    wholes = {
        await memory.store_conversation(given, about, generate_summary=True, extract_keywords=True)
        # All so far, windows that slide, only what is new, one of those again, and all once more.
        for given in (every[:2], every[1:4], every[3:5], every[5:7], every[5:7], every[2:8], every)
    }
    [whole] = [await memory.get(each) for each in wholes]
    assert await seqs(memory) == {m["content"]: n for n, m in enumerate(every, 1)}
    assert (whole.seq, whole.until_seq, len(whole.sources)) == (1, 9, 9)
    sources = [await memory.get(each) for each in whole.sources]
    assert [source.seq for source in sources] == list(range(1, 10))
    assert sources[5].context == "\n".join(m["content"] for m in every[3:5])
    assert (await memory.stats()).kinds == {"turn": 9, "summary": 1, "keyword": 1}


async def test_an_edited_message_replaces_what_it_was(memory: VectorMemory) -> None:
    await memory.store_conversation(talk(), FACTS)
    edited = talk()
    edited[1]["content"] = "Good. Is the replica still in Paris?"
    whole = await memory.get(await memory.store_conversation(edited, FACTS))
    assert list((await seqs(memory)).values()).count(2) == 1
    assert (await memory.get(whole.sources[1])).text == "Good. Is the replica still in Paris?"


async def test_another_talk_under_the_same_name_is_added_to_it(memory: VectorMemory) -> None:
    await memory.store_conversation(["Hello.", "The boat is red."], FACTS)
    await memory.store_conversation(["Hello.", "The tea is green."], FACTS)
    assert set(await seqs(memory)) == {"Hello.", "The boat is red.", "The tea is green."}


async def test_messages_follow_what_is_stored_whatever_its_number_is(memory: VectorMemory) -> None:
    for number in (-5, 20_000_000):
        about = {"conversation_id": f"from {number}"}
        await memory.store_conversation([{"content": "The boat is red.", "seq": number}], about)
        whole = await asyncio.wait_for(memory.store_conversation(["The tea is green."], about), 10)
        assert {t.seq for t in await memory.provenance(whole)} == {number, number + 1}


async def test_a_long_talk_is_placed_without_comparing_all_with_all() -> None:
    said = [f"Message {n}." for n in range(20_000)]
    stored = [Memory(id=str(n), text=text, seq=n + 1) for n, text in enumerate(said)]
    turns = [Turn(seq=n, text=text) for n, text in enumerate([*said[10_000:], "New."], 1)]
    began = time.perf_counter()
    found = placed(turns, stored)
    assert time.perf_counter() - began < 5  # a hundredth of what comparing all takes
    assert [turn.seq for turn in found] == list(range(10_001, 20_002))


@pytest.mark.parametrize("swept", ["by_itself", "elsewhere", "not_yet"])
async def test_what_recites_a_memory_that_is_gone_is_stored(make, clock, swept) -> None:
    memory, fact = make(), "Anna keeps her spare bicycle in the garage."
    await memory.add(fact, ttl=60, user_id="a")
    [_] = await memory.search("bicycle")
    clock.forward(seconds=61)
    if swept != "not_yet":
        await (memory if swept == "by_itself" else make()).forget_expired()
    said = [{"role": "assistant", "content": fact}]
    await memory.store_conversation(said, {"user_id": "a"})
    assert [hit.memory.kind for hit in await memory.search("bicycle")] == [MemoryKind.TURN]


async def test_a_turn_that_was_changed_stays_so_and_the_next_one_quotes_it(
    memory: VectorMemory,
) -> None:
    said = ["My PIN is 9876, keep that.", "I will keep that.", "Thanks, that is all."]
    whole = await memory.get(await memory.store_conversation(said, FACTS))
    await memory.update(whole.sources[0], text="This was taken back.")
    again = await memory.get(await memory.store_conversation([*said, "Bye then."], FACTS))
    assert again.sources[:3] == whole.sources
    turns = [await memory.get(each) for each in again.sources]
    assert turns[0].text == again.text == "This was taken back."
    assert not any("9876" in str(turn.to_metadata()) for turn in turns)
    [hit] = await memory.search("This was taken back.", top_k=1)
    assert hit.id == turns[0].id


async def test_a_speaker_who_becomes_known_is_read_with_the_turn(
    memory: VectorMemory, backend: MemoryBackend
) -> None:
    said = [{"seq": 1, "role": "user", "content": "The boat is red."}]
    [first] = (await memory.get(await memory.store_conversation(said, FACTS))).sources
    named = [{**said[0], "speaker": "Anna"}]
    [again] = (await memory.get(await memory.store_conversation(named, FACTS))).sources
    assert again == first
    [record] = await backend.get([first], vectors=True)
    [wanted] = await HashingEmbedder(256).embed(["Anna: The boat is red."])
    assert record.vector == pytest.approx(wanted, abs=1e-5)


async def test_a_turn_that_was_handed_over_stays_with_whom_it_is(memory: VectorMemory) -> None:
    whole = await memory.get(await memory.store_conversation(talk(), FACTS))
    theirs = whole.sources[1]
    await memory.update(theirs, metadata={"user_id": "bo"})
    again = await memory.get(await memory.store_conversation(talk(), FACTS))
    assert (await memory.get(theirs)).user_id == "bo"
    assert again.sources == (whole.sources[0], *whole.sources[2:])
    turns = [await memory.get(each) for each in again.sources]
    assert not any(theirs in turn.context_ids or SAID[1][2] in str(turn.context) for turn in turns)


async def test_messages_that_are_numbered_within_their_conversation_are_not_mixed_up(
    memory: VectorMemory,
) -> None:
    said = [{"id": "1", "role": "user", "content": "Hello there"}]
    wholes = [
        await memory.store_conversation(said, {"conversation_id": name, "user_id": "u"})
        for name in ("a", "b")
    ]
    await memory.forget(filters={"conversation_id": "b"})
    [turn] = (await memory.get(wholes[0])).sources
    assert (await memory.get(turn)).conversation_id == "a"


async def test_what_only_says_what_was_recalled_leaves_the_conversation_as_it_is(
    memory: VectorMemory,
) -> None:
    whole = await memory.store_conversation(talk(3), FACTS)
    before = await memory.get(whole)
    await memory.search("Where does the replica run?", filters={"user_id": "user-1"})
    recital = [{"role": "assistant", "content": SAID[2][2]}]
    assert await memory.store_conversation(recital, FACTS) == whole
    assert (await memory.get(whole)).sources == before.sources
    with pytest.raises(InvalidInputError, match="nothing to remember"):
        await memory.store_conversation(recital, {**FACTS, "conversation_id": "another"})


async def test_an_id_is_no_place_and_ends_where_it_ends(memory: VectorMemory) -> None:
    said = [{"id": "2", "role": "user", "content": "ok"}, {"role": "user", "content": "ok"}]
    whole = await memory.get(await memory.store_conversation(said, {"conversation_id": "a"}))
    assert len(set(whole.sources)) == 2
    for name, own in (("a", "b:2"), ("a:b", "2")):
        hello = [{"id": own, "role": "user", "content": "Hello there"}]
        await memory.store_conversation(hello, {"conversation_id": name})
    assert (await memory.stats()).kinds["turn"] == 4
