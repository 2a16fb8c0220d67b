"""What the platform's advisors look for, over the exposed schema and whatever they skip."""

from __future__ import annotations

import pytest

_OURS = "('haive'::regnamespace, 'haive_private'::regnamespace)"
_EXPOSED = "'haive'::regnamespace"
_LINTS = {
    # A thread's or conversation's id is as good as the tenant with it.
    "every foreign key has an index that finds its rows": (
        f"select conname from pg_constraint as k where contype = 'f' and connamespace in {_OURS}"
        " and not exists (select from pg_index as i join pg_attribute as a"
        " on a.attrelid = i.indrelid and a.attnum = i.indkey[0]"
        " where i.indrelid = k.conrelid and i.indkey[0] = any(k.conkey)"
        " and (a.attname <> 'tenant_id' or cardinality(k.conkey) = 1"
        " or i.indkey[1] = any(k.conkey)))"
    ),
    # An unlogged one holds what no backup and no replica needs.
    "every table has a primary key": (
        f"select oid::regclass from pg_class where relnamespace in {_OURS}"
        " and relkind in ('r', 'p') and relpersistence = 'p'"
        " and not exists (select from pg_index where indrelid = pg_class.oid and indisprimary)"
    ),
    "no index is there twice": (
        "select indrelid::regclass from pg_index join pg_class on pg_class.oid = indexrelid"
        f" where relnamespace in {_OURS} group by indrelid, indkey::text, indclass::text,"
        " coalesce(pg_get_expr(indpred, indrelid), ''),"
        " coalesce(pg_get_expr(indexprs, indrelid), ''), relam having count(*) > 1"
    ),
    "a role has one permissive policy for a command": (
        "select polrelid::regclass, role, command from pg_policy"
        " cross join unnest(polroles) as role"
        " cross join unnest(case polcmd when '*' then array['r', 'a', 'w', 'd']::text[]"
        " else array[polcmd::text] end) as command"
        f" join pg_class on pg_class.oid = polrelid where relnamespace in {_OURS} and polpermissive"
        " group by 1, 2, 3 having count(*) > 1"
    ),
    "settings and functions in policies are evaluated once a statement": (
        "select polname from pg_policy join pg_class on pg_class.oid = polrelid"
        f" where relnamespace in {_OURS} and regexp_replace("
        "coalesce(pg_get_expr(polqual, polrelid), '')"
        " || coalesce(pg_get_expr(polwithcheck, polrelid), ''),"
        r" '\( SELECT (?:current_setting|haive\.current_actor|haive_private\.my_\w+)\(', '', 'g')"
        r" ~ '(?:current_setting|current_actor|my_\w+|auth\.\w+)\('"
    ),
    # The functions act for all tenants where they meter and record: nobody else is their role.
    "no policy that writes lets everything through": (
        "select polname from pg_policy join pg_class on pg_class.oid = polrelid"
        f" where relnamespace in {_OURS} and polcmd <> 'r'"
        " and polroles <> array['haive_writer'::regrole::oid] and 'true' in ("
        "pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))"
    ),
    "no policy believes what users write about themselves": (
        "select polname from pg_policy where coalesce(pg_get_expr(polqual, polrelid), '')"
        " || coalesce(pg_get_expr(polwithcheck, polrelid), '') ~ 'user_?metadata|raw_user'"
    ),
    "views act as their caller": (
        f"select oid::regclass from pg_class where relnamespace in {_OURS} and relkind = 'v'"
        " and not coalesce(reloptions, '{}') && array['security_invoker=true',"
        " 'security_invoker=on', 'security_invoker=1']"
    ),
    "nothing that policies cannot guard is exposed": (
        f"select oid::regclass from pg_class where relnamespace = {_EXPOSED}"
        " and relkind in ('m', 'f')"
    ),
    "no definer function is exposed": (
        f"select oid::regprocedure from pg_proc where pronamespace = {_EXPOSED} and prosecdef"
    ),
    "no extension lives among our objects": (
        f"select extname from pg_extension where extnamespace in {_OURS}"
    ),
    "no column has a type that upgrades break on": (
        "select attrelid::regclass, attname from pg_attribute"
        f" join pg_class on pg_class.oid = attrelid where relnamespace in {_OURS} and attnum > 0"
        " and atttypid = any(array['regproc', 'regclass', 'regtype', 'regrole', 'regoper',"
        " 'regprocedure', 'regnamespace', 'regconfig', 'regdictionary']::regtype[])"
    ),
}

_SABOTAGE = {
    "every foreign key has an index that finds its rows": (
        "create table haive.t (tenant_id text references haive.tenants)"
    ),
    "every table has a primary key": "create table haive.t ()",
    "no index is there twice": "create index i on haive.members (user_id)",
    "a role has one permissive policy for a command": (
        "create policy p on haive.tenants for select to authenticated using (true)"
    ),
    "settings and functions in policies are evaluated once a statement": (
        "create policy p on haive.events for select to anon"
        " using (tenant_id = current_setting('persistence.tenant'))"
    ),
    "no policy that writes lets everything through": (
        "create policy p on haive.events for delete to anon using (true)"
    ),
    "no policy believes what users write about themselves": (
        "create policy p on haive.events for select to anon using ("
        "current_setting('request.jwt.claims')::jsonb -> 'user_metadata' ->> 'tenant' = tenant_id)"
    ),
    "views act as their caller": "create view haive.v as select 1 as one",
    "nothing that policies cannot guard is exposed": (
        "create materialized view haive.m as select 1 as one"
    ),
    "no definer function is exposed": "alter function haive.current_actor() security definer",
    "no extension lives among our objects": "create extension hstore schema haive",
    "no column has a type that upgrades break on": "create table haive.t (kind regclass)",
}


@pytest.mark.parametrize("lint", _LINTS)
async def test_of_the_schema_it_is_true_that(postgres, lint):
    assert await postgres.fetch(_LINTS[lint]) == []


@pytest.mark.parametrize("lint", _LINTS)
async def test_the_lint_notices_that_it_is_not(postgres, lint):
    await postgres.execute(_SABOTAGE[lint])
    assert await postgres.fetch(_LINTS[lint]) != []
