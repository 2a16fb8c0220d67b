"""What a store does with messages."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haive.core.persistence import Store
from haive.core.persistence.errors import (
    ConflictError,
    ContentTooLargeError,
    InvalidInputError,
    NotFoundError,
    UnsupportedOperationError,
)
from haive.core.persistence.models import (
    ImagePart,
    MessageRole,
    NewMessage,
    TextPart,
    TokenUsage,
    ToolCallPart,
    ToolResultPart,
)


class Colour(StrEnum):
    RED = "red"


@pytest.fixture
async def conversation_id(store: Store):
    return (await store.create_conversation("assistant", "ada")).id


PARTS = [
    TextPart(text="Look:"),
    ImagePart(url="https://example.org/cat.png"),
    ImagePart(data="aGVsbG8=", media_type="image/png"),
    ToolCallPart(id="call-1", name="search", arguments={"q": "cats", "n": 3}),
    ToolResultPart(tool_call_id="call-1", content=[{"title": "Cat"}], is_error=False),
    TextPart(text="Done."),
]


@pytest.mark.parametrize("role", list(MessageRole))
@pytest.mark.parametrize("content", ["hello", "", "naïve 🐈 \U0001f9ea\n\t", PARTS, []])
async def test_a_message_reads_back_as_it_was_returned(
    store, conversation_id, role, content
) -> None:
    usage = TokenUsage(input_tokens=5, output_tokens=7, model="m", cost=0.0195)
    added = await store.add_message(
        conversation_id, role, content, metadata={"k": [1, {"x": None}]}, token_usage=usage
    )
    assert (added.seq, added.role, added.content, added.token_usage) == (1, role, content, usage)
    assert await store.get_messages(conversation_id) == [added]


async def test_the_text_of_parts_is_theirs_joined(store, conversation_id) -> None:
    assert (await store.add_message(conversation_id, "user", PARTS)).text == "Look:\nDone."
    (found,) = await store.query_conversations(filters={"text": "done."})
    assert found.id == conversation_id


async def test_metadata_takes_what_python_has(store, conversation_id) -> None:
    added = await store.add_message(
        conversation_id,
        "user",
        "hello",
        metadata={
            "when": datetime(2025, 1, 1),  # noqa: DTZ001 - naive is UTC
            "id": (some := uuid4()),
            "price": Decimal("1.10"),
            "colour": Colour.RED,
            "pair": (1, 2),
        },
    )
    assert added.metadata == {
        "when": "2025-01-01T00:00:00+00:00",
        "id": str(some),
        "price": "1.10",
        "colour": "red",
        "pair": [1, 2],
    }
    assert await store.get_messages(conversation_id) == [added]


async def test_a_message_may_say_when_it_was_said(store, conversation_id) -> None:
    at = datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert (await store.add_message(conversation_id, "user", "x", created_at=at)).created_at == at


async def test_concurrent_messages_get_places_without_gaps(store, conversation_id) -> None:
    added = await asyncio.gather(
        *(store.add_message(conversation_id, "user", str(i)) for i in range(200))
    )
    assert [m.seq for m in added] == list(range(1, 201))
    stored = await store.get_messages(conversation_id, limit=1000)
    assert [m.content for m in stored] == [str(i) for i in range(200)]


async def test_a_bad_message_among_concurrent_ones_fails_alone(store, conversation_id) -> None:
    taken = (await store.add_message(conversation_id, "user", "taken")).id
    outcomes = await asyncio.gather(
        *(store.add_message(conversation_id, "user", str(i)) for i in range(50)),
        store.add_message(uuid4(), "user", "to nobody"),
        store.add_message(conversation_id, "user", "other", id=taken),
        store.add_message(conversation_id, "user", "NUL \x00"),
        *(store.add_message(conversation_id, "user", str(i)) for i in range(50)),
        return_exceptions=True,
    )
    failed = [type(o) for o in outcomes if isinstance(o, Exception)]
    assert failed == [NotFoundError, ConflictError, InvalidInputError]
    assert sorted(o.seq for o in outcomes if not isinstance(o, Exception)) == list(range(2, 102))


async def test_the_same_id_is_the_same_message(store, conversation_id) -> None:
    key = uuid4()
    first = await store.add_message(conversation_id, "user", "hello", id=key, metadata={"a": 1})
    again = await store.add_message(conversation_id, "user", "hello", id=key, metadata={"a": 1})
    assert again == first
    for other in ({"content": "bye"}, {"metadata": {"a": 2}}, {"role": "assistant"}):
        arguments = {"role": "user", "content": "hello", "metadata": {"a": 1}, **other}
        with pytest.raises(ConflictError):
            await store.add_message(conversation_id, id=key, **arguments)
    assert await store.get_messages(conversation_id) == [first]


@pytest.mark.parametrize("count", [1, 10, 5000])
async def test_many_messages_are_written_at_once_and_only_once(store, count) -> None:
    one, two = [(await store.create_conversation("a")).id for _ in range(2)]
    new = [
        NewMessage(
            conversation_id=(one, two)[i % 2],
            role="user",
            content=PARTS if i % 7 == 3 else f"message {i}",
            metadata={"i": i} if i % 3 else {},
            token_usage=TokenUsage(input_tokens=i, output_tokens=1) if i % 5 == 0 else None,
            id=uuid4(),
        )
        for i in range(count)
    ]
    written = await store.add_messages(new)
    assert [m.content for m in written] == [m.content for m in new]
    assert await store.add_messages(new) == written
    stored = [m async for m in store.iter_messages(one)]
    assert stored == written[::2]
    assert [m.seq for m in stored] == list(range(1, len(stored) + 1))
    assert (await store.get_conversation(one)).message_count == len(stored)


@pytest.mark.parametrize("count", [3, 4500])
async def test_many_messages_are_written_all_or_none(store, conversation_id, count) -> None:
    new = [NewMessage(conversation_id=conversation_id, role="user", content="x")] * count
    new[count // 2] = NewMessage(conversation_id=uuid4(), role="user", content="to nobody")
    with pytest.raises(NotFoundError):
        await store.add_messages(new)
    assert await store.get_messages(conversation_id) == []
    assert (await store.get_conversation(conversation_id)).message_count == 0


async def test_pages_of_messages(store, conversation_id) -> None:
    await store.add_messages(
        [
            NewMessage(conversation_id=conversation_id, role="user", content=str(i))
            for i in range(20)
        ]
    )

    async def seqs(**page):
        return [m.seq for m in await store.get_messages(conversation_id, **page)]

    assert await seqs(limit=3) == [1, 2, 3]
    assert await seqs(after=3, limit=3) == [4, 5, 6]
    assert await seqs(after=18) == [19, 20]
    assert await seqs(after=20) == []
    assert await seqs(limit=3, last=True) == [18, 19, 20]
    assert await seqs(limit=3, last=True, before=18) == [15, 16, 17]
    assert await seqs(after=5, before=9) == [6, 7, 8]
    assert [m.seq async for m in store.iter_messages(conversation_id, after=17)] == [18, 19, 20]
    for page in (
        {"limit": 0}, {"limit": 10_001}, {"limit": "3"}, {"limit": 2.5}, {"limit": True},
        {"after": "x"}, {"after": "3"}, {"before": 9.5}, {"before": 2**70},
    ):  # fmt: skip
        with pytest.raises(InvalidInputError, match=f"{next(iter(page))} is no whole number"):
            await seqs(**page)
        if "limit" in page:
            with pytest.raises(InvalidInputError, match="message_limit is no whole number"):
                await store.get_conversation(
                    conversation_id, include_messages=True, message_limit=page["limit"] or -1
                )


async def test_a_long_conversation_streams_in_order(store, conversation_id) -> None:
    await store.add_messages(
        [
            NewMessage(conversation_id=conversation_id, role="user", content=str(i))
            for i in range(1203)
        ]
    )
    assert [m.content async for m in store.iter_messages(conversation_id)] == [
        str(i) for i in range(1203)
    ]


@pytest.mark.parametrize(("count", "calls"), [(3, 1), (500, 1), (501, 2), (1203, 3)])
async def test_a_conversation_is_read_in_as_many_calls_as_it_has_pages(
    store, conversation_id, monkeypatch, count, calls
) -> None:
    new = NewMessage(conversation_id=conversation_id, role="user", content="x")
    await store.add_messages([new] * count)
    transport, made = store._transport, []
    call, rows = transport.call, transport.rows

    async def calling(function, *args, **kwargs):
        made.append(function)
        return await call(function, *args, **kwargs)

    async def reading(function, *args):
        found = await rows(function, *args)
        made.extend([] if found is None else [function])
        return found

    monkeypatch.setattr(transport, "call", calling)
    monkeypatch.setattr(transport, "rows", reading)
    seqs = [message.seq async for message in store.iter_messages(conversation_id)]
    assert seqs == list(range(1, count + 1))
    assert len(made) == calls


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


def call(argument: object) -> ToolCallPart:
    return ToolCallPart(id="call-1", name="search", arguments={"n": argument})


def result(content: object) -> ToolResultPart:
    return ToolResultPart(tool_call_id="call-1", content=content)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"content": "x" * 100_000_000}, ContentTooLargeError, "100,000,000 bytes"),
        ({"content": "é" * 5_000_000}, ContentTooLargeError, "10,000,000 bytes"),
        ({"content": "NUL \x00"}, InvalidInputError, "NUL"),
        ({"content": "half \ud800"}, InvalidInputError, "surrogate"),
        ({"content": [{"type": "text", "text": "NUL \x00"}]}, InvalidInputError, "NUL"),
        ({"content": [{"type": "nonsense"}]}, InvalidInputError, "content"),
        ({"content": 5}, InvalidInputError, "text or a list"),
        ({"content": b"bytes"}, InvalidInputError, "text or a list"),
        ({"role": "nobody"}, InvalidInputError, "role is one of"),
        ({"metadata": {"x": float("nan")}}, InvalidInputError, "NaN"),
        ({"metadata": {"x": float("inf")}}, InvalidInputError, "NaN or an infinity"),
        ({"metadata": {"x": "NUL \x00"}}, InvalidInputError, "NUL"),
        ({"metadata": {"half \udfff": 1}}, InvalidInputError, "surrogate"),
        ({"metadata": {"x": object()}}, InvalidInputError, "object cannot be stored"),
        ({"metadata": {"x": "x" * 2_000_000}}, ContentTooLargeError, "metadata"),
        ({"metadata": [1]}, InvalidInputError, "not a mapping"),
        (
            {"token_usage": {"input_tokens": -1, "output_tokens": 0}},
            InvalidInputError,
            "input_tokens",
        ),
        (
            {"token_usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 3}},
            InvalidInputError,
            "not the sum",
        ),
        ({"token_usage": {"input_tokens": 1}}, InvalidInputError, "output_tokens"),
        (
            {"token_usage": {"input_tokens": 1, "output_tokens": 1, "cost": -1}},
            InvalidInputError,
            "cost",
        ),
        (
            {"token_usage": {"input_tokens": 1, "output_tokens": 1, "model": "NUL \x00"}},
            InvalidInputError,
            "token_usage.model contains a NUL",
        ),
        ({"content": [call(float("inf"))]}, InvalidInputError, "NaN or an infinity"),
        ({"content": [result([float("nan")])]}, InvalidInputError, "NaN or an infinity"),
        ({"content": [result(object())]}, InvalidInputError, "object cannot be stored"),
        ({"content": [result(b"bytes")]}, InvalidInputError, "bytes cannot be stored"),
        ({"content": [result(CIRCLE)]}, InvalidInputError, "contains itself"),
        ({"conversation_id": "nonsense"}, InvalidInputError, "no UUID"),
        ({"id": "nonsense"}, InvalidInputError, "no UUID"),
    ],
)
async def test_bad_input_has_its_own_error_and_stores_nothing(
    store, conversation_id, arguments, error, says
) -> None:
    arguments = {
        "conversation_id": conversation_id, "role": "user", "content": "hello", **arguments
    }  # fmt: skip
    with pytest.raises(error, match=says):
        await store.add_message(**arguments)
    assert await store.get_messages(conversation_id) == []


async def test_a_backslash_before_u0000_is_no_nul(store, conversation_id) -> None:
    added = await store.add_message(conversation_id, "user", "x", metadata={"re": "\\u0000"})
    assert added.metadata == {"re": "\\u0000"}
    assert await store.get_messages(conversation_id) == [added]


TEXT = st.characters(exclude_characters="\x00", exclude_categories=["Cs"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-(2**53), 2**53)  # beyond, jsonb keeps the digits and not the float
    | st.text(TEXT, max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(TEXT, max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


BATCH = st.lists(
    st.tuples(
        st.text(TEXT, max_size=80),
        st.dictionaries(st.sampled_from("abc"), JSON, max_size=3),
        st.none() | st.decimals(0, 10**6, places=8),
    ),
    min_size=1,
    max_size=5,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batch=BATCH)
async def test_random_messages_make_the_round_trip(store, batch) -> None:
    stream = (await store.create_conversation("a")).id
    written = await store.add_messages(
        [
            NewMessage(
                conversation_id=stream,
                role="assistant",
                content=text,
                metadata=metadata,
                token_usage=TokenUsage(input_tokens=1, output_tokens=2, cost=cost),
            )
            for text, metadata, cost in batch
        ]
    )
    assert await store.get_messages(stream) == written
    assert [(m.content, m.metadata) for m in written] == [(text, data) for text, data, _ in batch]


async def test_sql_runs_on_a_direct_connection_alone(store, transport) -> None:
    if transport == "postgres":
        assert await store.execute("select $1::int + 1 as n", 41) == [{"n": 42}]
        await store.execute("create table if not exists public.executed (id int)")
        await store.execute("drop table public.executed")
    else:
        with pytest.raises(UnsupportedOperationError, match="PostgresStore"):
            await store.execute("select 1")
