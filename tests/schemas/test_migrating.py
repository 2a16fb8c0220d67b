"""`migrate_tenants`: all schemas of tenants, whatever happens to one of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from haive.core.persistence import schema as schemas
from haive.core.persistence.errors import SchemaMissingError
from haive.core.persistence.multitenancy._migrating import migrate_tenants
from haive.core.persistence.multitenancy._schemas import provision

_LATER = "20991231000000"


@pytest.fixture
async def tenants(database, postgres, register):
    """Three tenants in schemas of their own, one that shares the tables, and one elsewhere."""
    made = {}
    for _ in range(3):
        tenant = await register("schema")
        made[tenant] = await provision(database, "haive", tenant)
        await postgres.execute(
            "update haive.tenants set location = $2 where tenant_id = $1", tenant, made[tenant]
        )
    await register("row")
    await register("database", location="eu")
    return made


@pytest.fixture
def later(monkeypatch):
    """A migration that the tenants have not yet."""
    one = replace(
        schemas.migrations()[-1],
        version=_LATER,
        name="later",
        sql=f"create table haive.later ();"
        f"insert into haive_private.migrations values ('{_LATER}', 'later') on conflict do nothing",
    )
    every = (*schemas.migrations(), one)
    monkeypatch.setattr(schemas, "migrations", lambda: every)


async def test_all_that_have_a_schema_are_found_at_this_version(database, tenants):
    report = await migrate_tenants(database)
    assert {one.tenant_id: one.schema for one in report.tenants} == tenants
    assert (report.changed, report.failed) == ((), ())


async def test_all_are_brought_to_a_later_version_once(database, postgres, tenants, later):
    told = []
    report = await migrate_tenants(database, on_done=lambda one, count: told.append((one, count)))
    assert {one.tenant_id for one in report.changed} == set(tenants)
    assert all(one.applied == (f"{_LATER}_later",) for one in report.changed)
    assert sorted(one.tenant_id for one, _ in told) == sorted(tenants)
    assert {count for _, count in told} == {3}
    for schema in tenants.values():
        assert await postgres.fetchval("select to_regclass($1) is not null", f"{schema}.later")
    assert (await migrate_tenants(database)).changed == ()


async def test_a_dry_run_tells_and_does_nothing(database, postgres, tenants, later):
    report = await migrate_tenants(database, dry_run=True)
    assert len(report.changed) == 3
    assert await postgres.fetchval("select count(*) from pg_class where relname = 'later'") == 0


async def test_one_that_fails_is_named_and_stops_no_other(database, postgres, tenants, later):
    broken, *others = tenants
    await postgres.execute(f"create table {tenants[broken]}.later (theirs int)")
    report = await migrate_tenants(database)
    assert [one.tenant_id for one in report.failed] == [broken]
    assert {one.tenant_id for one in report.changed} == set(others)
    await postgres.execute(f"drop table {tenants[broken]}.later")
    again = await migrate_tenants(database)
    assert [one.tenant_id for one in again.changed] == [broken]


async def test_without_a_registry_it_says_what_to_do(new_database):
    with pytest.raises(SchemaMissingError, match="haive migrate"):
        await migrate_tenants(await new_database())


def test_the_command_walks_them_and_exits_with_1_when_one_fails(haive, database, tenants, postgres):
    done = haive("migrate", "--json", DATABASE_URL=database)
    assert done.returncode == 0, done.stderr
    assert {one["schema"] for one in json.loads(done.stdout)["tenants"]} == set(tenants.values())
    alone = haive("migrate", "--no-tenants", "--json", DATABASE_URL=database)
    assert "tenants" not in json.loads(alone.stdout)


async def test_the_command_names_a_tenant_that_fails(haive, database, tenants, postgres):
    broken, schema = next(iter(tenants.items()))
    await postgres.execute(f"insert into {schema}_private.migrations values ('2099', 'later')")
    for arguments in ((), ("--dry-run",)):
        done = haive("migrate", *arguments, DATABASE_URL=database)
        assert done.returncode == 1
        assert broken in done.stderr
        assert "2 at this version already" in done.stdout
