"""LangChain's own suite for vector stores, over both stores, sync and async."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from haive.core.persistence.integrations.langchain import HaiveVectorStore
from haive.core.persistence.local import LocalStack
from haive.core.persistence.vector import MemoryConfig


class TestHaiveVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, stack: LocalStack, tenant: str, transport: str) -> Iterator[VectorStore]:
        url, settings = stack.database_url, {"pool_size": 2}
        if transport == "supabase":
            url, settings = stack.url, {"key": stack.secret_key}
        with HaiveVectorStore.from_conn_string(
            url,
            self.get_embeddings(),
            MemoryConfig(index_name=f"standard-{tenant}"),
            tenant=tenant,
            **settings,
        ) as store:
            yield store
