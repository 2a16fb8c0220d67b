from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from haive.core.persistence.cli import connection
from haive.core.persistence.cli.connection import find_target
from haive.core.persistence.cli.conversations import parse_since
from haive.core.persistence.errors import ConfigurationError

_VARIABLES = (
    "DATABASE_URL",
    "SUPABASE_URL",
    "SUPABASE_SECRET_KEY",
    "SUPABASE_SERVICE_ROLE_KEY",
    "SUPABASE_KEY",
    "SUPABASE_ANON_KEY",
    "HAIVE_SCHEMA",
    "HAIVE_TENANT",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nothing set and no local stack; returns how to set variables."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection, "_local_database", lambda: None)

    def set_all(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_an_option_goes_before_the_environment(environment):
    environment(DATABASE_URL="postgresql://env", SUPABASE_URL="https://env")
    assert find_target(database_url="postgresql://given").database_url == "postgresql://given"
    target = find_target(url="https://given", key="k")
    assert (target.database_url, target.url, target.key) == (None, "https://given", "k")


def test_a_direct_connection_goes_before_the_api(environment):
    environment(DATABASE_URL="postgresql://env", SUPABASE_URL="https://env", SUPABASE_KEY="k")
    assert find_target().database_url == "postgresql://env"


def test_the_strongest_key_of_the_environment_is_taken(environment):
    environment(SUPABASE_URL="https://env", SUPABASE_KEY="key")
    assert find_target().key == "key"
    environment(SUPABASE_SECRET_KEY="secret")
    assert find_target().key == "secret"


def test_the_key_of_web_pages_is_none_for_a_command(environment):
    environment(SUPABASE_URL="https://env", SUPABASE_ANON_KEY="anon")
    with pytest.raises(ConfigurationError, match="Set SUPABASE_SECRET_KEY"):
        find_target()


def test_schema_and_tenant_come_from_the_environment_too(environment):
    environment(DATABASE_URL="postgresql://env", HAIVE_SCHEMA="s", HAIVE_TENANT="t")
    assert (find_target().schema, find_target().tenant) == ("s", "t")
    assert (find_target(schema="x").schema, find_target(tenant="y").tenant) == ("x", "y")


def test_an_empty_variable_is_none(environment):
    environment(DATABASE_URL="", SUPABASE_URL="", HAIVE_SCHEMA="", HAIVE_TENANT="")
    with pytest.raises(ConfigurationError):
        find_target()


def test_without_anything_the_local_stack_is_taken(monkeypatch):
    monkeypatch.setattr(connection, "_local_database", lambda: "postgresql://local")
    target = find_target()
    assert (target.database_url, target.schema, target.tenant) == (
        "postgresql://local",
        "haive",
        None,
    )


def test_without_a_local_stack_the_error_says_what_to_set():
    with pytest.raises(ConfigurationError, match=r"DATABASE_URL.*haive local start"):
        find_target()


def test_the_local_stack_is_the_one_named_default(monkeypatch):
    instances = pytest.importorskip("haive.core.persistence.local.instances")
    monkeypatch.undo()
    for running, expected in (({"database_url": "postgresql://x"}, "postgresql://x"), (None, None)):
        monkeypatch.setattr(
            instances.Instance,
            "about",
            lambda instance, running=running: running if instance.name == "default" else None,
        )
        assert connection._local_database() == expected


@pytest.mark.parametrize(
    ("given", "missing"), [({"url": "https://x"}, "SECRET_KEY"), ({"key": "k"}, "SUPABASE_URL")]
)
def test_half_a_project_is_an_error_that_names_the_other_half(given, missing):
    with pytest.raises(ConfigurationError, match=missing):
        find_target(**given)


def test_two_databases_are_wrong_usage():
    with pytest.raises(typer.BadParameter):
        find_target(database_url="postgresql://x", url="https://x", key="k")


def test_since_is_a_date_a_time_or_a_span():
    assert parse_since("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert parse_since("2026-01-31T12:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(days=7) - parse_since("7d")) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["", "yesterday", "7", "999999w", "2026-13-01"])
def test_since_is_nothing_else(text):
    with pytest.raises(typer.BadParameter):
        parse_since(text)
