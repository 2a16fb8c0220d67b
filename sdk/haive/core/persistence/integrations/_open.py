"""Opens a store at an address, for adapters with a store of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from haive.core.persistence.config import PersistenceConfig
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.supabase import SupabaseStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haive.core.persistence.store import Store


async def opened(url: str, settings: Mapping[str, Any]) -> Store:
    """An open store at an address.

    Args:
        url: ``postgresql://…`` of a database, or ``https://…`` of a Supabase project.
        settings: What `PersistenceConfig` or `SupabaseStore` takes beside.
    """
    store: PostgresStore | SupabaseStore
    if urlsplit(url).scheme in {"http", "https"}:
        store = SupabaseStore(url, **settings)
    else:
        store = PostgresStore(PersistenceConfig(connection_string=url, **settings))
    try:
        await store.initialize(create_schema=False, run_migrations=False)
    except BaseException:
        await store.aclose()
        raise
    return store
