"""A tenant's schema is the whole kit, its own, and goes as it came."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.errors import ConflictError, NotFoundError, SchemaVersionError
from haive.core.persistence.multitenancy._names import tenant_schema
from haive.core.persistence.multitenancy._schemas import drop, provision


async def test_it_knows_its_tenant_as_the_registry_does(database, postgres, register):
    tenant = await register(
        "schema", name="Acme", settings='{"timezone": "Asia/Tokyo"}', audit="all",
        max_conversations=7, metered=True, encrypted=True,
    )  # fmt: skip
    schema = await provision(database, "haive", tenant)
    facts = "name, settings, audit, max_conversations, metered, encrypted, status, created_at"
    query = f"select {facts} from {{}}.tenants where tenant_id = $1"
    registered = await postgres.fetchrow(query.format("haive"), tenant)
    assert await postgres.fetchrow(query.format(schema), tenant) == registered
    place = f"select isolation, location from {schema}.tenants where tenant_id = $1"
    assert tuple(await postgres.fetchrow(place, tenant)) == ("row", None)


async def test_once_more_it_tells_what_has_changed_and_keeps_the_rest(
    database, postgres, register, fill
):
    tenant = await register("schema")
    schema = await provision(database, "haive", tenant)
    await fill(tenant, schema)
    await postgres.execute(
        "update haive.tenants set name = 'New', max_conversations = 1 where tenant_id = $1", tenant
    )
    assert await provision(database, "haive", tenant) == schema
    row = await postgres.fetchrow(
        f"select name, max_conversations from {schema}.tenants where tenant_id = $1", tenant
    )
    assert tuple(row) == ("New", 1)
    assert await postgres.fetchval(f"select count(*) from {schema}.messages") == 3


async def test_twenty_callers_at_once_make_one(database, register):
    tenant = await register("schema")
    made = await asyncio.gather(*(provision(database, "haive", tenant) for _ in range(20)))
    assert set(made) == {tenant_schema("haive", tenant)}


async def test_ten_tenants_at_once_get_one_each(database, postgres, register):
    tenants = [await register("schema") for _ in range(10)]
    made = await asyncio.gather(*(provision(database, "haive", tenant) for tenant in tenants))
    assert len(set(made)) == 10
    for tenant, schema in zip(tenants, made, strict=True):
        rows = await postgres.fetch(f"select tenant_id from {schema}.tenants order by 1")
        assert {row["tenant_id"] for row in rows} == {"default", tenant}


async def test_a_store_works_in_it_and_leaves_the_base_alone(database, postgres, register):
    tenant = await register("schema")
    schema = await provision(database, "haive", tenant)
    config = PersistenceConfig(connection_string=database, schema=schema, tenant=tenant)
    async with PostgresStore(config) as store:
        conversation = await store.create_conversation(agent_id="agent")
        await store.add_message(conversation.id, "user", "hello")
        assert [m.content for m in await store.get_messages(conversation.id)] == ["hello"]
    assert await postgres.fetchval("select count(*) from haive.messages") == 0


async def test_dropping_it_leaves_nothing_and_may_be_repeated(database, postgres, register, fill):
    tenant = await register("schema")
    schema = await provision(database, "haive", tenant)
    await fill(tenant, schema)
    assert await drop(database, "haive", tenant)
    assert not await drop(database, "haive", tenant)
    left = "select count(*) from pg_namespace where nspname = any($1)"
    assert await postgres.fetchval(left, [schema, f"{schema}_private"]) == 0


async def test_a_tenant_that_is_not_registered_gets_none(database, postgres):
    with pytest.raises(NotFoundError):
        await provision(database, "haive", "nobody")


@pytest.mark.parametrize("whose", ["an application's", "another tenant's"])
async def test_a_schema_of_somebody_else_is_neither_used_nor_dropped(
    database, postgres, register, whose
):
    tenant = await register("schema")
    schema = tenant_schema("haive", tenant)
    if whose == "an application's":
        await postgres.execute(f"create schema {schema}; create table {schema}.theirs ()")
    else:
        await provision(database, "haive", tenant)
        await postgres.execute(f"insert into {schema}.tenants values ('other', 'Other')")
    for act in (provision, drop):
        with pytest.raises(ConflictError):
            await act(database, "haive", tenant)
    assert await postgres.fetchval("select to_regnamespace($1) is not null", schema)


async def test_one_that_is_newer_than_this_package_is_left_alone(database, postgres, register):
    tenant = await register("schema")
    schema = await provision(database, "haive", tenant)
    await postgres.execute(f"insert into {schema}_private.migrations values ('2099', 'later')")
    with pytest.raises(SchemaVersionError):
        await provision(database, "haive", tenant)


async def test_until_the_tenant_is_in_it_callers_are_sent_away(database, client, register):
    tenant = await register("row")
    schema = await provision(database, "haive", tenant)
    found = await _refusal(client, f"select {schema}.query_conversations(tenant => $1)", tenant)
    assert found == "PT421"
    opened = await client.fetchval("select haive.query_conversations(tenant => $1)", tenant)
    assert json.loads(opened)["conversations"] == []


async def _refusal(connection, query, *arguments):
    try:
        await connection.fetchval(query, *arguments)
    except asyncpg.PostgresError as error:
        return error.sqlstate
    return None
