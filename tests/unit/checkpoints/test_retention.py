"""Which checkpoints go, and whom those who stay come after: whatever the thread looks like."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.checkpointer._retention import Retention, adopted, expired

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """What retention looks at."""

    id: UUID
    created_at: datetime
    failed: bool
    parent_id: UUID | None


@st.composite
def threads(draw: st.DrawFn) -> tuple[list[Row], set[UUID]]:
    """The rows of a thread with branches, newest first, and its heads."""
    rows: list[Row] = []
    for number in range(draw(st.integers(0, 25))):
        parent = draw(st.integers(-1, number - 1)) if number else -1
        rows.append(
            Row(
                id=UUID(int=number + 1),
                created_at=NOW - timedelta(days=draw(st.integers(0, 60))),
                failed=draw(st.booleans()),
                parent_id=None if parent < 0 else rows[parent].id,
            )
        )
    parents = {row.parent_id for row in rows}
    heads = {row.id for row in rows if row.id not in parents}
    if rows:
        heads |= {row.id for row in draw(st.lists(st.sampled_from(rows), max_size=3))}
    return rows[::-1], heads


rules = st.builds(
    Retention,
    most=st.none() | st.integers(1, 30),
    age=st.none() | st.integers(1, 60).map(lambda days: timedelta(days=days)),
    keep_minimum=st.integers(0, 30),
    keep_failed=st.booleans(),
)


@given(threads(), rules)
def test_heads_stay_and_failed_ones_where_they_are_kept(thread, rule) -> None:
    rows, heads = thread
    gone = expired(rows, heads, NOW, rule)
    assert not gone & heads
    if rule.keep_failed:
        assert not gone & {row.id for row in rows if row.failed}
    if rule.most is None and rule.age is None:
        assert gone == set()


@given(threads(), rules)
def test_of_those_that_count_the_newest_stay_and_no_more_than_may(thread, rule) -> None:
    rows, heads = thread
    gone = expired(rows, heads, NOW, rule)
    counted = [row for row in rows if not (row.failed and rule.keep_failed)]
    kept = [row for row in counted if row.id not in gone]
    if rule.most is not None:
        beyond = [row for row in counted[rule.most :] if row.id not in heads]
        assert gone >= {row.id for row in beyond}
        assert len([row for row in kept if row.id not in heads]) <= rule.most
    least = rule.keep_minimum if rule.most is None else min(rule.keep_minimum, rule.most)
    assert not gone & {row.id for row in counted[:least]}


@given(threads(), rules)
def test_nothing_young_goes_that_is_not_too_much(thread, rule) -> None:
    rows, heads = thread
    counted = [row for row in rows if not (row.failed and rule.keep_failed)]
    for place, row in enumerate(counted, 1):
        if row.id in expired(rows, heads, NOW, rule):
            too_many = rule.most is not None and place > rule.most
            too_old = rule.age is not None and row.created_at < NOW - rule.age
            assert too_many or (too_old and place > rule.keep_minimum)


@given(threads(), rules)
def test_what_stays_stays_when_it_is_asked_again(thread, rule) -> None:
    rows, heads = thread
    gone = expired(rows, heads, NOW, rule)
    left = [row for row in rows if row.id not in gone]
    if rule.most is None:  # a head beyond the count pushes nothing out, and counts
        assert expired(left, heads, NOW, rule) == set()
    assert expired(rows, heads, NOW + timedelta(days=1), rule) >= gone


@given(threads(), st.data())
def test_an_orphan_comes_after_its_nearest_ancestor_that_stays(thread, data) -> None:
    rows, _ = thread
    ids = [row.id for row in rows]
    gone = data.draw(st.sets(st.sampled_from(ids))) if ids else set()
    parents = {row.id: row.parent_id for row in rows}
    orphans = adopted(parents, gone)

    def nearest(place: UUID | None) -> UUID | None:
        while place is not None and place in gone:
            place = parents[place]
        return place

    expected = {
        row.id: nearest(row.parent_id)
        for row in rows
        if row.id not in gone and row.parent_id in gone
    }
    assert orphans == expected


def test_a_thread_of_10000_in_one_line_is_planned_at_once() -> None:
    ids = [UUID(int=number + 1) for number in range(10_000)]
    parents = dict(zip(ids, [None, *ids[:-1]], strict=True))
    assert adopted(parents, set(ids[:9_999])) == {ids[9_999]: None}
    assert adopted(parents, set(ids[1::2])) == dict(zip(ids[2::2], ids[0:-2:2], strict=True))
