"""The documented snippets run as written, over both stores."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.checkpointer import (
    Checkpointer,
    CheckpointStrategy,
    Difference,
    KeyRing,
)
from haive.core.persistence.errors import BranchConflict
from haive.core.persistence.local import LocalStack
from haive.core.persistence.models import MessageRole
from haive.core.persistence.multitenancy import IsolationLevel, ResourceQuota

SNIPPETS = Path(__file__).parent / "contract"
# datetime.utcnow() is deprecated from Python 3.12 on; the documentation uses it.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


async def test_the_integration_snippet_connects_and_applies_every_option(
    environment: None, stack: LocalStack, run
) -> None:
    names = await run((SNIPPETS / "integration.py").read_text(), {"os": os})
    store, supabase_store = names["store"], names["supabase_store"]
    assert isinstance(store, PostgresStore)
    assert isinstance(supabase_store, SupabaseStore)
    try:
        assert (await store.create_conversation("assistant")).message_count == 0
        async with store._transport._pool.connection() as session:
            for setting, value in {
                "statement_timeout": "30s",
                "lock_timeout": "10s",
                "idle_in_transaction_session_timeout": "1min",
                "work_mem": "256MB",
                "maintenance_work_mem": "512MB",
                "effective_cache_size": "4GB",
                "role": "haive_client",
            }.items():
                assert await session.fetchval(f"show {setting}") == value
        pool = store._transport._pool._pool
        assert (pool.get_min_size(), pool.get_max_size()) == (20, 30)
        assert supabase_store.realtime_channels == ("conversations", "agent_states")
    finally:
        await store.aclose()
        await supabase_store.aclose()


@pytest.mark.parametrize("kind", ["postgres", "supabase", "supabase as the user, schema public"])
async def test_the_conversation_snippet_stores_and_finds(
    environment: None, public_schema: None, stack: LocalStack, kind: str, run
) -> None:
    store: Store
    if kind == "postgres":
        store = PostgresStore(PersistenceConfig(schema="haive_production"))
        await store.initialize(create_schema=True, run_migrations=True, check_version=True)
    elif kind == "supabase":
        store = SupabaseStore(stack.url, stack.secret_key)
    else:
        store = SupabaseStore(
            url=os.getenv("SUPABASE_URL"),
            key=os.getenv("SUPABASE_ANON_KEY"),
            schema="public",
            enable_rls=True,
            auth_header="Authorization",
            access_token=stack.mint_user_token("user-123"),
        )
    async with store:
        names = {
            "store": store,
            "datetime": datetime,
            "timedelta": timedelta,
            "ai_response_text": "There are two transports and one API.",
        }
        # Five messages are asked for by the query at the end of the snippet, which writes two.
        source = (SNIPPETS / "conversations.py").read_text()
        before, query = source.split("# Query conversations\n")
        await run(before, names)
        for text in ("And then?", "Nothing.", "Why?"):
            await store.add_message(names["conversation"].id, "user", text)
        await run(query, names)

        (found,) = [c for c in names["recent_conversations"] if c.id == names["conversation"].id]
        assert found.metadata == names["conversation"].metadata
        assert found.metadata.settings == {"temperature": 0.7, "model": "gpt-4"}
        assert [m.seq for m in found.messages] == [1, 2, 3, 4, 5]
        assert found.messages[:2] == [names["message"], names["response"]]
        assert names["message"].role is MessageRole.USER
        assert names["message"].metadata["client_ip"] == "192.168.1.1"
        assert datetime.fromisoformat(names["message"].metadata["timestamp"]).tzinfo is not None
        assert names["response"].token_usage.cost == Decimal("0.0195")
        assert names["response"].metadata["tools_used"] == ["web_search", "calculator"]
        assert (found.input_tokens, found.output_tokens, found.cost) == (
            150,
            500,
            Decimal("0.0195"),
        )


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
@pytest.mark.parametrize("kind", ["postgres", "supabase"])
async def test_the_checkpoint_snippet_saves_finds_restores_branches_and_compares(
    environment: None, stack: LocalStack, kind: str, sealed: bool, run, monkeypatch
) -> None:
    if sealed:
        monkeypatch.setenv("CHECKPOINT_KEY", KeyRing.generate())
    store: Store
    if kind == "postgres":
        store = PostgresStore(PersistenceConfig())
    else:
        store = SupabaseStore(stack.url, stack.secret_key, tenant="default")
    source = (SNIPPETS / "checkpoints.py").read_text()
    configure, save = source.split("# Checkpoint workflow state\n")
    state = {"status": "completed", "messages": ["hello"], "round": {"number": 3}}
    async with store:
        names = await run(configure, {"os": os, "postgres_store": store})
        checkpointer = names["checkpointer"]
        assert isinstance(checkpointer, Checkpointer)
        assert checkpointer.strategy is CheckpointStrategy.ADAPTIVE
        config = checkpointer.config
        assert (config.encryption_key is not None) == sealed
        assert (config.checkpoint_interval, config.max_checkpoints_per_thread) == (5, 50)
        assert (config.retention_days, config.keep_minimum) == (30, 10)

        await checkpointer.delete_thread("workflow-123")
        first = await checkpointer.save("workflow-123", {"status": "running", "messages": []})
        parent = await checkpointer.save("workflow-123", {**state, "messages": []})
        names |= {
            "current_state": state,
            "parent_id": parent,
            "cutoff_time": datetime.now(UTC) + timedelta(minutes=5),
            "checkpoint_id_1": first,
            "checkpoint_id_2": parent,
        }
        await run(save, names)

        checkpoint_id = names["checkpoint_id"]
        assert isinstance(checkpoint_id, UUID)
        history = names["history"]
        assert [c.id for c in history] == [checkpoint_id, parent, first]
        assert [c.parent_id for c in history] == [parent, first, None]
        assert history[0].tags == ("milestone", "validated")
        assert history[0].metadata == {
            "node": "analysis",
            "iteration": 3,
            "confidence": 0.85,
            "parent_checkpoint": str(parent),
        }
        assert all(c.state is None and c.encrypted == sealed for c in history)

        assert names["checkpoint"].id == checkpoint_id
        assert names["restored_state"] == state

        (_, branch) = await checkpointer.list_branches("workflow-123")
        assert (branch.id, branch.name) == (names["branch_id"], "experiment-1")
        assert branch.metadata == {"purpose": "testing new approach"}
        assert branch.root_id == branch.head_id == checkpoint_id

        diff = names["diff"]
        assert isinstance(diff, Difference)
        assert (diff.a, diff.b) == (first, parent)
        assert {change.path for change in diff.changes} == {"$.status", "$.round"}

        # What the snippet relies on without saying so.
        with pytest.raises(BranchConflict) as conflict:
            await checkpointer.save("workflow-123", {}, {"parent_checkpoint": parent})
        assert conflict.value.winner == checkpoint_id
        on_branch = await checkpointer.save("workflow-123", {"n": 1}, branch=branch.id)
        assert (await checkpointer.get(on_branch)).branch == "experiment-1"
        assert (
            await checkpointer.find_checkpoint(
                "workflow-123", tags=["milestone"], with_state_matching={"status": "running"}
            )
            is None
        )
        assert await checkpointer.find_checkpoint(str(uuid4()), tags=["milestone"]) is None
        await checkpointer.delete_thread("workflow-123")


@pytest.mark.parametrize("kind", ["postgres", "supabase"])
async def test_the_tenants_snippet_makes_enters_and_counts(
    environment: None, stack: LocalStack, monkeypatch: pytest.MonkeyPatch, kind: str, run
) -> None:
    monkeypatch.setenv("TENANT_MASTER_KEY", os.urandom(32).hex())
    store: Store
    if kind == "postgres":
        store = PostgresStore(PersistenceConfig())
    else:
        store = SupabaseStore(stack.url, stack.secret_key)
    snippet = (SNIPPETS / "tenants.py").read_text()
    assert snippet.count("(...)") == 1, "what the documentation leaves out"
    snippet = snippet.replace("(...)", '("assistant-001", metadata={"title": "Hello"})')
    async with store:
        names = await run(snippet, {"postgres_store": store})
        tenant, manager = names["tenant"], names["tenant_manager"]
        assert tenant.settings["compliance_mode"] == "HIPAA"
        assert tenant.quota == ResourceQuota(
            max_conversations=50_000,
            max_storage_gb=500,
            max_requests_per_minute=1_000,
            max_tokens_per_month=10_000_000,
        )
        assert (tenant.isolation, tenant.encrypted) == (IsolationLevel.SCHEMA, True)
        assert names["conversation"].tenant_id == "org-123"
        analytics = names["analytics"]
        assert analytics["org-123"].conversation_count == 1
        assert analytics["org-123"].storage_used > 0
        assert analytics.unknown == ("org-456",)
        async with manager.tenant_context("org-123") as tenant_store:
            (found,) = await tenant_store.query_conversations()
            assert found.metadata.title == "Hello"
        owner = await asyncpg.connect(stack.database_url)
        titles = await owner.fetch(f"select title, sealed from {tenant.location}.conversations")
        await owner.close()
        assert [row["title"] for row in titles] == [None]
        await manager.delete_tenant("org-123")
        assert await manager.purge_tenant("org-123") == 1
        # The log keeps the id for ever: here the other store makes the same tenant next.
        admin = await asyncpg.connect(stack.admin_url)
        await admin.execute(
            "set session_replication_role = 'replica';"
            " delete from haive.audit_log where tenant_id = 'org-123';"
            " delete from haive_private.audit_heads where tenant_id = 'org-123';"
            f" drop schema {tenant.location}, {tenant.location}_private cascade"
        )
        await admin.close()


@pytest.mark.parametrize("kind", ["postgres", "supabase"])
async def test_the_sessions_snippet_branches_merges_and_shares(
    environment: None, stack: LocalStack, kind: str, run
) -> None:
    store: Store
    if kind == "postgres":
        store = PostgresStore(PersistenceConfig())
    else:
        store = SupabaseStore(stack.url, stack.secret_key)
    create, rest = (SNIPPETS / "sessions.py").read_text().split("# Session branching for")
    branch, rest = rest.split("# Merge sessions back\n")
    merge, collaborate = rest.split("# Multi-user collaboration\n")
    async with store:
        names = await run(create, {"postgres_store": store})
        manager, session = names["session_manager"], names["session"]
        assert (session.user_id, session.agent_id) == ("user-123", "assistant-001")
        assert (session.ttl, session.max_messages, session.parent_id) == (3600, 1000, None)
        assert session.context["previous_sessions"] == ["session-456", "session-789"]
        assert manager.config.topic_similarity_threshold == 0.8

        # The branch is from the fifth message: there have to be so many.
        said = ["Hello.", "How can I help?", "The build fails.", "With what error?", "Out of disk."]
        for place, text in enumerate(said):
            await manager.add_message(session.id, "user" if place % 2 == 0 else "assistant", text)
        await run(f"# {branch}", names)
        branched = names["branch_session"]
        assert branched.branch_context == {
            "reason": "explore_alternative",
            "hypothesis": "different approach",
        }
        assert branched.context["mode"] == "technical_support"
        await manager.add_message(session.id, "assistant", "Delete the old images.")
        await manager.add_message(branched.id, "assistant", "Grow the volume by 20 GB.")
        assert [m.text for m in await manager.messages(branched.id)] == [
            *said,
            "Grow the volume by 20 GB.",
        ]

        await run(merge, names)
        merged = names["merged_session"]
        assert merged.id == session.id
        assert (merged.merge.strategy, merged.merge.secondary_id) == ("intelligent", branched.id)
        texts = [m.text for m in await manager.messages(session.id)]
        assert texts[:6] == [*said, "Delete the old images."]
        assert (await manager.get_session(branched.id)).merged_into == session.id

        await run(collaborate, names)
        shared = names["collab_session"]
        assert shared.live
        assert {user: [str(p) for p in may] for user, may in shared.permissions.items()} == {
            "user-123": ["read", "write"],
            "user-456": ["read", "write"],
            "expert-789": ["read", "write", "moderate"],
        }
        await manager.add_message(shared.id, "user", "Hello, both.", as_user="user-456")
