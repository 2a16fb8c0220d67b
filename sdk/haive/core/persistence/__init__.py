"""Durable conversations, checkpoints, sessions and memory for AI agents, on Postgres.

Names are imported when they are first used: the command line and the local stack start without
the clients that they do not need.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haive.core.persistence.config import PersistenceConfig
    from haive.core.persistence.postgres import PostgresStore
    from haive.core.persistence.store import Store
    from haive.core.persistence.supabase import SupabaseStore

__all__ = ["PersistenceConfig", "PostgresStore", "Store", "SupabaseStore"]

_HOMES = {
    "PersistenceConfig": "config",
    "PostgresStore": "postgres",
    "Store": "store",
    "SupabaseStore": "supabase",
}

# A package goes before a module of its name, so nothing here would find its `store`.
if (Path(__file__).parent / "store" / "__init__.py").is_file():
    raise ImportError(
        "haive-core, which has a package haive.core.persistence too, was installed over"
        " haive-persistence, or under it. Uninstall both, and install each in an environment"
        " of its own."
    )


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
