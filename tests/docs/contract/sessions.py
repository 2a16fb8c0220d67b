from haive.core.persistence.session import (
    SessionManager, SessionConfig,
    ThreadingStrategy, Session
)

# Configure session manager
session_manager = SessionManager(
    store=postgres_store,
    config=SessionConfig(
        default_ttl=3600,  # 1 hour sessions
        max_messages_per_session=1000,
        enable_branching=True,
        enable_merging=True,

        # Threading strategy
        threading_strategy=ThreadingStrategy.TOPIC_BASED,
        topic_similarity_threshold=0.8
    )
)

# Create session with context
session = await session_manager.create_session(
    user_id="user-123",
    agent_id="assistant-001",
    context={
        "mode": "technical_support",
        "expertise_level": "advanced",
        "previous_sessions": ["session-456", "session-789"]
    },
    parent_session_id=None  # New conversation thread
)

# Session branching for exploration
branch_session = await session_manager.branch_session(
    from_session=session.id,
    at_message_index=5,  # Branch from 5th message
    branch_context={
        "reason": "explore_alternative",
        "hypothesis": "different approach"
    }
)

# Merge sessions back
merged_session = await session_manager.merge_sessions(
    primary_session=session.id,
    secondary_session=branch_session.id,
    merge_strategy="intelligent",  # AI-powered merge
    conflict_resolution="primary_wins"
)

# Multi-user collaboration
collab_session = await session_manager.create_collaborative_session(
    participants=["user-123", "user-456", "expert-789"],
    permissions={
        "user-123": ["read", "write"],
        "user-456": ["read", "write"],
        "expert-789": ["read", "write", "moderate"]
    },
    synchronization="real-time"
)
