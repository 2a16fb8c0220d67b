"""Tenants with databases of their own: found by name, opened when called, closed with the rest."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr, TypeAdapter

from haive.core.persistence.errors import (
    ConfigurationError,
    PersistenceError,
    SchemaMissingError,
)
from haive.core.persistence.multitenancy import TenantConfig
from haive.core.persistence.multitenancy._databases import Databases, find_database

_ANYTHING: TypeAdapter = TypeAdapter(object)


def _current(transport):
    return transport.call("current_tenant", {}, _ANYTHING, safe=True)


@pytest.fixture
async def databases(database):
    opened = Databases(TenantConfig(databases={"eu": SecretStr(database)}))
    yield opened
    await opened.aclose()


async def test_a_tenant_works_in_the_database_of_its_location(databases, postgres, register):
    tenant = await register()
    transport = databases.transport("eu", tenant)
    assert await _current(transport) == {"tenant": tenant}
    assert await _current(transport.scoped(tenant="default")) == {"tenant": "default"}
    async with transport.alone("job") as alone:
        assert alone


async def test_another_event_loop_is_refused_once_one_was_opened(databases):
    transport = databases.transport("eu", "default")
    transport.check_loop()
    await _current(transport)

    async def elsewhere() -> None:
        with pytest.raises(PersistenceError, match="another event loop"):
            transport.check_loop()
        with pytest.raises(PersistenceError, match="another event loop"):
            await _current(transport)

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert await _current(transport) == {"tenant": "default"}


async def test_a_project_is_reached_by_its_key(stack):
    project = stack.url.replace("://", f"://{stack.secret_key}@")
    databases = Databases(TenantConfig(databases=lambda name: {"us": project}[name]))
    await databases.prepare("us")
    assert await _current(databases.transport("us", "default")) == {"tenant": "default"}
    await databases.aclose()
    with pytest.raises(ConfigurationError, match="'eu'"):
        await databases.prepare("eu")


async def test_the_kit_is_installed_when_it_is_asked_for_and_not_when_it_is_called(new_database):
    databases = Databases(TenantConfig(databases={"eu": await new_database()}))
    transport = databases.transport("eu", "default")
    with pytest.raises(SchemaMissingError):
        await _current(transport)
    await databases.prepare("eu")
    assert await _current(transport) == {"tenant": "default"}
    await databases.aclose()


async def test_what_is_called_least_is_closed_and_opened_again(database, postgres):
    names = [f"place {number}" for number in range(5)]
    config = TenantConfig(databases=dict.fromkeys(names, database))
    databases = Databases(config, limit=2)
    for name in names * 2:
        assert await _current(databases.transport(name, "default")) == {"tenant": "default"}
    assert list(databases._opened) == names[-2:]
    sessions = "select count(*) from pg_stat_activity where datname = current_database()"
    assert await postgres.fetchval(f"{sessions} and pid <> pg_backend_pid()") <= 4
    await databases.aclose()


async def test_none_is_closed_that_is_in_use(database):
    config = TenantConfig(databases=dict.fromkeys("abc", database))
    databases = Databases(config, limit=1)
    async with databases.lease("a") as held:
        for name in "bc":
            await _current(databases.transport(name, "default"))
        assert await _current(held) == {"tenant": "default"}
    await databases.aclose()


def test_the_environment_says_where_one_is(monkeypatch):
    monkeypatch.setenv("TENANT_DATABASE_URL_EU_WEST_1", "postgresql://there")
    assert find_database(TenantConfig(), "eu-west-1") == "postgresql://there"
    with pytest.raises(ConfigurationError, match="TENANT_DATABASE_URL_MARS"):
        find_database(TenantConfig(), "mars")


async def test_no_error_shows_an_address():
    secret = "postgresql://ada:hunter2@127.0.0.1:1/x"
    databases = Databases(TenantConfig(databases={"eu": secret}))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
        await _current(databases.transport("eu", "default"))
    assert "hunter2" not in repr(caught.value) + str(caught.value)
