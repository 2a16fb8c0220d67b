"""Memories and the metadata that backends keep of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.vector._ids import derived_id
from haive.core.persistence.vector.models import FIELDS, Memory, MemoryKind

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
# Hypothesis takes naive bounds.
FIRST = datetime(1970, 1, 2)  # noqa: DTZ001
times = st.none() | st.datetimes(timezones=st.just(UTC), min_value=FIRST)
memories = st.builds(
    Memory,
    id=st.just(derived_id(NOW, "one")),
    text=texts,
    kind=st.sampled_from(MemoryKind),
    user_id=st.none() | texts,
    seq=st.none() | st.integers(1, 10**6),
    speaker=st.none() | texts,
    timestamp=times,
    importance=st.floats(0, 1),
    valid_from=times,
    valid_to=times,
    sources=st.lists(texts, max_size=3).map(tuple),
    archived=st.booleans(),
    expires_at=times,
    metadata=st.dictionaries(
        texts.filter(lambda name: name not in FIELDS), st.integers() | texts, max_size=3
    ),
)


@given(memories)
def test_a_memory_comes_back_from_its_metadata_as_it_was(memory: Memory) -> None:
    stored = json.loads(json.dumps(memory.to_metadata(), allow_nan=False))
    assert Memory.from_metadata(memory.id, stored) == memory


def test_every_field_of_ours_is_there_and_times_are_text_whose_order_is_theirs() -> None:
    east = timezone(timedelta(hours=9))
    stored = Memory(id="1", text="a", timestamp=NOW.astimezone(east)).to_metadata()
    assert set(stored) == set(FIELDS)
    assert stored["timestamp"] == "2026-01-02T03:04:05.000006Z"
    assert stored["valid_to"] is None


def test_what_vecs_or_an_older_release_wrote_is_read_with_defaults() -> None:
    memory = Memory.from_metadata("1", {"topic": "tea"})
    assert (memory.text, memory.kind, memory.metadata) == ("", MemoryKind.NOTE, {"topic": "tea"})


def test_what_has_no_json_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="NaN"):
        Memory(id="1", text="a", metadata={"score": float("nan")}).to_metadata()


def test_a_memory_holds_from_its_first_moment_to_before_its_last() -> None:
    later = NOW + timedelta(days=1)
    memory = Memory(id="1", text="a", valid_from=NOW, valid_to=later)
    assert memory.holds_at(NOW)
    assert not memory.holds_at(NOW - timedelta(microseconds=1))
    assert not memory.holds_at(later)
    assert Memory(id="1", text="a").holds_at(NOW)


@given(st.datetimes(min_value=FIRST, timezones=st.just(UTC)), st.lists(texts))
def test_an_id_is_a_uuid_of_version_7_and_the_same_each_time(when: datetime, parts) -> None:
    found = UUID(derived_id(when, *parts))
    assert (found.version, found.variant) == (7, "specified in RFC 4122")
    assert str(found) == derived_id(when, *parts)
    assert str(found) != derived_id(when, *parts, "more")
    assert derived_id(when + timedelta(milliseconds=1), *parts) > str(found)
