from haive.core.persistence.models import (
    Conversation,
    Message,
    MessageRole,
    ConversationMetadata,
    TokenUsage,
)

# Create conversation
conversation = await store.create_conversation(
    agent_id="assistant-001",
    user_id="user-123",
    metadata=ConversationMetadata(
        title="Technical Discussion",
        tags=["python", "ai", "architecture"],
        context={"project": "haive-core", "version": "2.0"},
        participants=["user-123", "assistant-001"],
        settings={"temperature": 0.7, "model": "gpt-4"},
    ),
)

# Add messages with rich metadata
message = await store.add_message(
    conversation_id=conversation.id,
    role=MessageRole.USER,
    content="Explain the persistence architecture",
    metadata={
        "timestamp": datetime.utcnow(),
        "client_ip": "192.168.1.1",
        "client_version": "1.2.0",
        "input_tokens": 5,
    },
)

# Add AI response with token tracking
response = await store.add_message(
    conversation_id=conversation.id,
    role=MessageRole.ASSISTANT,
    content=ai_response_text,
    token_usage=TokenUsage(
        input_tokens=150,
        output_tokens=500,
        total_tokens=650,
        model="gpt-4",
        cost=0.0195,  # $0.03 per 1K tokens
    ),
    metadata={
        "processing_time": 2.5,
        "tools_used": ["web_search", "calculator"],
        "confidence_score": 0.85,
    },
)

# Query conversations
recent_conversations = await store.query_conversations(
    user_id="user-123",
    limit=10,
    filters={
        "created_after": datetime.utcnow() - timedelta(days=7),
        "tags": ["python"],
        "min_messages": 5,
    },
    order_by="last_message_at",
    include_messages=True,
)
