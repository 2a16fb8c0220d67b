"""The REST API serves a tenant's schema from the moment it is told to, and no other one less."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from haive.core.persistence import SupabaseStore
from haive.core.persistence.errors import InvalidInputError, SchemaMissingError, UnavailableError
from haive.core.persistence.multitenancy._exposure import await_exposure, expose, hide
from haive.core.persistence.multitenancy._names import tenant_schema
from haive.core.persistence.multitenancy._schemas import drop, provision


@pytest.fixture
async def schemas(stack):
    """Three schemas of tenants, in the database that the API reads."""
    connection = await asyncpg.connect(stack.database_url)
    made = {}
    for number in range(3):
        tenant = f"exposed-{number}"
        await connection.execute(
            "insert into haive.tenants (tenant_id, name, isolation) values ($1, $1, 'schema')",
            tenant,
        )
        made[tenant] = await provision(stack.database_url, "haive", tenant)
    yield made
    await hide(stack.database_url, made.values())
    for tenant in made:
        await drop(stack.database_url, "haive", tenant)
    await connection.execute("delete from haive.tenants where tenant_id = any($1)", [*made])
    await connection.close()


async def test_it_is_served_until_it_is_hidden(stack, schemas):
    async with SupabaseStore(stack.url, stack.secret_key) as store:
        places = [store._transport.scoped(schema=name) for name in schemas.values()]
        with pytest.raises(SchemaMissingError):
            await places[0].schema_version()
        # At once: none of them forgets what another one added.
        await asyncio.gather(
            *(expose(stack.database_url, [name], beside=["haive"]) for name in schemas.values())
        )
        for place in (store._transport, *places):
            await await_exposure(place)
        left = await hide(stack.database_url, [places[0].schema])
        assert {"haive", "public", places[1].schema, places[2].schema} <= set(left)
        with pytest.raises(UnavailableError, match=places[0].schema):
            await _until_hidden(places[0])
        await await_exposure(places[1])


async def _until_hidden(place):
    while True:
        await await_exposure(place, patience=0)
        await asyncio.sleep(0.05)


async def test_what_is_no_name_of_a_schema_is_refused(stack):
    with pytest.raises(InvalidInputError):
        await expose(stack.database_url, ["x'; drop role authenticator; --"], beside=["haive"])


@pytest.fixture
async def heard(stack):
    """What PostgREST is told, as it is told."""
    connection = await asyncpg.connect(stack.database_url)
    messages = []
    await connection.add_listener("pgrst", lambda *about: messages.append(about[-1]))
    yield messages
    await connection.close()


@pytest.fixture
async def tenant(stack):
    """A registered tenant in the database that the API reads, whose schema is removed."""
    connection = await asyncpg.connect(stack.database_url)
    name = "quiet"
    await connection.execute(
        "insert into haive.tenants (tenant_id, name, isolation) values ($1, $1, 'schema')", name
    )
    yield name
    await hide(stack.database_url, [tenant_schema("haive", name)])
    await drop(stack.database_url, "haive", name)
    await connection.execute("delete from haive.tenants where tenant_id = $1", name)
    await connection.close()


async def test_the_api_hears_of_a_schema_when_it_is_to_serve_it_and_not_before(
    stack, tenant, heard
):
    schema = await provision(stack.database_url, "haive", tenant)
    await asyncio.sleep(0.2)
    assert heard == []
    await expose(stack.database_url, [schema], beside=["haive"])
    await asyncio.sleep(0.2)
    assert heard == ["reload config", "reload schema"]


async def test_the_api_hears_of_a_schema_that_it_was_told_to_serve_before(stack, tenant, heard):
    await expose(stack.database_url, [tenant_schema("haive", tenant)], beside=["haive"])
    await asyncio.sleep(0.2)
    heard.clear()
    await provision(stack.database_url, "haive", tenant)
    await asyncio.sleep(0.2)
    assert heard == ["reload schema"]


async def test_what_others_watch_for_they_see(stack, tenant):
    admin = await asyncpg.connect(stack.admin_url)
    await admin.execute(
        "create schema theirs; create table theirs.seen (tag text);"
        "grant usage on schema theirs to public; grant insert on theirs.seen to public;"
        "create function theirs.see() returns event_trigger language plpgsql as"
        " 'begin insert into theirs.seen values (tg_tag); end';"
        "create event trigger theirs on ddl_command_end execute function theirs.see()"
    )
    try:
        await provision(stack.database_url, "haive", tenant)
        seen = await admin.fetch("select distinct tag from theirs.seen")
    finally:
        await admin.execute("drop event trigger theirs; drop schema theirs cascade")
        await admin.close()
    assert {"CREATE TABLE", "CREATE FUNCTION", "CREATE POLICY"} <= {row["tag"] for row in seen}
