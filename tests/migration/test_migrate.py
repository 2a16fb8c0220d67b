"""`migrate`: under any name, by any number at once, whole or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections import Counter
from dataclasses import replace

import asyncpg
import pytest

from haive.core.persistence import schema
from haive.core.persistence.errors import LockTimeoutError, PersistenceError

# What is the server's, and not an installation's: roles, and the header's name.
_SHARED = re.compile(r"\bhaive_(client|writer)\b|x-haive-tenant")


def _parts(dumped):
    return {part.strip() for part in re.split(r"^(?=-- )", dumped, flags=re.MULTILINE)} - {""}


async def test_a_second_migrate_does_nothing(database):
    assert (await schema.migrate(database)).applied == ()


async def test_under_another_name_it_is_the_same_and_nothing_mentions_ours(
    database, new_database, dump
):
    other = await new_database()
    await schema.migrate(other, schema="haive_production")
    found = dump(other, "haive_production")
    assert found == schema.relocate(dump(database), "haive_production")
    assert "haive" not in _SHARED.sub("", found).replace("haive_production", "")


async def test_two_installations_in_a_database_share_nothing_but_roles(database, dump):
    before = dump(database)
    await schema.migrate(database, schema="second")
    assert dump(database) == before
    assert "haive" not in _SHARED.sub("", dump(database, "second"))


async def test_in_public_it_leaves_alone_what_others_have_there(
    new_database, database, connect, dump
):
    dsn = await new_database()
    connection = await connect(dsn=dsn)
    await connection.execute(
        "create table public.theirs (id int);"
        "grant select, insert on public.theirs to anon, authenticated;"
        "create function public.their_function() returns int language sql as 'select 1'"
    )
    before = dump(dsn, "public")
    await schema.migrate(dsn, schema="public")
    found = dump(dsn, "public")
    assert "haive" not in _SHARED.sub("", found)
    ours = schema.relocate(dump(database), "public")
    # What public itself is, and who may enter it, was there before.
    expected = {part for part in _parts(ours) if not re.match(r"-- \w+ SCHEMA public\n", part)}
    expected = {part for part in expected if not part.startswith("-- SCHEMA public\n")}
    theirs = {part for part in _parts(before) if "their" in part}
    assert len(theirs) == 3
    assert expected | theirs <= _parts(found)
    assert all("SCHEMA public" in part for part in _parts(found) - expected - theirs)
    rows = "select count(*) from public.tenants where tenant_id = 'default'"
    assert await connection.fetchval(rows) == 1


_PROGRAM = """
import asyncio, json, sys
from haive.core.persistence.schema import migrate
print(json.dumps((asyncio.run(migrate(sys.argv[1]))).applied))
"""


async def test_twenty_processes_at_once_apply_each_migration_once(new_database, database, dump):
    dsn = await new_database()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    programs = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _PROGRAM, dsn), stdout=asyncio.subprocess.PIPE, env=environment
        )
        for _ in range(20)
    ]
    answers = await asyncio.gather(*(program.communicate() for program in programs))
    applied = Counter(name for output, _ in answers for name in json.loads(output))
    assert applied == {f"{m.version}_{m.name}": 1 for m in schema.migrations()}
    assert dump(dsn) == dump(database)


async def test_installing_once_more_makes_the_same_but_for_comments(database, connect, dump):
    connections = [await connect() for _ in range(4)]
    names = ["tenant_a", "tenant_b"] * 2
    applied = await asyncio.gather(*map(schema.install, connections, names))
    every = tuple(f"{m.version}_{m.name}" for m in schema.migrations())
    assert sorted(applied, key=len) == [(), (), every, every]
    for name in names[:2]:
        ours = _parts(schema.relocate(dump(database), name))
        uncommented = {part for part in ours if not part.startswith("-- COMMENT ")}
        assert _parts(dump(database, name)) == uncommented < ours
    # What functions get by default was changed for them alone.
    assert await connections[0].fetchval("select count(*) from pg_default_acl") == 0


async def test_a_schema_that_is_made_pushes_nothing_out_of_pg_stat_statements(
    stack, postgres, connect
):
    await schema.install(await connect(), "unheard")
    await postgres.execute("create table unheard.alone ()")
    reader = await connect(dsn=stack.database_url)
    told = "select query from extensions.pg_stat_statements where query ~ '^create .*\\munheard'"
    assert await reader.fetchval(f"{told} limit 1") == "create table unheard.alone ()"
    assert len(await reader.fetch(told)) == 1


async def test_tables_whose_rows_fit_a_page_have_no_other_for_what_is_long(postgres, connect):
    # Two more relations for each took a fifth of the time that a tenant's schema is made in.
    await schema.install(await connect(), "tenant_c")
    with_another = await postgres.fetch(
        """
        select c.oid::regclass::text from pg_class as c
        where
          c.relnamespace in ('tenant_c'::regnamespace, 'tenant_c_private'::regnamespace)
          and c.relkind = 'r' and c.reltoastrelid <> 0
          and not exists (
            select from pg_attribute as a
            where a.attrelid = c.oid and a.attnum > 0 and a.attlen = -1 and a.attstorage <> 'p'
          )
        """
    )
    assert with_another == []
    plain = await postgres.fetchval(
        "select count(*) from pg_class where relkind = 'r' and reltoastrelid = 0"
        " and relnamespace in ('tenant_c'::regnamespace, 'tenant_c_private'::regnamespace)"
    )
    assert plain == 13


async def test_the_longest_names_there_are_fit(postgres):
    await postgres.execute(
        "insert into haive.threads (tenant_id, thread_id, namespace, user_id)"
        " select 'default', n, repeat('x', 1000), n"
        " from (values (repeat('\U0001f600', 200))) as v (n)"
    )
    await postgres.execute(
        "insert into haive.invitations"
        " (tenant_id, label, role, token_hash, created_by, accepted_by, expires_at)"
        " select 'default', n, 'member', sha256('x'), n, n, now()"
        " from (values (repeat('\U0001f600', 200))) as v (n)"
    )


async def test_callers_that_functions_get_by_default_have_nothing_there(
    new_database, connect, dump
):
    dsn = await new_database()
    await schema.migrate(dsn)
    connection = await connect(dsn=dsn)
    await connection.execute(
        "alter default privileges grant execute on functions to anon, authenticated, haive_client"
    )
    await schema.install(connection, "tenant_a")
    assert _parts(dump(dsn, "tenant_a")) ^ _parts(schema.relocate(dump(dsn), "tenant_a")) == set()


async def test_each_migration_records_itself(new_database, connect, monkeypatch):
    # Else a process that comes between two migrations finds the first one not done, and repeats it.
    dsn = await new_database()
    connection: asyncpg.Connection = await connect(dsn=dsn)
    every = schema.migrations()
    for count in range(1, len(every) + 1):
        monkeypatch.setattr(schema, "migrations", lambda count=count: every[:count])
        report = await schema.migrate(dsn)
        assert report.applied == tuple(f"{m.version}_{m.name}" for m in every[count - 1 : count])
        done = await schema.installed_versions(connection, "haive")
        assert done == {m.version for m in every[:count]}


async def test_dates_to_come_that_were_taken_before_keep_no_conversation(postgres):
    (sql,) = [m.sql for m in schema.migrations() if m.name == "what_time_keeps"]
    await postgres.execute(
        "insert into haive.conversations (tenant_id, id, agent_id, last_message_at)"
        " select 'default', gen_random_uuid(), 'a', t.at"
        " from (values (now() + interval '1 year'), (now() - interval '1 day')) as t (at)"
    )
    await postgres.execute(sql[sql.index("with ahead as") : sql.index("grant usage")])
    ages = await postgres.fetch(
        "select extract(day from now() - last_message_at)::int as days from haive.conversations"
        " order by 1"
    )
    assert [age["days"] for age in ages] == [0, 1]


async def test_a_failing_migration_leaves_nothing_of_itself(database, dump, monkeypatch):
    before = dump(database)
    broken = replace(
        schema.migrations()[-1],
        version="20991231000000",
        sql=(
            "create table haive.half ();"
            "insert into haive_private.migrations values ('20991231000000', 'broken');"
            "select 1 / 0"
        ),
    )
    all_of_them = (*schema.migrations(), broken)
    monkeypatch.setattr(schema, "migrations", lambda: all_of_them)
    with pytest.raises(PersistenceError):
        await schema.migrate(database)
    assert dump(database) == before
    monkeypatch.undo()
    assert (await schema.migrate(database)).applied == ()


@pytest.fixture
def locking(monkeypatch):
    """One migration more, which needs a table for itself."""
    added = replace(
        schema.migrations()[-1],
        version="20991231000000",
        name="locking",
        sql=(
            "alter table haive.messages add column extra int;"
            "insert into haive_private.migrations values ('20991231000000', 'locking')"
        ),
    )
    all_of_them = (*schema.migrations(), added)
    monkeypatch.setattr(schema, "migrations", lambda: all_of_them)
    return "20991231000000_locking"


@pytest.fixture(params=["migrate", "install"])
async def bring(request, database, connect):
    """Apply what is missing, in either way, and return what was applied."""
    if request.param == "migrate":
        return lambda: _applied(database)
    connection = await connect(dsn=database)
    return lambda: schema.install(connection, "haive")


async def _applied(database):
    return (await schema.migrate(database)).applied


async def test_while_a_reader_holds_a_migration_up_others_pass(database, connect, locking, bring):
    reader, other = await connect(dsn=database), await connect(dsn=database)
    read = "select from haive.messages limit 1"
    waiting = "select count(*) from pg_locks where not granted and relation = $1::regclass"
    transaction = reader.transaction()
    await transaction.start()
    await reader.execute(read)
    migrating = asyncio.create_task(bring())
    for _ in range(2):  # it gives way, and tries again
        async with asyncio.timeout(20):
            while not await other.fetchval(waiting, "haive.messages"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            await other.execute(read)
    assert not migrating.done()
    await transaction.rollback()
    assert await asyncio.wait_for(migrating, 20) == (locking,)


async def test_a_migration_that_gets_no_lock_says_so_and_leaves_nothing(
    database, connect, locking, bring, monkeypatch
):
    monkeypatch.setattr(schema, "_PATIENCE", 0)
    reader = await connect(dsn=database)
    async with reader.transaction():
        await reader.execute("select from haive.messages limit 1")
        with pytest.raises(LockTimeoutError, match="long transaction"):
            await bring()
    assert await bring() == (locking,)


async def test_rest_is_told_of_each_migration_that_stays(database, connect, monkeypatch):
    last = schema.migrations()[-1]
    record = "insert into haive_private.migrations values ('20991231000000', 'kept')"
    kept = replace(last, version="20991231000000", sql=record)
    broken = replace(last, version="20991231000001", sql="select 1 / 0")
    every = (*schema.migrations(), kept, broken)
    monkeypatch.setattr(schema, "migrations", lambda: every)
    told = asyncio.Event()
    listener = await connect(dsn=database)
    await listener.add_listener("pgrst", lambda *_: told.set())
    with pytest.raises(PersistenceError):
        await schema.migrate(database)
    await asyncio.wait_for(told.wait(), 5)


async def test_a_dry_run_tells_and_does_nothing(new_database, connect):
    dsn = await new_database()
    report = await schema.migrate(dsn, dry_run=True)
    assert report.applied == tuple(f"{m.version}_{m.name}" for m in schema.migrations())
    connection: asyncpg.Connection = await connect(dsn=dsn)
    assert await connection.fetchval("select to_regnamespace('haive')") is None
