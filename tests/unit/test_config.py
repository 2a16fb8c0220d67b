"""Settings of a store."""

from __future__ import annotations

import pytest

from haive.core.persistence import PersistenceConfig, SupabaseStore
from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.multitenancy import TenantConfig
from haive.core.persistence.multitenancy._databases import find_database

DSN = "postgresql://ada:secret@db.example.org:5432/postgres"


def test_a_connection_string_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DSN)
    assert PersistenceConfig().dsn == DSN
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        PersistenceConfig()


def test_a_password_is_not_shown() -> None:
    config = PersistenceConfig(connection_string=DSN)
    assert "secret" not in repr(config) + str(config) + config.model_dump_json()
    tenants = TenantConfig(databases={"eu-1": DSN})
    assert "secret" not in repr(tenants) + str(tenants) + tenants.model_dump_json()
    assert find_database(tenants, "eu-1") == DSN


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"schema": 'x"; drop schema haive; --'}, "schema"),
        ({"schema": "Upper"}, "schema"),
        ({"schema": "pg_mine"}, "schema"),
        ({"schema": "x" * 56}, "schema"),
        ({"schema": ""}, "schema"),
        ({"pool_size": 0}, "pool_size"),
        ({"pool_timeout": 0}, "pool_timeout"),
        ({"max_overflow": -1}, "max_overflow"),
        ({"statement_timeout": "soon"}, "statement_timeout"),
        ({"work_mem": "a lot"}, "work_mem"),
        ({"work_mem": "1MB; drop table x"}, "work_mem"),
        ({"nonsense": 1}, "nonsense"),
        ({"connection_string": "mysql://x"}, "postgresql://"),
        ({"connection_string": "postgresql://u:secret@h:port/x"}, "port"),
        ({"connection_string": "postgresql://u:secret@h:5432,g:99999/x"}, "port"),
    ],
)
def test_a_wrong_setting_is_named_and_not_quoted(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        PersistenceConfig(**{"connection_string": DSN, **settings})
    assert "secret" not in str(caught.value)
    assert "drop" not in str(caught.value)


def test_session_settings_through_a_transaction_pooler_are_refused() -> None:
    config = PersistenceConfig(connection_string=DSN.replace("5432", "6543"), work_mem="1MB")
    assert config.through_transaction_pooler
    assert config.session_settings == {"work_mem": "1MB"}


SERVICE_JWT = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.x"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"url": None}, "SUPABASE_URL"),
        ({"key": None}, r"SUPABASE_SECRET_KEY.*SUPABASE_ANON_KEY"),
        ({"url": "localhost:8000"}, "https://"),
        ({"schema": 'a"b'}, "schema"),
        ({"enable_realtime": True, "realtime_channels": ["nonsense"]}, "nonsense"),
        ({"realtime_channels": ["conversations"]}, "enable_realtime"),
        ({"key": "sb_secret_x", "enable_rls": True}, "row level security"),
        ({"key": SERVICE_JWT, "enable_rls": True}, "row level security"),
        ({"auth_header": "Bad Header:"}, "auth_header"),
    ],
)
def test_a_supabase_store_that_contradicts_itself_is_refused(
    arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        SupabaseStore(**{"url": "http://127.0.0.1:1", "key": "sb_publishable_x", **arguments})


@pytest.mark.parametrize("hosts", ["h", "h:5432", "h:", "[::1]", "[::1]:5432", "h:5432,g,[::1]:6"])
def test_hosts_have_ports_or_none(hosts: str) -> None:
    dsn = f"postgresql://u:a%3Ab@{hosts}/x"
    assert PersistenceConfig(connection_string=dsn).dsn == dsn
