"""The database is what hosted Supabase has, as far as a migration can tell."""

from __future__ import annotations

import asyncpg
import httpx
import pytest


async def test_postgres_is_no_superuser_but_owns_the_database(postgres):
    role = await postgres.fetchrow("select * from pg_roles where rolname = current_user")
    assert not role["rolsuper"]
    assert role["rolcreatedb"]
    assert role["rolcreaterole"]
    assert role["rolreplication"]
    assert role["rolbypassrls"]
    owner = "select pg_get_userbyid(datdba) from pg_database where datname = current_database()"
    assert await postgres.fetchval(owner) == "postgres"


@pytest.mark.parametrize(
    ("role", "setting"),
    [
        ("anon", "statement_timeout=3s"),
        ("authenticated", "statement_timeout=8s"),
        ("authenticator", "statement_timeout=8s"),
    ],
)
async def test_the_api_roles_have_hosteds_timeouts(postgres, role, setting):
    settings = await postgres.fetchval("select rolconfig from pg_roles where rolname = $1", role)
    assert setting in settings


async def test_the_servers_settings_are_those_of_a_durable_replicating_server(postgres):
    wanted = {
        "TimeZone": "UTC",
        "wal_level": "logical",
        "server_encoding": "UTF8",
        "search_path": '"$user", public, extensions',
        "shared_preload_libraries": "pg_stat_statements",
    }
    found = {name: await postgres.fetchval("select current_setting($1)", name) for name in wanted}
    assert found == wanted


@pytest.mark.parametrize("extension", ["vector", "pg_trgm", "pg_stat_statements"])
async def test_a_migration_may_ask_for_the_usual_extensions(postgres, extension):
    await postgres.execute(f"create extension if not exists {extension} with schema extensions")
    assert await postgres.fetchval("select '[1,2]'::vector <-> '[1,2]'") == 0


async def test_a_new_table_is_closed_to_the_api_until_granted(postgres):
    await postgres.execute("create table if not exists public.closed (id int)")
    for role in ("anon", "authenticated", "service_role"):
        query = "select has_table_privilege($1, 'public.closed', 'select')"
        assert not await postgres.fetchval(query, role)


async def test_postgres_may_not_touch_the_auth_functions(postgres):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await postgres.execute("drop function auth.uid()")


async def test_a_migration_may_refer_to_users_and_write_policies_on_objects(postgres):
    async with postgres.transaction():
        await postgres.execute(
            "create table public.profiles (id uuid primary key references auth.users);"
            "create policy mine on storage.objects for select to authenticated"
            "  using (owner_id = (select auth.uid())::text);"
            "drop policy mine on storage.objects; drop table public.profiles"
        )


async def test_another_schema_is_exposed_at_run_time(stack, postgres, api, eventually):
    headers = {"apikey": stack.secret_key, "Accept-Profile": "another"}
    assert (await api.get("/rest/v1/things", headers=headers)).status_code == 406
    await postgres.execute(
        "create schema another; create table another.things (id int);"
        "grant usage on schema another to service_role;"
        "grant select on another.things to service_role;"
        "alter role authenticator set pgrst.db_schemas = 'public, haive, another';"
        "notify pgrst, 'reload config'; notify pgrst, 'reload schema'"
    )
    try:

        async def exposed():
            return (await api.get("/rest/v1/things", headers=headers)).status_code == 200

        await eventually(exposed)
    finally:
        await postgres.execute(
            "alter role authenticator reset pgrst.db_schemas; drop schema another cascade;"
            "notify pgrst, 'reload config'"
        )


async def test_the_api_sees_a_new_function_without_being_told(stack, postgres, api, eventually):
    headers = {"apikey": stack.publishable_key}
    await postgres.execute("create function public.fresh() returns int language sql as 'select 1'")

    async def seen():
        return (await api.post("/rest/v1/rpc/fresh", headers=headers)).status_code == 200

    await eventually(seen)


async def test_a_schema_that_does_not_exist_yet_does_no_harm(stack, api):
    answer = await api.get(
        "/rest/v1/nothing", headers={"apikey": stack.secret_key, "Accept-Profile": "haive"}
    )
    assert answer.status_code == 404


async def test_a_wrong_password_is_refused(stack):
    url = httpx.URL(stack.database_url)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(str(url.copy_with(password="wrong")))


async def test_the_superuser_is_there_for_tests_that_need_one(stack):
    connection = await asyncpg.connect(stack.admin_url)
    assert await connection.fetchval("show is_superuser") == "on"
    await connection.close()
