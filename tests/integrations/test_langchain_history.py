"""What `HaiveChatMessageHistory` keeps, over both stores."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core._api import LangChainDeprecationWarning
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableFieldSpec
from langchain_core.runnables.history import RunnableWithMessageHistory
from pydantic import AnyUrl, BaseModel

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence._rows import row_of
from haive.core.persistence.errors import (
    AccessDeniedError,
    ContentTooLargeError,
    InvalidInputError,
    NotFoundError,
    PersistenceError,
)
from haive.core.persistence.integrations._messages import restored, stored
from haive.core.persistence.integrations.langchain import (
    HaiveChatHistories,
    HaiveChatMessageHistory,
)
from haive.core.persistence.local import LocalStack
from haive.core.persistence.models import (
    ImagePart,
    Message,
    NewMessage,
    ToolCallPart,
)
from haive.core.persistence.privacy import PIIMode, PIIPolicy
from haive.core.persistence.session import SessionManager

OpenStore = Callable[..., Awaitable[Store]]

NOBODY = "018f0000-0000-7000-8000-000000000000"
TALK: list[BaseMessage] = [
    SystemMessage("You are brief."),
    SystemMessage(content="", id="empty"),
    HumanMessage("Where is my parcel?", name="Anna", id="m-1"),
    HumanMessage(
        [
            "Look:",
            {"type": "text", "text": "this one", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {"type": "image_url", "image_url": {"url": "https://a.test/b", "detail": "low"}},
            {"type": "image", "base64": "AAAA", "mime_type": "image/png", "id": "i1"},
            {"type": "image", "url": "https://a.test/b.png"},
            {"type": "image", "source": {"type": "base64", "data": "AA", "media_type": "a/b"}},
            {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"},
            {"type": "text", "text": "mine", "langchain": 1},
            {"type": "text", "text": 1},
        ]
    ),
    HumanMessage([]),
    HumanMessage([""]),
    AIMessage(
        "One moment.",
        id="run-1",
        tool_calls=[
            {"id": "c1", "name": "track", "args": {"parcel": 7, "deep": {"a": [1, None]}}},
            {"id": None, "name": "now", "args": {}},
        ],
        usage_metadata={
            "input_tokens": 120,
            "output_tokens": 30,
            "total_tokens": 150,
            "input_token_details": {"cache_read": 100},
        },
        response_metadata={"model_name": "gpt-4", "finish_reason": "tool_calls"},
        additional_kwargs={"refusal": None},
    ),
    AIMessage("", tool_calls=[{"id": "c2", "name": "track", "args": {}}]),
    AIMessage(
        [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "Call it."}],
        tool_calls=[{"id": "c3", "name": "call", "args": {"to": "it"}}],
        invalid_tool_calls=[
            {
                "id": "c4",
                "name": "call",
                "args": "{",
                "error": "no JSON",
                "type": "invalid_tool_call",
            }
        ],
    ),
    AIMessage("odd", usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 5}),
    AIMessage("odder", usage_metadata={"input_tokens": -1, "output_tokens": 1, "total_tokens": 0}),
    ToolMessage("In Basel.", tool_call_id="c1", artifact={"lat": 47.5}, name="track"),
    ToolMessage("lost", tool_call_id="c2", status="error", id="t-2"),
    ToolMessage([{"type": "text", "text": "a"}, "b"], tool_call_id="c3"),
    ChatMessage("As a judge: yes.", role="judge"),
    AIMessage("It is in Basel.", mood="calm"),
    AIMessage(
        content_blocks=[
            {"type": "text", "text": "Again."},
            {"type": "tool_call", "id": "c5", "name": "track", "args": {"parcel": 7}},
        ]
    ),
    HumanMessage(content_blocks=[{"type": "file", "base64": "AA", "mime_type": "application/pdf"}]),
]


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
async def history(store: Store) -> HaiveChatMessageHistory:
    return HaiveChatMessageHistory.from_store(store, "session-1")


async def test_messages_come_back_equal(history: HaiveChatMessageHistory) -> None:
    assert await history.aget_messages() == []
    await history.aadd_messages(TALK[:4])
    await history.aadd_messages(TALK[4:])
    assert await history.aget_messages() == TALK


ODD: list[Any] = [
    [Document("It rains.", id="d1", metadata={"at": (1, 2)}), Document("It pours.")],
    (1, ("a", [2.5])),
    {1: "a", 2: {"b": (None,)}, (1, 2): {3}},
    {"a": frozenset({1}), "b": {"": ()}},
    [datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), time(1), timedelta(1, 2, 3)],
    [UUID(NOBODY), Decimal("1.50"), 10**30],
    [1e300, -1e22, 5e-324, 0.1, 2.0, 10**16],
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
async def test_what_json_has_not_comes_back_as_what_it_was(
    history: HaiveChatMessageHistory, odd: Any
) -> None:
    talk = [
        ToolMessage("found", tool_call_id="1", artifact=odd),
        AIMessage("x", additional_kwargs={"odd": odd}, response_metadata={"odd": [odd]}),
    ]
    await history.aadd_messages(talk)
    found = await history.aget_messages()
    assert found == talk
    assert repr(found[0].artifact) == repr(odd)


@pytest.mark.parametrize("odd", ODD[1:], ids=range(1, len(ODD)))
async def test_so_does_it_in_contents_and_in_calls_of_tools(
    history: HaiveChatMessageHistory, odd: Any
) -> None:
    talk = [
        HumanMessage([{"type": "text", "text": "a", "odd": odd}, {"type": "odd", "odd": [odd]}]),
        HumanMessage([{"type": "image_url", "image_url": {"url": "https://a.test", "odd": odd}}]),
        AIMessage(
            "x", tool_calls=[{"id": str(n), "name": "t", "args": {"n": odd}} for n in (1, 2)]
        ),
        HumanMessage(["a", {1: odd}]),
        AIMessage(["y", {"odd": odd}], tool_calls=[{"id": "1", "name": "t", "args": {"n": odd}}]),
        ToolMessage([{"type": "text", "text": "a", "odd": odd}], tool_call_id="1"),
    ]
    await history.aadd_messages(talk)
    found = await history.aget_messages()
    assert found == talk
    for value in (
        found[0].content[0]["odd"],
        found[1].content[0]["image_url"]["odd"],
        *(call["args"]["n"] for call in found[2].tool_calls),
        found[3].content[1][1],
        found[5].content[0]["odd"],
    ):
        assert repr(value) == repr(odd)


async def test_what_has_no_json_is_refused_wherever_it_is(
    history: HaiveChatMessageHistory,
) -> None:
    for message in (
        HumanMessage([{"type": "odd", "odd": object()}]),
        AIMessage("x", tool_calls=[{"id": "1", "name": "t", "args": {"n": object()}}]),
    ):
        with pytest.raises(InvalidInputError, match="which JSON has not"):
            await history.aadd_messages([message])


async def test_what_a_form_does_not_fit_any_more_is_as_it_is_stored() -> None:
    message = ToolMessage("x", tool_call_id="1", artifact=[(1,), Document("d"), date(2026, 1, 2)])
    new = stored(message, UUID(NOBODY))
    data, forms = new.metadata["langchain"]["data"], new.metadata["langchain"]["forms"]
    data["artifact"][2] = "[DATE]"
    data["artifact"][1] = {"other": 1}
    forms += [["tuple", ["artifact", 9]], ["eval", ["artifact"]], [], 7, ["tuple", []]]
    assert restored(message_of(new))[0].artifact == [(1,), {"other": 1}, "[DATE]"]


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_objects = st.dictionaries(_texts, _json, max_size=3)
_blocks = st.one_of(
    _texts,
    _objects,
    st.builds(lambda text, more: {**more, "type": "text", "text": text}, _texts | _json, _objects),
    st.builds(
        lambda url, more, rest: {**rest, "type": "image_url", "image_url": {**more, "url": url}},
        _texts | _json,
        _objects,
        _objects,
    ),
    st.builds(
        lambda some, rest: {**rest, **some, "type": "image"},
        st.dictionaries(st.sampled_from(["url", "base64", "mime_type", "data"]), _texts | _json),
        _objects,
    ),
)
_contents = _texts | st.lists(_blocks, max_size=4)
_calls = st.lists(
    st.fixed_dictionaries(
        {"id": st.none() | _texts.filter(bool), "name": _texts, "args": _objects}
    ),
    max_size=3,
)
_common: dict[str, Any] = {
    "content": _contents,
    "id": st.none() | _texts,
    "name": st.none() | _texts,
    "additional_kwargs": _objects.map(lambda found: {f"x-{name}": found[name] for name in found}),
    "response_metadata": _objects,
}
_counts = st.integers(-5, 10**9)
_any_message = st.one_of(
    st.builds(HumanMessage, **_common),
    st.builds(SystemMessage, **_common),
    st.builds(ChatMessage, **_common, role=_texts),
    st.builds(
        ToolMessage,
        **_common,
        tool_call_id=_texts,
        artifact=_json,
        status=st.sampled_from(["success", "error"]),
    ),
    st.builds(
        AIMessage,
        **_common,
        tool_calls=_calls,
        usage_metadata=st.none()
        | st.fixed_dictionaries(
            {"input_tokens": _counts, "output_tokens": _counts, "total_tokens": _counts}
        ),
    ),
)


@given(_any_message)
@settings(max_examples=400, deadline=None)
def test_any_message_comes_back_equal(message: BaseMessage) -> None:
    assert restored(message_of(stored(message, uuid4()))) == [message]


def message_of(new: NewMessage) -> Message:
    """What is read of what was written."""
    row = row_of(new)
    document = json.loads(json.dumps(row.document()))
    return Message(
        id=row.id,
        conversation_id=row.conversation_id,
        seq=1,
        role=document["role"],
        content=document.get("parts") if row.parts is not None else document["content"],
        metadata=document.get("metadata", {}),
        token_usage=row.usage,
        created_at="2026-01-01T00:00:00Z",
    )


async def test_our_own_tools_read_them(history: HaiveChatMessageHistory, store: Store) -> None:
    await history.aadd_messages(TALK)
    conversation = await store.get_conversation(
        await history.aconversation_id(), include_messages=True, message_limit=100
    )
    assert conversation.agent_id == "langchain"
    assert conversation.metadata.context == {"session_id": "session-1"}
    assert (conversation.input_tokens, conversation.output_tokens) == (121, 31)
    messages = conversation.messages or []
    assert [str(m.role) for m in messages[:3]] == ["system", "system", "user"]
    assert messages[2].metadata["name"] == "Anna"
    assert messages[3].text.startswith("Look:\nthis one")
    images = [part for part in messages[3].content if isinstance(part, ImagePart)]
    assert [image.url or image.data for image in images] == [
        "data:image/png;base64,AAAA", "https://a.test/b", "AAAA", "https://a.test/b.png",
    ]  # fmt: skip
    assert messages[6].text == "One moment."
    called = [part for part in messages[6].content if isinstance(part, ToolCallPart)]
    assert [(part.name, part.arguments.get("parcel")) for part in called] == [
        ("track", 7), ("now", None),
    ]  # fmt: skip
    assert messages[6].token_usage is not None
    assert messages[6].token_usage.model == "gpt-4"


async def test_what_our_own_tools_write_is_read_as_messages(store: Store) -> None:
    conversation = await store.create_conversation("agent")
    add = store.add_message
    asked = await add(conversation.id, "user", "Where?", metadata={"name": "Anna"})
    called = await add(
        conversation.id,
        "assistant",
        [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_call", "id": "c1", "name": "track", "arguments": {"a": 1}},
        ],
        token_usage={"input_tokens": 1, "output_tokens": 2, "model": "m"},
    )
    answered = await add(
        conversation.id,
        "tool",
        [
            {"type": "tool_result", "tool_call_id": "c1", "content": {"at": "Basel"}},
            {"type": "tool_result", "tool_call_id": "c2", "content": "no", "is_error": True},
        ],
    )
    seen = await add(
        conversation.id, "user", [{"type": "image", "data": "AA", "media_type": "image/png"}]
    )
    history = HaiveChatMessageHistory.from_store(store, conversation_id=conversation.id)
    assert await history.aget_messages() == [
        HumanMessage("Where?", name="Anna", id=str(asked.id)),
        AIMessage(
            [{"type": "text", "text": "Let me see."}],
            id=str(called.id),
            tool_calls=[{"id": "c1", "name": "track", "args": {"a": 1}}],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            response_metadata={"model_name": "m"},
        ),
        ToolMessage("{'at': 'Basel'}", tool_call_id="c1", id=str(answered.id)),
        ToolMessage("no", tool_call_id="c2", status="error", id=str(answered.id)),
        HumanMessage(
            [{"type": "image", "base64": "AA", "mime_type": "image/png"}], id=str(seen.id)
        ),
    ]
    await history.aadd_messages([HumanMessage("Thanks.")])
    assert (await store.get_conversation(conversation.id)).message_count == 5

    nobody = HaiveChatMessageHistory.from_store(store, conversation_id=uuid4())
    with pytest.raises(NotFoundError):
        await nobody.aget_messages()
    with pytest.raises(NotFoundError):
        await nobody.aadd_messages([HumanMessage("Hello?")])


@pytest.mark.parametrize(
    ("content", "metadata"),
    [
        ("Hm", {"langchain": {"type": "tool"}}),
        ("Hm", {"langchain": {"type": "chat"}}),
        ("Hm", {"langchain": {"type": "ai", "data": {"tool_calls": 7}}}),
        ("Hm", {"langchain": {"type": "ai", "data": [7]}}),
        ("Hm", {"langchain": {"type": "ai", "data": "abc"}}),
        ("Hm", {"langchain": {"type": "ai", "usage": 7}}),
        ("Hm", {"langchain": {"type": ["ai"]}}),
        ("Hm", {"langchain": {"type": "remove"}, "name": 7}),
        ([{"type": "text", "text": "Hm", "langchain": 7}], {"langchain": {"type": "ai"}}),
        ([{"type": "text", "text": "Hm", "langchain": [7]}], {"langchain": {"type": "ai"}}),
        ([{"type": "tool_call", "id": "1", "name": "a"}], {"langchain": {"type": "human"}}),
        ([{"type": "image", "url": "a"}], {"langchain": {"type": "ai", "text": True}}),
    ],
    ids=[str(number) for number in range(12)],
)
async def test_one_message_that_is_not_what_it_says_leaves_the_others_readable(
    history: HaiveChatMessageHistory, store: Store, content: Any, metadata: dict[str, Any]
) -> None:
    await history.aadd_messages([HumanMessage("before")])
    await store.add_message(
        await history.aconversation_id(), "assistant", content, metadata=metadata
    )
    await history.aadd_messages([HumanMessage("after")])
    first, odd, last = await history.aget_messages()
    assert (first.text, last.text) == ("before", "after")
    assert isinstance(odd, BaseMessage)


async def test_a_chunk_comes_back_as_the_message_that_it_is(
    history: HaiveChatMessageHistory,
) -> None:
    chunk = AIMessageChunk(content="Ba", id="1") + AIMessageChunk(content="sel", id="1")
    await history.aadd_messages([chunk])
    assert await history.aget_messages() == [AIMessage("Basel", id="1")]


async def test_sessions_and_users_are_kept_apart(store: Store) -> None:
    histories = HaiveChatHistories.from_store(store)
    every = [
        histories("a"), histories("b"), histories("a", "anna"), histories("a", "ben"),
        histories('a", "anna'),
    ]  # fmt: skip
    for number, history in enumerate(every):
        await history.aadd_messages([HumanMessage(f"{number}")])
    for number, history in enumerate(every):
        assert await history.aget_messages() == [HumanMessage(f"{number}")]
    assert len(await store.query_conversations("anna")) == 1
    await every[2].aclear()
    assert await every[2].aget_messages() == []
    assert await every[3].aget_messages() == [HumanMessage("3")]
    assert len({await history.aconversation_id() for history in every}) == len(every)


async def test_the_same_session_of_another_tenant_is_another_one(
    history: HaiveChatMessageHistory, stack: LocalStack
) -> None:
    await history.aadd_messages([HumanMessage("mine")])
    async with PostgresStore(
        PersistenceConfig(connection_string=stack.database_url, pool_size=1)
    ) as other:
        theirs = HaiveChatMessageHistory.from_store(other, "session-1")
        await theirs.aclear()
        assert await theirs.aget_messages() == []
        await theirs.aadd_messages([HumanMessage("theirs")])
        assert await theirs.aget_messages() == [HumanMessage("theirs")]
        by_id = HaiveChatMessageHistory.from_store(
            other, conversation_id=await history.aconversation_id()
        )
        with pytest.raises(NotFoundError):
            await by_id.aget_messages()
        await theirs.aclear()
    assert await history.aget_messages() == [HumanMessage("mine")]


async def test_signed_in_users_have_histories_of_their_own(
    store: Store, stack: LocalStack, tenant: str
) -> None:
    said = {}
    for user in (f"anna-{tenant}", f"ben-{tenant}"):
        await store.set_member(user, "member")
        token = stack.mint_user_token(user)
        async with SupabaseStore(
            stack.url, stack.publishable_key, access_token=token, tenant=tenant
        ) as own:
            history = HaiveChatMessageHistory.from_store(own, "s", user_id=user)
            await history.aadd_messages([HumanMessage(user)])
            assert await history.aget_messages() == [HumanMessage(user)]
            for other in said.values():
                theirs = HaiveChatMessageHistory.from_store(own, conversation_id=other)
                with pytest.raises(NotFoundError):
                    await theirs.aget_messages()
                with pytest.raises(NotFoundError):
                    await theirs.aadd_messages([HumanMessage("me too")])
            # Under another's name there is nothing to be read, and nothing is written.
            pretended = HaiveChatMessageHistory.from_store(own, "s", user_id="carl")
            with pytest.raises(AccessDeniedError):
                await pretended.aadd_messages([HumanMessage("I am Carl.")])
            said[user] = await history.aconversation_id()
    for user in said:
        service = HaiveChatMessageHistory.from_store(store, "s", user_id=user)
        assert await service.aget_messages() == [HumanMessage(user)]


async def test_what_is_hidden_does_not_end_a_history(
    store: Store, stack: LocalStack, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in ("_PAGE", "_LAST"):
        monkeypatch.setattr(f"haive.core.persistence.integrations._chats.{size}", 2)
    user = f"anna-{tenant}"
    await store.set_member(user, "member")
    manager = SessionManager(store)
    session = await manager.create_collaborative_session([user], {user: ["read", "write"]})
    service = HaiveChatMessageHistory.from_store(store, conversation_id=session.id)
    await service.aadd_messages([HumanMessage(f"{n}") for n in range(7)])
    for message in (await store.get_messages(session.id))[1:4]:
        await manager.hide_message(session.id, message.id)
    token = stack.mint_user_token(user)
    async with SupabaseStore(
        stack.url, stack.publishable_key, access_token=token, tenant=tenant
    ) as own:
        history = HaiveChatMessageHistory.from_store(own, conversation_id=session.id)
        found = await history.aget_messages()
    assert [message.content for message in found] == ["0", "4", "5", "6"]


class Mood(Enum):
    GOOD = "good"


class Parsed(BaseModel):
    mood: Mood = Mood.GOOD
    link: AnyUrl = AnyUrl("https://example.org/")


@dataclass
class Point:
    x: int
    moods: tuple[Mood, ...] = (Mood.GOOD,)


class Pair(NamedTuple):
    one: int
    other: int


async def test_objects_of_other_classes_come_back_as_what_is_in_them(
    history: HaiveChatMessageHistory,
) -> None:
    parsed = {"mood": "good", "link": "https://example.org/"}
    await history.aadd_messages(
        [
            AIMessage("{}", additional_kwargs={"parsed": [Parsed()], "mood": Mood.GOOD}),
            ToolMessage("x", tool_call_id="1", artifact=[Point(1), Pair(1, 2)]),
            ToolMessage("x", tool_call_id="2", artifact=OrderedDict({1: "a"})),
        ]
    )
    said, made, ordered = await history.aget_messages()
    assert said.additional_kwargs == {"parsed": [parsed], "mood": "good"}
    assert made.artifact == [{"x": 1, "moods": ("good",)}, [1, 2]]
    assert ordered.artifact == {1: "a"}


async def test_personal_data_is_masked_wherever_langchain_has_it(
    stack: LocalStack, tenant: str
) -> None:
    mail = "anna@example.org"
    async with PostgresStore(
        PersistenceConfig(connection_string=stack.database_url, pool_size=1, tenant=tenant),
        pii=PIIPolicy(mode=PIIMode.MASK),
    ) as masking:
        history = HaiveChatMessageHistory.from_store(masking, "s")
        await history.aadd_messages(
            [
                HumanMessage(f"I am {mail}."),
                HumanMessage([f"I am {mail}.", {"type": "reasoning", "reasoning": mail}]),
                AIMessage("", tool_calls=[{"id": "1", "name": "write", "args": {"to": mail}}]),
                ToolMessage(f"Sent to {mail}.", tool_call_id="1", artifact={"to": mail}),
                AIMessage("Done.", additional_kwargs={"to": mail}),
                ToolMessage("Found.", tool_call_id="2", artifact=[Document(mail), (mail,)]),
            ]
        )
        found = await history.aget_messages()
    assert len(found) == 6
    assert type(found[5].artifact[0]) is Document
    assert mail not in repr([message.model_dump() for message in found])


async def test_a_session_goes_on_after_it_was_cleared(history: HaiveChatMessageHistory) -> None:
    await history.aadd_messages([HumanMessage("1"), HumanMessage("2")])
    await history.aclear()
    await history.aclear()
    assert await history.aget_messages() == []
    await history.aadd_messages([HumanMessage("3")])
    assert await history.aget_messages() == [HumanMessage("3")]


async def test_a_session_that_another_agent_began_goes_on(store: Store) -> None:
    one = HaiveChatMessageHistory.from_store(store, "s", agent_id="one")
    two = HaiveChatMessageHistory.from_store(store, "s", agent_id="two")
    await asyncio.gather(
        one.aadd_messages([HumanMessage("1")]), two.aadd_messages([HumanMessage("2")])
    )
    assert sorted(m.text for m in await one.aget_messages()) == ["1", "2"]


@pytest.mark.parametrize(
    "bad",
    [
        "Hello?",
        [HumanMessage("fine"), "Hello?"],
        [HumanMessage("fine"), RemoveMessage(id="1")],
        [HumanMessage("fine"), HumanMessage("a\x00b")],
        [HumanMessage("fine"), HumanMessage("half \ud800")],
        [HumanMessage("fine"), AIMessage("x", additional_kwargs={"f": object()})],
        [HumanMessage("fine"), AIMessage("x", additional_kwargs={"f": float("nan")})],
        [HumanMessage("fine"), ToolMessage("x", tool_call_id="1", artifact=lambda: 1)],
        None,
        7,
    ],
    ids=lambda bad: str(type(bad[1] if isinstance(bad, list) else bad).__name__),
)
async def test_nothing_is_stored_of_what_cannot_be(
    history: HaiveChatMessageHistory, bad: Any
) -> None:
    with pytest.raises(InvalidInputError):
        await history.aadd_messages(bad)
    assert await history.aget_messages() == []


async def test_a_message_that_is_too_large_is_refused(history: HaiveChatMessageHistory) -> None:
    with pytest.raises(ContentTooLargeError):
        await history.aadd_messages([HumanMessage("x" * (9 * 1024 * 1024))])


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"session_id": ""},
        {"session_id": 7},
        {"session_id": "a" * 1001},
        {"session_id": "a\x00"},
        {"session_id": "a", "user_id": ""},
        {"session_id": "a", "user_id": 7},
        {"session_id": "a", "conversation_id": NOBODY},
        {"conversation_id": "a"},
        {"conversation_id": NOBODY, "user_id": "anna"},
    ],
    ids=str,
)
async def test_a_history_of_nothing_is_refused(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        HaiveChatMessageHistory.from_store(store, **wrong)


async def test_what_is_added_at_once_is_there_once_and_in_order(open_store: OpenStore) -> None:
    stores = [await open_store(), await open_store()]
    histories = [HaiveChatMessageHistory.from_store(stores[n % 2], "race") for n in range(12)]
    said = [[HumanMessage(f"{n}-{i}") for i in range(5)] for n in range(12)]
    await asyncio.gather(
        *(history.aadd_messages(some) for history, some in zip(histories, said, strict=True))
    )
    found = [message.text for message in await histories[0].aget_messages()]
    assert len(found) == 60
    batches = [found[start : start + 5] for start in range(0, 60, 5)]
    assert sorted(batches) == sorted([message.text for message in some] for some in said)


async def test_an_operation_is_a_round_trip(
    store: Store, history: HaiveChatMessageHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: Counter[str] = Counter()
    transport = store._transport
    call, rows, append = transport.call, transport.rows, transport.append_many

    async def counting(function: str, *args: Any, **kwargs: Any) -> Any:
        counted[function] += 1
        return await call(function, *args, **kwargs)

    async def reading(function: str, *args: Any) -> Any:
        found = await rows(function, *args)
        # Over the API nothing is asked so, and the JSON of a call is read.
        counted.update([] if found is None else [function.replace("read_", "get_")])
        return found

    async def appending(rows: Any) -> Any:
        counted["append"] += 1
        return await append(rows)

    monkeypatch.setattr(transport, "append_many", appending)
    monkeypatch.setattr(transport, "call", counting)
    monkeypatch.setattr(transport, "rows", reading)
    await history.aadd_messages(TALK)
    assert counted.pop("create_conversations") == 1
    # Over the API `append_many` is itself a call.
    counted.pop("add_messages", None)
    assert counted == {"append": 2}
    counted.clear()
    await history.aadd_messages(TALK)
    counted.pop("add_messages", None)
    assert counted == {"append": 1}
    counted.clear()
    await history.aget_messages()
    assert counted == {"get_messages": 1}
    await history.aadd_messages([])
    assert counted == {"get_messages": 1}
    counted.clear()
    monkeypatch.setattr("haive.core.persistence.store._PAGE_SIZE", 2)
    known = await history.aconversation_id()
    assert await HaiveChatMessageHistory.from_store(store, conversation_id=known).aget_messages()
    assert counted == {"get_conversation": 1}


# -- without await, and in chains ----------------------------------------------------------------


@pytest.fixture
def waiting(stack: LocalStack, tenant: str, transport: str) -> Iterator[HaiveChatHistories]:
    url, more = stack.database_url, {"pool_size": 2}
    if transport == "supabase":
        url, more = stack.url, {"key": stack.secret_key}
    with HaiveChatHistories.from_conn_string(url, tenant=tenant, **more) as histories:
        yield histories


def test_everything_works_without_await(waiting: HaiveChatHistories) -> None:
    history = waiting("s")
    history.add_messages(TALK)
    history.add_user_message("And now?")
    assert history.messages == [*TALK, HumanMessage("And now?")]
    assert "Where is my parcel?" in str(history)
    assert history.conversation_id() == waiting("s").conversation_id()
    history.clear()
    assert history.messages == []


async def test_waiting_on_the_loop_of_the_store_is_refused(
    history: HaiveChatMessageHistory,
) -> None:
    with pytest.raises(PersistenceError, match="block") as caught:
        _ = history.messages
    assert "aget_messages" in str(caught.value.hint)
    await asyncio.to_thread(history.add_messages, [HumanMessage("from a thread")])
    assert await history.aget_messages() == [HumanMessage("from a thread")]


def chain_over(histories: HaiveChatHistories, **settings: Any) -> RunnableWithMessageHistory:
    model = GenericFakeChatModel(messages=iter([AIMessage("Basel."), AIMessage("You asked.")]))
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be brief."), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainDeprecationWarning)
        return RunnableWithMessageHistory(
            prompt | model,
            histories,
            input_messages_key="question",
            history_messages_key="history",
            **settings,
        )


async def test_a_chain_remembers(store: Store) -> None:
    histories = HaiveChatHistories.from_store(store)
    chain = chain_over(histories)
    config = {"configurable": {"session_id": "s"}}
    await chain.ainvoke({"question": "Where is it?"}, config)
    async for _ in chain.astream({"question": "Who asked?"}, config):
        pass
    said = await histories("s").aget_messages()
    assert [(message.type, message.text) for message in said] == [
        ("human", "Where is it?"), ("ai", "Basel."), ("human", "Who asked?"), ("ai", "You asked."),
    ]  # fmt: skip


def test_a_chain_remembers_for_a_user_without_await(waiting: HaiveChatHistories) -> None:
    keys = [
        ConfigurableFieldSpec(id=name, annotation=str, default="")
        for name in ("session_id", "user_id")
    ]
    chain = chain_over(waiting, history_factory_config=keys)
    chain.invoke({"question": "Where?"}, {"configurable": {"session_id": "s", "user_id": "anna"}})
    assert [message.text for message in waiting("s", "anna").messages] == ["Where?", "Basel."]
    assert waiting("s", "ben").messages == []
