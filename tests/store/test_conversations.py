"""What a store does with conversations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import asyncpg
import pytest

from haive.core.persistence import Store
from haive.core.persistence.errors import ConflictError, InvalidInputError, NotFoundError
from haive.core.persistence.local import LocalStack
from haive.core.persistence.models import (
    Conversation,
    ConversationMetadata,
    NewConversation,
    TokenUsage,
)

METADATA = ConversationMetadata(
    title="Größe 📏",
    tags=["python", "ai"],
    context={"project": "haive", "depth": {"list": [1, 2.5, None, True]}},
    participants=["ada", "bot"],
    settings={"temperature": 0.7},
)


async def ids(store: Store, **query: object) -> list[UUID]:
    return [c.id for c in await store.query_conversations(limit=1000, **query)]


async def test_a_new_conversation_reads_back_as_it_was_returned(store: Store) -> None:
    made = await store.create_conversation("assistant", "ada", METADATA)
    assert made.metadata == METADATA
    assert (made.agent_id, made.user_id, made.message_count) == ("assistant", "ada", 0)
    assert made.created_at.tzinfo is not None
    assert made.last_message_at == made.created_at
    assert await store.get_conversation(made.id) == made
    assert await store.get_conversation(str(made.id)) == made


async def test_metadata_may_be_a_mapping_and_may_be_absent(store: Store) -> None:
    assert (await store.create_conversation("a", metadata={"title": "T"})).metadata.title == "T"
    assert (await store.create_conversation("a")).metadata == ConversationMetadata()


async def test_the_same_id_is_the_same_conversation_and_another_one_is_a_conflict(
    store: Store,
) -> None:
    key = uuid4()
    first = await store.create_conversation("assistant", "ada", id=key)
    assert await store.create_conversation("assistant", "ada", id=key) == first
    with pytest.raises(ConflictError):
        await store.create_conversation("assistant", "bob", id=key)


async def test_two_creators_of_one_id_at_once_get_the_same_conversation(store: Store) -> None:
    key = uuid4()
    made = await asyncio.gather(*(store.create_conversation("a", "u", id=key) for _ in range(8)))
    assert made == [made[0]] * 8


async def test_many_conversations_are_made_in_one_call_in_order(store: Store) -> None:
    new = [NewConversation(agent_id="a", user_id=f"u{i}") for i in range(300)]
    made = await store.create_conversations(new)
    assert [c.user_id for c in made] == [f"u{i}" for i in range(300)]
    assert await store.create_conversations([]) == []


async def test_a_naive_time_is_utc(store: Store) -> None:
    naive = datetime(2024, 2, 29, 12, 30, 15, 123456)  # noqa: DTZ001 - that is the test
    made = await store.create_conversation("a", created_at=naive)
    assert made.created_at == naive.replace(tzinfo=UTC)


async def test_an_unknown_conversation_is_not_found(store: Store) -> None:
    for call in (
        store.get_conversation(uuid4()),
        store.update_conversation(uuid4(), metadata={"title": "T"}),
        store.delete_conversation(uuid4()),
        store.get_messages(uuid4()),
        store.add_message(uuid4(), "user", "hello"),
    ):
        with pytest.raises(NotFoundError):
            await call


async def test_an_update_replaces_what_is_given_and_leaves_the_rest(store: Store) -> None:
    made = await store.create_conversation("a", "ada", METADATA)
    updated = await store.update_conversation(
        made.id, agent_id="b", metadata=ConversationMetadata(tags=["new"], title=None)
    )
    assert updated.agent_id == "b"
    assert updated.metadata == METADATA.model_copy(update={"tags": ["new"], "title": None})
    assert updated.updated_at > made.updated_at
    assert await store.get_conversation(made.id) == updated
    with pytest.raises(InvalidInputError, match="nonsense"):
        await store.update_conversation(made.id, metadata={"nonsense": 1})


async def test_deleting_takes_the_messages_along_and_says_how_many(store: Store) -> None:
    made = await store.create_conversation("a")
    for _ in range(3):
        await store.add_message(made.id, "user", "hello")
    assert await store.delete_conversation(made.id) == 3
    with pytest.raises(NotFoundError):
        await store.get_messages(made.id)


async def test_counters_are_the_sums_of_the_messages(store: Store) -> None:
    made = await store.create_conversation("a")
    for cost in (0.1, 0.2, 0.0195):
        usage = TokenUsage(input_tokens=150, output_tokens=500, model="gpt-4", cost=cost)
        await store.add_message(made.id, "assistant", "x", token_usage=usage)
    seen = await store.get_conversation(made.id)
    assert (seen.message_count, seen.input_tokens, seen.output_tokens) == (3, 450, 1500)
    assert seen.total_tokens == 1950
    assert seen.cost == Decimal("0.3195")  # and not 0.31949999…
    assert seen.last_message_at > made.last_message_at


@pytest.fixture
async def library(store: Store) -> dict[str, Conversation]:
    """Five conversations, an hour apart, a to e."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    made = await store.create_conversations(
        [
            NewConversation(
                agent_id="odd" if i % 2 else "even",
                user_id="ada" if i < 3 else "bob",
                metadata=ConversationMetadata(
                    title=f"About {name.upper()}",
                    tags=["all", f"tag-{name}"],
                    participants=[name, "shared"],
                    context={"n": i, "deep": {"name": name}},
                ),
                created_at=start + timedelta(hours=i),
            )
            for i, name in enumerate("abcde")
        ]
    )
    found = dict(zip("abcde", made, strict=True))
    for i, name in enumerate("abcde"):
        for k in range(i):
            await store.add_message(
                found[name].id,
                "user",
                f"100% of_{name}",
                created_at=start + timedelta(days=9 - i, hours=k),
            )
    return found


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "abcde"),
        ({"user_id": "ada"}, "abc"),
        ({"user_id": None}, "abcde"),
        ({"agent_id": "odd"}, "bd"),
        ({"tags": ["all", "tag-c"]}, "c"),
        ({"tags": []}, "abcde"),
        ({"any_tags": ["tag-a", "tag-e", "none"]}, "ae"),
        ({"participants": ["d", "shared"]}, "d"),
        ({"context": {"deep": {"name": "b"}}}, "b"),
        ({"title": "about B"}, "b"),
        ({"text": "OF_C"}, "c"),
        ({"text": "%"}, "bcde"),
        ({"text": "about"}, "abcde"),
        ({"min_messages": 3}, "de"),
        ({"max_messages": 1}, "ab"),
        ({"created_after": datetime(2025, 1, 1, 2)}, "cde"),  # noqa: DTZ001 - naive is UTC
        ({"created_before": "2025-01-01T02:00:00Z"}, "ab"),
        ({"active_after": datetime(2025, 1, 8, tzinfo=UTC)}, "bc"),
        ({"active_before": datetime(2025, 1, 7, tzinfo=UTC)}, "ae"),
        ({"updated_after": datetime(2025, 1, 1, 4, tzinfo=UTC)}, "e"),
        ({"updated_before": datetime(2025, 1, 1, 1, tzinfo=UTC)}, "a"),
        ({"user_id": "ada", "tags": ["all"], "min_messages": 2}, "c"),
        ({"user_id": "nobody"}, ""),
    ],
)
async def test_filters(
    store: Store, library: dict[str, Conversation], filters: dict[str, object], expected: str
) -> None:
    names = {conversation.id: name for name, conversation in library.items()}
    found = [
        names[key]
        for key in await ids(store, filters=filters, order_by="created_at", ascending=True)
    ]
    assert "".join(found) == expected


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("created_at", "edcba"),
        ("updated_at", "edcba"),
        ("last_message_at", "bcdea"),
        ("message_count", "edcba"),
    ],
)
async def test_orders_in_both_directions_and_by_pages(
    store: Store, library: dict[str, Conversation], order_by: str, expected: str
) -> None:
    names = {conversation.id: name for name, conversation in library.items()}
    for ascending in (False, True):
        seen, page_after = "", None
        for _ in range(5):
            page = await store.query_conversations(
                limit=2, order_by=order_by, ascending=ascending, page_after=page_after
            )
            seen += "".join(names[c.id] for c in page)
            page_after = page.next_page
            if page_after is None:
                break
        assert seen == (expected[::-1] if ascending else expected)


async def test_conversations_of_one_moment_are_paged_without_loss(store: Store) -> None:
    new = [
        NewConversation(agent_id="a", created_at=datetime(2025, 1, 1, tzinfo=UTC))
        for _ in range(25)
    ]
    made = {c.id for c in await store.create_conversations(new)}
    seen, page_after = [], None
    while True:
        page = await store.query_conversations(limit=7, page_after=page_after)
        seen += [c.id for c in page]
        if (page_after := page.next_page) is None:
            break
    assert len(seen) == 25
    assert set(seen) == made
    assert {c.id async for c in store.iter_conversations()} == made


async def test_messages_come_with_a_query_in_order_and_bounded(
    store: Store, library: dict[str, Conversation]
) -> None:
    page = await store.query_conversations(user_id="bob", include_messages=True, message_limit=2)
    assert {c.message_count: [m.seq for m in c.messages or []] for c in page} == {
        3: [2, 3],
        4: [3, 4],
    }
    plain = await store.query_conversations(user_id="bob")
    assert all(c.messages is None for c in plain)


@pytest.fixture
async def server_elsewhere(stack: LocalStack) -> AsyncIterator[None]:
    """The server's time zone is another one, for sessions that begin now."""
    connection = await asyncpg.connect(stack.admin_url)
    await connection.execute("alter role all set timezone to 'Asia/Tokyo'")
    yield
    await connection.execute("alter role all reset timezone")
    await connection.close()


@pytest.mark.parametrize(
    "query",
    [
        {"filters": {"nonsense": 1}},
        {"filters": {"1=1; drop table haive.messages; --": 1}},
        {"filters": {"min_messages": "many"}},
        {"filters": {"created_after": "yesterday-ish"}},
        {"filters": {"tags": "not a list"}},
        {"filters": "nonsense"},
        {"order_by": "id; drop table haive.messages"},
        {"order_by": "nonsense"},
        {"limit": 0},
        {"limit": 1001},
        {"page_after": "nonsense"},
        {"page_after": "2025-01-01/x') or true --"},
        {"include_messages": True, "message_limit": 5000},
    ],
)
async def test_a_query_that_means_nothing_is_refused(
    store: Store, query: dict[str, object]
) -> None:
    with pytest.raises(InvalidInputError):
        await store.query_conversations(**query)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"limit": 0}, "limit is no whole number between 1 and 1,000"),
        ({"limit": 1001}, "limit is no whole number"),
        ({"limit": "5"}, "limit is no whole number"),
        ({"limit": 1.5}, "limit is no whole number"),
        ({"limit": True}, "limit is no whole number"),
        ({"include_messages": True, "message_limit": -1}, "message_limit is no whole number"),
        ({"order_by": ["created_at"]}, "order_by"),
        ({"ascending": "yes"}, "ascending"),
        ({"page_after": 5}, "page_after"),
        ({"filters": {"tags": [1]}}, "filter tags is no list of texts"),
        ({"filters": {"any_tags": "demo"}}, "filter any_tags is no list of texts"),
        ({"filters": {"participants": [None]}}, "filter participants is no list of texts"),
        ({"filters": {"min_messages": 1.5}}, "filter min_messages is no whole number"),
        ({"filters": {"max_messages": 2**70}}, "filter max_messages is no whole number"),
        ({"filters": {"created_after": "2026-13-01"}}, "filter created_after is no time"),
        ({"filters": {"active_before": "yesterday"}}, "filter active_before is no time"),
        ({"filters": {"updated_after": 5}}, "filter updated_after is no time"),
    ],
)
async def test_what_is_wrong_in_a_query_is_named_as_the_caller_wrote_it(
    store: Store, query: dict[str, object], says: str
) -> None:
    await store.create_conversation("agent", metadata={"tags": ["1"]})
    with pytest.raises(InvalidInputError, match=says):
        await store.query_conversations(**query)


async def test_a_filter_takes_every_kind_of_time_and_without_a_zone_it_is_utc(
    server_elsewhere: None, store: Store
) -> None:
    began = datetime(2026, 3, 1, 12, tzinfo=UTC)
    one = (await store.create_conversation("agent", created_at=began)).id
    for since in (
        "2026-03-01T12:00",
        "2026-03-01 12:00:00",
        "2026-03-01T14:00+02:00",
        datetime(2026, 3, 1, 12),  # noqa: DTZ001 - that is the point
        date(2026, 3, 1),
        "2026-03-01",
    ):
        assert await ids(store, filters={"created_after": since}) == [one], since
        assert not await ids(store, filters={"created_before": since}), since
    for since in ("2026-03-01T12:00:01", "2026-03-02", date(2026, 3, 2)):
        assert not await ids(store, filters={"created_after": since}), since
        assert await ids(store, filters={"created_before": since}) == [one], since


@pytest.mark.parametrize("agent_id", ["", "x" * 201, 5])
async def test_an_agent_is_named_when_it_changes_as_when_it_begins(
    store: Store, agent_id: object
) -> None:
    one = await store.create_conversation("agent")
    with pytest.raises(InvalidInputError, match="agent_id"):
        await store.update_conversation(one.id, agent_id=agent_id)
    assert (await store.get_conversation(one.id)).agent_id == "agent"


async def test_a_list_of_other_things_is_refused(store: Store) -> None:
    one = await store.create_conversation("agent")
    for wrong in ([5], None, [{"conversation_id": one.id, "role": "user", "content": "hello"}]):
        with pytest.raises(InvalidInputError, match="no list of NewMessage"):
            await store.add_messages(wrong)
        with pytest.raises(InvalidInputError, match="no list of NewConversation"):
            await store.create_conversations(wrong)
    assert await ids(store) == [one.id]


async def test_a_role_that_is_none_is_named(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="role is one of owner, admin, member, reader"):
        await store.set_member("ada", "king")
    with pytest.raises(InvalidInputError, match="user_id"):
        await store.set_member(5, "owner")
