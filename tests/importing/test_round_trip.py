from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from haive.core.persistence._rows import row_of
from haive.core.persistence.importing import import_file
from haive.core.persistence.importing.formats import haive, openai, openai_lines
from haive.core.persistence.importing.prepare import ImportSettings, prepare
from haive.core.persistence.models import (
    Conversation,
    ConversationMetadata,
    ImagePart,
    Message,
    MessageRole,
    NewConversation,
    NewMessage,
    TextPart,
    TokenUsage,
    ToolCallPart,
    ToolResultPart,
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
_NAME = _TEXT.filter(lambda text: len(text) > 0)
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**18, 10**30) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_OBJECT = st.dictionaries(_TEXT, _VALUE, max_size=3)
_TIME = st.datetimes(timezones=st.just(UTC))
_IMAGE = st.builds(ImagePart, url=_TEXT, media_type=st.none() | _TEXT) | st.builds(
    ImagePart, data=_TEXT
)
_PART = (
    st.builds(TextPart, text=_TEXT)
    | _IMAGE
    | st.builds(ToolCallPart, id=_TEXT, name=_TEXT, arguments=_OBJECT)
    | st.builds(ToolResultPart, tool_call_id=_TEXT, content=_VALUE, is_error=st.booleans())
)
_COST = st.decimals(0, 1_000_000, places=12, allow_nan=False, allow_infinity=False)
_USAGE = st.builds(
    TokenUsage,
    input_tokens=st.integers(0, 10**9),
    output_tokens=st.integers(0, 10**9),
    model=st.none() | _NAME,
    cost=st.none() | _COST,
)
_MESSAGE = st.builds(
    Message,
    id=st.uuids(),
    conversation_id=st.just(UUID(int=1)),
    seq=st.just(1),
    role=st.sampled_from(MessageRole),
    content=_TEXT | st.lists(_PART, max_size=3),
    metadata=_OBJECT,
    token_usage=st.none() | _USAGE,
    created_at=_TIME,
)
_CONVERSATION = st.builds(
    Conversation,
    id=st.just(UUID(int=1)),
    tenant_id=st.just("default"),
    agent_id=_NAME,
    user_id=st.none() | _NAME,
    metadata=st.builds(
        ConversationMetadata,
        title=st.none() | _TEXT,
        tags=st.lists(_TEXT, max_size=3),
        context=_OBJECT,
        participants=st.lists(_TEXT, max_size=3),
        settings=_OBJECT,
    ),
    message_count=st.just(0),
    input_tokens=st.just(0),
    output_tokens=st.just(0),
    cost=st.just(Decimal(0)),
    created_at=_TIME,
    updated_at=_TIME,
    last_message_at=_TIME,
)


@given(conversation=_CONVERSATION, messages=st.lists(_MESSAGE, max_size=4))
@settings(deadline=None)
def test_a_line_of_ours_gives_back_all_that_was_stored(conversation, messages):
    line = haive.head(conversation) + b",".join(map(haive.message, messages)) + haive.TAIL
    assert line.count(b"\n") == 1
    draft = haive.draft(json.loads(line), "line 1")
    prepared = prepare(draft, 1, ImportSettings(format="haive"))
    assert draft.skipped == []
    assert prepared.conversation == NewConversation(
        id=conversation.id,
        agent_id=conversation.agent_id,
        user_id=conversation.user_id,
        metadata=conversation.metadata,
        created_at=conversation.created_at,
    )
    assert prepared.messages == [
        row_of(
            NewMessage(
                id=message.id,
                conversation_id=conversation.id,
                role=message.role,
                content=message.content,
                metadata=message.metadata,
                token_usage=message.token_usage,
                created_at=message.created_at,
            )
        )
        for message in messages
    ]


_SAID = st.lists(
    st.builds(TextPart, text=_TEXT)
    | st.builds(ImagePart, url=st.just("https://example.org/a.png"))
    | st.builds(ToolCallPart, id=_NAME, name=_NAME, arguments=_OBJECT),
    min_size=2,
    max_size=4,
)


@given(text=_TEXT, said=_SAID, answer=_NAME)
@settings(deadline=None)
def test_what_openai_has_too_survives_its_format(text, said, answer):
    def stored(role, content):
        return Message(
            id=uuid4(),
            conversation_id=UUID(int=1),
            seq=1,
            role=role,
            content=content,
            metadata={},
            created_at=datetime.now(UTC),
        )

    calls_last = sorted(said, key=lambda part: isinstance(part, ToolCallPart))
    result = ToolResultPart(tool_call_id="c", content=answer)
    given_messages = [
        stored("user", text),
        stored("assistant", calls_last),
        stored("tool", [result]),
    ]
    records = [record for message in given_messages for record in openai_lines.records(message)]
    line = openai_lines.HEAD + b",".join(records) + openai_lines.TAIL
    draft = openai.draft(json.loads(line), "line 1")
    prepared = prepare(draft, 1, ImportSettings(format="openai"))
    assert [(m.role, m.content) for m in prepared.messages] == [
        (m.role, m.content) for m in given_messages
    ]


async def test_an_export_imported_into_another_tenant_is_the_same(new_store):
    old, new = await new_store(), await new_store()
    metadata = {"title": "Reise", "tags": ["a"], "context": {"x": [1]}, "participants": ["ada"]}
    conversation = await old.create_conversation("agent", "ada", metadata)
    await old.add_message(conversation.id, "user", "What is it?", metadata={"k": "v"})
    await old.add_message(
        conversation.id,
        "assistant",
        [TextPart(text="I look."), ToolCallPart(id="c", name="look", arguments={"at": "it"})],
        token_usage=TokenUsage(input_tokens=3, output_tokens=4, model="m", cost=Decimal("0.0195")),
    )
    empty = await old.create_conversation("agent")

    exported = b""
    for one in (conversation, empty):
        stored = await old.get_conversation(one.id)
        messages = [message async for message in old.iter_messages(one.id)]
        exported += haive.head(stored) + b",".join(map(haive.message, messages)) + haive.TAIL
    report = await import_file(io.BytesIO(exported), new)
    assert (report.format, report.conversations, report.messages) == ("haive", 2, 2)

    for one in (conversation, empty):
        ignored = {"tenant_id", "updated_at"}
        before, after = await old.get_conversation(one.id), await new.get_conversation(one.id)
        assert after.model_dump(exclude=ignored) == before.model_dump(exclude=ignored)
        assert await new.get_messages(one.id) == await old.get_messages(one.id)
