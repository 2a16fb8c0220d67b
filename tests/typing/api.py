"""What a type checker knows of the API: `make lint` checks this file and never runs it."""

from __future__ import annotations

from decimal import Decimal
from typing import assert_type
from uuid import UUID

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.checkpointer import (
    Checkpoint,
    CheckpointConfig,
    Checkpointer,
    CheckpointStrategy,
    Difference,
    RecoveryPolicy,
)
from haive.core.persistence.embedding import (
    Embedder,
    HashingEmbedder,
    MiniLMEmbedder,
    OpenAIEmbedder,
)
from haive.core.persistence.language import ChatModel, Extract, OpenAIChat, extract
from haive.core.persistence.models import (
    Conversation,
    ConversationMetadata,
    Message,
    MessageRole,
    NewMessage,
    Page,
    TokenUsage,
)
from haive.core.persistence.privacy import (
    Detector,
    Finding,
    PatternDetector,
    PIIMode,
    PIIPolicy,
    Redacted,
    Redactor,
)


def personal_data(text: str) -> None:
    detector: Detector = PatternDetector()
    assert_type(detector.find(text), list[Finding])
    assert_type(Redactor(PIIPolicy(detector=detector)).apply(text), Redacted)


async def models_are_interchangeable() -> None:
    embedders: list[Embedder] = [HashingEmbedder(), MiniLMEmbedder("folder"), OpenAIEmbedder()]
    chat: ChatModel = OpenAIChat("gpt-4o-mini", base_url="http://localhost:11434/v1")
    assert_type(await chat.complete("Hello"), str)
    assert_type(await extract(["A text."], embedders[0]), Extract)


async def stores_are_interchangeable() -> None:
    stores: list[Store] = [
        PostgresStore(PersistenceConfig(schema="haive_production", pool_size=20)),
        SupabaseStore("https://example.supabase.co", "sb_publishable_x"),
        PostgresStore(pii=PIIPolicy(mode=PIIMode.TAG, overrides={"SECRET": "refuse"})),
        SupabaseStore("https://example.supabase.co", "sb_publishable_x", pii=PIIPolicy()),
    ]
    async with PostgresStore() as opened:
        assert_type(opened, PostgresStore)
    stores.append(opened)


async def conversations(store: Store) -> None:
    made = await store.create_conversation(
        agent_id="a", user_id="u", metadata=ConversationMetadata(title="T")
    )
    assert_type(made, Conversation)
    assert_type(made.id, UUID)
    assert_type(made.cost, Decimal)
    assert_type(made.messages, list[Message] | None)
    page = await store.query_conversations(
        user_id="u", filters={"tags": ["x"]}, order_by="created_at"
    )
    assert_type(page, Page)
    assert_type(page[0], Conversation)
    assert_type(page.next_page, str | None)
    assert_type([c async for c in store.iter_conversations()], list[Conversation])
    assert_type(await store.delete_conversation(made.id), int)


async def messages(store: Store, conversation: Conversation) -> None:
    usage = TokenUsage(
        input_tokens=150, output_tokens=500, total_tokens=650, model="gpt-4", cost=0.0195
    )
    assert_type(usage.cost, Decimal | None)
    added = await store.add_message(conversation.id, MessageRole.USER, "hi", token_usage=usage)
    assert_type(added, Message)
    assert_type(added.seq, int)
    assert_type(added.text, str)
    new = NewMessage(conversation_id=conversation.id, role=MessageRole.USER, content="hi")
    assert_type(await store.add_messages([new]), list[Message])
    assert_type([m async for m in store.iter_messages(conversation.id)], list[Message])
    await store.query_conversations(order_by="nonsense")  # type: ignore[arg-type]


async def checkpoints(store: Store) -> None:
    checkpointer = Checkpointer(
        store=store,
        config=CheckpointConfig(encryption_key=None, retention_days=30),
        strategy=CheckpointStrategy.ADAPTIVE,
    )
    saved = await checkpointer.save("t", {"a": 1}, metadata={"node": "n"}, tags=["x"])
    assert_type(saved, UUID)
    assert_type(await checkpointer.on_node("t", "n", {"a": 2}), UUID | None)
    assert_type(await checkpointer.get_history("t"), list[Checkpoint])
    assert_type(await checkpointer.find_checkpoint("t", tags=["x"]), Checkpoint | None)
    assert_type(await checkpointer.recover("t", RecoveryPolicy.LATEST), Checkpoint)
    assert_type(await checkpointer.create_branch(saved, "b"), UUID)
    assert_type(await checkpointer.compare(saved, saved), Difference)
