"""What a direct connection reads by column is what the public functions answer as JSON."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haive.core.persistence._columns import messages_of
from haive.core.persistence.errors import DatabaseError, InvalidInputError
from haive.core.persistence.models import (
    Conversation,
    ImagePart,
    MessageRole,
    NewMessage,
    TextPart,
    TokenUsage,
    ToolCallPart,
    ToolResultPart,
)
from haive.core.persistence.store import _CONVERSATION, _MESSAGES, _PAGE


@pytest.fixture
def transport() -> str:
    return "postgres"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.just({}) | st.dictionaries(TEXT, JSON, max_size=3)
PARTS = st.one_of(
    st.builds(TextPart, text=TEXT),
    st.builds(ImagePart, url=TEXT, media_type=st.none() | TEXT),
    st.builds(ToolCallPart, id=TEXT, name=TEXT, arguments=OBJECTS),
    st.builds(ToolResultPart, tool_call_id=TEXT, content=JSON, is_error=st.booleans()),
)
USAGES = st.builds(
    TokenUsage,
    input_tokens=st.integers(0, 2**30),
    output_tokens=st.integers(0, 2**30 - 1),
    model=st.none() | st.text("abc", min_size=1, max_size=9),
    cost=st.none() | st.decimals(0, 10**11, places=12) | st.just(Decimal("1.10")),
)
MESSAGES = st.lists(
    st.builds(
        dict,
        role=st.sampled_from(MessageRole),
        content=TEXT | st.lists(PARTS, max_size=3),
        metadata=OBJECTS,
        token_usage=st.none() | USAGES,
        created_at=st.none()
        | st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001
    ),
    max_size=6,
)
DETAILS = st.fixed_dictionaries(
    {},
    optional={
        "title": TEXT,
        "tags": st.lists(TEXT, max_size=3),
        "context": OBJECTS,
        "participants": st.lists(TEXT, max_size=2),
        "settings": OBJECTS,
    },
)


def _faces(value):
    """All that can be seen of a model, or of models."""
    if isinstance(value, list):
        return [_faces(each) for each in value]
    copied = value.model_copy(update={})
    assert copied == value == pickle.loads(pickle.dumps(value)) == value.model_copy(deep=True)
    assert type(value)(**dict(value)) == value
    return (
        # Both are UTC, by a class of pydantic's and by Python's own.
        repr(value.model_dump()).replace("TzInfo(0)", "datetime.timezone.utc"),
        value.model_dump_json(),
        value.model_fields_set,
        value.__pydantic_extra__,
        value.__pydantic_private__,
    )


async def _equal(store, read, function, arguments, returns):
    """What was read, which is what the function answers as JSON."""
    documents = await store._transport.call(function, arguments, returns, safe=True)
    if function == "query_conversations":
        assert read.next_page == documents.next_page
        documents, read = documents.conversations, list(read)
    assert read == documents
    assert _faces(read) == _faces(documents)
    return read


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(said=MESSAGES, details=DETAILS)
async def test_both_ways_read_the_same(store, said, details) -> None:
    user = uuid4().hex
    conversation = await store.create_conversation("a", user, details)
    quiet = await store.create_conversation("a", user)
    await store.add_messages(
        [NewMessage(conversation_id=conversation.id, **message) for message in said]
    )
    one = {"conversation_id": conversation.id}
    page = {"after": 0, "before": None, "page_size": 5, "last": True}
    read = await store.get_messages(conversation.id, limit=5, last=True)
    await _equal(store, read, "get_messages", one | page, _MESSAGES)
    assert len(read) == min(len(said), 5)
    for limit in (0, 3):
        asked = {"include_messages": limit > 0, "message_limit": limit}
        found = await store.get_conversation(conversation.id, **asked)
        await _equal(
            store, found, "get_conversation", one | {"message_limit": limit}, _CONVERSATION
        )
        for size in (1, 2):
            answer = await store.query_conversations(user, limit=size, **asked)
            arguments = {"filters": f'{{"user_id":"{user}"}}', "page_size": size}
            await _equal(
                store, answer, "query_conversations", arguments | {"message_limit": limit}, _PAGE
            )
        assert {c.id for c in answer} == {conversation.id, quiet.id}


async def test_models_have_the_ids_of_python(store) -> None:
    conversation = await store.create_conversation("a", "u")
    await store.add_message(conversation.id, "user", "x")
    found = await store.get_conversation(conversation.id, include_messages=True)
    for value in (found.id, found.messages[0].id, found.messages[0].conversation_id):
        assert type(value) is UUID
        assert value.is_safe is conversation.id.is_safe


async def test_models_share_nothing_that_can_be_changed(store) -> None:
    conversation = await store.create_conversation("a", "u")
    for _ in range(2):
        await store.add_message(conversation.id, "user", "x")
    first, second = await store.get_messages(conversation.id)
    first.metadata["a"] = 1
    assert second.metadata == {}
    changed = first.model_copy(update={"seq": 9})
    assert (changed.seq, first.seq, second.seq) == (9, 1, 2)


@pytest.mark.parametrize(
    ("column", "value"),
    [("roles", ["robot"]), ("inputs", [2**31 - 1]), ("parts", ['[{"type": "film"}]'])],
)
async def test_what_is_none_of_ours_is_refused(store, column, value) -> None:
    conversation = await store.create_conversation("a", "u")
    usage = TokenUsage(input_tokens=1, output_tokens=1)
    await store.add_message(conversation.id, "user", [TextPart(text="x")], token_usage=usage)
    (row,) = await store._transport.rows("read_messages", {"conversation_id": conversation.id})
    assert messages_of([row]) == [await store.get_messages(conversation.id)]
    with pytest.raises(DatabaseError, match="cannot be read"):
        messages_of([{**row, column: value}])


async def test_no_conversations_are_no_page(store) -> None:
    page = await store.query_conversations("nobody", include_messages=True)
    assert (page, page.next_page) == ([], None)


async def test_filters_are_planned_alike(store) -> None:
    """The statement that is kept finds what the one finds that is put together."""
    made: list[Conversation] = []
    for number in range(8):
        conversation = await store.create_conversation(
            "a", "ada", {"tags": ["even" if number % 2 == 0 else "odd", "all"]}
        )
        for _ in range(number):
            await store.add_message(conversation.id, "user", "x")
        made.append(await store.get_conversation(conversation.id))
    await store.create_conversation("a", "bob", {"tags": ["even"]})
    for filters in (
        {},
        {"tags": ["even"]},
        {"tags": []},
        {"tags": ["even", "all"]},
        {"min_messages": 3},
        {"tags": ["odd"], "min_messages": 3},
        {"tags": None, "min_messages": None},
    ):
        kept = await store.query_conversations("ada", filters=filters)
        planned = await store.query_conversations("ada", filters={**filters, "agent_id": "a"})
        wanted = [
            one
            for one in sorted(made, key=lambda c: (c.last_message_at, c.id), reverse=True)
            if set(filters.get("tags") or ()) <= set(one.metadata.tags)
            and one.message_count >= (filters.get("min_messages") or 0)
        ]
        assert kept == planned == wanted
    assert await store.query_conversations("' or true --") == []
    for filters in ({}, {"agent_id": "a"}):
        with pytest.raises(InvalidInputError):
            await store.query_conversations("ada", filters={"min_messages": 1.5, **filters})
