"""The documented snippets run as written, over both stores."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.local import LocalStack
from haive.core.persistence.models import MessageRole

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
        async with store._transport.connection() as session:
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
        pool = store._transport._pool
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
