"""What holds for every merge, whatever the sides say."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.models import Message, MessageRole, ToolCallPart, ToolResultPart
from haive.core.persistence.session import (
    ConflictResolution,
    MergePlan,
    MergeStrategy,
    MessageRef,
)
from haive.core.persistence.session._merging import plan_merge
from haive.core.persistence.session._turns import call_ids, result_ids

EMBEDDER = HashingEmbedder(256)
ROOT = UUID(int=9)
_PROMPTS = (
    "yes",
    "Book a table for two at the Krone",
    "Please book a table for two at the Krone",
    "Book a table for three at the Krone",
    "How do I reverse a list in Python?",
    "",
)
_ANSWERS = (
    "The table is booked for 7 pm.",
    "The table is booked for 8 pm.",
    "The table is not booked for 7 pm.",
    "Call reversed() on the list, or slice it with a step of minus one.",
    "Fine.",
    "",
)

# A turn: what was asked (or nothing), how many calls of tools, and what was answered (or nothing).
_turn = st.tuples(
    st.none() | st.sampled_from(_PROMPTS),
    st.sampled_from([(), ("call",), ("call", "call"), ("left",)]),
    st.none() | st.sampled_from(_ANSWERS),
)
_times = st.lists(st.integers(0, 40), min_size=60, max_size=60)
_strategies = st.sampled_from(list(MergeStrategy))
_resolutions = st.sampled_from(list(ConflictResolution))


def messages(side: int, turns, times: list[int], *, waiting: bool) -> list[Message]:
    """The tail of a side; `waiting` begins it with the result of a call before the parting."""
    conversation = UUID(int=side)
    made: list[Message] = []

    def add(role: str, content) -> None:
        seq = len(made) + 1
        made.append(
            Message(
                id=UUID(int=side * 10_000 + seq),
                conversation_id=conversation,
                seq=seq,
                role=MessageRole(role),
                content=content,
                metadata={},
                created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=times[seq]),
            )
        )

    if waiting:
        add("tool", [ToolResultPart(tool_call_id="root", content=f"found by {side}")])
    for number, (prompt, calls, answer) in enumerate(turns):
        if prompt is not None:
            add("user", prompt)
        ids = [f"{side}-{number}-{place}" for place in range(len(calls))]
        if ids:
            add("assistant", [ToolCallPart(id=id_, name="search") for id_ in ids])
        for id_, call in zip(ids, calls, strict=True):
            if call == "call":
                add("tool", [ToolResultPart(tool_call_id=id_, content=prompt)])
        if answer is not None:
            add("assistant", answer)
    return made


@st.composite
def _sides(draw) -> tuple[list[Message], list[Message]]:
    shared = messages(9, draw(st.lists(_turn, max_size=2)), draw(_times), waiting=False)
    # At most four turns of six messages each.
    one, other = (
        messages(side, draw(st.lists(_turn, max_size=4)), draw(_times), waiting=draw(st.booleans()))
        for side in (1, 2)
    )
    # What both have may be shared by all of it, or lie before both.
    return (shared + one, shared + other) if draw(st.booleans()) else (one, other)


def planned(primary, secondary, strategy, resolution) -> MergePlan:
    return asyncio.run(
        plan_merge(
            primary,
            secondary,
            strategy=strategy,
            conflict_resolution=resolution,
            embedder=EMBEDDER,
        )
    )


def refs(side: list[Message]) -> list[MessageRef]:
    return [MessageRef.of(message) for message in side]


@settings(max_examples=150, deadline=None)
@given(_sides(), _strategies, _resolutions)
def test_each_message_is_kept_or_dropped_once_in_order_with_its_results(
    sides, strategy: MergeStrategy, resolution: ConflictResolution
) -> None:
    primary, secondary = sides
    plan = planned(primary, secondary, strategy, resolution)

    told = Counter((entry.side, entry.message) for entry in plan.entries)
    told += Counter((drop.side, drop.message) for drop in plan.dropped)
    assert told == Counter(
        [("primary", ref) for ref in refs(primary)]
        + [("secondary", ref) for ref in refs(secondary)]
    )

    kept = [entry.message for entry in plan.entries]
    assert len(set(kept)) == len(kept)
    for name, side in (("primary", primary), ("secondary", secondary)):
        own = [entry.message for entry in plan.entries if entry.side == name]
        assert own == [ref for ref in refs(side) if ref in set(own)]
    for ref in set(refs(primary)) & set(refs(secondary)):
        assert kept.count(ref) == 1

    # What was dropped was dropped for something that stays.
    assert all(drop.because_of in kept for drop in plan.dropped)

    everything = {MessageRef.of(message): message for message in (*primary, *secondary)}
    results = {
        id_: MessageRef.of(message)
        for message in everything.values()
        for id_ in result_ids(message)
        if id_ != "root"
    }
    for place, ref in enumerate(kept):
        for id_ in call_ids(everything[ref]):
            if id_ in results:
                assert results[id_] in kept[place:]
        for id_ in result_ids(everything[ref]):
            between = [
                other
                for other in kept[:place][::-1]
                if other.conversation_id != ref.conversation_id
            ]
            callers = [o for o in kept[:place] if id_ in call_ids(everything[o])]
            if id_ == "root":
                continue
            (caller,) = callers
            assert not any(kept.index(other) > kept.index(caller) for other in between)
    waiting = [ref for ref in kept if "root" in result_ids(everything[ref])]
    # A call before the parting has one result, if any side brought one.
    assert len(waiting) == any("root" in result_ids(m) for m in everything.values())

    assert planned(primary, secondary, strategy, resolution) == plan


@settings(max_examples=50, deadline=None)
@given(_sides(), _strategies, _resolutions)
def test_a_side_merged_with_itself_is_itself(
    sides, strategy: MergeStrategy, resolution: ConflictResolution
) -> None:
    primary, _ = sides
    plan = planned(primary, primary, strategy, resolution)
    assert [(entry.side, entry.message) for entry in plan.entries] == [
        ("primary", ref) for ref in refs(primary)
    ]
    assert {drop.reason for drop in plan.dropped} <= {"same_message"}
    assert not plan.conflicts
    assert plan.summary is None


@settings(max_examples=50, deadline=None)
@given(st.lists(_turn, max_size=4), _times, _resolutions)
def test_a_copy_brings_nothing_new(turns, times, resolution: ConflictResolution) -> None:
    one, other = (messages(side, turns, times, waiting=False) for side in (1, 2))
    plan = planned(one, other, MergeStrategy.INTELLIGENT, resolution)
    texts = Counter(
        message.text
        for message in (*one, *other)
        if MessageRef.of(message) in {entry.message for entry in plan.entries}
        and isinstance(message.content, str)
    )
    assert texts == Counter(m.text for m in one if isinstance(m.content, str))
    assert not plan.conflicts


@settings(max_examples=50, deadline=None)
@given(_sides(), _resolutions)
def test_time_only_goes_forward_where_it_does_on_both_sides(
    sides, resolution: ConflictResolution
) -> None:
    primary, secondary = (sorted(side, key=lambda m: m.seq) for side in sides)
    one, other = (
        [
            m.model_copy(update={"created_at": m.created_at.replace(hour=0, minute=n)})
            for n, m in enumerate(side)
            if not call_ids(m) and not result_ids(m)
        ]
        for side in (primary, secondary)
    )
    ours = {MessageRef.of(message) for message in one}
    other = [message for message in other if MessageRef.of(message) not in ours]
    plan = planned(one, other, MergeStrategy.CHRONOLOGICAL, resolution)
    times = {MessageRef.of(message): message.created_at for message in (*one, *other)}
    found = [times[entry.message] for entry in plan.entries]
    assert found == sorted(found)
    assert not plan.dropped
