"""The real Supabase CLI deploys the migrations onto a project that has nothing of ours yet."""

from __future__ import annotations

import asyncpg
import pytest

from haive.core.persistence.local import LocalStack
from haive.core.persistence.schema import migrate, migrations


@pytest.fixture
async def project(stack):  # `stack` says whether this machine can run one
    async with LocalStack(migrate=False, postgres_settings={"fsync": "off"}) as empty:
        yield empty


@pytest.fixture
async def pushed(project, supabase):
    answer = supabase(project.database_url, "db", "push")
    assert answer.returncode == 0, answer.stderr
    return project.database_url


async def test_db_push_makes_what_migrate_makes(pushed, database, dump):
    assert dump(pushed) == dump(database)


async def test_a_second_db_push_changes_nothing(pushed, supabase, dump):
    before = dump(pushed)
    answer = supabase(pushed, "db", "push")
    assert answer.returncode == 0, answer.stderr
    assert "up to date" in answer.stdout
    assert dump(pushed) == before


async def test_migrate_finds_a_pushed_database_up_to_date(pushed):
    assert (await migrate(pushed)).applied == ()


async def test_db_push_takes_over_a_migrated_database_after_one_repair(project, supabase, dump):
    dsn = project.database_url
    await migrate(dsn)
    before = dump(dsn)
    versions = [migration.version for migration in migrations()]
    answer = supabase(dsn, "migration", "repair", *versions, "--status", "applied")
    assert answer.returncode == 0, answer.stderr
    answer = supabase(dsn, "db", "push")
    assert answer.returncode == 0, answer.stderr
    assert dump(dsn) == before


async def test_db_push_without_that_repair_fails_and_changes_nothing(project, supabase, dump):
    dsn = project.database_url
    await migrate(dsn)
    before = dump(dsn)
    assert supabase(dsn, "db", "push").returncode != 0
    assert dump(dsn) == before


async def test_a_migration_may_say_who_joins_a_channel_and_what_changes_are_told(
    project, supabase, tmp_path
):
    (tmp_path / "supabase" / "migrations" / "29990101000000_channels.sql").write_text(
        "create policy users_join on realtime.messages for select to authenticated"
        " using ((select realtime.topic()) = 'lobby' and extension = 'broadcast');\n"
        "grant insert on realtime.messages to haive_writer;\n"
        "alter publication supabase_realtime add table haive.conversations;\n"
    )
    answer = supabase(project.database_url, "db", "push")
    assert answer.returncode == 0, answer.stderr
    answer = supabase(project.database_url, "db", "advisors", "--fail-on", "warn")
    assert answer.returncode == 0, answer.stdout


async def test_the_platforms_advisors_warn_of_nothing(project, pushed, supabase):
    admin = await asyncpg.connect(project.admin_url)
    # Without it they take the schema for one that nobody reaches, and skip it.
    await admin.execute("alter role postgres set pgrst.db_schemas = 'public, haive'")
    advisors = ("db", "advisors", "--level", "info", "--fail-on", "warn")
    answer = supabase(pushed, *advisors)
    assert answer.returncode == 0, answer.stdout

    await admin.execute("alter table haive.events disable row level security")
    answer = supabase(pushed, *advisors)
    assert answer.returncode != 0, "the advisors see no table without row level security"
    await admin.close()
